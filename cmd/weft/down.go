package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func downCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop all traffic, keep the identity (weft up starts again)",
		Long: `Stop all traffic and keep the identity; weft up starts again.

The daemon goes on. A network interface (--tun) and its routes stay, so that
programs that send into the network fail at once instead of sending it in the
clear to whoever has the default route; the system has its own DNS back.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := client(cmd).Down(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "stopped; this device keeps its identity, start again with: weft up")
			return nil
		},
	}
}
