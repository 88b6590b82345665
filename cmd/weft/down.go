package main

import (
	"github.com/spf13/cobra"
)

func downCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "down",
		Short:             "Stop all traffic, keep the identity (weft up starts again)",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return client(cmd).Down(cmd.Context())
		},
	}
}
