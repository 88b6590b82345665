package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func canCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "can WHO DEVICE:PORT",
		Short: "Say whether somebody may reach a device, and which rule decides",
		Long: `Say whether a person or a device may reach a port of a device, and which rule of
the policy decides. A person stands for the own devices without tags. A UDP port
is DEVICE:PORT/udp, and DEVICE/icmp is whether it may be pinged. Whether anything
is online or listens there does not matter.

  weft-server can anna nas:22
  weft-server can porch-cam nas:445`,
		Args: args(cobra.ExactArgs(2)),
		ValidArgsFunction: complete(func(ctx context.Context, c *client.Client) ([]string, error) {
			words, err := deviceNames(ctx, c)
			users, _ := c.Users(ctx) // who may not see them has devices to choose from
			for _, u := range users {
				words = append(words, u.Name)
			}
			return words, err
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				r, err := c.CanReach(ctx, ops.AccessQuery{From: a[0], To: a[1]})
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "can/1", r)
				}
				answer := "no"
				if r.Allowed {
					answer = "yes"
				}
				for _, n := range r.Notes {
					fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: "+cli.Plain(n))
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", answer, cli.Plain(r.Why))
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
