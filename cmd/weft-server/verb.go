package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/webapi/client"
)

// apiVerb describes a verb that makes a request to the server's API and prints the answer. It
// holds what differs between these verbs; command makes the verb, which also has --json.
//
// The verb runs in this order, and ends at the first error: args, check, ask, then the answer is
// printed. A verb with flags of its own keeps their values in variables that check and ask use,
// and adds the flags to the command.
type apiVerb struct {
	use, short, long string
	// args checks how many arguments there are. If it is nil, the verb takes none.
	args cobra.PositionalArgs
	// words completes the arguments, if the verb takes some. If it is nil, shells complete them
	// with the names of files.
	words cobra.CompletionFunc
	// check finds the mistakes in flags and arguments that can be found without a server, and
	// leaves what it has parsed in variables for ask. It may be nil.
	check func(cmd *cobra.Command, a []string) error
	// ask makes the request. The answer beside an error is not printed.
	ask func(ctx context.Context, c *client.Client, a []string) (answer, error)
}

func (v apiVerb) command() *cobra.Command {
	if v.args == nil {
		v.args, v.words = cobra.NoArgs, cobra.NoFileCompletions
	}
	cmd := &cobra.Command{Use: v.use, Short: v.short, Long: v.long, Args: args(v.args), ValidArgsFunction: v.words}
	asJSON := cli.JSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if v.check != nil {
			if err := v.check(cmd, a); err != nil {
				return err
			}
		}
		return withServer(cmd, func(ctx context.Context, c *client.Client) error {
			got, err := v.ask(ctx, c, a)
			if err != nil {
				return err
			}
			return got.print(cmd, *asJSON)
		})
	}
	return cmd
}

// answer is what a verb prints: with --json the object, and else said and out, of which one may
// be "". Neither has to end with a line break.
type answer struct {
	schema string // the form of the object, with its version: "device/1"
	object any    // encoded as a JSON object
	said   string // a message for people, on standard error
	out    string // what was asked for, on standard output
	// fault is set if the server answered that something is wrong. The verb fails with it, with
	// --json after it has printed the object.
	fault error
}

func (a answer) print(cmd *cobra.Command, asJSON bool) (err error) {
	if asJSON {
		if err := cli.PrintObject(cmd.OutOrStdout(), a.schema, a.object); err != nil {
			return err
		}
	}
	if a.fault != nil || asJSON {
		return a.fault
	}
	if a.said != "" {
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), a.said)
	}
	if a.out != "" { // the message on standard error is then not what matters, nor is its error
		_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSuffix(a.out, "\n"))
	}
	return err
}

// complete makes a completion of the first argument with the words that list returns.
func complete(list func(context.Context, *client.Client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(a) > 0 || fromEnv(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cmd.SetContext(context.WithoutCancel(cmd.Context()))
		var words []string
		withServer(cmd, func(ctx context.Context, c *client.Client) (err error) {
			words, err = list(ctx, c)
			return err
		})
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
