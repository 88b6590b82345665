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
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "waiting",
		Short:             "List the devices that ask to join without a token",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				list, err := a.Requests(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "requests/1", map[string]any{"requests": list})
				}
				rows := [][]string{{"ID", "HOSTNAME", "OS", "FROM", "ASKED", "UNTIL"}}
				for _, r := range list {
					rows = append(rows, []string{r.ID, cli.Plain(r.Hostname), cli.Plain(r.OS), r.From, when(&r.At), when(&r.Expires)})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func devicesApproveCmd() *cobra.Command {
	var asJSON *bool
	var yes bool
	var approve ops.ApproveRequest
	cmd := &cobra.Command{
		Use:   "approve CODE",
		Short: "Let in the device that shows this code",
		Long: `Lets in the device that shows this code, as weft up --server prints it. It becomes a
device of the network's owner, of --user, or of the service whose token is used.

Approve only a code that you see on the device itself, and that was asked for just now:
whoever sent you a code would get into the network with a device of their own. You are
shown the device first, and asked.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, adm *client.Client) error {
				r, err := adm.Request(ctx, a[0])
				if err != nil {
					return err
				}
				out := cmd.ErrOrStderr()
				if r.SignIn {
					return fmt.Errorf("%s asks to be signed in again: only the person whose device it is can do that, in the console", r.Name)
				}
				fmt.Fprintf(out, "%s, %s, asked from %s %s; it will be named %s\n", cli.Dash(cli.Plain(r.Hostname)), cli.Dash(cli.Plain(r.OS)), cli.Dash(r.From), when(&r.At), r.Name)
				if !yes {
					if err := confirm(cmd, "Do you see this code on that device, and did you start this just now?"); err != nil {
						return err
					}
				}
				d, err := adm.ApproveRequest(ctx, a[0], approve)
				return report(cmd, *asJSON, d, err, "%s is let in, as a device of %s", d.Name, d.User)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&approve.User, "user", "", "whose device it becomes")
	f.StringArrayVar(&approve.Tags, "tag", nil, "tag of the device; may be repeated")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	for _, name := range []string{"user", "tag", "yes"} {
		f.SetAnnotation(name, noEnv, nil)
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func devicesDenyCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "deny CODE|ID",
		Short:             "Refuse a device that asks to join, by its code or by its id in devices waiting",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: complete(requestIDs),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, adm *client.Client) error {
				r, err := adm.DenyRequest(ctx, a[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "request/1", r)
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "refused %s\n", cli.Dash(cli.Plain(r.Hostname)))
				_, err = fmt.Fprintln(cmd.OutOrStdout(), r.ID)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func requestIDs(ctx context.Context, a *client.Client) (words []string, err error) {
	list, err := a.Requests(ctx)
	for _, r := range list {
		words = append(words, r.ID)
	}
	return words, err
}
