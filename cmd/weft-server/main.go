// Command weft-server is the coordination server and relay, with the verbs that administer it.
// Each verb has a file of its own. They share
//
//	main.go    the root command, flags from the environment, errors, exit codes
//	verb.go    the verbs that make a request to the API and print its answer, --json
//	print.go   tables
//	remote.go  --server and --token-file
//
// The verbs other than serve use the server's API (package coord/webapi). They reach a running
// server through a socket in the data directory; if none runs, this process opens the directory
// and serves the API to itself. With --server they reach a server on another machine, with an
// API token. Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 failed, 2
// usage, 5 device unknown, 6 may not be reached (can --quiet), 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with arguments and streams as parameters. It returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the process at once, even if something hangs.
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cli.Completion(root, func(err error) error { return usageError{err} })
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 130
	}
	if errors.Is(err, errMayNot) { // --quiet: print nothing
		return exitCode(err)
	}
	err = cli.Unknown(root, err, func(err error) error { return usageError{err} })
	fmt.Fprintln(stderr, "weft-server: "+oneLine(cli.Words(err)))
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return 2
	case errors.Is(err, ops.ErrNotFound):
		return 5
	case errors.Is(err, errMayNot):
		return 6
	case errors.Is(err, ops.ErrInvalid):
		return 2
	}
	return 1
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// oneLine replaces the line breaks in an error, so that it is printed as one line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft-server",
		Short: "The coordination server and relay of a weft network",
		Long: `weft-server runs a weft network: it issues certificates and addresses to
devices that join with a token, relays between those that cannot reach each
other, and has a web console.

  weft-server serve --data DIR --url https://HOST:8443
  weft-server keys create --tag device      a token for a device
  weft-server devices list
  weft-server relay --data DIR --token TOKEN   another relay, on another machine`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnv(cmd) },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{cli.FlagError(cmd, err)}
	})
	cli.VersionFlag(root, func(cmd *cobra.Command) error { return printVersion(cmd, false) })
	root.PersistentFlags().String("data", defaultData(), "data directory (WEFT_DATA)")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(serveCmd(), installCmd(), uninstallCmd(), doctorCmd(), relayCmd(), versionCmd())
	root.AddCommand(elsewhere(keysCmd(), usersCmd(), groupsCmd(), signInCmd(), oidcCmd(), tokensCmd(), devicesCmd(), relaysCmd(), dnsCmd(), policyCmd(), canCmd(), reachCmd(), auditCmd(), webhooksCmd())...)
	root.AddCommand(here("it makes a sign-in link for users of the data directory", loginLinkCmd())...)
	root.AddCommand(here("it works on the data directory", backupCmd(), restoreCmd())...)
	return root
}

// defaultData returns the data directory that is used without --data.
func defaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/weft-server"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "weft-server")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "weft-server")
}

// fromEnv gives every flag that is not on the command line the value of its
// WEFT_ variable: --trusted-proxy has WEFT_TRUSTED_PROXY. Lists are separated
// by commas. A flag that was set by a variable counts as given.
func fromEnv(cmd *cobra.Command) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "WEFT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v, ok := os.LookupEnv(name)
		if !ok || f.Changed || err != nil || notFromEnv(f) {
			return
		}
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[byEnv] = nil
		if e := cmd.Flags().Set(f.Name, v); e != nil {
			err = usagef("%s=%q: %s", name, v, cli.Wanted(f)) // v is no secret: flags for secrets accept any value
		}
	})
	return err
}

// noEnv marks a flag that no variable sets. Several verbs have a flag of that name, and a
// variable that was set for one of them must not change what another one does.
const noEnv = "weft-no-env"

// byEnv marks a flag that a variable has set.
const byEnv = "weft-by-env"

// typed reports whether a flag is on the command line, and not only set by a variable.
func typed(cmd *cobra.Command, name string) bool {
	f := cmd.Flags().Lookup(name)
	if f == nil {
		return false
	}
	_, env := f.Annotations[byEnv]
	return f.Changed && !env
}

func notFromEnv(f *pflag.Flag) bool {
	_, marked := f.Annotations[noEnv]
	return marked || f.Name == "help" || f.Name == "version" || f.Name == "json" || f.Name == "yes"
}

// args makes cobra's argument checks usage errors that show the usage line.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// group makes a verb with subcommands. Without a subcommand it runs its subcommand list, if it
// has one.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(sub...)
	var list *cobra.Command
	for _, s := range sub {
		if s.Name() == "list" {
			list = s
			cmd.Flags().AddFlagSet(s.Flags())
		}
	}
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		switch {
		case len(a) > 0:
			return usageError{cli.UnknownCommand(cmd, a[0])}
		case list != nil:
			return list.RunE(cmd, a)
		}
		var names []string
		for _, s := range cmd.Commands() {
			names = append(names, s.Name())
		}
		return usagef("name a verb: %s; see: %s --help", strings.Join(names, ", "), cmd.CommandPath())
	}
	return cmd
}

func dataDir(cmd *cobra.Command) (string, error) {
	dir, err := cmd.Flags().GetString("data")
	if err == nil && dir == "" {
		err = usagef("name the data directory: --data DIR")
	}
	return dir, err
}

// withServer runs f against the server that --server names, or the one that runs on the
// data directory, or the directory itself.
func withServer(cmd *cobra.Command, f func(ctx context.Context, a *client.Client) error) error {
	a, err := remoteServer(cmd)
	if err != nil {
		return err
	}
	if a != nil {
		return errors.Join(f(cmd.Context(), a), a.Close())
	}
	data, err := dataDir(cmd)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	a, err = client.Open(cmd.Context(), ops.Options{Data: data, Software: cli.Version(), Log: log})
	if err != nil {
		return err
	}
	err = f(cmd.Context(), a)
	return errors.Join(err, a.Close())
}
