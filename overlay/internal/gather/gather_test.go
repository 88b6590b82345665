package gather

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/internal/overlaytest"
	"weft/overlay/internal/path"
	"weft/overlay/portmap"
	"weft/overlay/stun"
)

// node is a gatherer on a host of the internet in memory.
type node struct {
	*Gatherer
	host  *overlaytest.Host
	conn  net.PacketConn
	port  uint16
	sends int
	snaps []*Snapshot
}

func newNode(t *testing.T, h *overlaytest.Host, change func(*Config)) *node {
	t.Helper()
	conn, err := h.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{host: h, conn: conn, port: uint16(conn.LocalAddr().(*net.UDPAddr).Port)}
	cfg := Config{
		Send: func(b []byte, to netip.AddrPort) error {
			n.sends++
			_, err := conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
			return err
		},
		Ports:   func() (v4, v6 uint16) { return n.port, n.port },
		Changed: func(s *Snapshot) { n.snaps = append(n.snaps, s) },
		Interfaces: func() ([]Local, error) {
			var out []Local
			for _, a := range h.Addrs() {
				out = append(out, Local{Name: "eth0", Addr: a})
			}
			return out, nil
		},
		Resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") },
	}
	if change != nil {
		change(&cfg)
	}
	n.Gatherer = New(cfg)
	n.Start()
	t.Cleanup(func() {
		n.Close()
		conn.Close()
	})
	go func() {
		buf := make([]byte, 1500)
		for {
			k, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			n.STUN(buf[:k], from.(*net.UDPAddr).AddrPort())
		}
	}()
	return n
}

// stunServer answers on UDP port 3478 of h, and 3479.
func stunServer(t *testing.T, h *overlaytest.Host) {
	t.Helper()
	for _, port := range []string{":3478", ":3479"} {
		conn, err := h.ListenPacket("udp", port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			s := stun.NewServer(nil)
			buf := make([]byte, 1500)
			for {
				k, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				if out := s.Handle(buf[:k], from.(*net.UDPAddr).AddrPort(), time.Now()); out != nil {
					conn.WriteTo(out, from)
				}
			}
		}()
	}
}

func check(n *node) (*Snapshot, error) {
	defer synctest.Wait()
	return n.Check(context.Background())
}

// rest sleeps for d and lets everything due at that moment happen.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func types(s *Snapshot) (out []path.Type) {
	for _, c := range s.Candidates {
		out = append(out, c.Type)
	}
	return out
}

// Every kind of NAT, with two relays, two ports of one relay, and one.
func TestMappings(t *testing.T) {
	two := []string{"192.0.2.1:3478", "192.0.2.2:3478"}
	ports := []string{"192.0.2.1:3478", "192.0.2.1:3479"}
	one := two[:1]
	for _, tt := range []struct {
		kind    overlaytest.Kind
		servers []string
		want    path.Mapping
	}{
		{overlaytest.NoNAT, two, path.MappingNone},
		{overlaytest.NoNAT, one, path.MappingNone},
		{overlaytest.FullCone, two, path.MappingEasy},
		{overlaytest.AddressRestricted, ports, path.MappingEasy},
		{overlaytest.PortRestricted, two, path.MappingEasy},
		{overlaytest.PortRestricted, one, path.MappingUnknown},
		{overlaytest.Symmetric, two, path.MappingHard},
		{overlaytest.Symmetric, ports, path.MappingHard},
		{overlaytest.Symmetric, one, path.MappingUnknown},
		// The socket's port is free outside: for one peer this looks like an easy NAT.
		{overlaytest.SymmetricPreserving, two, path.MappingEasy},
		{overlaytest.UDPBlocked, two, path.MappingBlocked},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := overlaytest.New(1)
				defer in.Close()
				stunServer(t, in.Host("relay1", "192.0.2.1"))
				stunServer(t, in.Host("relay2", "192.0.2.2"))
				home := in.NAT("home", tt.kind, "198.51.100.7")
				addr := "192.168.1.10"
				if tt.kind == overlaytest.NoNAT {
					addr = "198.51.100.10"
				}
				n := newNode(t, home.Host("pi", addr), nil)
				defer n.Close()
				defer n.conn.Close()
				n.SetServers(tt.servers)
				n.Want()
				start := time.Now()
				synctest.Wait()
				if got := n.Snapshot().Candidates; len(got) == 0 || got[len(got)-1].Addr != netip.MustParseAddrPort(addr+":"+itoa(n.port)) {
					t.Errorf("candidates at once: %v", got)
				}
				rest(5 * time.Second)
				s := n.Snapshot()
				if s.IPv4.Mapping != tt.want || s.NAT().IPv4 != tt.want || s.IPv6.Mapping != path.MappingUnknown || !s.Complete {
					t.Errorf("%+v", s)
				}
				if s.IPv4.UDP != (tt.want != path.MappingBlocked) || !s.IPv4.Local || s.IPv6.Local {
					t.Errorf("IPv4 %+v, IPv6 %+v", s.IPv4, s.IPv6)
				}
				if tt.want == path.MappingUnknown && s.IPv4.Addresses != 1 {
					t.Errorf("addresses: %+v", s.IPv4)
				}
				outside := tt.kind != overlaytest.NoNAT && tt.kind != overlaytest.UDPBlocked
				if slices.Contains(types(s), path.TypeSTUN) != outside {
					t.Errorf("candidates: %v", s.Candidates)
				}
				if outside && s.Candidates[0].Addr.Addr() != netip.MustParseAddr("198.51.100.7") {
					t.Errorf("candidates: %v", s.Candidates)
				}
				if len(s.Answers) != len(tt.servers) || s.IPv4.UDP && (s.Answers[0].RTT > time.Since(start) || s.Answers[0].Err != "") {
					t.Errorf("answers: %+v", s.Answers)
				}
				if max := 4 * len(tt.servers); n.sends > max || s.IPv4.UDP && n.sends != len(tt.servers) {
					t.Errorf("%d requests", n.sends)
				}
			})
		})
	}
}

func itoa(p uint16) string {
	_, port, _ := net.SplitHostPort(netip.AddrPortFrom(netip.IPv4Unspecified(), p).String())
	return port
}

// An answer counts only with an open transaction and from the server that was asked.
func TestForgedAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		var mu sync.Mutex
		var all []stun.TxID
		n := newNode(t, in.Host("pi", "198.51.100.10"), func(c *Config) {
			c.Send = func(b []byte, to netip.AddrPort) error {
				tx, err := stun.ParseRequest(b)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, tx)
				return nil
			}
		})
		defer n.Close()
		defer n.conn.Close()
		server := netip.MustParseAddrPort("192.0.2.1:3478")
		lie := netip.MustParseAddrPort("203.0.113.66:53")
		n.SetServers([]string{server.String()})
		n.Want()
		synctest.Wait()
		sent := func() []stun.TxID {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		asked := sent()
		if len(asked) != 1 {
			t.Fatalf("%d requests", len(asked))
		}
		good := stun.AppendResponse(nil, asked[0], lie)
		other := asked[0]
		other[11] ^= 1
		for name, f := range map[string]struct {
			pkt  []byte
			from string
		}{
			"another address":     {good, "192.0.2.2:3478"},
			"another port":        {good, "192.0.2.1:3479"},
			"another transaction": {stun.AppendResponse(nil, other, lie), server.String()},
			"a request":           {stun.AppendRequest(nil, asked[0]), server.String()},
			"cut short":           {good[:len(good)-1], server.String()},
			"port 0":              {stun.AppendResponse(nil, asked[0], netip.AddrPortFrom(lie.Addr(), 0)), server.String()},
			"the other family":    {stun.AppendResponse(nil, asked[0], netip.MustParseAddrPort("[2001:db8::1]:1")), server.String()},
			"multicast":           {stun.AppendResponse(nil, asked[0], netip.MustParseAddrPort("224.0.0.1:1")), server.String()},
			"junk":                {[]byte("junk"), server.String()},
		} {
			if n.STUN(f.pkt, netip.MustParseAddrPort(f.from)) {
				t.Errorf("%s: taken", name)
			}
		}
		// As IPv4 in IPv6, as a dual-stack socket may report it.
		if !n.STUN(good, netip.AddrPortFrom(netip.AddrFrom16(server.Addr().As16()), server.Port())) {
			t.Error("the answer was not taken")
		}
		if n.STUN(good, server) {
			t.Error("taken twice")
		}
		synctest.Wait()
		if s := n.Snapshot(); s.IPv4.Seen != lie || !s.Complete {
			t.Errorf("%+v", s)
		}
		// Late: the round is over, its transactions are closed.
		rest(time.Minute)
		n.Want()
		synctest.Wait()
		asked = sent()
		tx := asked[len(asked)-1]
		rest(maxRound)
		if n.STUN(stun.AppendResponse(nil, tx, lie), server) {
			t.Error("taken late")
		}
	})
}

// An impossible address from a server is not a candidate.
func TestAnswersOfNoUse(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:53", "169.254.1.1:53", "100.64.9.9:53", "255.255.255.255:53"} {
		r := newRound(func() stun.TxID { return stun.TxID{1} })
		now := time.Unix(0, 0)
		to := netip.MustParseAddrPort("192.0.2.1:3478")
		r.add(now, "x", to)
		out, _ := r.due(now)
		r.sent(out[0])
		r.answer(now, stun.AppendResponse(nil, stun.TxID{1}, netip.MustParseAddrPort(addr)), to)
		_, seen := r.family(true, true, nil, 7)
		refuse := func(a netip.Addr) bool { return a == netip.MustParseAddr("100.64.9.9") }
		if c := candidates(nil, testStatus, seen, nil, refuse); len(c) != 0 {
			t.Errorf("%s: %v", addr, c)
		}
	}
}

// Nothing is sent unless a path is wanted, and no more than one round in 20 s.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		stunServer(t, in.Host("relay1", "192.0.2.1"))
		n := newNode(t, in.Host("pi", "198.51.100.10"), nil)
		defer n.Close()
		defer n.conn.Close()
		n.SetServers([]string{"192.0.2.1:3478"})
		n.Wake() // no path is wanted
		rest(time.Hour)
		if n.sends != 0 || len(n.snaps) != 0 {
			t.Errorf("%d sent, %d snapshots", n.sends, len(n.snaps))
		}
		for range 190 {
			n.Want()
			rest(100 * time.Millisecond)
		}
		if n.sends != 1 {
			t.Errorf("%d sent in 19 s", n.sends)
		}
		rest(2 * time.Second)
		n.Want()
		rest(5 * time.Second)
		if n.sends != 2 {
			t.Errorf("%d sent after 21 s", n.sends)
		}
		snaps := len(n.snaps)
		rest(5 * time.Minute)
		if n.sends != 2 || len(n.snaps) != snaps {
			t.Errorf("%d sent while nothing was wanted", n.sends)
		}
		// A change of the network while a path is in use.
		n.Wake()
		rest(5 * time.Second)
		if n.sends != 3 {
			t.Errorf("%d sent after a change", n.sends)
		}
		// When it no longer is, the result is dropped, and found again when a path is
		// wanted.
		rest(11 * time.Minute)
		n.Wake()
		rest(time.Second)
		if s := n.Snapshot(); n.sends != 3 || len(s.Candidates) != 0 {
			t.Errorf("%d sent, %+v", n.sends, s)
		}
		n.Want()
		rest(5 * time.Second)
		if s := n.Snapshot(); n.sends != 4 || len(s.Candidates) != 1 {
			t.Errorf("%d sent, %+v", n.sends, s)
		}
	})
}

// After a move to another network nothing of the first remains.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		stunServer(t, in.Host("relay1", "192.0.2.1"))
		stunServer(t, in.Host("relay2", "192.0.2.2"))
		home := in.NAT("home", overlaytest.PortRestricted, "198.51.100.7")
		office := in.NAT("office", overlaytest.Symmetric, "198.51.100.8")
		h := home.Host("laptop", "192.168.1.10")
		n := newNode(t, h, nil)
		defer n.Close()
		defer n.conn.Close()
		n.SetServers([]string{"192.0.2.1:3478", "192.0.2.2:3478"})
		n.Want()
		rest(5 * time.Second)
		if m := n.Snapshot().NAT().IPv4; m != path.MappingEasy {
			t.Errorf("at home: %q", m)
		}
		// Another round in the same network finds nothing new.
		snaps := len(n.snaps)
		rest(30 * time.Second)
		n.Want()
		rest(5 * time.Second)
		for _, s := range n.snaps[snaps:] {
			if s.NAT().IPv4 != path.MappingEasy || len(s.Candidates) != 2 {
				t.Errorf("in between: %+v", s)
			}
		}
		h.Move(office.Net, "10.1.2.3")
		n.Wake()
		rest(5 * time.Second)
		s := n.Snapshot()
		if s.NAT().IPv4 != path.MappingHard {
			t.Errorf("at the office: %+v", s)
		}
		for _, c := range s.Candidates {
			if a := c.Addr.Addr().String(); a != "10.1.2.3" && a != "198.51.100.8" {
				t.Errorf("left over: %v", c)
			}
		}
		h.Link.SetUp(false)
		n.Wake()
		rest(5 * time.Second)
		if s := n.Snapshot(); s.IPv4.UDP || slices.Contains(types(s), path.TypeSTUN) {
			t.Errorf("offline: %+v", s)
		}
	})
}

// One STUN address and a peer show as much as two STUN addresses.
func TestPeerAsWitness(t *testing.T) {
	peer := netip.MustParseAddrPort("203.0.113.9:41641")
	for _, kind := range []overlaytest.Kind{overlaytest.PortRestricted, overlaytest.Symmetric} {
		synctest.Test(t, func(t *testing.T) {
			in := overlaytest.New(1)
			defer in.Close()
			stunServer(t, in.Host("relay1", "192.0.2.1"))
			home := in.NAT("home", kind, "198.51.100.7")
			n := newNode(t, home.Host("pi", "192.168.1.10"), nil)
			defer n.Close()
			defer n.conn.Close()
			n.Observed(peer, peer) // before there is a result
			n.SetServers([]string{"192.0.2.1:3478"})
			s, _ := check(n)
			if s.NAT().IPv4 != path.MappingUnknown {
				t.Fatalf("%+v", s.IPv4)
			}
			seen := s.IPv4.Seen
			for _, no := range []struct{ from, seen netip.AddrPort }{
				{netip.MustParseAddrPort("192.0.2.1:9"), peer},                                           // the same address as the server's
				{netip.MustParseAddrPort("192.168.1.7:41641"), peer},                                     // at home
				{peer, netip.MustParseAddrPort("192.168.1.10:41641")},                                    // within the same NAT
				{netip.MustParseAddrPort("[2001:db8::9]:1"), seen},                                       // the wrong family
				{netip.MustParseAddrPort("[2001:db8::9]:1"), netip.MustParseAddrPort("[2001:db8::1]:2")}, // nobody to compare with
			} {
				n.Observed(no.from, no.seen)
				synctest.Wait()
				if m := n.Snapshot().NAT().IPv4; m != path.MappingUnknown {
					t.Errorf("%v: %q", no, m)
				}
			}
			want := path.MappingEasy
			if kind == overlaytest.Symmetric {
				want, seen = path.MappingHard, netip.AddrPortFrom(seen.Addr(), seen.Port()^1)
			}
			n.Observed(netip.AddrPortFrom(netip.AddrFrom16(peer.Addr().As16()), peer.Port()), seen)
			synctest.Wait()
			s = n.Snapshot()
			if s.NAT().IPv4 != want || s.IPv4.Addresses != 2 || s.IPv4.Answered != 1 || len(s.Answers) != 1 || len(s.Candidates) != 2 {
				t.Errorf("%+v", s)
			}
			if last := n.snaps[len(n.snaps)-1]; last.NAT().IPv4 != want {
				t.Errorf("told %+v", last)
			}
			// Many peers cost no memory, and later reports change nothing.
			for i := range 1000 {
				n.Observed(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 1), seen)
			}
			synctest.Wait()
			if n.Snapshot().NAT().IPv4 != want || len(n.round.asks) > maxDests {
				t.Errorf("%+v, %d asks", n.Snapshot().IPv4, len(n.round.asks))
			}
			// Reports much later show nothing: the mapping has changed.
			check(n)
			rest(time.Minute)
			n.Observed(peer, netip.MustParseAddrPort("198.51.100.7:1"))
			synctest.Wait()
			if m := n.Snapshot().NAT().IPv4; m == path.MappingHard && kind != overlaytest.Symmetric {
				t.Errorf("late: %q", m)
			}
		})
	}
}

// A peer does not overrule two servers that agree.
func TestPeerIsNotBelievedAgainstServers(t *testing.T) {
	r := newRound(func() stun.TxID { return stun.TxID{1} })
	now := time.Unix(0, 0)
	seen := netip.MustParseAddrPort("198.51.100.7:9")
	for _, to := range []string{"192.0.2.1:1", "192.0.2.2:1"} {
		r.add(now, "x", netip.MustParseAddrPort(to))
		r.asks[len(r.asks)-1].seen, r.asks[len(r.asks)-1].reachable = seen, true
	}
	r.observe(now, netip.MustParseAddrPort("203.0.113.9:1"), netip.MustParseAddrPort("198.51.100.7:10"))
	if f, _ := r.family(true, true, nil, 7); f.Mapping != path.MappingEasy {
		t.Errorf("%+v", f)
	}
}

// A relay in the node's LAN does not make a NAT look hard.
func TestRelayAtHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		stunServer(t, in.Host("relay1", "192.0.2.1"))
		home := in.NAT("home", overlaytest.PortRestricted, "198.51.100.7")
		stunServer(t, home.Host("relay2", "192.168.1.2"))
		n := newNode(t, home.Host("pi", "192.168.1.10"), nil)
		defer n.Close()
		defer n.conn.Close()
		n.SetServers([]string{"192.168.1.2:3478", "192.0.2.1:3478", "192.0.2.1:3479"})
		s, err := check(n)
		if err != nil || s.NAT().IPv4 != path.MappingEasy || s.IPv4.Answered != 3 || s.IPv4.Addresses != 1 || s.IPv4.Seen.Addr().String() != "198.51.100.7" {
			t.Errorf("%+v, %v", s, err)
		}
		// Only the relay in the LAN: no NAT in front of it.
		n.SetServers([]string{"192.168.1.2:3478"})
		if s, err = check(n); err != nil || s.NAT().IPv4 != path.MappingNone {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// Both families, names, names that are not found, and addresses without a server.
func TestServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		stunServer(t, in.Host("relay1", "192.0.2.1", "2001:db8::1"))
		home := in.NAT("home", overlaytest.PortRestricted, "198.51.100.7")
		var lookups atomic.Int32
		fail := false
		n := newNode(t, home.Host("pi", "192.168.1.10", "2001:db8:1::10"), func(c *Config) {
			c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
				lookups.Add(1)
				time.Sleep(100 * time.Millisecond)
				if fail || host != "relay.example" {
					return nil, errors.New("no such host")
				}
				return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("127.0.0.9"),
					netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("224.0.0.1")}, nil
			}
		})
		defer n.Close()
		defer n.conn.Close()
		n.SetServers([]string{"relay.example:3478", "nowhere.example:3478", "relay.example", "relay.example:x", ":3478", "", "[2001:db8::1]:3478", "224.0.0.1:1", "0.0.0.0:1"})
		s, err := check(n)
		if err != nil {
			t.Fatal(err)
		}
		if s.IPv6.Mapping != path.MappingNone || s.IPv4.Mapping != path.MappingUnknown || !s.IPv4.UDP || !s.IPv6.UDP || !s.IPv6.Local {
			t.Errorf("%+v", s)
		}
		if n.sends < 3 || n.sends > 6 { // 127.0.0.9 does not answer
			t.Errorf("%d requests", n.sends)
		}
		failed := 0
		for _, a := range s.Answers {
			if a.Err != "" && !a.Addr.IsValid() {
				failed++
			}
		}
		if failed != 5 || lookups.Load() != 2 {
			t.Errorf("%d lookups, answers %+v", lookups.Load(), s.Answers)
		}
		// Resolved names stay in use even if DNS fails later.
		check(n)
		if lookups.Load() != 3 { // the name that was not found is looked up again
			t.Errorf("%d lookups", lookups.Load())
		}
		fail = true
		rest(time.Hour)
		if s, _ = check(n); !s.IPv4.UDP || lookups.Load() != 5 {
			t.Errorf("%+v, %d lookups", s.IPv4, lookups.Load())
		}
		n.SetServers(nil)
		if s, _ = check(n); s.IPv4.UDP || s.IPv4.Mapping != path.MappingUnknown || len(s.Answers) != 0 {
			t.Errorf("without servers: %+v", s)
		}
		n.SetServers(make([]string, 10000))
		if s, _ = check(n); len(s.Answers) > maxServers {
			t.Errorf("%d answers", len(s.Answers))
		}
	})
}

// An unreachable server does not mean that UDP is blocked.
func TestNoRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		n := newNode(t, in.Host("pi", "198.51.100.10", "fd00::1"), func(c *Config) {
			c.Send = func([]byte, netip.AddrPort) error { return errors.New("network is unreachable") }
		})
		defer n.Close()
		defer n.conn.Close()
		n.SetServers([]string{"[2001:db8::1]:3478"})
		s, err := check(n)
		if err != nil || s.IPv6.Mapping != path.MappingUnknown || s.IPv6.Asked != 0 || s.Answers[0].Err != "it is unreachable from this network" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// With all servers on this machine the router is not asked.
func TestLoopbackAsksNoGateway(t *testing.T) {
	asked := false
	g := New(Config{
		Send:  func([]byte, netip.AddrPort) error { return errors.New("no way") },
		Ports: func() (uint16, uint16) { return 7, 0 },
		PortMap: &portmap.Config{Gateway: func() (gw, self netip.Addr, err error) {
			asked = true
			return gw, self, errors.New("none")
		}},
	})
	g.Start()
	g.SetServers([]string{"127.0.0.1:3478", "[::1]:3478"})
	if s, err := g.Check(t.Context()); err != nil || s.PortMap != (portmap.Status{}) {
		t.Errorf("%+v, %v", s, err)
	}
	g.Close()
	if asked {
		t.Error("asked")
	}
}

func TestCheckEnds(t *testing.T) {
	n := New(Config{Send: func([]byte, netip.AddrPort) error { return nil }, Ports: func() (uint16, uint16) { return 0, 0 }})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	n.Close()
	if _, err := n.Check(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	n.Start()
	n.Close()
}

// A mapping of the gateway is a candidate.
func TestPortMapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := overlaytest.New(1)
		defer in.Close()
		stunServer(t, in.Host("relay1", "192.0.2.1"))
		home := in.NAT("home", overlaytest.PortRestricted, "198.51.100.7")
		h := home.Host("pi", "192.168.1.10")
		router := home.Host("router", "192.168.1.1")
		conn, err := router.ListenPacket("udp", ":5351")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var removed atomic.Int32
		go func() { // NAT-PMP
			buf := make([]byte, 1500)
			for {
				k, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				switch {
				case k > 0 && buf[0] == 2:
					conn.WriteTo([]byte{0, 129, 0, 1, 0, 0, 0, 9}, from)
				case k == 2:
					conn.WriteTo([]byte{0, 128, 0, 0, 0, 0, 0, 9, 198, 51, 100, 7}, from)
				case k == 12 && string(buf[8:12]) == "\x00\x00\x00\x00":
					removed.Add(1)
					conn.WriteTo([]byte{0, 129, 0, 0, 0, 0, 0, 9, buf[4], buf[5], 0, 0, 0, 0, 0, 0}, from)
				case k == 12:
					conn.WriteTo([]byte{0, 129, 0, 0, 0, 0, 0, 9, buf[4], buf[5], 0x12, 0x34, 0, 0, 14, 16}, from)
				}
			}
		}()
		n := newNode(t, h, func(c *Config) {
			c.Manual = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:41641")}
			c.PortMap = &portmap.Config{
				Gateway: func() (gw, self netip.Addr, err error) { return router.Addrs()[0], h.Addrs()[0], nil },
				Listen:  func(netip.Addr) (net.PacketConn, error) { return h.ListenPacket("udp", ":0") },
			}
		})
		defer n.conn.Close()
		s, err := check(n)
		if err != nil || s.PortMap.Kind != portmap.KindNATPMP {
			t.Fatalf("%+v, %v", s, err)
		}
		want := []path.Candidate{
			{Addr: netip.MustParseAddrPort("203.0.113.9:41641"), Type: path.TypeManual},
			{Addr: netip.MustParseAddrPort("198.51.100.7:4660"), Type: path.TypeMapped},
			{Addr: netip.AddrPortFrom(netip.MustParseAddr("192.168.1.10"), n.port), Type: path.TypeHost},
		}
		if !slices.Equal(s.Candidates, want) {
			t.Errorf("candidates %v", s.Candidates)
		}
		if last := n.snaps[len(n.snaps)-1]; !slices.Equal(last.Candidates, want) {
			t.Errorf("told %v", last.Candidates)
		}
		// A peer that sees the mapping shows nothing about the NAT.
		n.SetServers([]string{"192.0.2.1:3478"})
		check(n)
		n.Observed(netip.MustParseAddrPort("203.0.113.9:1"), want[1].Addr)
		n.Observed(netip.MustParseAddrPort("203.0.113.9:1"), want[0].Addr)
		synctest.Wait()
		if s := n.Snapshot(); s.NAT().IPv4 != path.MappingUnknown || !s.IPv4.UDP {
			t.Errorf("%+v", s.IPv4)
		}
		n.SetServers(nil)
		check(n)
		// In use for hours, without a round.
		sends := n.sends
		for range 40 {
			rest(4 * time.Minute)
			n.Keep()
		}
		if s := n.Snapshot(); !slices.Equal(s.Candidates, want) || n.sends != sends || removed.Load() != 0 {
			t.Errorf("%v, %d sent, removed %d times", s.Candidates, n.sends-sends, removed.Load())
		}
		// Then it ends.
		rest(2 * time.Hour)
		if s := n.Snapshot(); len(s.Candidates) != 2 || n.sends != sends || removed.Load() != 1 {
			t.Errorf("%v, %d sent, removed %d times", s.Candidates, n.sends-sends, removed.Load())
		}
		check(n)
		n.Close()
		if removed.Load() != 2 {
			t.Errorf("removed %d times", removed.Load())
		}
	})
}

// Forged answers cost no memory.
func TestFloodAllocates(t *testing.T) {
	n := New(Config{Send: func([]byte, netip.AddrPort) error { return nil }, Ports: func() (uint16, uint16) { return 1, 1 }})
	n.round = newRound(func() stun.TxID { return stun.TxID{1} })
	from := netip.MustParseAddrPort("192.0.2.1:3478")
	pkt := stun.AppendResponse(nil, stun.TxID{9}, from)
	if a := testing.AllocsPerRun(100, func() { n.STUN(pkt, from) }); a > 0 {
		t.Errorf("%v allocations a datagram", a)
	}
}

func FuzzAnswer(f *testing.F) {
	to := netip.MustParseAddrPort("192.0.2.1:3478")
	tx := stun.TxID{1, 2, 3}
	f.Add(stun.AppendResponse(nil, tx, netip.MustParseAddrPort("198.51.100.7:41641")))
	f.Add(stun.AppendResponse(nil, tx, netip.MustParseAddrPort("[2001:db8::1]:41641")))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		r := newRound(func() stun.TxID { return tx })
		now := time.Unix(0, 0)
		r.add(now, "x", to)
		out, _ := r.due(now)
		r.sent(out[0])
		ok := r.answer(now, pkt, to)
		fam, seen := r.family(true, true, nil, 7)
		if ok != fam.UDP || len(seen) > perFamily || ok && !fam.Seen.Addr().Is4() {
			t.Errorf("%v: %+v", ok, fam)
		}
		for _, c := range candidates(nil, testStatus, seen, nil, nil) {
			if a := c.Addr.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() || c.Addr.Port() == 0 {
				t.Errorf("candidate %v", c)
			}
		}
	})
}

var testStatus portmap.Status
