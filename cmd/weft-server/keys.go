package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi/client"
)

func keysCmd() *cobra.Command {
	return group("keys", "Make, list, show and revoke join keys", keysCreateCmd(), keysListCmd(), keysShowCmd(), keysRevokeCmd())
}

func keysCreateCmd() *cobra.Command {
	var nk ops.CreateKey
	var expires string
	cmd := apiVerb{
		use:   "create [--reusable] [--ephemeral] [--relay] [--tag T]... [--expires 24h]",
		short: "Make a join key and print its token, which cannot be shown again",
		long: `Make a join key and print its token. The token is shown once and not stored.

Without --tag the device is one of its owner's own, such as a laptop, and may
reach the owner's other devices. With --tag device it only serves: its owner
reaches it, and it reaches no other device. With --relay the token is for a relay on
another machine: weft-server relay --data DIR --token TOKEN.`,
		check: func(*cobra.Command, []string) (err error) { nk.Life, err = parseLife(expires); return err },
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			k, err := c.CreateKey(ctx, nk)
			return answer{schema: "key/1", object: k, out: k.Token}, err
		},
	}.command()
	f := cmd.Flags()
	f.BoolVar(&nk.Reusable, "reusable", false, "many devices may join with it")
	f.BoolVar(&nk.Ephemeral, "ephemeral", false, "its devices are deleted soon after they go offline; their certificates are valid for 3 days")
	f.BoolVar(&nk.Relay, "relay", false, "it is for a relay, not for devices")
	f.StringSliceVar(&nk.Tags, "tag", nil, "tag for the devices that join with it (repeatable)")
	f.StringVar(&expires, "expires", "24h", "how long it can be used: 1m to 366d")
	f.StringVar(&nk.Note, "note", "", "a note for people")
	f.StringVar(&nk.User, "user", "", "owner of the devices that join with it (default: the first user)")
	return cmd
}

// parseLife parses the value of --expires.
func parseLife(s string) (time.Duration, error) {
	d, err := parseSpan(s)
	if err != nil {
		return 0, usagef("--expires %q: want a time such as 30m, 24h or 7d", s)
	}
	return d, nil
}

// parseSpan is time.ParseDuration, but also accepts days, such as 7d. It refuses durations that
// are not above zero, except "0d".
func parseSpan(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is not above zero", s)
	}
	return d, err
}

func keysListCmd() *cobra.Command {
	return apiVerb{
		use: "list", short: "List the join keys, without their tokens",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			keys, err := c.Keys(ctx)
			rows := [][]string{{"ID", "STATE", "KIND", "TAGS", "USED", "EXPIRES", "NOTE"}}
			for _, k := range keys {
				rows = append(rows, []string{k.ID, k.State(time.Now()), keyKind(k), strings.Join(k.Tags, ","), strconv.Itoa(k.Uses), when(&k.Expires), k.Note})
			}
			return answer{schema: "keys/1", object: map[string]any{"keys": keys}, out: table(rows)}, err
		},
	}.command()
}

func keysShowCmd() *cobra.Command {
	return apiVerb{
		use: "show ID", short: "Show one join key, without its token", args: cobra.ExactArgs(1), words: complete(keyIDs(func(store.Key) bool { return true })),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			k, err := c.Key(ctx, a[0])
			return answer{schema: "key-show/1", object: k, out: table([][]string{
				{"id", k.ID}, {"state", k.State(time.Now())}, {"kind", keyKind(k)}, {"user", k.User}, {"tags", strings.Join(k.Tags, ",")}, {"note", k.Note},
				{"created", when(&k.Created)}, {"expires", when(&k.Expires)}, {"revoked", when(k.Revoked)}, {"used", strconv.Itoa(k.Uses)}, {"last used", when(k.Used)},
			})}, err
		},
	}.command()
}

// keyIDs returns a function that lists the ids of the keys for which which returns true, for
// completion.
func keyIDs(which func(store.Key) bool) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, c *client.Client) (words []string, err error) {
		keys, err := c.Keys(ctx)
		for _, k := range keys {
			if which(k) {
				words = append(words, k.ID)
			}
		}
		return words, err
	}
}

func keyKind(k store.Key) string {
	kind := "one-time"
	if k.Reusable {
		kind = "reusable"
	}
	if k.Relay {
		kind += " relay"
	}
	if k.Ephemeral {
		kind += " ephemeral"
	}
	return kind
}

func keysRevokeCmd() *cobra.Command {
	return apiVerb{
		use: "revoke ID", short: "Revoke a join key; devices that joined with it stay",
		args:  cobra.ExactArgs(1),
		words: complete(keyIDs(func(k store.Key) bool { return k.State(time.Now()) == store.KeyGood })),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			_, err := c.RevokeKey(ctx, a[0])
			return answer{schema: "key-revoked/1", object: map[string]string{"id": a[0]}, said: fmt.Sprintf("revoked the key %s; devices that joined with it stay", cli.Plain(a[0]))}, err
		},
	}.command()
}
