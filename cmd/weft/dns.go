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
		Short: "Query the daemon's resolver; show and restore this machine's DNS",
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
		Short: "Print the daemon's resolver's answer (A and AAAA unless TYPE is given)",
		Long: `Print the answer of the daemon's resolver, independent of this machine's
own DNS settings. Exit code 5 when the name does not exist.

With --trace, standard error lists the decisions that led to the answer.`,
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
	cmd.Flags().BoolVar(&trace, "trace", false, "print the decisions that led to the answer")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func dnsTraceCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "trace NAME [TYPE]",
		Short:             "Print the daemon's resolver's answer and how it was decided",
		Long:              "Print the answer of the daemon's resolver and, to standard error, the decisions\nthat led to it: weft dns query --trace.",
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

// dnsQuery sends the query and prints the answer.
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

// dnsExit turns the result into an exit code.
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
