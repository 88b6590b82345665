package status

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/path"
)

func TestPresenceAt(t *testing.T) {
	now := time.Now()
	at := func(s float64) time.Time { return now.Add(-time.Duration(s * float64(time.Second))) }
	never := time.Time{}
	for _, c := range []struct {
		name       string
		online     bool
		reported   time.Time
		tunnel     bool
		made, gone time.Time
		received   time.Time
		want       Presence
	}{
		{"nothing is known", false, never, false, never, never, never, Presence{false, never}},
		{"as the server reports", true, at(700), false, never, never, never, Presence{true, at(700)}},
		{"reported online, then gone", true, at(700), true, at(600), at(3), at(400), Presence{false, at(3)}},
		{"a tunnel since", false, at(700), true, at(600), never, never, Presence{true, at(600)}},
		{"a tunnel with a received packet", false, at(700), true, at(600), never, at(50), Presence{true, at(50)}},
		{"gone, but a packet came later", true, at(700), true, at(600), at(80), at(50), Presence{true, at(50)}},
		{"the server has reported it offline since", false, at(1), true, at(600), never, at(50), Presence{false, at(1)}},
		{"a packet a second ago, whatever the server reports", false, at(0), true, at(600), never, at(1), Presence{true, at(1)}},
		{"a packet a second ago, whatever the relay reports", true, at(9), true, at(600), at(0.5), at(1), Presence{true, at(1)}},
	} {
		p := PeerFacts{Reported: Presence{c.online, c.reported}}
		if c.tunnel {
			p.Tunnel = &Tunnel{Made: c.made, Gone: c.gone, LastReceived: c.received}
		}
		if got := p.presence(now); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// facts are those of a laptop that is up, at noon in weft time; its clock is right.
func facts() Facts {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.FixedZone("CET", 3600))
	self := fakeNode(1, "laptop")
	self.NotBefore, self.NotAfter = now.Add(-24*time.Hour), now.Add(89*24*time.Hour)
	return Facts{
		Now: now, WeftNow: now, State: StateRunning, Version: "1.0", Network: "ab", ServerURL: "https://weft.example:8443",
		ServerSeen: &now, Self: self, Up: true, Online: true, Relay: "near",
	}
}

func fakeNode(i byte, name string) *cert.Node {
	n := &cert.Node{ID: cert.NodeID{i}}
	n.Name, n.FQDN = name, name+".weft.internal"
	n.IPv4, n.IPv6 = netip.AddrFrom4([4]byte{100, 64, 0, i}), netip.AddrFrom16([16]byte{0xfd, 15: i})
	return n
}

func TestStatusOfTheNode(t *testing.T) {
	warned := Health{Code: CodeRoutes, Message: "said by the node"}
	for _, c := range []struct {
		name   string
		change func(f *Facts)
		want   func(st *Status) bool
	}{
		{"up", func(f *Facts) {}, func(st *Status) bool {
			return st.Schema == "status/1" && st.State == StateRunning && st.Network == "ab" && st.Version == "1.0" && st.Time.Equal(facts().Now) && st.Time.Location() == time.UTC &&
				st.Server.URL == "https://weft.example:8443" && st.Server.Online && st.Server.LastSeen != nil &&
				st.Self.Name == "laptop" && st.Self.IPv4 == "100.64.0.1" && st.Self.Online && st.Self.Relay == "near" && st.Self.CertificateExpires.Equal(facts().Self.NotAfter) && len(st.Health) == 0
		}},
		{"in no network", func(f *Facts) { f.State, f.Self = StateUnjoined, nil; f.Health = []Health{warned} }, func(st *Status) bool {
			return st.State == StateUnjoined && st.Self == SelfStatus{} && !st.Server.Online && st.Time == nil && slices.Equal(st.Health, []Health{warned})
		}},
		{"down", func(f *Facts) { f.State, f.Up = StateDown, false; f.Skew = time.Hour }, func(st *Status) bool {
			return st.Self.Name == "laptop" && st.Self.CertificateExpires != nil && !st.Self.Online && st.Self.Relay == "" && !st.Server.Online && st.Time == nil && len(st.Health) == 0
		}},
		{"no relay: whether the server answers is not known", func(f *Facts) { f.Online = false }, func(st *Status) bool { return !st.Self.Online && !st.Server.Online && st.Self.Relay == "near" }},
		{"the server is away", func(f *Facts) { f.ServerOffline = true }, func(st *Status) bool { return st.Self.Online && !st.Server.Online }},
		{"renewal is long due", func(f *Facts) { f.WeftNow = f.Self.NotAfter.Add(-21 * 24 * time.Hour) }, func(st *Status) bool { return len(st.Health) == 1 && st.Health[0].Code == CodeCertificate }},
		{"a day before that", func(f *Facts) { f.WeftNow = f.Self.NotAfter.Add(-22 * 24 * time.Hour) }, func(st *Status) bool { return len(st.Health) == 0 }},
		{"not renewed", func(f *Facts) { f.WeftNow = f.Self.NotAfter.Add(-3 * 24 * time.Hour); f.Health = []Health{warned} }, func(st *Status) bool {
			return len(st.Health) == 2 && st.Health[0] == warned && strings.Contains(st.Health[1].Message, "ends in 3 days and")
		}},
		{"ended", func(f *Facts) { f.WeftNow = f.Self.NotAfter.Add(90 * time.Minute) }, func(st *Status) bool {
			return len(st.Health) == 1 && strings.Contains(st.Health[0].Message, "ended 90 min ago:")
		}},
		{"never signed in again", func(f *Facts) { f.SignIn = nil }, func(st *Status) bool { return st.Self.SignIn == nil && len(st.Health) == 0 }},
		{"signed in again later", func(f *Facts) { f.SignIn = &SignIn{Due: f.Now.Add(20 * 24 * time.Hour)} }, func(st *Status) bool { return st.Self.SignIn != nil && len(st.Health) == 0 }},
		{"signed in again soon", func(f *Facts) { f.SignIn = &SignIn{Due: f.Now.Add(24 * time.Hour), Soon: true} }, func(st *Status) bool {
			return len(st.Health) == 1 && st.Health[0] == Health{Code: CodeSignIn, Message: "this device has to be signed in again by 30 November 2026 11:00 UTC: weft up"}
		}},
		{"overdue, and down", func(f *Facts) {
			f.SignIn, f.Up, f.State = &SignIn{Due: f.Now, Soon: true, Overdue: true}, false, StateDown
		}, func(st *Status) bool {
			return len(st.Health) == 1 && st.Health[0].Code == CodeSignInOverdue && strings.Contains(st.Health[0].Message, "reaches nothing until that is done: weft up")
		}},
		{"the clock is a little off", func(f *Facts) { f.Skew = -5 * time.Minute }, func(st *Status) bool { return len(st.Health) == 0 }},
		{"the clock is off", func(f *Facts) { f.Skew = -50 * time.Hour }, func(st *Status) bool {
			return len(st.Health) == 1 && st.Health[0].Code == CodeClock && strings.Contains(st.Health[0].Message, "off by 2 days;")
		}},
	} {
		f := facts()
		c.change(&f)
		before := slices.Clone(f.Health)
		st := Of(f)
		if !c.want(&st) || st.Peers == nil || st.Health == nil {
			b, _ := json.Marshal(st)
			t.Errorf("%s: %s", c.name, b)
		}
		if !slices.Equal(before, f.Health) {
			t.Errorf("%s: the facts are changed", c.name)
		}
	}
}

func TestStatusOfAPeer(t *testing.T) {
	f := facts()
	ago := func(d time.Duration) time.Time { return f.Now.Add(-d) }
	at := func(d time.Duration) *time.Time { t := ago(d).UTC(); return &t }
	ms := func(v float64) *float64 { return &v }
	direct := path.Selection{Kind: path.Direct, Path: path.Path{Addr: netip.MustParseAddrPort("198.51.100.4:41641")}, Reason: path.Reason{Short: "same network"}}
	lane := path.Selection{Kind: path.RelayedUDP, Reason: path.Reason{Text: "a hard NAT"}}
	tcp := path.Selection{Kind: path.Relay, Reason: path.Reason{Text: "UDP is blocked"}}
	quiet := path.Selection{Kind: path.Relay, Quiet: true, Reason: path.Reason{Text: "nothing was sent lately"}}
	tunnel := func(p *path.Selection) *Tunnel {
		return &Tunnel{Made: ago(time.Hour), Relay: "far", Pinged: 9 * time.Millisecond, Path: p, PathRTT: 1900 * time.Microsecond, Rx: 1, Tx: 2, LastReceived: ago(time.Minute), LastHandshake: ago(3 * time.Minute),
			Suite: "aes", KeyExchange: "X25519MLKEM768", KeysSince: ago(2 * time.Minute), KeysPackets: 7}
	}
	for _, c := range []struct {
		name string
		fact PeerFacts
		skew time.Duration // weft time less this machine's
		want *PeerStatus   // nil: not shown
	}{
		{"listed, nothing known", PeerFacts{Shown: true}, 0, &PeerStatus{Path: PathIdle, PathReason: unknownReason.Text}},
		{"listed and online", PeerFacts{Shown: true, Reported: Presence{true, ago(time.Minute)}, LastSeen: ago(time.Minute)}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute), LastSeen: at(time.Minute), Path: PathIdle, PathReason: idleReason.Text}},
		{"listed and offline", PeerFacts{Shown: true, Reported: Presence{false, ago(time.Minute)}}, 0,
			&PeerStatus{PresenceAt: at(time.Minute), Path: PathOffline, PathReason: offlineReason.Text}},
		{"looked up once, no tunnel", PeerFacts{Reported: Presence{true, ago(0)}}, 0, nil},
		{"direct", PeerFacts{Tunnel: tunnel(&direct)}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute), LastSeen: at(time.Minute), Path: PathDirect, PathNote: "same network", Endpoint: "198.51.100.4:41641", RTTms: ms(1.9)}},
		{"a lane", PeerFacts{Tunnel: tunnel(&lane)}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute), LastSeen: at(time.Minute), Path: PathLane, PathReason: "a hard NAT", RTTms: ms(1.9)}},
		{"the relay: the round trip is the ping's", PeerFacts{Tunnel: tunnel(&tcp)}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute), LastSeen: at(time.Minute), Path: PathRelay, PathReason: "UDP is blocked", RTTms: ms(9)}},
		{"quiet", PeerFacts{Tunnel: tunnel(&quiet)}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute), LastSeen: at(time.Minute), Path: PathIdle, PathReason: "nothing was sent lately", RTTms: ms(9)}},
		{"no UDP here", PeerFacts{Tunnel: tunnel(nil)}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute), LastSeen: at(time.Minute), Path: PathRelay, PathReason: relayReason.Text, PathNote: relayReason.Short, RTTms: ms(9)}},
		{"not measured yet", PeerFacts{Tunnel: &Tunnel{Made: ago(time.Second), Path: &direct}}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Second), Path: PathDirect, PathNote: "same network", Endpoint: "198.51.100.4:41641"}},
		{"direct, and gone since", PeerFacts{Tunnel: &Tunnel{Made: ago(time.Hour), Gone: ago(time.Second), Relay: "far", Path: &direct}}, 0,
			&PeerStatus{PresenceAt: at(time.Second), Path: PathOffline, PathReason: offlineReason.Text}},
		{"the server saw it later than the tunnel", PeerFacts{LastSeen: ago(time.Second), Tunnel: tunnel(&tcp)}, 0,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute), LastSeen: at(time.Second), Path: PathRelay, PathReason: "UDP is blocked", RTTms: ms(9)}},
		{"times are in weft time", PeerFacts{LastSeen: ago(time.Hour), Tunnel: tunnel(&tcp)}, 48 * time.Hour,
			&PeerStatus{Online: true, PresenceAt: at(time.Minute - 48*time.Hour), LastSeen: at(time.Minute - 48*time.Hour), Path: PathRelay, PathReason: "UDP is blocked", RTTms: ms(9)}},
	} {
		f := f
		f.WeftNow = f.Now.Add(c.skew)
		c.fact.Node = fakeNode(2, "pi")
		if c.fact.Tunnel != nil {
			c.fact.Tunnel.KeyExchange = "SecP256r1MLKEM768"
		}
		f.Peers = []PeerFacts{{Node: f.Self, Shown: true}, c.fact}
		got := Of(f).Peers
		if c.want == nil {
			if len(got) != 0 {
				t.Errorf("%s: shown", c.name)
			}
			continue
		}
		w := *c.want
		w.ID, w.Name, w.FQDN, w.IPv4, w.IPv6 = c.fact.Node.ID.String(), "pi", "pi.weft.internal", "100.64.0.2", "fd00::2"
		if t := c.fact.Tunnel; t != nil {
			w.Relay, w.RxBytes, w.TxBytes = t.Relay, t.Rx, t.Tx
			w.LastHandshake, w.Suite, w.KeyExchange = utc(t.LastHandshake), t.Suite, t.KeyExchange
			if !t.KeysSince.IsZero() {
				w.KeysSince, w.KeysPackets = utc(t.KeysSince.Add(c.skew)), &t.KeysPackets
			}
		}
		if len(got) != 1 || !reflect.DeepEqual(got[0], w) {
			g, _ := json.Marshal(got)
			b, _ := json.Marshal(w)
			t.Errorf("%s:\n got %s\nwant %s", c.name, g, b)
		}
	}
	f.Peers = []PeerFacts{{Node: fakeNode(3, "c"), Shown: true}, {Node: fakeNode(4, "a"), Shown: true}, {Node: fakeNode(5, "b"), Shown: true}}
	if p := Of(f).Peers; p[0].Name != "a" || p[1].Name != "b" || p[2].Name != "c" {
		t.Errorf("not by name: %v", p)
	}
}
