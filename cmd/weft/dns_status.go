package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/dns"
	"weft/overlay/localapi"
)

// dnsStatus is the output of weft dns status --json.
type dnsStatus struct {
	Schema   string         `json:"schema"` // "dns-status/1"
	Resolver dns.Status     `json:"resolver"`
	System   localapi.OSDNS `json:"system"`
}

func dnsStatusCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the daemon's resolver, and how this machine's DNS is set and why",
		Long: `Show the daemon's resolver: the zones it answers, the upstreams for other names
and their state, its cache, its counters since the start; then what was found and
set in this machine's DNS, and why.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := dnsStatus{Schema: "dns-status/1"}
			if err := client(cmd).DNSStatus(cmd.Context(), &s.Resolver); err != nil {
				return err
			}
			var err error
			if s.System, err = client(cmd).OSDNS(cmd.Context()); err != nil {
				return err
			}
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), s)
			}
			printResolver(cmd.OutOrStdout(), s.Resolver)
			printOSDNS(cmd, s.System)
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// printResolver prints the resolver's state, one fact per line.
func printResolver(out io.Writer, s dns.Status) {
	line := func(key, format string, args ...any) {
		fmt.Fprintf(out, "%-10s %s\n", key, cli.Plain(fmt.Sprintf(format, args...)))
	}
	line("listens", "%s", cmp.Or(strings.Join(s.Listen, ", "), "nowhere (weft run --dns)"))
	switch {
	case s.Suffix == "":
		line("names", "none yet: not connected to a network")
	case s.Complete:
		line("names", "%d devices in %s", s.Names, s.Suffix)
	default:
		line("names", "%d devices in %s are known here, others are looked up", s.Names, s.Suffix)
	}
	line("zones", "%s", cmp.Or(strings.Join(s.Zones, ", "), "none yet"))
	if s.Records+s.Aliases > 0 {
		line("records", "%d beside the devices, %d former names", s.Records, s.Aliases)
	}
	if s.Portal {
		line("portal", "this network requires a sign-in first: the machine's own resolvers are used")
	}
	upstreams := func(key string, l []dns.UpstreamStatus) {
		for _, u := range l {
			line(key, "%s", upstreamLine(u))
			key = ""
		}
		if len(l) == 0 {
			line(key, "nobody")
		}
	}
	upstreams("asks", s.Upstreams)
	for _, r := range s.Routes {
		line("route", "%s", r.Suffix)
		upstreams("", r.Upstreams)
	}
	line("cache", "%d answers, %d of %d KB", s.Cache.Entries, (s.Cache.Bytes+1023)>>10, s.Cache.MaxBytes>>10)
	var counts []string
	for name, n := range s.Counters {
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%s %d", name, n))
		}
	}
	slices.Sort(counts)
	line("counters", "%s", cmp.Or(strings.Join(counts, ", "), "no queries yet"))
	for _, p := range s.Problems {
		line("problem", "%s is not used: %s", p.Part, p.Text)
	}
}

// upstreamLine describes one resolver on one line.
func upstreamLine(u dns.UpstreamStatus) string {
	b := u.Address + " " + u.State
	if u.RTTms > 0 {
		b += fmt.Sprintf(", %.0f ms", u.RTTms)
	}
	if u.Asked > 0 {
		b += fmt.Sprintf(", %d of %d answered", u.Answered, u.Asked)
	}
	if u.Preferred {
		b += ", asked first"
	}
	if u.Error != "" {
		b += ": " + u.Error
	}
	return b
}

func dnsFlushCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "flush",
		Short:             "Clear the daemon's resolver's cache",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := client(cmd).DNSFlush(cmd.Context())
			if err != nil {
				return err
			}
			if *asJSON {
				return cli.PrintObject(cmd.OutOrStdout(), "dns-flush/1", f)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d answers forgotten\n", f.Answers)
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}
