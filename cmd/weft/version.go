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
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
			defer cancel()
			st, err := client(cmd).Status(ctx)
			daemon := st.Version
			if err != nil {
				daemon = ""
			}
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), struct {
					Schema  string `json:"schema"`
					Version string `json:"version"`
					Daemon  string `json:"daemon"` // "" when none answers
					OS      string `json:"os"`
					Go      string `json:"go"`
				}{"version/1", cli.Version(), daemon, runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "weft %s %s/%s %s\n", cli.Version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			if daemon != "" && daemon != cli.Version() {
				fmt.Fprintf(cmd.OutOrStdout(), "daemon %s\n", cli.Plain(daemon))
			}
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
