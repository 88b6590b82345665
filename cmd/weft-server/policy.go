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
	number := -1 // the policy in force
	return apiVerb{
		use: "show [NUMBER]", short: "Print the policy in force with its comments, or one of the history", args: cobra.MaximumNArgs(1), words: cobra.NoFileCompletions,
		check: func(_ *cobra.Command, a []string) (err error) {
			if len(a) > 0 {
				number, err = policyNumber(a[0])
			}
			return err
		},
		ask: func(ctx context.Context, c *client.Client, _ []string) (got answer, err error) {
			var p ops.PolicyText
			if number >= 0 {
				p, err = c.FormerPolicy(ctx, number)
			} else {
				p, err = c.Policy(ctx)
			}
			got = answer{schema: "policy/1", object: p}
			if p.Text == "" {
				got.said = "weft-server: this is the policy that a network starts with"
				p.Text = policy.StartingText
			}
			got.out = strings.TrimRight(p.Text, "\n") + "\n"
			return got, err
		},
	}.command()
}

func policyNumber(word string) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 {
		return 0, usagef("%q: want the number of a policy; see: weft-server policy history", word)
	}
	return n, nil
}

func policyCheckCmd() *cobra.Command {
	var text string
	var cmd *cobra.Command
	cmd = apiVerb{
		use:   "check FILE",
		short: "Check a policy and change nothing; - is standard input",
		long: `Say what is wrong with a policy, by line, and change nothing. Its tests are run
against the people and devices that there are now. - is standard input.`,
		args:  cobra.ExactArgs(1),
		check: func(cmd *cobra.Command, a []string) (err error) { text, err = readPolicy(cmd, a[0]); return err },
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			r, err := checkPolicy(ctx, cmd, c, a[0], text, nil)
			return answer{schema: "policy-check/1", object: r, said: fmt.Sprintf("%s is good (%s, %s passed); put it into force with: weft-server policy apply %s",
				place(a[0], policy.Remark{}), count(r.Rules, "rule"), count(r.Tests, "test"), cli.Plain(a[0]))}, err
		},
	}.command()
	return cmd
}

func policyDiffCmd() *cobra.Command {
	var text string
	var cmd *cobra.Command
	cmd = apiVerb{
		use: "diff FILE", short: "Show which access a policy would add and take away; - is standard input", args: cobra.ExactArgs(1),
		check: func(cmd *cobra.Command, a []string) (err error) { text, err = readPolicy(cmd, a[0]); return err },
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			r, err := checkPolicy(ctx, cmd, c, a[0], text, nil)
			return answer{schema: "policy-diff/1", object: r, out: changesText(r)}, err
		},
	}.command()
	return cmd
}

func policyApplyCmd() *cobra.Command {
	var match, text string
	var cmd *cobra.Command
	cmd = apiVerb{
		use: "apply FILE", short: "Put a policy into force; - is standard input", args: cobra.ExactArgs(1),
		check: func(cmd *cobra.Command, a []string) (err error) { text, err = readPolicy(cmd, a[0]); return err },
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			var revisions []string
			if match != "" {
				revisions = []string{match}
			}
			before, err := c.Policy(ctx)
			if err != nil {
				return answer{}, err
			}
			if _, err := checkPolicy(ctx, cmd, c, a[0], text, revisions); err != nil {
				return answer{}, err
			}
			p, err := c.SetPolicy(ctx, text, revisions)
			if err != nil {
				return answer{}, inFile(cmd, a[0], err)
			}
			got := inForce(p)
			if p.Number == before.Number {
				got.said = "this policy is in force already"
			}
			return got, nil
		},
	}.command()
	cmd.Flags().StringVar(&match, "match", "", "only if the policy in force has this revision, from policy show --json")
	cmd.Flags().SetAnnotation("match", noEnv, nil)
	return cmd
}

func policyHistoryCmd() *cobra.Command {
	return apiVerb{
		use: "history", short: "List the policies that were in force, the newest first",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := c.PolicyHistory(ctx)
			rows := [][]string{{"NUMBER", "SINCE", "BY", "VIA", "BYTES"}}
			for _, p := range list {
				rows = append(rows, []string{strconv.Itoa(p.Number), when(p.At), p.User, p.Via, strconv.Itoa(p.Bytes)})
			}
			rows = append(rows, []string{"0", "", "", "", "the policy that a network starts with"})
			return answer{schema: "policy-history/1", object: map[string]any{"policies": list}, out: table(rows)}, err
		},
	}.command()
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
					if _, err := fmt.Fprint(cmd.ErrOrStderr(), changesText(r)); err != nil {
						return err
					}
				}
				if !yes {
					if err := confirm(cmd, "Put "+name+" into force?"); err != nil {
						return err
					}
				}
				p, err := c.RevertPolicy(ctx, number, []string{now.Revision})
				if err != nil {
					return inFile(cmd, name, err)
				}
				return inForce(p).print(cmd, *asJSON)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// inForce is the answer of a verb that has put a policy into force.
func inForce(p ops.PolicyText) answer {
	return answer{schema: "policy/1", object: p, said: fmt.Sprintf("the policy is in force, as number %d; devices fetch it within seconds", p.Number)}
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

// readPolicy reads a policy from a file. It refuses an empty file: an empty text stands for the
// starting policy, but is more likely the output of a program that failed.
func readPolicy(cmd *cobra.Command, file string) (string, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read the policy %s: %w", file, cause.Of(err))
		}
		defer opened.Close()
		in = opened
	}
	b, err := io.ReadAll(io.LimitReader(in, policy.MaxText+1))
	if err != nil {
		return "", fmt.Errorf("read the policy %s: %w", file, cause.Of(err))
	}
	return string(b), checkLength(file, b)
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
