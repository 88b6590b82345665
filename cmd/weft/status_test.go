package main

import (
	"strings"
	"testing"
	"time"

	"weft/overlay/status"
)

func TestSeen(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { v := now.Add(-d); return &v }
	for _, c := range []struct {
		online           bool
		presence, seenAt *time.Time
		want             string
	}{
		{true, at(0), at(0), "now"},
		{true, at(4 * time.Second), at(9 * time.Second), "now"},
		{true, at(-time.Second), nil, "now"}, // a clock that is slightly wrong
		{true, at(time.Second), at(52 * time.Second), "online, heard 52 s ago"},
		{true, at(21 * time.Minute), at(21 * time.Minute), "online, as of 21 min ago"},
		{true, at(12 * time.Second), nil, "online, as of 12 s ago"},
		{false, at(0), at(time.Second), "a moment ago"},
		{false, at(0), at(21 * time.Minute), "21 min ago"},
		{false, at(0), nil, "offline"},
		{false, at(12 * time.Minute), nil, "offline, as of 12 min ago"},
		{false, at(12 * time.Minute), at(3 * time.Hour), "3 h ago, as of 12 min ago"},
		{false, nil, nil, "-"}, // the server has not been asked yet
		{true, nil, nil, "online"},
		{false, nil, at(72 * time.Hour), "3 days ago"},
	} {
		p := status.PeerStatus{Online: c.online, PresenceAt: c.presence, LastSeen: c.seenAt}
		if got := seen(p, now); got != c.want {
			t.Errorf("online %v, known at %v, seen at %v: %q, want %q", c.online, c.presence, c.seenAt, got, c.want)
		}
	}
}

// The list has one line per peer with a short reason; for an unreachable server it says
// since when; times of peers use the server's clock, whatever this machine's clock
// shows.
func TestPrintStatus(t *testing.T) {
	said := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	here := said.AddDate(-50, 0, 0) // a clock without a battery
	packets, began := uint64(1234), said.Add(-80*time.Second)
	answered, off := here.Add(-12*time.Minute), said.Add(-21*time.Minute)
	st := status.Status{
		State: status.StateRunning, Time: &said,
		Server: status.ServerStatus{URL: "https://weft.example:8443", LastSeen: &answered},
		Self:   status.SelfStatus{FQDN: "laptop.weft.internal", IPv4: "100.64.0.1", IPv6: "fd00::1", Relay: "home"},
		Peers: []status.PeerStatus{
			{Name: "pi", IPv4: "100.64.0.2", Online: true, PresenceAt: &said, Path: status.PathRelay, PathReason: "both sides are behind NATs; a port mapping would make it direct", PathNote: "both behind hard NATs", KeyExchange: "X25519MLKEM768", Suite: "aes", KeysSince: &began, KeysPackets: &packets, Relay: "home"},
			{Name: "attic", IPv4: "100.64.0.3", PresenceAt: &said, LastSeen: &off, Path: status.PathOffline, PathReason: "not connected to a relay"},
			{Name: "nas", IPv4: "100.64.0.4", Online: true, PresenceAt: &said, Path: status.PathLane, PathNote: "no port mapping"},
			{Name: "evil\x1b[2J", Path: status.PathKind("x\n"), PathNote: "y\r"},
		},
	}
	var list, one strings.Builder
	printStatus(&list, st, false, here)
	want := `laptop.weft.internal  100.64.0.1  fd00::1
running, relay home, https://weft.example:8443 (away, last answer 12 min ago)

NAME       ADDRESS     PATH                          RTT  RECEIVED  SENT  SEEN
pi         100.64.0.2  relay: both behind hard NATs  -    0 B       0 B   now
attic      100.64.0.3  offline                       -    0 B       0 B   21 min ago
nas        100.64.0.4  relayed UDP: no port mapping  -    0 B       0 B   now
evil?[2J   -           x?: y?                        -    0 B       0 B   -
`
	if got := list.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") || strings.Count(got, "\n") != strings.Count(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	list.Reset()
	st.Self.ReportsIntroductions = true
	if printStatus(&list, st, false, here); !strings.Contains(list.String(), "\nthis device reports to its server who introduces themselves to it, and when") {
		t.Errorf("got:\n%s", list.String())
	}
	st.Peers = st.Peers[:1]
	printStatus(&one, st, true, here)
	for _, line := range []string{"why         both sides are behind NATs; a port mapping would make it direct\n", "relay       home\n", "seen        now\n", "keys        X25519MLKEM768\n",
		"encryption  AES-256-GCM (suite aes), under keys of this connection alone\n", "in use      since 80 s ago, for 1234 packets sent\n"} {
		if !strings.Contains(one.String(), line) {
			t.Errorf("%q is not in:\n%s", line, one.String())
		}
	}
}
