package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/service"
	"weft/overlay/localapi"
)

func uninstallCmd() *cobra.Command {
	var purge, ofUser bool
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the service from this machine",
		Long: `Remove the service and the program from this machine. The identity stays, so that
installing again makes it the same device. With --purge the identity is given up,
here and on the server, and nothing is left.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return uninstall(cmd, ofUser, purge, *asJSON) },
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVar(&purge, "purge", false, "give up the identity and remove the state, too")
	cmd.Flags().BoolVar(&ofUser, "user", false, "the service of this user")
	return cmd
}

func uninstall(cmd *cobra.Command, ofUser, purge, asJSON bool) error {
	if err := rights(ofUser, "uninstall"); err != nil {
		return err
	}
	said := func(kept, text string) error {
		if asJSON {
			return cli.PrintObject(cmd.OutOrStdout(), "uninstall/1", map[string]string{"kept": kept})
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
		return err
	}
	ctx := cmd.Context()
	kind, err := service.Detect(runtime.GOOS, "/", ofUser)
	if err != nil {
		return err
	}
	s, place := nodeService(kind, installOptions{})
	if purge {
		c := localapi.NewClient(socketOf(s))
		if c.Health(ctx) == nil {
			if err := c.Logout(ctx); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "weft: the server could not be reached; delete the device in the console: "+oneLine(err.Error()))
			}
		}
	}
	if err := service.Apply(ctx, s.Uninstall(kind, place)); err != nil {
		return fmt.Errorf("uninstall the service: %w", err)
	}
	remove := []string{s.Program, firstBootToken}
	if kind == service.Systemd {
		if err := service.Apply(ctx, service.NoFirstBoot()); err != nil {
			return err
		}
	}
	for _, path := range remove {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && runtime.GOOS != "windows" {
			return fmt.Errorf("uninstall: %w", err)
		}
	}
	os.Remove(socketOf(s)) // left by a killed daemon
	os.Remove(filepath.Dir(socketOf(s)))
	if !purge {
		os.Remove(filepath.Dir(firstBootToken)) // only if it is empty
		return said(stateOf(s), "uninstalled; the identity stays in "+stateOf(s)+" (--purge removes it, too)")
	}
	dirs := []string{stateOf(s)}
	if kind == service.Systemd {
		// With DynamicUser the directory is a symbolic link into private.
		dirs = append(dirs, strings.Replace(stateOf(s), "/var/lib/", "/var/lib/private/", 1))
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the state: %w", err)
		}
	}
	os.Remove(filepath.Dir(firstBootToken))
	for _, c := range [][]string{{"groupdel", socketGroup}, {"delgroup", socketGroup}} {
		if kind != service.SystemdUser && exec.CommandContext(ctx, c[0], c[1:]...).Run() == nil {
			break
		}
	}
	return said("", "uninstalled; nothing is left")
}
