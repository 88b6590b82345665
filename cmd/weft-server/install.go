package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/service"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

// The name and the files of an installed server.
const (
	serviceName      = "weft-server"
	installedProgram = "/usr/local/bin/weft-server"
	installedData    = "/var/lib/weft-server"
)

func installCmd() *cobra.Command {
	var o serveOptions
	var print string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "install [--url https://HOST:8443]... [flags of serve]",
		Short: "Make the server a service of this machine",
		Long: `Make the server a service of this machine, with a user of its own and no right
that it does not need, and start it. The flags are those of serve. The first
time it prints a sign-in link for the console and a token for the first device.
Doing it again changes the flags, or upgrades.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := serverService(cmd.Flags(), &o)
			if err != nil {
				return err
			}
			if print != "" {
				text, err := s.Text(service.Kind(print))
				if err != nil {
					return usagef("%w; want systemd or openrc", err)
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "service-file/1", map[string]string{"text": text})
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), text)
				return err
			}
			return installServer(cmd, &o, s, *asJSON)
		},
	}
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&print, "print", "", "only print the service file for systemd or openrc")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func uninstallCmd() *cobra.Command {
	var purge bool
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the service from this machine",
		Long: `Remove the service and the program from this machine. The data stays, unless
--purge is given: then the network is lost, and every device has to join another
network. Make a backup first: weft-server backup.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return uninstallServer(cmd, purge, *asJSON) },
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the data too: the network ends")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// serverService describes the service, which runs serve with the flags that install was given.
func serverService(flags *pflag.FlagSet, o *serveOptions) (service.Service, error) {
	s := service.Service{
		Name: serviceName, Description: "weft-server: coordination and relay", Program: installedProgram,
		Args:        []string{"serve", "--data", installedData},
		Environment: []string{"WEFT_SERVICE=1"},
	}
	var err error
	if f := flags.Lookup("data"); f != nil && f.Changed && f.Value.String() != installedData {
		err = usagef("--data: an installed server keeps its data in %s", installedData)
	}
	s.Args = append(s.Args, handOn(flags, "print", "json", "data")...)
	s.LowPorts = slices.ContainsFunc([]string{o.listen, o.console, o.stun}, lowPort)
	return s, err
}

// handOn returns the given flags, except those that are not for the daemon.
func handOn(flags *pflag.FlagSet, but ...string) (args []string) {
	flags.Visit(func(f *pflag.Flag) {
		if slices.Contains(but, f.Name) {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name, v)
			}
			return
		}
		v := f.Value.String()
		if f.Name == "releases" || f.Name == "acme-ca" { // the service has another working directory
			if abs, err := filepath.Abs(v); err == nil {
				v = abs
			}
		}
		args = append(args, "--"+f.Name+"="+v)
	})
	return args
}

// lowPort reports whether listening on addr needs a privilege.
func lowPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	n, perr := strconv.Atoi(port)
	return err == nil && perr == nil && n > 0 && n < 1024
}

// serverKind returns the service manager of this machine, such as systemd, or an error if verb
// cannot be done here.
func serverKind(verb string) (service.Kind, error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%s: root is needed; use: sudo weft-server %s", verb, verb)
	}
	kind, err := service.Detect(runtime.GOOS, "/", false)
	if err == nil && kind != service.Systemd && kind != service.OpenRC {
		err = fmt.Errorf("weft-server cannot install a service for %s", kind)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w; start it without a service: weft-server serve --data DIR", verb, err)
	}
	return kind, nil
}

func installServer(cmd *cobra.Command, o *serveOptions, s service.Service, asJSON bool) error {
	ctx := cmd.Context()
	if _, err := o.parse(cmd); err != nil {
		return err
	}
	kind, err := serverKind("install")
	if err != nil {
		return err
	}
	if err := service.PlaceProgram(s.Program); err != nil {
		return err
	}
	if err := service.Apply(ctx, s.Install(kind, service.Place{}, "", true)); err != nil {
		if said := lastWords(ctx, kind, s.Name); said != "" {
			return fmt.Errorf("install: the service does not start: %s", said)
		}
		return fmt.Errorf("install: %w; see: journalctl -u %s -e", err, serviceName)
	}
	a, err := client.Open(ctx, ops.Options{Data: installedData})
	if err != nil {
		return fmt.Errorf("install: the service does not answer: %w; see: journalctl -u %s -e", err, serviceName)
	}
	return errors.Join(greetInstalled(cmd, a, asJSON), a.Close())
}

// greetInstalled prints what serve prints at the first start of a new network.
func greetInstalled(cmd *cobra.Command, a *client.Client, asJSON bool) error {
	ctx := cmd.Context()
	out := cmd.OutOrStdout()
	object := func(s signIn, token string) error {
		v := s.fields()
		v["token"], v["data"] = token, installedData
		return cli.PrintObject(out, "server-install/1", v)
	}
	keys, err := a.Keys(ctx)
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		if asJSON {
			return object(signIn{}, "")
		}
		_, err = fmt.Fprintln(out, "installed and running; see: weft-server doctor")
		return err
	}
	link, err := a.LoginLink(ctx, "")
	if err != nil {
		return err
	}
	key, err := a.CreateKey(ctx, ops.CreateKey{Note: "first device", Tags: []string{"device"}})
	if err != nil {
		return err
	}
	s, err := signInOf(ctx, a, installedData, link)
	if err != nil {
		return err
	}
	if asJSON {
		return object(s, key.Token)
	}
	return s.greet(out, key.Token)
}

// lastWords returns the last log line of a service before it ended, "" if unknown.
func lastWords(ctx context.Context, kind service.Kind, name string) string {
	if kind != service.Systemd {
		return ""
	}
	out, _ := exec.CommandContext(ctx, "journalctl", "-u", name, "-n", "30", "-o", "cat", "--no-pager").Output()
	for _, line := range slices.Backward(strings.Split(string(out), "\n")) {
		if said, ok := strings.CutPrefix(line, "weft-server: "); ok {
			return said
		}
	}
	return ""
}

func uninstallServer(cmd *cobra.Command, purge, asJSON bool) error {
	kind, err := serverKind("uninstall")
	if err != nil {
		return err
	}
	s, err := serverService(&pflag.FlagSet{}, &serveOptions{})
	if err != nil {
		return err
	}
	if err := service.Apply(cmd.Context(), s.Uninstall(kind, service.Place{})); err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	if err := os.Remove(s.Program); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("uninstall: %w", err)
	}
	if !purge {
		return uninstalled(cmd, asJSON, installedData, "uninstalled; the data stays in "+installedData+" (--purge removes it too)")
	}
	// With DynamicUser the first is a link to the second.
	for _, dir := range []string{installedData, "/var/lib/private/" + serviceName} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the data: %w", err)
		}
	}
	return uninstalled(cmd, asJSON, "", "uninstalled; nothing is left")
}

// uninstalled prints that the service was removed. kept is the data directory that stays, "" for
// none.
func uninstalled(cmd *cobra.Command, asJSON bool, kept, text string) error {
	if asJSON {
		return cli.PrintObject(cmd.OutOrStdout(), "uninstall/1", map[string]string{"kept": kept})
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
