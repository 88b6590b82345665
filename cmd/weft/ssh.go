package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/localapi"
)

func sshCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh [USER@]NAME [SSH OPTIONS] [COMMAND]",
		Short: "Open a shell on a device with the ssh of this machine",
		Long: `Open a shell on a device with the ssh of this machine: keys, known_hosts and
configuration are ssh's own. What follows NAME is passed on to ssh.

  weft ssh pi@kitchen-pi
  weft ssh pi@kitchen-pi -L 5900:localhost:5900
  weft ssh pi@kitchen-pi uptime`,
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeUserNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			user, name, err := parseSSHTarget(a[0])
			if err != nil {
				return err
			}
			// Ask first: ssh would wrap the reason in three lines of its own
			// and exit 255.
			socket := socketPath(cmd)
			p, err := localapi.NewClient(socket).Resolve(cmd.Context(), name)
			if err != nil {
				return err
			}
			if p.Self {
				return usagef("%s is this machine itself", name)
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			ssh, err := exec.LookPath("ssh")
			if err != nil {
				return &localapi.Error{Kind: localapi.KindFailed, Message: "there is no ssh on this machine", Hint: "install the OpenSSH client"}
			}
			argv := append([]string{"ssh"}, sshArgs(self, socket, user, name, a[1:])...)
			// ssh takes this process's place, so that the terminal, signals
			// and the exit code are its own.
			return fmt.Errorf("run ssh: %w", syscall.Exec(ssh, argv, os.Environ()))
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// parseSSHTarget splits [USER@]NAME and refuses what ssh or the shell that
// runs the ProxyCommand could take for something else.
func parseSSHTarget(s string) (user, name string, err error) {
	name = s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		user, name = s[:i], s[i+1:]
		if !validUser(user) {
			return "", "", usagef("%q is not a user name", cli.Plain(user))
		}
	}
	// '%' would be expanded by ssh, and no numeric name is a device.
	if name, err = localapi.CleanName(name); err != nil {
		return "", "", err
	}
	if strings.Contains(name, "%") || strings.Trim(name, "0123456789") == "" {
		return "", "", usagef("%q is not a device name", cli.Plain(name))
	}
	return user, name, nil
}

// validUser is what useradd calls a name: no leading '-', not a number (which
// would be taken for a user id), nothing that needs quotes.
func validUser(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || strings.Trim(s, "0123456789") == "" {
		return false
	}
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '-' || c == '_' || c == '.' || c == '+' || c == '@'
		if !ok {
			return false
		}
	}
	return true
}

// sshArgs are the arguments of ssh. user may be empty.
func sshArgs(self, socket, user, name string, rest []string) []string {
	// Without "exec": ssh puts one there itself, and dash knows no second.
	proxy := shellQuote(self) + " nc --socket " + shellQuote(socket) + " -- %h %p"
	out := []string{"-o", "ProxyCommand=" + proxy}
	if user != "" {
		out = append(out, "-l", user)
	}
	return append(append(out, name), rest...)
}

// shellQuote makes one word for the shell that ssh starts, after ssh has
// expanded its own '%' sequences.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "'", `'\''`), "%", "%%") + "'"
}
