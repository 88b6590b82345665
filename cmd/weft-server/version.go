package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func versionCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this program and of the running server",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return printVersion(cmd, *asJSON) },
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// printVersion prints the version of this program, and of the server that runs
// on --data, if one does.
func printVersion(cmd *cobra.Command, asJSON bool) error {
	server := runningVersion(cmd)
	if asJSON {
		return cli.PrintJSON(cmd.OutOrStdout(), struct {
			Schema  string `json:"schema"`
			Version string `json:"version"`
			Server  string `json:"server"` // "" if no server answers
			OS      string `json:"os"`
			Go      string `json:"go"`
		}{"version/1", cli.Version(), server, runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "weft-server %s %s/%s %s\n", cli.Version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if server != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "server %s\n", cli.Plain(server))
	}
	if server != "" && server != cli.Version() {
		fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: the running server is of another version than this program; restart it: systemctl restart weft-server")
	}
	return nil
}

// runningVersion asks the running server for its version. If none runs it returns "", without
// opening the data directory.
func runningVersion(cmd *cobra.Command) string {
	data, err := dataDir(cmd)
	if err != nil || !answers(filepath.Join(data, "admin.sock")) {
		return ""
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	a, err := client.Open(ctx, ops.Options{Data: data, Software: cli.Version()})
	if err != nil {
		return ""
	}
	defer a.Close()
	list, err := a.Relays(ctx)
	for _, r := range list {
		if r.Builtin && err == nil {
			return r.Version
		}
	}
	return ""
}
