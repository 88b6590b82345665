// Package service writes the files by which an operating system starts a
// daemon of weft, and keeps it: systemd, procd (OpenWrt), OpenRC, launchd and
// the Windows service manager. The texts are pure functions of a Service, so
// that they can be read, tested and packaged anywhere; Manager, in the files
// named after systems, installs them.
package service

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// Watchdog is how long a daemon may be silent before systemd starts it anew. It
// says that it lives at half of that: often enough for a machine 300 km away,
// seldom enough for one that sleeps.
const Watchdog = 10 * time.Minute

// Service is one daemon.
type Service struct {
	Name        string   // "weft" or "weft-server": also its directories in /var/lib and /run
	User        string   // of systemd's making; "" is Name
	Group       string   // one that exists, which the daemon is to be in too; "" for none
	Description string   // one line
	Program     string   // absolute path
	Args        []string // after the program
	Cleanup     []string // arguments of Program once the daemon has ended, however it did; nil: none
	// LowPorts lets the daemon listen below 1024.
	LowPorts    bool
	Environment []string // NAME=value
}

// Systemd returns the unit of the system's service manager: a user of its own
// that exists while the daemon runs, and no right that it does not need.
func (s Service) Systemd() string {
	var b strings.Builder
	s.unit(&b, "network-online.target")
	s.serviceSection(&b)
	user := s.User
	if user == "" {
		user = s.Name
	}
	fmt.Fprintf(&b, "\nDynamicUser=yes\nUser=%s\n", user)
	if s.Group != "" {
		fmt.Fprintf(&b, "SupplementaryGroups=%s\n", s.Group)
	}
	fmt.Fprintf(&b, `StateDirectory=%[1]s
StateDirectoryMode=0700
RuntimeDirectory=%[1]s
RuntimeDirectoryMode=0755
UMask=0077

NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
`, s.Name)
	if s.Group != "" {
		b.WriteString("SystemCallFilter=@chown\n") // it gives its socket to the group
	}
	if s.LowPorts {
		b.WriteString("AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n")
	} else {
		b.WriteString("CapabilityBoundingSet=\n")
	}
	b.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return b.String()
}

// SystemdTUN returns the drop-in (NAME.service.d/tun.conf) that lets a node
// have a network interface and tell the system's resolver of it. The latter
// takes root, whoever is in charge of names: it is a root that may do nothing
// but that.
func (s Service) SystemdTUN(tun string) string {
	return fmt.Sprintf(`# Lets %s make the network interface %s and set the system's resolver.
[Service]
Environment=WEFT_TUN=%s
DynamicUser=no
User=root
AmbientCapabilities=
CapabilityBoundingSet=
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE
ReadWritePaths=/etc /run
PrivateDevices=no
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectKernelTunables=no
ProcSubset=all
`, s.Name, tun, tun)
}

// SystemdUser returns the unit of a user's own service manager, which cannot
// take rights away as the system's can.
func (s Service) SystemdUser() string {
	var b strings.Builder
	s.unit(&b, "default.target")
	s.serviceSection(&b)
	b.WriteString("\nUMask=0077\nNoNewPrivileges=yes\n\n[Install]\nWantedBy=default.target\n")
	return b.String()
}

func (s Service) unit(b *strings.Builder, after string) {
	fmt.Fprintf(b, "[Unit]\nDescription=%s\n", s.Description)
	if after == "network-online.target" {
		fmt.Fprintf(b, "Wants=%[1]s\nAfter=%[1]s\n", after)
	}
	b.WriteString("StartLimitIntervalSec=0\n")
}

func (s Service) serviceSection(b *strings.Builder) {
	fmt.Fprintf(b, "\n[Service]\nType=notify\nNotifyAccess=main\nExecStart=%s\n", s.command(s.Args))
	if s.Cleanup != nil {
		// "-": it has nothing to do most of the time, "+": what it undoes was
		// done with rights.
		fmt.Fprintf(b, "ExecStopPost=-+%s\n", s.command(s.Cleanup))
	}
	for _, e := range s.Environment {
		fmt.Fprintf(b, "Environment=%s\n", systemdQuote(e))
	}
	fmt.Fprintf(b, "Restart=always\nRestartSec=2\nWatchdogSec=%d\nTimeoutStopSec=10\n", int(Watchdog.Seconds()))
}

// command is a command line for systemd.
func (s Service) command(args []string) string {
	words := []string{systemdQuote(s.Program)}
	for _, a := range args {
		words = append(words, systemdQuote(a))
	}
	return strings.Join(words, " ")
}

// systemdQuote quotes a word as systemd.syntax(7) and the specifiers of
// systemd.unit(5) want it.
func systemdQuote(w string) string {
	w = strings.ReplaceAll(w, "%", "%%")
	w = strings.ReplaceAll(w, "$", "$$")
	if w != "" && !strings.ContainsAny(w, " \t\n\"'\\;") {
		return w
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(w) + `"`
}

// Procd returns OpenWrt's /etc/init.d file.
func (s Service) Procd() string {
	var env strings.Builder
	for _, e := range s.Environment {
		fmt.Fprintf(&env, "\tprocd_append_param env %s\n", shellQuote(e))
	}
	text := fmt.Sprintf(`#!/bin/sh /etc/rc.common
# %s
START=95
STOP=10
USE_PROCD=1

start_service() {
	procd_open_instance
	procd_set_param command %s
%s	procd_set_param respawn 3600 5 0
	procd_set_param term_timeout 10
	procd_set_param stderr 1
	procd_close_instance
}
`, s.Description, s.shell(s.Args), env.String())
	if s.Cleanup != nil {
		text += fmt.Sprintf("\nservice_stopped() {\n\t%s || true\n}\n", s.shell(s.Cleanup))
	}
	return text + "\nservice_triggers() {\n\tprocd_add_reload_interface_trigger wan\n}\n\nreload_service() {\n\t: # it notices by itself\n}\n"
}

// OpenRC returns the /etc/init.d file of OpenRC (Alpine, Gentoo).
func (s Service) OpenRC() string {
	var b strings.Builder
	fmt.Fprintf(&b, `#!/sbin/openrc-run
description=%s
supervisor=supervise-daemon
command=%s
command_args=%s
respawn_delay=2
respawn_max=0
retry="TERM/10/KILL/5"
output_logger="logger -t %s"
error_logger="logger -t %s"
`, shellQuote(s.Description), shellQuote(s.Program), shellQuote(s.shellArgs(s.Args)), s.Name, s.Name)
	for _, e := range s.Environment {
		fmt.Fprintf(&b, "export %s\n", shellQuote(e))
	}
	fmt.Fprintf(&b, "\ndepend() {\n\tneed net\n\tafter firewall\n}\n\nstart_pre() {\n\tcheckpath -d -m 0700 /var/lib/%[1]s\n\tcheckpath -d -m 0755 /run/%[1]s\n}\n", s.Name)
	if s.Cleanup != nil {
		fmt.Fprintf(&b, "\nstop_post() {\n\t%s || true\n}\n", s.shell(s.Cleanup))
	}
	return b.String()
}

func (s Service) shell(args []string) string {
	return strings.TrimSpace(shellQuote(s.Program) + " " + s.shellArgs(args))
}

func (s Service) shellArgs(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = shellQuote(a)
	}
	return strings.Join(words, " ")
}

// shellQuote quotes a word for a POSIX shell.
func shellQuote(w string) string {
	if w != "" && strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=/.,:@+") == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// LaunchdLabel is the daemon's name for macOS.
func (s Service) LaunchdLabel() string { return "net.weft." + s.Name }

// Launchd returns the property list of macOS.
func (s Service) Launchd(logFile string) string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
`)
	str := func(indent, v string) {
		b.WriteString(indent + "<string>")
		xml.EscapeText(&b, []byte(v))
		b.WriteString("</string>\n")
	}
	key := func(k string) { fmt.Fprintf(&b, "\t<key>%s</key>\n", k) }
	key("Label")
	str("\t", s.LaunchdLabel())
	key("ProgramArguments")
	b.WriteString("\t<array>\n")
	for _, w := range append([]string{s.Program}, s.Args...) {
		str("\t\t", w)
	}
	b.WriteString("\t</array>\n")
	if len(s.Environment) > 0 {
		key("EnvironmentVariables")
		b.WriteString("\t<dict>\n")
		for _, e := range s.Environment {
			k, v, _ := strings.Cut(e, "=")
			fmt.Fprintf(&b, "\t\t<key>%s</key>\n", k)
			str("\t\t", v)
		}
		b.WriteString("\t</dict>\n")
	}
	for _, k := range []string{"RunAtLoad", "KeepAlive"} {
		key(k)
		b.WriteString("\t<true/>\n")
	}
	key("Umask")
	b.WriteString("\t<integer>63</integer>\n")
	key("StandardErrorPath")
	str("\t", logFile)
	b.WriteString("</dict>\n</plist>\n")
	return b.String()
}
