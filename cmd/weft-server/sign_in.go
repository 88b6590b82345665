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
	cmd := group("sign-in", "Show and set what is demanded of people who sign in to the console, and of their devices", signInShowCmd(), signInSetCmd())
	cmd.Long = `Shows and sets what is demanded of people who sign in to the console, and of their
devices.

  weft-server sign-in show
  weft-server sign-in set --second-factor on    operators, admins and owners need a
                                                passkey, or codes beside the password
  weft-server sign-in set --device-days 30      people sign their devices without tags in
                                                again every 30 days, with weft up there, or
                                                these reach nothing; 0: never

After --device-days is made shorter, the first period begins now for all devices.`
	return cmd
}

func signInShowCmd() *cobra.Command {
	return signInVerb("show", "Show what is demanded", nil, func(ctx context.Context, c *client.Client) (webapi.SignIn, error) { return c.SignIn(ctx) })
}

func signInSetCmd() *cobra.Command {
	var factor string
	var days int
	const unset = -1
	cmd := signInVerb("set", "Set what is demanded", func() error {
		switch {
		case factor != "on" && factor != "off" && factor != "":
			return usagef("--second-factor: want on or off")
		case factor == "" && days == unset:
			return usagef("say what to set: --second-factor on or off, or --device-days")
		}
		return nil
	}, func(ctx context.Context, c *client.Client) (webapi.SignIn, error) {
		var set ops.SetSignIn
		if on := factor == "on"; factor != "" {
			set.Demanded = &on
		}
		if days != unset {
			set.DeviceDays = &days
		}
		return c.SetSignIn(ctx, set)
	})
	cmd.Flags().IntVar(&days, "device-days", unset, "after how many days, 1 to 365, a person has to sign a device without tags in again; 0: never")
	cmd.Flags().SetAnnotation("device-days", noEnv, nil)
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
				days := "never"
				if s.DeviceDays > 0 {
					days = fmt.Sprintf("every %d days", s.DeviceDays)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "passkey, or codes beside the password: %s\npeople sign their devices in again: %s\n", text, days)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
