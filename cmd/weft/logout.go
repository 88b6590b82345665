package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/status"
)

func logoutCmd() *cobra.Command {
	var yes bool
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Give up this device's identity, here and on the server",
		Long: `Give up this device's identity, here and on the server. To join again it needs
another token, and it gets other addresses. On a terminal it asks first.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := client(cmd)
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if st.State == status.StateUnjoined && *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), st)
			}
			if st.State == status.StateUnjoined {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing to give up: this device has not joined a network")
				return nil
			}
			name := cli.Plain(st.Self.FQDN)
			if !yes && cli.IsTerminal(cmd.InOrStdin()) &&
				!cli.Confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), "Give up "+name+"? To come back this device needs a new token.") {
				return &status.Error{Kind: status.KindFailed, Message: "nothing was given up"}
			}
			if err := c.Logout(cmd.Context()); err != nil {
				return err
			}
			if *asJSON {
				return statusJSON(cmd, c)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is given up, here and on the server; join again with: weft up TOKEN\n", name)
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
