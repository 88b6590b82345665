package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/netcheck"
)

func netcheckCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "netcheck",
		Short:             "Measure the connections to the server and the relays, and check what hinders direct paths",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := client(cmd).Netcheck(cmd.Context())
			if err != nil {
				return err
			}
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), n)
			}
			printNetcheck(cmd.OutOrStdout(), n)
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// noAnswer says once why there was no answer: a daemon of another version may have
// included these words itself.
func noAnswer(why string) string {
	return "no answer: " + cli.Plain(strings.TrimPrefix(why, "no answer: "))
}

func printNetcheck(w io.Writer, n netcheck.Report) {
	t := table(w)
	for _, l := range n.Links {
		what := noAnswer(l.Error)
		if l.RTTms != nil {
			what = fmt.Sprintf("%.1f ms", *l.RTTms)
		}
		if l.Current {
			what += "  (home)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.Kind, cli.Plain(l.URL), what)
	}
	for _, s := range n.STUN {
		what := noAnswer(s.Error)
		if s.RTTms != nil {
			what = fmt.Sprintf("%.1f ms, seen as %s", *s.RTTms, cli.Plain(s.Endpoint))
		}
		fmt.Fprintf(t, "udp\t%s\t%s\n", cli.Plain(s.Server), what)
	}
	t.Flush()
	if len(n.Links) == 0 {
		fmt.Fprintln(w, "nothing to measure yet: this node knows no server; join with: weft up TOKEN")
		return
	}
	t = table(w)
	for _, f := range []struct {
		name string
		c    netcheck.FamilyCheck
	}{{"IPv4", n.IPv4}, {"IPv6", n.IPv6}} {
		text := cli.Plain(f.c.Text)
		if f.c.UDP {
			text = "UDP works; seen from outside this device is " + cli.Plain(f.c.Endpoint) + "; " + text
		}
		fmt.Fprintf(t, "%s\t%s\n", f.name, text)
	}
	fmt.Fprintf(t, "port mapping\t%s\n", cli.Plain(n.PortMapping.Text))
	t.Flush()
	fmt.Fprintln(w, cli.Plain(n.Direct))
}
