package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
)

func signInCmd() *cobra.Command {
	cmd := group("sign-in", "Show and set what is demanded of who signs in to the console", signInShowCmd(), signInSetCmd())
	cmd.Long = `Shows and sets what is demanded of who signs in to the console.

  weft-server sign-in show
  weft-server sign-in set --second-factor on    operators, admins and owners need a
                                                passkey, or codes beside the password`
	return cmd
}

func signInShowCmd() *cobra.Command {
	return signInVerb("show", "Show what is demanded", nil, func(ctx context.Context, c *client.Client) (webapi.SignIn, error) { return c.SignIn(ctx) })
}

func signInSetCmd() *cobra.Command {
	var factor string
	cmd := signInVerb("set --second-factor on|off", "Set what is demanded", func() error {
		if factor != "on" && factor != "off" {
			return usagef("say what to set: --second-factor on or off")
		}
		return nil
	}, func(ctx context.Context, c *client.Client) (webapi.SignIn, error) {
		on := factor == "on"
		return c.SetSignIn(ctx, ops.SetSignIn{Demanded: &on})
	})
	cmd.Flags().StringVar(&factor, "second-factor", "", "on: operators, admins and owners need a passkey, or codes beside the password; off")
	cmd.Flags().SetAnnotation("second-factor", noEnv, nil)
	return cmd
}

func signInVerb(use, short string, check func() error, do func(context.Context, *client.Client) (webapi.SignIn, error)) *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check != nil {
				if err := check(); err != nil {
					return err
				}
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				s, err := do(ctx, c)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "sign-in/1", s)
				}
				text := "not demanded"
				if s.Demanded {
					text = "demanded of operators, admins and owners"
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "passkey, or codes beside the password: %s\n", text)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
