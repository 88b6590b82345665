package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

// errMayNot makes can --quiet exit with code 6 for the answer "no".
var errMayNot = errors.New("it may not be reached")

func canCmd() *cobra.Command {
	var asJSON *bool
	var quiet bool
	cmd := &cobra.Command{
		Use:   "can WHO DEVICE:PORT [--quiet]",
		Short: "Show whether a person or a device may reach a device, and which rule decides",
		Long: `Show whether a person or a device may reach a port of a device, and which rule of
the policy decides. A person stands for their devices without tags. A UDP port
is DEVICE:PORT/udp, and DEVICE/icmp is whether it may be pinged. Whether anything
is online or listens there does not matter.

Either answer is a success: the exit code is 0. With --quiet nothing is printed,
and the exit code is 0 for yes and 6 for no; 5 is for a name that is not known.

  weft-server can anna nas:22
  weft-server can porch-cam nas:445
  weft-server can --quiet porch-cam nas:22 && echo "the camera reaches SSH"`,
		Args: args(cobra.ExactArgs(2)),
		ValidArgsFunction: complete(func(ctx context.Context, c *client.Client) ([]string, error) {
			words, err := deviceNames(ctx, c)
			users, _ := c.Users(ctx) // an actor who may not see users is offered only devices
			for _, u := range users {
				words = append(words, u.Name)
			}
			return words, err
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			if quiet && *asJSON {
				return usagef("--quiet and --json exclude each other")
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				r, err := c.CanReach(ctx, ops.AccessQuery{From: a[0], To: a[1]})
				if err != nil {
					return err
				}
				switch {
				case quiet && r.Allowed:
					return nil
				case quiet:
					return errMayNot
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
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing: the exit code is the answer")
	cmd.Flags().SetAnnotation("quiet", noEnv, nil)
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
