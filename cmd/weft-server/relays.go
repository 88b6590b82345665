package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func relaysCmd() *cobra.Command {
	return group("relays", "List and remove relays", relaysListCmd(), relaysRemoveCmd())
}

func relaysListCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the relays, the server's own first",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				list, err := a.Relays(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "relays/1", map[string]any{"relays": list})
				}
				rows := [][]string{{"NAME", "STATE", "CLIENTS", "ADDRESSES", "VERSION"}}
				for _, r := range list {
					rows = append(rows, []string{r.Name, relayState(r), strconv.Itoa(r.Clients), strings.Join(r.URLs, " "), r.Version})
				}
				return table(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func relayState(r ops.RelayInfo) string {
	switch {
	case r.Online:
		return "online"
	case r.Heard == nil:
		return "not heard of"
	}
	return "last heard of " + when(r.Heard)
}

func relaysRemoveCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a relay, by name or id; devices move to another one",
		Args:  args(cobra.ExactArgs(1)),
		ValidArgsFunction: complete(func(ctx context.Context, a *client.Client) (words []string, err error) {
			list, err := a.Relays(ctx)
			for _, r := range list {
				if !r.Builtin {
					words = append(words, r.Name)
				}
			}
			return words, err
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, adm *client.Client) error {
				r, err := adm.DeleteRelay(ctx, a[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "relay/1", r)
				}
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "removed the relay %s\n", r.Name)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
