package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/localapi"
)

func statusCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "status [NAME]",
		Short:             "Show this node, its peers and what needs attention",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			c := client(cmd)
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if len(a) > 0 {
				p, err := c.Resolve(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				st.Peers = onlyPeer(st.Peers, p)
			}
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), st)
			}
			printStatus(cmd.OutOrStdout(), st, time.Now())
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func onlyPeer(peers []localapi.PeerStatus, p localapi.Peer) []localapi.PeerStatus {
	for _, s := range peers {
		if s.ID == p.ID {
			return []localapi.PeerStatus{s}
		}
	}
	return []localapi.PeerStatus{}
}

func printStatus(w io.Writer, st localapi.Status, now time.Time) {
	server := "no server"
	if st.Server.URL != "" {
		server = cli.Plain(st.Server.URL)
		if !st.Server.Online {
			server += " (away)"
		}
	}
	removed := slices.ContainsFunc(st.Health, func(h localapi.Health) bool { return h.Code == "revoked" })
	switch {
	case removed:
		fmt.Fprintf(w, "%s was removed from this network; to join again, run: weft logout, then weft up TOKEN\n", cli.Plain(st.Self.FQDN))
	case st.State == localapi.StateUnjoined:
		fmt.Fprintln(w, "not joined; join with: weft up TOKEN")
	case st.State == localapi.StateDown:
		fmt.Fprintf(w, "%s is down; start with: weft up\n", cli.Plain(st.Self.FQDN))
	default:
		fmt.Fprintf(w, "%s  %s  %s\n", cli.Plain(st.Self.FQDN), cli.Plain(st.Self.IPv4), cli.Plain(st.Self.IPv6))
		relay := "no relay yet"
		if st.Self.Relay != "" {
			relay = "relay " + cli.Plain(st.Self.Relay)
		}
		fmt.Fprintf(w, "%s, %s, %s\n", st.State, relay, server)
	}
	if len(st.Peers) > 0 {
		fmt.Fprintln(w)
		t := table(w)
		fmt.Fprintln(t, "NAME\tADDRESS\tPATH\tRTT\tRECEIVED\tSENT\tSEEN")
		for _, p := range st.Peers {
			rtt, seen := "-", "now"
			if p.RTTms != nil {
				rtt = fmt.Sprintf("%.1f ms", *p.RTTms)
			}
			if !p.Online {
				seen = ago(p.LastSeen, now)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cli.Dash(p.Name), cli.Dash(p.IPv4), cli.Dash(string(p.Path)), rtt, size(p.RxBytes), size(p.TxBytes), seen)
		}
		t.Flush()
	}
	if len(st.Health) > 0 {
		fmt.Fprintln(w)
		for _, h := range st.Health {
			fmt.Fprintf(w, "! %s (%s)\n", cli.Plain(h.Message), cli.Plain(h.Code))
		}
	}
}
