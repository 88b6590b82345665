package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func relaysCmd() *cobra.Command {
	return group("relays", "List and remove relays", relaysListCmd(), relaysRemoveCmd())
}

func relaysListCmd() *cobra.Command {
	return apiVerb{
		use: "list", short: "List the relays, the server's own first",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := c.Relays(ctx)
			rows := [][]string{{"NAME", "STATE", "CLIENTS", "ADDRESSES", "VERSION"}}
			for _, r := range list {
				rows = append(rows, []string{r.Name, relayState(r), strconv.Itoa(r.Clients), strings.Join(r.URLs, " "), r.Version})
			}
			return answer{schema: "relays/1", object: map[string]any{"relays": list}, out: table(rows)}, err
		},
	}.command()
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
	return apiVerb{
		use: "remove NAME", short: "Remove a relay, by name or id; devices move to another one", args: cobra.ExactArgs(1), words: complete(otherRelays),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			r, err := c.DeleteRelay(ctx, a[0])
			return answer{schema: "relay/1", object: r, said: "removed the relay " + r.Name}, err
		},
	}.command()
}

// otherRelays returns the names of the relays apart from the server's own, for completion.
func otherRelays(ctx context.Context, c *client.Client) (words []string, err error) {
	list, err := c.Relays(ctx)
	for _, r := range list {
		if !r.Builtin {
			words = append(words, r.Name)
		}
	}
	return words, err
}
