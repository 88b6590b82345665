package service

import "fmt"

// firstBootUnit joins once, as root, since the daemon may not read the token.
const firstBootUnit = "/etc/systemd/system/weft-first-boot.service"

// FirstBoot returns the plan by which a machine joins when it boots for the
// first time, with the token in a file that is removed once it has.
func FirstBoot(program, socket, tokenFile string) Plan {
	unit := fmt.Sprintf(`[Unit]
Description=weft: join at the first boot
ConditionPathExists=%[3]s
Requires=weft.service
After=weft.service network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=%[1]s up --socket %[2]s --token-file %[3]s
ExecStart=/bin/rm -f %[3]s
Restart=on-failure
RestartSec=5

[Install]
WantedBy=multi-user.target
`, systemdQuote(program), systemdQuote(socket), systemdQuote(tokenFile))
	return Plan{
		Files:    []File{{firstBootUnit, 0o644, unit}},
		Commands: []Command{run("systemctl", "daemon-reload"), run("systemctl", "enable", "weft-first-boot.service")},
	}
}

// NoFirstBoot undoes FirstBoot.
func NoFirstBoot() Plan {
	return Plan{
		Commands: []Command{try("systemctl", "disable", "weft-first-boot.service")},
		Remove:   []string{firstBootUnit},
		Last:     []Command{try("systemctl", "daemon-reload")},
	}
}
