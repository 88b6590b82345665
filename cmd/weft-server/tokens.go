package main

import (
	"context"
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
	cmd := apiVerb{
		use:   "create USER [--expires 90d|never] [--note TEXT]",
		short: "Make a token for a service and print it; it cannot be shown again",
		long: `Make a token of a service and print it. It is shown once and not stored. A
program can also verify the server with it, whatever certificate its site has.`,
		args:  cobra.ExactArgs(1),
		words: complete(services),
		check: func(_ *cobra.Command, a []string) (err error) {
			nt.User = a[0]
			if nt.Endless = expires == "never"; !nt.Endless {
				if nt.Life, err = parseSpan(expires); err != nil {
					return usagef("--expires %q: want a time such as 30d or 12h, or never", expires)
				}
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			t, err := c.CreateToken(ctx, nt)
			return answer{schema: "token/1", object: t, out: t.Token}, err
		},
	}.command()
	cmd.Flags().StringVar(&expires, "expires", "90d", "how long it can be used: 1m to 366d, or never")
	cmd.Flags().StringVar(&nt.Description, "note", "", "a note for people: which program uses it")
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
	cmd := apiVerb{
		use: "list [--user USER]", short: "List the tokens, without their secrets",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			tokens, err := c.Tokens(ctx, user)
			rows := [][]string{{"ID", "USER", "STATE", "EXPIRES", "LAST USED", "FROM", "NOTE"}}
			for _, t := range tokens {
				expires := "never"
				if t.Expires != nil {
					expires = when(t.Expires)
				}
				rows = append(rows, []string{t.ID, t.User, tokenState(t, time.Now()), expires, when(t.Used), strings.Join(t.From[:min(len(t.From), 1)], ""), t.Description})
			}
			return answer{schema: "tokens/1", object: map[string]any{"tokens": tokens}, out: table(rows)}, err
		},
	}.command()
	cmd.Flags().StringVar(&user, "user", "", "only tokens of this service")
	cmd.Flags().SetAnnotation("user", noEnv, nil)
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
	return apiVerb{
		use: "revoke ID", short: "Revoke a token at once", args: cobra.ExactArgs(1), words: complete(liveTokens),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			_, err := c.RevokeToken(ctx, a[0])
			return answer{schema: "token-revoked/1", object: map[string]string{"id": a[0]}, said: "revoked the token " + cli.Plain(a[0])}, err
		},
	}.command()
}

// liveTokens returns the ids of the tokens that can be used, for completion.
func liveTokens(ctx context.Context, c *client.Client) (words []string, err error) {
	tokens, err := c.Tokens(ctx, "")
	for _, t := range tokens {
		if t.Live(time.Now()) {
			words = append(words, t.ID)
		}
	}
	return words, err
}
