package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func devicesWaitingCmd() *cobra.Command {
	return apiVerb{
		use: "waiting", short: "List the devices that ask to join without a token",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := c.Requests(ctx)
			rows := [][]string{{"ID", "HOSTNAME", "OS", "FROM", "ASKED", "UNTIL"}}
			for _, r := range list {
				rows = append(rows, []string{r.ID, cli.Plain(r.Hostname), cli.Plain(r.OS), r.From, when(&r.At), when(&r.Expires)})
			}
			return answer{schema: "requests/1", object: map[string]any{"requests": list}, out: table(rows)}, err
		},
	}.command()
}

func devicesApproveCmd() *cobra.Command {
	var yes bool
	var approve ops.ApproveRequest
	var cmd *cobra.Command
	cmd = apiVerb{
		use:   "approve CODE",
		short: "Let in the device that shows this code",
		long: `Lets in the device that shows this code, as weft up --server prints it. It becomes a
device of the network's owner, of --user, or of the service whose token is used.

Approve only a code that you see on the device itself, and that was asked for just now:
whoever sent you a code would get into the network with a device of their own. You are
shown the device first, and asked.`,
		args:  cobra.ExactArgs(1),
		words: cobra.NoFileCompletions,
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			r, err := c.Request(ctx, a[0])
			if err != nil {
				return answer{}, err
			}
			if r.SignIn {
				return answer{}, fmt.Errorf("%s asks to be signed in again: only the person whose device it is can do that, in the console", r.Name)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s, %s, asked from %s %s; it will be named %s\n", cli.Dash(cli.Plain(r.Hostname)), cli.Dash(cli.Plain(r.OS)), cli.Dash(r.From), when(&r.At), r.Name)
			if !yes {
				if err := confirm(cmd, "Do you see this code on that device, and did you start this just now?"); err != nil {
					return answer{}, err
				}
			}
			d, err := c.ApproveRequest(ctx, a[0], approve)
			return deviceChanged(d, "%s is let in, as a device of %s", d.Name, d.User), err
		},
	}.command()
	f := cmd.Flags()
	f.StringVar(&approve.User, "user", "", "whose device it becomes")
	f.StringArrayVar(&approve.Tags, "tag", nil, "tag of the device; may be repeated")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	for _, name := range []string{"user", "tag", "yes"} {
		f.SetAnnotation(name, noEnv, nil)
	}
	return cmd
}

func devicesDenyCmd() *cobra.Command {
	return apiVerb{
		use: "deny CODE|ID", short: "Refuse a device that asks to join, by its code or by its id in devices waiting", args: cobra.ExactArgs(1), words: complete(requestIDs),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			r, err := c.DenyRequest(ctx, a[0])
			return answer{schema: "request/1", object: r, said: "refused " + cli.Dash(cli.Plain(r.Hostname)), out: r.ID}, err
		},
	}.command()
}

func requestIDs(ctx context.Context, a *client.Client) (words []string, err error) {
	list, err := a.Requests(ctx)
	for _, r := range list {
		words = append(words, r.ID)
	}
	return words, err
}
