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
	"weft/overlay/status"
)

func sshCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ssh [SSH OPTIONS] [USER@]NAME [SSH OPTIONS] [COMMAND]",
		Short: "Open a shell on a device with the ssh of this machine",
		Long: `Open a shell on a device with the ssh of this machine: keys, known_hosts and
configuration are ssh's own, and so are all options but --socket.

  weft ssh pi@kitchen-pi
  weft ssh -L 5900:localhost:5900 pi@kitchen-pi
  weft ssh pi@kitchen-pi uptime`,
		DisableFlagParsing: true, // they are ssh's; parseSSH separates them
		ValidArgsFunction:  completeUserNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			call, err := parseSSH(a)
			switch {
			case err != nil:
				return err
			case call.help:
				return cmd.Help()
			case call.socket != "":
				if err := cmd.Flags().Set("socket", call.socket); err != nil {
					return err
				}
			}
			ssh, err := exec.LookPath("ssh")
			if err != nil {
				return &status.Error{Kind: status.KindFailed, Message: "there is no ssh on this machine", Hint: "install the OpenSSH client"}
			}
			argv := append([]string{"ssh"}, call.options...)
			if call.name != "" {
				if argv, err = connectingSSH(cmd, call); err != nil {
					return err
				}
			}
			// ssh replaces this process, so that the terminal, signals and the exit
			// code are ssh's own.
			return fmt.Errorf("run ssh: %w", syscall.Exec(ssh, argv, os.Environ()))
		},
	}
}

// connectingSSH returns the argument vector of an ssh that connects through the daemon,
// once the daemon knows the device: otherwise ssh would hide the reason in three lines
// of its own and exit 255.
func connectingSSH(cmd *cobra.Command, call sshCall) ([]string, error) {
	socket := socketPath(cmd)
	p, err := localapi.NewClient(socket).Resolve(cmd.Context(), call.name)
	if err != nil {
		return nil, err
	}
	if p.Self {
		return nil, usagef("%s is this machine itself", call.name)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return append([]string{"ssh"}, sshArgs(self, socket, call)...), nil
}

// sshCall is a parsed command line of ssh. It has no name if ssh itself is asked (-V).
type sshCall struct {
	socket     string // of the daemon, "" if not given
	help       bool
	options    []string // options before the name
	user, name string   // user may be ""
	rest       []string // after the name: more options, the command
}

// Options of ssh(1), OpenSSH 10: those with an argument, and those without.
const (
	sshWithArgument = "BbcDEeFIiJLlmOoPpQRSWw"
	sshSwitches     = "46AaCfGgKkMNnqsTtVvXxYy"
)

// parseSSH parses a command line as ssh does: options, the destination, and the rest,
// which is left to ssh.
func parseSSH(args []string) (call sshCall, err error) {
	alone := false // ssh prints something and does not connect
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		value, joined := strings.CutPrefix(arg, "--socket=")
		switch {
		case arg == "--help", arg == "-h":
			call.help = true
			return call, nil
		case joined:
			call.socket = value
		case arg == "--socket":
			if len(args) == 0 {
				return call, usagef("flag needs an argument: --socket; see: weft ssh --help")
			}
			call.socket, args = args[0], args[1:]
		case arg == "--" && len(args) > 0:
			call.user, call.name, err = parseSSHTarget(args[0])
			call.rest = args[1:]
			return call, err
		case strings.HasPrefix(arg, "--"):
			return call, usagef("unknown flag: %s; see: weft ssh --help", cli.Plain(arg))
		case strings.HasPrefix(arg, "-") && arg != "-":
			// Switches in one word; the last one may take an argument: the rest of the
			// word, or the next word.
			call.options = append(call.options, arg)
			for i, c := range arg[1:] {
				alone = alone || c == 'V' || c == 'Q'
				if strings.ContainsRune(sshWithArgument, c) {
					if i+2 == len(arg) {
						if len(args) == 0 {
							return call, usagef("ssh's -%c needs an argument", c)
						}
						call.options, args = append(call.options, args[0]), args[1:]
					}
					break
				}
				if !strings.ContainsRune(sshSwitches, c) {
					return call, usagef("ssh has no option -%s; see: weft ssh --help", cli.Plain(string(c)))
				}
			}
		default:
			call.user, call.name, err = parseSSHTarget(arg)
			call.rest = args
			return call, err
		}
	}
	if !alone {
		return call, usagef("usage: weft ssh [SSH OPTIONS] [USER@]NAME [SSH OPTIONS] [COMMAND]")
	}
	return call, nil
}

// parseSSHTarget splits [USER@]NAME and rejects text that ssh, or the shell that runs
// the ProxyCommand, could misread.
func parseSSHTarget(s string) (user, name string, err error) {
	name = s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		user, name = s[:i], s[i+1:]
		if !validUser(user) {
			return "", "", usagef("%q is not a user name", cli.Plain(user))
		}
	}
	if name, err = status.CleanName(name); err != nil {
		return "", "", err
	}
	// ssh would expand '%', and a number is not a device name.
	if strings.Contains(name, "%") || strings.Trim(name, "0123456789") == "" {
		return "", "", usagef("%q is not a device name", cli.Plain(name))
	}
	return user, name, nil
}

// validUser accepts names as useradd or a directory service make them (CORP\alice,
// alice@corp.example): no leading '-', not a number (which could be a user id), nothing
// that needs quotes except a backslash inside.
func validUser(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || s[len(s)-1] == '\\' || strings.Trim(s, "0123456789") == "" {
		return false
	}
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '-' || c == '_' || c == '.' || c == '+' || c == '@' || c == '\\'
		if !ok {
			return false
		}
	}
	return true
}

// sshArgs are the arguments of ssh.
func sshArgs(self, socket string, call sshCall) []string {
	// No "exec": ssh adds one itself, and dash accepts only one. Put our option first,
	// since ssh uses the first of each kind.
	proxy := shellQuote(self) + " nc --socket " + shellQuote(socket) + " -- %h %p"
	out := append([]string{"-o", "ProxyCommand=" + proxy}, call.options...)
	if call.user != "" {
		out = append(out, "-l", call.user)
	}
	return append(append(out, call.name), call.rest...)
}

// shellQuote makes one word for the shell that ssh starts, after ssh has expanded its
// own '%' sequences.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "'", `'\''`), "%", "%%") + "'"
}
