package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completeNames completes the first argument to a device name. If the daemon does not
// answer at once, there are no suggestions.
func completeNames(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return deviceNames(cmd, "", typed), cobra.ShellCompDirectiveNoFileComp
}

// completeUserNames completes [USER@]NAME.
func completeUserNames(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	user, name, ok := strings.Cut(typed, "@")
	if !ok {
		return deviceNames(cmd, "", typed), cobra.ShellCompDirectiveNoFileComp
	}
	return deviceNames(cmd, user+"@", name), cobra.ShellCompDirectiveNoFileComp
}

// deviceNames returns prefix + the name of each device that starts with typed.
func deviceNames(cmd *cobra.Command, prefix, typed string) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	names, err := client(cmd).Names(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range names.Peers {
		if !p.Self && strings.HasPrefix(p.Name, strings.ToLower(typed)) {
			out = append(out, prefix+p.Name)
		}
	}
	slices.Sort(out)
	return out
}
