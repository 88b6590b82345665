package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func reachCmd() *cobra.Command {
	var asJSON *bool
	var to string
	cmd := &cobra.Command{
		Use:   "reach [WHO]",
		Short: "List all that a person or a device reaches, or all who reach a device",
		Long: `List all that a person or a device reaches, or, with --to, all who reach a device,
and which rules decide. A person stands for their devices without tags.

  weft-server reach anna
  weft-server reach --to nas`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: complete(deviceNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			q := ops.ReachQuery{To: to}
			if len(a) > 0 {
				q.From = a[0]
			}
			if q.From != "" && to != "" {
				return usagef("name WHO, or a device with --to, and not both")
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				r, err := c.Reach(ctx, q)
				for err == nil && r.Next != "" {
					q.Cursor = r.Next
					var more ops.Reach
					more, err = c.Reach(ctx, q)
					r.Groups, r.Next = append(r.Groups, more.Groups...), more.Next
				}
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "reach/1", r)
				}
				if r.Partial {
					fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: people, and devices without your tags, are not listed")
				}
				rows := [][]string{{"DEVICES", "PORTS", "RULES"}}
				if r.To != "" {
					rows[0][0] = "WHO"
				}
				for _, g := range r.Groups {
					var rules []string
					for _, by := range g.By {
						rules = append(rules, fmt.Sprint(by.Rule))
					}
					rows = append(rows, []string{party(g.Party), portsText(g.Ports), strings.Join(rules, ",")})
				}
				if len(r.Groups) == 0 {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing")
					return err
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().StringVar(&to, "to", "", "say who reaches this device")
	cmd.Flags().SetAnnotation("to", noEnv, nil)
	return cmd
}
