package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/service"
	"weft/coord/standalone"
)

// The name and the data directory of an installed relay. They differ from the server's, so that
// both can be installed on one machine.
const (
	relayServiceName   = "weft-relay"
	installedRelayData = "/var/lib/weft-relay"
)

// relayService describes the service, which runs relay with the flags that were given, except the
// token, which has been used when the service starts.
func relayService(flags *pflag.FlagSet, o *relayOptions) (service.Service, error) {
	s := service.Service{
		Name: relayServiceName, Description: "weft-server relay: a standalone relay", Program: installedProgram,
		Args: append([]string{"relay", "--data", installedRelayData}, handOn(flags, "install", "uninstall", "purge", "json", "data", "token", "token-file")...),
	}
	s.LowPorts = lowPort(o.listen) || lowPort(o.stun)
	if f := flags.Lookup("data"); f != nil && f.Changed && f.Value.String() != installedRelayData {
		return s, usagef("--data: an installed relay stores its data in %s", installedRelayData)
	}
	return s, nil
}

// installRelay joins if the relay has not joined before, and makes the relay a service.
func installRelay(cmd *cobra.Command, o *relayOptions) error {
	ctx := cmd.Context()
	s, err := relayService(cmd.Flags(), o)
	if err != nil {
		return err
	}
	so, err := o.parse(cmd)
	if err != nil {
		return err
	}
	kind, err := serverKind("relay --install")
	if err != nil {
		return err
	}
	if kind != service.Systemd {
		return fmt.Errorf("relay --install needs systemd; start the relay without a service: weft-server relay --data DIR")
	}
	so.Data = installedRelayData
	if _, err := os.Stat(filepath.Join(so.Data, "relay.json")); errors.Is(err, fs.ErrNotExist) || so.Token != "" && !relayRuns(s) {
		r, err := standalone.Start(ctx, so)
		if errors.Is(err, standalone.ErrNotJoined) {
			return usageError{err}
		}
		if err == nil {
			err = r.Close()
		}
		if err != nil {
			return err
		}
	}
	if err := service.PlaceProgram(s.Program); err != nil {
		return err
	}
	if err := service.Apply(ctx, s.Install(kind, service.Place{}, "", true)); err != nil {
		if said := lastWords(ctx, kind, s.Name); said != "" {
			return fmt.Errorf("install: the service does not start: %s", said)
		}
		return fmt.Errorf("install: %w; see: journalctl -u %s -e", err, s.Name)
	}
	if *o.asJSON {
		return cli.PrintObject(cmd.OutOrStdout(), "relay-install/1", map[string]string{"data": installedRelayData})
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), "installed and running; on the server see: weft-server relays list")
	return err
}

// relayRuns reports whether the service holds the lock of the data directory.
func relayRuns(s service.Service) bool {
	_, err := os.Stat("/run/" + s.Name)
	return err == nil
}

func uninstallRelay(cmd *cobra.Command, purge, asJSON bool) error {
	kind, err := serverKind("relay --uninstall")
	if err != nil {
		return err
	}
	s, err := relayService(&pflag.FlagSet{}, &relayOptions{})
	if err != nil {
		return err
	}
	if err := service.Apply(cmd.Context(), s.Uninstall(kind, service.Place{})); err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	if _, err := os.Stat("/etc/systemd/system/" + serviceName + ".service"); errors.Is(err, fs.ErrNotExist) {
		if err := os.Remove(s.Program); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("uninstall: %w", err)
		}
	}
	if !purge {
		return uninstalled(cmd, asJSON, installedRelayData, "uninstalled; the relay's identity stays in "+installedRelayData+" (--purge removes it, too)")
	}
	for _, dir := range []string{installedRelayData, "/var/lib/private/" + s.Name} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the data: %w", err)
		}
	}
	return uninstalled(cmd, asJSON, "", "uninstalled; nothing is left. On the server: weft-server relays remove NAME")
}
