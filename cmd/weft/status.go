package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/age"
	"weft/overlay/fips"
	"weft/overlay/localapi"
	"weft/overlay/status"
)

func statusCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show this node, its peers and what needs attention",
		Long: `Show this node, its peers and what needs attention.

PATH is how packets reach a peer, with a short reason; with a NAME everything known
about that peer is shown. SEEN is "now" if the peer was online a few seconds ago.
The server is asked for that; if it does not answer, "as of" says how old its last
report is.`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			c := client(cmd)
			name := ""
			if len(a) > 0 {
				name = a[0]
			}
			st, err := c.Look(cmd.Context(), name)
			if err != nil {
				return err
			}
			if name != "" {
				p, err := c.Resolve(cmd.Context(), name)
				if err != nil {
					return err
				}
				st.Peers = onlyPeer(st.Peers, p)
			}
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), st)
			}
			printStatus(cmd.OutOrStdout(), st, name != "", time.Now())
			return nil
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// statusJSON prints the output of weft status --json, for verbs that have changed it.
func statusJSON(cmd *cobra.Command, c *localapi.Client) error {
	st, err := c.Status(cmd.Context())
	if err != nil {
		return err
	}
	return cli.PrintJSON(cmd.OutOrStdout(), st)
}

func onlyPeer(peers []status.PeerStatus, p status.Peer) []status.PeerStatus {
	for _, s := range peers {
		if s.ID == p.ID {
			return []status.PeerStatus{s}
		}
	}
	return []status.PeerStatus{}
}

// printStatus prints a status received at now, by this machine's clock: a list of the
// peers, or with whole everything about each.
func printStatus(w io.Writer, st status.Status, whole bool, now time.Time) {
	server := "no server"
	if st.Server.URL != "" {
		server = cli.Plain(st.Server.URL)
		switch {
		case !st.Server.Online && st.Server.LastSeen != nil:
			server += fmt.Sprintf(" (away, last answer %s)", ago(st.Server.LastSeen, now))
		case !st.Server.Online:
			server += " (away)"
		}
	}
	removed := slices.ContainsFunc(st.Health, func(h status.Health) bool { return h.Code == status.CodeRevoked })
	switch {
	case removed:
		fmt.Fprintf(w, "%s was removed from this network; to join again, run: weft logout, then weft up TOKEN\n", cli.Plain(st.Self.FQDN))
	case st.State == status.StateUnjoined:
		fmt.Fprintln(w, "not joined; join with: weft up TOKEN")
	case st.State == status.StateDown:
		fmt.Fprintf(w, "%s is down; start with: weft up\n", cli.Plain(st.Self.FQDN))
	default:
		fmt.Fprintf(w, "%s  %s  %s\n", cli.Plain(st.Self.FQDN), cli.Plain(st.Self.IPv4), cli.Plain(st.Self.IPv6))
		relay := "no relay yet"
		if st.Self.Relay != "" {
			relay = "relay " + cli.Plain(st.Self.Relay)
		}
		fmt.Fprintf(w, "%s, %s, %s\n", st.State, relay, server)
		if m := st.FIPS.Mode; m == fips.On || m == fips.Only {
			fmt.Fprintf(w, "FIPS mode %s, Go Cryptographic Module %s\n", m.Word(), cli.Plain(st.FIPS.Module))
		}
	}
	if st.Self.ReportsIntroductions && !removed {
		fmt.Fprintln(w, "this device reports to its server who introduces themselves to it, and when: the network's owner asked for that")
	}
	said := now // now, by the clock of the peers' times
	if st.Time != nil {
		said = *st.Time
	}
	switch {
	case whole:
		for _, p := range st.Peers {
			fmt.Fprintln(w)
			printPeer(w, st, p, said, now)
		}
	case len(st.Peers) > 0:
		fmt.Fprintln(w)
		t := table(w)
		fmt.Fprintln(t, "NAME\tADDRESS\tPATH\tRTT\tRECEIVED\tSENT\tSEEN")
		for _, p := range st.Peers {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cli.Dash(p.Name), cli.Dash(p.IPv4), pathOf(p), roundTrip(p), size(p.RxBytes), size(p.TxBytes), seen(p, said))
		}
		t.Flush()
	}
	if len(st.Health) > 0 {
		fmt.Fprintln(w)
		for _, h := range st.Health {
			fmt.Fprintf(w, "! %s (%s)\n", cli.Plain(h.Message), cli.Plain(string(h.Code)))
		}
	}
}

// printPeer prints everything about a peer. said is now by the clock of the peer's
// times.
func printPeer(w io.Writer, st status.Status, p status.PeerStatus, said, now time.Time) {
	t := table(w)
	defer t.Flush()
	line := liner(t)
	line("name", cli.Plain(cmp.Or(p.FQDN, p.Name)))
	line("addresses", strings.TrimSpace(cli.Plain(p.IPv4)+"  "+cli.Plain(p.IPv6)))
	line("id", cli.Plain(p.ID))
	line("seen", seen(p, said))
	line("path", cli.Dash(p.Path.Words()))
	line("why", cli.Plain(p.PathReason))
	line("endpoint", cli.Plain(p.Endpoint))
	line("relay", cli.Plain(p.Relay))
	if p.KeyExchange == "" {
		return // no tunnel: there is nothing else to print
	}
	line("round trip", roundTrip(p))
	line("received", size(p.RxBytes))
	line("sent", size(p.TxBytes))
	printKeys(line, st, p, said, now)
}

// liner returns a function that prints a line of a table, unless the value is empty.
func liner(t io.Writer) func(key, value string) {
	return func(key, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", key, value)
		}
	}
}

// printKeys prints how the packets of a tunnel are encrypted. A daemon of an older version
// says less.
func printKeys(line func(key, value string), st status.Status, p status.PeerStatus, said, now time.Time) {
	switch p.Suite {
	case "aes":
		line("encryption", "AES-256-GCM (suite aes), under keys of this connection alone")
	case "wireguard":
		line("encryption", "ChaCha20-Poly1305 (suite wireguard), under keys of this connection alone")
	default:
		line("encryption", cli.Plain(p.Suite))
	}
	line("keys", cli.Plain(p.KeyExchange))
	if p.LastHandshake != nil {
		line("handshake", ago(p.LastHandshake, now))
	}
	if p.KeysSince != nil && p.KeysPackets != nil {
		line("in use", fmt.Sprintf("since %s ago, for %d packets sent", age.Of(max(said.Sub(*p.KeysSince), 0)), *p.KeysPackets))
	}
}

func roundTrip(p status.PeerStatus) string {
	if p.RTTms == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", *p.RTTms)
}

// pathOf is how packets reach a peer, with a short reason.
func pathOf(p status.PeerStatus) string {
	if p.PathNote == "" {
		return cli.Dash(p.Path.Words())
	}
	return cli.Plain(p.Path.Words() + ": " + p.PathNote)
}

// freshFor is how old the presence of a peer may be to count as current.
const freshFor = 10 * time.Second

// seen says whether a peer is online. If the server could not be asked, the age of the
// report stands beside it.
func seen(p status.PeerStatus, now time.Time) string {
	asOf := ""
	if p.PresenceAt != nil && now.Sub(*p.PresenceAt) >= freshFor {
		asOf = "as of " + ago(p.PresenceAt, now)
	}
	heard := p.LastSeen != nil && now.Sub(*p.LastSeen) >= freshFor
	switch {
	case p.Online && p.PresenceAt == nil: // from a daemon of an older version
		return "online"
	case p.Online && asOf != "":
		return "online, " + asOf
	case p.Online && heard: // it might have lost power since
		return "online, heard " + ago(p.LastSeen, now)
	case p.Online:
		return "now"
	case p.PresenceAt != nil && p.LastSeen == nil:
		return strings.TrimSuffix("offline, "+asOf, ", ")
	case asOf != "":
		return ago(p.LastSeen, now) + ", " + asOf
	}
	return ago(p.LastSeen, now)
}
