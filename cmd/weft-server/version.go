package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
)

func versionCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this program",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), map[string]string{"version": cli.Version(), "os": runtime.GOOS + "/" + runtime.GOARCH, "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "weft-server %s %s/%s %s\n", cli.Version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
