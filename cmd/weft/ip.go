package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/status"
)

func ipCmd() *cobra.Command {
	var asJSON *bool
	var four, six bool
	cmd := &cobra.Command{
		Use:               "ip [NAME]",
		Short:             "Print the overlay addresses of this node or a peer: IPv4, then IPv6",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			c := client(cmd)
			var v4, v6 string
			if len(a) == 0 {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				if st.Self.IPv4 == "" && st.Self.IPv6 == "" {
					return &status.Error{Kind: status.KindNotJoined, Message: "this node has no address yet", Hint: "join with: weft up TOKEN"}
				}
				v4, v6 = st.Self.IPv4, st.Self.IPv6
			} else {
				p, err := c.Resolve(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				if p.IPv4.IsValid() {
					v4 = p.IPv4.String()
				}
				if p.IPv6.IsValid() {
					v6 = p.IPv6.String()
				}
			}
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), struct {
					Schema string `json:"schema"`
					IPv4   string `json:"ipv4"`
					IPv6   string `json:"ipv6"`
				}{"ip/1", v4, v6})
			}
			both := four == six
			if v4 != "" && (both || four) {
				fmt.Fprintln(cmd.OutOrStdout(), v4)
			}
			if v6 != "" && (both || six) {
				fmt.Fprintln(cmd.OutOrStdout(), v6)
			}
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVarP(&four, "ipv4", "4", false, "only the IPv4 address")
	cmd.Flags().BoolVarP(&six, "ipv6", "6", false, "only the IPv6 address")
	return cmd
}
