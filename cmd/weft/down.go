package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
)

func downCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop all traffic, keep the identity (weft up starts again)",
		Long: `Stop all traffic and keep the identity; weft up starts again.

The daemon keeps running. A network interface (--tun) and its routes stay, so that
programs that send into the network fail at once and their traffic does not leave
unencrypted through the default route; the system gets its own DNS back.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := client(cmd)
			if err := c.Down(cmd.Context()); err != nil {
				return err
			}
			if *asJSON {
				return statusJSON(cmd, c)
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "stopped; this device keeps its identity, start again with: weft up")
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
