package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/webapi/client"
)

func loginLinkCmd() *cobra.Command {
	var user string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "login-link",
		Short: "Print a sign-in link for the console that works once",
		Long: `Print a sign-in link for the console that works once. Where the console is on
this machine's loopback, the same link with the server's public address follows
on standard error, for a browser on another machine.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				link, err := a.LoginLink(ctx, user)
				if err != nil {
					return err
				}
				data, err := dataDir(cmd)
				if err != nil {
					return err
				}
				s, err := signInOf(ctx, a, data, link)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "login-link/1", s.fields())
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), s.link)
				fmt.Fprint(cmd.ErrOrStderr(), s.explain())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "the user who signs in with it (default: the first user)")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
