package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/policy"
	"weft/coord/webapi/client"
	"weft/overlay/cause"
)

func policyCmd() *cobra.Command {
	cmd := group("policy", "Show, check and set who may reach whom", policyShowCmd(), policyCheckCmd(), policyApplyCmd())
	cmd.Long = `Shows, checks and sets who may reach whom: a list of rules, and what no rule
allows is denied. Until one is set, users reach their own devices and tagged
devices reach nobody.

  weft-server policy show >policy.json
  weft-server policy check policy.json
  weft-server policy apply policy.json`
	return cmd
}

func policyShowCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "show",
		Short:             "Print the policy as it was written",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				p, err := c.Policy(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "policy/1", p)
				}
				if p.Text == "" {
					fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: no policy was set yet; this is the one that a network starts with")
					b, err := json.MarshalIndent(policy.Starting(), "", "  ")
					if err != nil {
						return err
					}
					p.Text = string(b)
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(p.Text, "\n"))
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func policyCheckCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a policy, and change nothing; - is standard input",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := readPolicy(cmd, a[0])
			if err != nil {
				return err
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				if err := c.CheckPolicy(ctx, text); err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "policy-check/1", map[string]bool{"good": true})
				}
				_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s is good; put it into force with: weft-server policy apply %s\n", cli.Plain(a[0]), cli.Plain(a[0]))
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func policyApplyCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Put a policy into force; - is standard input",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := readPolicy(cmd, a[0])
			if err != nil {
				return err
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				p, err := c.SetPolicy(ctx, text, nil)
				switch {
				case err != nil:
					return err
				case *asJSON:
					return cli.PrintObject(cmd.OutOrStdout(), "policy/1", p)
				}
				_, err = fmt.Fprintln(cmd.ErrOrStderr(), "the policy is in force; devices fetch it within seconds")
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// readPolicy reads a policy. An empty one, which would be the starting one, is more
// likely the file of a program that failed.
func readPolicy(cmd *cobra.Command, file string) (string, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read the policy %s: %w", file, cause.Of(err))
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, policy.MaxText+1))
	if err != nil {
		return "", fmt.Errorf("read the policy %s: %w", file, cause.Of(err))
	}
	switch {
	case len(b) > policy.MaxText:
		return "", usagef("%s: longer than %d bytes, which no policy is", file, policy.MaxText)
	case strings.TrimSpace(string(b)) == "":
		return "", usagef("%s: there is nothing in it; no rules at all are written as {\"rules\":[]}", file)
	}
	return string(b), nil
}
