package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/policy"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
	"weft/overlay/cause"
)

func policyCmd() *cobra.Command {
	cmd := group("policy", "Show, edit, check and set who may reach whom",
		policyShowCmd(), policyEditCmd(), policyCheckCmd(), policyDiffCmd(), policyApplyCmd(), policyHistoryCmd(), policyRevertCmd())
	cmd.Long = `Shows, checks and sets who may reach whom: a list of rules, and what no rule
allows is denied. Until one is set, users reach their own devices and tagged
devices reach nobody. A policy is JSON with comments, and is kept as it is typed.

  weft-server policy edit
  weft-server policy show >policy.hujson
  weft-server policy check policy.hujson
  weft-server policy diff policy.hujson
  weft-server policy apply policy.hujson
  weft-server policy history`
	return cmd
}

func policyShowCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "show [NUMBER]",
		Short:             "Print the policy in force with its comments, or one of the history",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, a []string) error {
			number := -1
			if len(a) > 0 {
				var err error
				if number, err = policyNumber(a[0]); err != nil {
					return err
				}
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				var p ops.PolicyText
				var err error
				if number >= 0 {
					p, err = c.FormerPolicy(ctx, number)
				} else {
					p, err = c.Policy(ctx)
				}
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "policy/1", p)
				}
				if p.Text == "" {
					fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: this is the policy that a network starts with")
					p.Text = policy.StartingText
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(p.Text, "\n"))
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func policyNumber(word string) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 {
		return 0, usagef("%q: want the number of a policy; see: weft-server policy history", word)
	}
	return n, nil
}

func policyCheckCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a policy and change nothing; - is standard input",
		Long: `Say what is wrong with a policy, by line, and change nothing. Its tests are run
against the people and devices that there are now. - is standard input.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withPolicy(cmd, a[0], func(ctx context.Context, c *client.Client, text string) error {
				r, err := checkPolicy(ctx, cmd, c, a[0], text, nil)
				switch {
				case err != nil:
					return err
				case *asJSON:
					return cli.PrintObject(cmd.OutOrStdout(), "policy-check/1", r)
				}
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s is good (%s, %s passed); put it into force with: weft-server policy apply %s\n",
					place(a[0], policy.Remark{}), count(r.Rules, "rule"), count(r.Tests, "test"), cli.Plain(a[0]))
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func policyDiffCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Show which access a policy would add and take away; - is standard input",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withPolicy(cmd, a[0], func(ctx context.Context, c *client.Client, text string) error {
				r, err := checkPolicy(ctx, cmd, c, a[0], text, nil)
				switch {
				case err != nil:
					return err
				case *asJSON:
					return cli.PrintObject(cmd.OutOrStdout(), "policy-diff/1", r)
				}
				return printChanges(cmd.OutOrStdout(), r)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func policyApplyCmd() *cobra.Command {
	var asJSON *bool
	var match string
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Put a policy into force; - is standard input",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return withPolicy(cmd, a[0], func(ctx context.Context, c *client.Client, text string) error {
				var revisions []string
				if match != "" {
					revisions = []string{match}
				}
				before, err := c.Policy(ctx)
				if err != nil {
					return err
				}
				if _, err := checkPolicy(ctx, cmd, c, a[0], text, revisions); err != nil {
					return err
				}
				p, err := c.SetPolicy(ctx, text, revisions)
				switch {
				case err != nil:
					return inFile(cmd, a[0], err)
				case *asJSON:
					return cli.PrintObject(cmd.OutOrStdout(), "policy/1", p)
				case p.Number == before.Number:
					_, err = fmt.Fprintln(cmd.ErrOrStderr(), "this policy is in force already")
					return err
				}
				return inForce(cmd, p)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().StringVar(&match, "match", "", "only if the policy in force has this revision, from policy show --json")
	cmd.Flags().SetAnnotation("match", noEnv, nil)
	return cmd
}

func policyHistoryCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "history",
		Short:             "List the policies that were in force, the newest first",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				list, err := c.PolicyHistory(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "policy-history/1", map[string]any{"policies": list})
				}
				rows := [][]string{{"NUMBER", "SINCE", "BY", "VIA", "BYTES"}}
				for _, p := range list {
					rows = append(rows, []string{strconv.Itoa(p.Number), when(p.At), p.User, p.Via, strconv.Itoa(p.Bytes)})
				}
				rows = append(rows, []string{"0", "", "", "", "the policy that a network starts with"})
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func policyRevertCmd() *cobra.Command {
	var asJSON *bool
	var yes bool
	cmd := &cobra.Command{
		Use:   "revert NUMBER",
		Short: "Put a policy of the history into force again",
		Long: `Put a policy of the history into force again, after its tests have passed. Shows
who gains and loses what, and asks. 0 is the policy that a network starts with.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, a []string) error {
			number, err := policyNumber(a[0])
			if err != nil {
				return err
			}
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				now, err := c.Policy(ctx)
				if err != nil {
					return err
				}
				old, err := c.FormerPolicy(ctx, number)
				if err != nil {
					return err
				}
				name := "policy " + a[0]
				r, err := checkPolicy(ctx, cmd, c, name, old.Text, []string{now.Revision})
				if err != nil {
					return err
				}
				if !*asJSON {
					if err := printChanges(cmd.ErrOrStderr(), r); err != nil {
						return err
					}
				}
				if !yes {
					if err := confirm(cmd, "Put "+name+" into force?"); err != nil {
						return err
					}
				}
				p, err := c.RevertPolicy(ctx, number, []string{now.Revision})
				switch {
				case err != nil:
					return inFile(cmd, name, err)
				case *asJSON:
					return cli.PrintObject(cmd.OutOrStdout(), "policy/1", p)
				}
				return inForce(cmd, p)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func inForce(cmd *cobra.Command, p ops.PolicyText) error {
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "the policy is in force, as number %d; devices fetch it within seconds\n", p.Number)
	return err
}

// confirm asks a question on the terminal. It returns an error for the answer no, and if there
// is no terminal.
func confirm(cmd *cobra.Command, question string) error {
	if !cli.IsTerminal(cmd.InOrStdin()) {
		return usagef("nothing was changed: there is no terminal to ask on; use --yes")
	}
	if !cli.Confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), question) {
		return errors.New("nothing was changed")
	}
	return nil
}

// withPolicy is withServer for a policy in a file. It refuses an empty file: an empty text stands
// for the starting policy, but is more likely the output of a program that failed.
func withPolicy(cmd *cobra.Command, file string, f func(ctx context.Context, c *client.Client, text string) error) error {
	in := cmd.InOrStdin()
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("read the policy %s: %w", file, cause.Of(err))
		}
		defer opened.Close()
		in = opened
	}
	b, err := io.ReadAll(io.LimitReader(in, policy.MaxText+1))
	if err != nil {
		return fmt.Errorf("read the policy %s: %w", file, cause.Of(err))
	}
	if err := checkLength(file, b); err != nil {
		return err
	}
	return withServer(cmd, func(ctx context.Context, c *client.Client) error { return f(ctx, c, string(b)) })
}

func checkLength(file string, text []byte) error {
	switch {
	case len(text) > policy.MaxText:
		return usagef("%s: it is longer than %d bytes, the most for a policy", file, policy.MaxText)
	case strings.TrimSpace(string(text)) == "":
		return usagef("%s: it is empty; to allow nothing, write {\"rules\":[]}", file)
	}
	return nil
}

// checkPolicy checks a policy and prints the warnings.
func checkPolicy(ctx context.Context, cmd *cobra.Command, c *client.Client, file, text string, match []string) (ops.PolicyCheck, error) {
	// Parse the text here first, so that a text that cannot be sent as JSON gets the same errors.
	if _, err := policy.Parse(text); err != nil {
		if e, ok := errors.AsType[*policy.Error](err); ok {
			return ops.PolicyCheck{}, wrongLines(cmd, file, e.Problems)
		}
		return ops.PolicyCheck{}, err
	}
	r, err := c.CheckPolicy(ctx, text, match)
	if err != nil {
		return r, inFile(cmd, file, err)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: %s\n", place(file, w), cli.Plain(w.Text))
	}
	return r, nil
}

// inFile prints the mistakes in a policy, if err is about some, with their places in the file,
// and returns an error for them. It returns other errors unchanged.
func inFile(cmd *cobra.Command, file string, err error) error {
	p, ok := errors.AsType[*webapi.Problem](err)
	if !ok || len(p.Errors) == 0 {
		return err
	}
	return wrongLines(cmd, file, p.Errors)
}

func wrongLines(cmd *cobra.Command, file string, list []policy.Remark) error {
	if len(list) == 1 {
		return usagef("%s: %s", place(file, list[0]), cli.Plain(list[0].Text))
	}
	for _, r := range list {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", place(file, r), cli.Plain(r.Text))
	}
	return usagef("%s: %d mistakes; nothing was changed", place(file, policy.Remark{}), len(list))
}

// place returns FILE:LINE:COLUMN, as compilers print it.
func place(file string, r policy.Remark) string {
	if file == "-" {
		file = "standard input"
	}
	if r.Line == 0 {
		return cli.Plain(file)
	}
	return fmt.Sprintf("%s:%d:%d", cli.Plain(file), r.Line, r.Column)
}
