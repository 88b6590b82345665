package main

import (
	"github.com/spf13/cobra"
)

func logoutCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "logout",
		Short:             "Give up this device's identity, here and on the server",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return client(cmd).Logout(cmd.Context())
		},
	}
}
