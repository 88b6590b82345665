package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord"
)

func loginLinkCmd() *cobra.Command {
	var user string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "login-link",
		Short:             "Print a sign-in link for the console that works once",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, func(ctx context.Context, a coord.Admin) error {
				link, err := a.LoginLink(ctx, user)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintJSON(cmd.OutOrStdout(), map[string]string{"url": link})
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), link)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "who signs in with it (default: the first user)")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
