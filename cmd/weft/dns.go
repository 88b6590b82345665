package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/localapi"
)

func dnsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Ask the daemon's resolver, see and restore this machine's DNS",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("usage: weft dns query NAME [TYPE], weft dns status or weft dns restore")
		},
	}
	cmd.AddCommand(dnsQueryCmd(), dnsStatusCmd(), dnsRestoreCmd())
	return cmd
}

func dnsQueryCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "query NAME [TYPE]",
		Short: "Print what the daemon's resolver answers (A and AAAA unless TYPE is given)",
		Long: `Print what the daemon's resolver answers, without going through this machine's
own DNS settings. Exit code 5 when the name does not exist.`,
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			qtype := ""
			if len(a) > 1 {
				qtype = strings.ToUpper(a[1])
			}
			ans, err := client(cmd).DNS(cmd.Context(), a[0], qtype)
			if err != nil {
				return err
			}
			if *asJSON {
				if err := cli.PrintJSON(cmd.OutOrStdout(), ans); err != nil {
					return err
				}
			} else {
				for _, rr := range ans.Answers {
					fmt.Fprintln(cmd.OutOrStdout(), cli.Plain(strings.ReplaceAll(rr, "\t", " ")))
				}
			}
			return dnsExit(a[0], ans)
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// dnsExit makes the outcome an exit code.
func dnsExit(name string, a localapi.DNSAnswer) error {
	why := ""
	if a.Note != "" {
		why = " (" + cli.Plain(a.Note) + ")"
	}
	switch {
	case a.Rcode == "NOERROR" && len(a.Answers) > 0:
		return nil
	case a.Rcode == "NOERROR":
		return &localapi.Error{Kind: localapi.KindUnknown, Message: name + " exists, but has no such record" + why}
	case a.Rcode == "NXDOMAIN":
		return &localapi.Error{Kind: localapi.KindUnknown, Message: name + " does not exist" + why}
	default:
		return &localapi.Error{Kind: localapi.KindUnavailable, Message: "the answer for " + name + " is " + a.Rcode + why}
	}
}
