package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// VersionFlag gives the root command --version, which does what the version verb
// does, and help for no arguments at all.
func VersionFlag(root *cobra.Command, version func(*cobra.Command) error) {
	show := root.Flags().Bool("version", false, "print the version")
	root.DisableSuggestions = true // they would take three lines; see UnknownCommand
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *show {
			return version(cmd)
		}
		return cmd.Help()
	}
}

// Completion adds the verb that prints completions. Unlike cobra's own it does not
// take a shell that it does not know for a wish for help. It writes where root does
// now. wrap makes a usage error.
func Completion(root *cobra.Command, wrap func(error) error) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(cmd *cobra.Command, a []string) error {
			if len(a) == 0 {
				return wrap(fmt.Errorf("say for which shell, such as: %s bash", cmd.CommandPath()))
			}
			return wrap(UnknownCommand(cmd, a[0]))
		}
	}
}

// UnknownCommand says that cmd has no verb of that name and, on the same line,
// which one may have been meant.
func UnknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	hint := ""
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "? "
	}
	return fmt.Errorf("unknown command %q for %q; %ssee: %s --help", name, cmd.CommandPath(), hint, cmd.CommandPath())
}

// Unknown returns wrap of UnknownCommand for cobra's own "unknown command", and
// any other error as it is.
func Unknown(root *cobra.Command, err error, wrap func(error) error) error {
	rest, ok := strings.CutPrefix(err.Error(), "unknown command ")
	if !ok || errors.Unwrap(err) != nil { // the latter is one that was wrapped before
		return err
	}
	quoted, qerr := strconv.QuotedPrefix(rest)
	name, uerr := strconv.Unquote(quoted)
	if qerr != nil || uerr != nil {
		return wrap(err)
	}
	return wrap(UnknownCommand(root, name))
}

// FlagError says what is wrong with a flag in words of the command line.
func FlagError(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		err = fmt.Errorf("--%s %q: %s", value.GetFlag().Name, Plain(value.GetValue()), Wanted(value.GetFlag()))
	}
	return fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())
}

// Wanted says what a flag takes.
func Wanted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int", "uint", "int64", "uint64":
		return "want a whole number"
	case "duration":
		return "want a time such as 500ms, 30s or 2m"
	case "bool":
		return "want true or false"
	}
	return "that does not fit"
}
