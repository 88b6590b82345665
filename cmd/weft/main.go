// Command weft is the node: the daemon (weft run) and the command line that controls
// it, in one binary. Each verb has its own file; they share:
//
//	main.go     the root command, exit codes, errors on one line
//	socket.go   which daemon to use
//	print.go    --json and layout
//	names.go    completion of device names
//
// The verbs have no logic of their own: they call the daemon over its unix socket
// (package overlay/localapi). Data goes to stdout, everything else to stderr. Exit
// codes: 0 ok, 1 failed, 2 usage, 3 no daemon, 4 needs approval or a token, 5 peer
// unknown or unreachable, 6 denied, 7 timeout, 130 interrupted; ssh passes on the
// remote's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/status"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is main with explicit inputs and outputs; it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the program at once, even if something hangs.
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cli.Completion(root, func(err error) error { return usageError{err} })
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var silent exitCode
	if errors.As(err, &silent) {
		return int(silent)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 130
	}
	err = cli.Unknown(root, err, func(err error) error { return usageError{err} })
	fmt.Fprintln(stderr, "weft: "+oneLine(cli.Words(err)))
	if isUsage(err) {
		return 2
	}
	if errors.Is(err, syscall.EPIPE) {
		return 0 // the reader of our output has closed it
	}
	return status.KindOf(err).ExitCode()
}

// exitCode ends the program without a further message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// usageError is an error in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func isUsage(err error) bool {
	var u usageError
	return errors.As(err, &u)
}

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// oneLine puts an error on one line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "Reach any device by its name",
		Long: `weft reaches any device by its name, from anywhere.

  weft run                    the daemon, in the foreground
  weft up TOKEN               join the network
  weft status                 who is there
  weft ssh pi@kitchen-pi      a shell on a device
  weft forward 8080:kitchen-pi:80`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{cli.FlagError(cmd, err)}
	})
	cli.VersionFlag(root, func(cmd *cobra.Command) error { return printVersion(cmd, false) })
	root.PersistentFlags().String("socket", "", "the daemon's socket (WEFT_SOCKET)")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		runCmd(), upCmd(), downCmd(), logoutCmd(), statusCmd(), ipCmd(), pingCmd(), ncCmd(), sshCmd(),
		forwardCmd(), dnsCmd(), netcheckCmd(), waitCmd(), doctorCmd(), bugreportCmd(),
		installCmd(), uninstallCmd(), versionCmd(),
	)
	return root
}

// args turns cobra's argument errors into usage errors with the usage line.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}
