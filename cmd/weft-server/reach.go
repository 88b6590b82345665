package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func reachCmd() *cobra.Command {
	var q ops.ReachQuery
	cmd := apiVerb{
		use:   "reach [WHO]",
		short: "List all that a person or a device reaches, or all who reach a device",
		long: `List all that a person or a device reaches, or, with --to, all who reach a device,
and which rules decide. A person stands for their devices without tags.

  weft-server reach anna
  weft-server reach --to nas`,
		args:  cobra.MaximumNArgs(1),
		words: complete(deviceNames),
		check: func(_ *cobra.Command, a []string) error {
			if len(a) > 0 {
				q.From = a[0]
			}
			if q.From != "" && q.To != "" {
				return usagef("name WHO, or a device with --to, and not both")
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			r, err := c.Reach(ctx, q)
			for err == nil && r.Next != "" {
				q.Cursor = r.Next
				var more ops.Reach
				more, err = c.Reach(ctx, q)
				r.Groups, r.Next = append(r.Groups, more.Groups...), more.Next
			}
			got := answer{schema: "reach/1", object: r, out: reachText(r)}
			if r.Partial {
				got.said = "weft-server: people, and devices without your tags, are not listed"
			}
			return got, err
		},
	}.command()
	cmd.Flags().StringVar(&q.To, "to", "", "say who reaches this device")
	cmd.Flags().SetAnnotation("to", noEnv, nil)
	return cmd
}

func reachText(r ops.Reach) string {
	if len(r.Groups) == 0 {
		return "nothing"
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
	return table(rows)
}
