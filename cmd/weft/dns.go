package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/dns"
	"weft/overlay/localapi"
	"weft/overlay/status"
)

func dnsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Ask the daemon's resolver, see and restore this machine's DNS",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			if len(a) > 0 {
				return usageError{cli.UnknownCommand(cmd, a[0])}
			}
			return usagef("usage: weft dns query NAME [TYPE], weft dns trace NAME [TYPE], weft dns status, weft dns flush or weft dns restore")
		},
	}
	cmd.AddCommand(dnsQueryCmd(), dnsTraceCmd(), dnsStatusCmd(), dnsFlushCmd(), dnsRestoreCmd())
	return cmd
}

func dnsQueryCmd() *cobra.Command {
	var asJSON *bool
	var qtype string
	var trace bool
	cmd := &cobra.Command{
		Use:   "query NAME [TYPE]",
		Short: "Print what the daemon's resolver answers (A and AAAA unless TYPE is given)",
		Long: `Print what the daemon's resolver answers, without going through this machine's
own DNS settings. Exit code 5 when the name does not exist.

With --trace also print, to standard error, how the answer was decided.`,
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			if len(a) > 1 {
				if qtype != "" {
					return usagef("give the type once: %s or --type %s", a[1], qtype)
				}
				qtype = a[1]
			}
			return dnsQuery(cmd, a[0], strings.ToUpper(qtype), trace, *asJSON)
		},
	}
	cmd.Flags().StringVarP(&qtype, "type", "t", "", "record type, such as AAAA, TXT or TYPE65")
	cmd.Flags().BoolVar(&trace, "trace", false, "print how the answer was decided")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func dnsTraceCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "trace NAME [TYPE]",
		Short:             "Print what the daemon's resolver answers and how that was decided",
		Long:              "Print what the daemon's resolver answers and, to standard error, how that was\ndecided: weft dns query --trace.",
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			qtype := ""
			if len(a) > 1 {
				qtype = strings.ToUpper(a[1])
			}
			return dnsQuery(cmd, a[0], qtype, true, *asJSON)
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// dnsQuery asks and prints.
func dnsQuery(cmd *cobra.Command, name, qtype string, trace, asJSON bool) error {
	ascii, err := dns.ASCIIName(name)
	if err != nil {
		return usagef("dns query: %v", err)
	}
	ask := client(cmd).DNS
	if trace {
		ask = client(cmd).DNSTrace
	}
	ans, err := ask(cmd.Context(), ascii, qtype)
	if err != nil {
		return err
	}
	if asJSON {
		if err := cli.PrintJSON(cmd.OutOrStdout(), ans); err != nil {
			return err
		}
	} else {
		for _, st := range ans.Steps {
			fmt.Fprintf(cmd.ErrOrStderr(), "%-10s %s\n", st.Stage, cli.Plain(st.Text))
		}
		for _, rr := range ans.Answers {
			fmt.Fprintln(cmd.OutOrStdout(), cli.Plain(strings.ReplaceAll(rr, "\t", " ")))
		}
	}
	return dnsExit(name, ans)
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
		return &status.Error{Kind: status.KindUnknown, Message: name + " exists, but has no such record" + why}
	case a.Rcode == "NXDOMAIN":
		return &status.Error{Kind: status.KindUnknown, Message: name + " does not exist" + why}
	default:
		return &status.Error{Kind: status.KindUnavailable, Message: "the answer for " + name + " is " + a.Rcode + why}
	}
}
