package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
)

func versionCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this program and of the running daemon",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return printVersion(cmd, *asJSON) },
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// printVersion prints the version of this program, and of the daemon if one answers.
func printVersion(cmd *cobra.Command, asJSON bool) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	daemon := ""
	if st, err := client(cmd).Status(ctx); err == nil {
		daemon = st.Version
	}
	if asJSON {
		return cli.PrintJSON(cmd.OutOrStdout(), struct {
			Schema  string `json:"schema"`
			Version string `json:"version"`
			Daemon  string `json:"daemon"` // "" if none answers
			OS      string `json:"os"`
			Go      string `json:"go"`
		}{"version/1", cli.Version(), daemon, runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "weft %s %s/%s %s\n", cli.Version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if daemon != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "daemon %s\n", cli.Plain(daemon))
	}
	if daemon != "" && daemon != cli.Version() {
		fmt.Fprintf(cmd.ErrOrStderr(), "weft: the daemon has another version than this program; restart it: %s\n", restartDaemon())
	}
	return nil
}

// restartDaemon is the command that restarts the daemon.
func restartDaemon() string {
	if serviceInstalled() {
		return "systemctl restart weft"
	}
	return "weft run"
}
