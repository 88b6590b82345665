package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi/client"
)

func tokensCmd() *cobra.Command {
	cmd := group("tokens", "Make, list and revoke tokens of services, for the API", tokensCreateCmd(), tokensListCmd(), tokensRevokeCmd())
	cmd.Long = `Makes, lists and revokes tokens. A service is a user that stands for a program; with
a token it uses the API of the server, from anywhere:

  weft-server users create backup-job --service --role auditor
  weft-server tokens create backup-job --note "on the NAS" > token
  weft-server devices list --server https://weft.example.org --token-file token
  curl -H "Authorization: Bearer $(cat token)" https://weft.example.org/api/v1/devices

What a token may do is what its service may do at that moment.`
	return cmd
}

func tokensCreateCmd() *cobra.Command {
	var nt ops.CreateToken
	var expires string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "create USER [--expires 90d|never] [--note TEXT]",
		Short: "Make a token for a service and print it; it cannot be shown again",
		Long: `Make a token of a service and print it. It is shown once and not stored. A
program can also verify the server with it, whatever certificate its site has.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: complete(services),
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			nt.User = a[0]
			if nt.Endless = expires == "never"; !nt.Endless {
				if nt.Life, err = parseSpan(expires); err != nil {
					return usagef("--expires %q: want a time such as 30d or 12h, or never", expires)
				}
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				t, err := c.CreateToken(ctx, nt)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "token/1", t)
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), t.Token)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "90d", "how long it can be used: 1m to 366d, or never")
	cmd.Flags().StringVar(&nt.Description, "note", "", "a note for people: which program uses it")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// services returns the names of services, for completion.
func services(ctx context.Context, c *client.Client) (words []string, err error) {
	users, err := c.Users(ctx)
	for _, u := range users {
		if u.Kind == store.Service {
			words = append(words, u.Name)
		}
	}
	return words, err
}

func tokensListCmd() *cobra.Command {
	var user string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "list [--user USER]",
		Short:             "List the tokens, without their secrets",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				tokens, err := c.Tokens(ctx, user)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "tokens/1", map[string]any{"tokens": tokens})
				}
				rows := [][]string{{"ID", "USER", "STATE", "EXPIRES", "LAST USED", "FROM", "NOTE"}}
				for _, t := range tokens {
					expires := "never"
					if t.Expires != nil {
						expires = when(t.Expires)
					}
					rows = append(rows, []string{t.ID, t.User, tokenState(t, time.Now()), expires, when(t.Used), strings.Join(t.From[:min(len(t.From), 1)], ""), t.Description})
				}
				return table(cmd.OutOrStdout(), rows)
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "only tokens of this service")
	cmd.Flags().SetAnnotation("user", noEnv, nil)
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func tokenState(t store.Token, now time.Time) string {
	switch {
	case t.Revoked != nil:
		return "revoked"
	case !t.Live(now):
		return "expired"
	}
	return "good"
}

func tokensRevokeCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke a token at once",
		Args:  args(cobra.ExactArgs(1)),
		ValidArgsFunction: complete(func(ctx context.Context, c *client.Client) (words []string, err error) {
			tokens, err := c.Tokens(ctx, "")
			for _, t := range tokens {
				if t.Live(time.Now()) {
					words = append(words, t.ID)
				}
			}
			return words, err
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				if _, err := c.RevokeToken(ctx, a[0]); err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "token-revoked/1", map[string]string{"id": a[0]})
				}
				_, err := fmt.Fprintf(cmd.ErrOrStderr(), "revoked the token %s\n", cli.Plain(a[0]))
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
