package bind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
	"weft/overlay/internal/mono"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/relay/lane"
)

// side is a Bind with its receive functions running.
type side struct {
	*Bind
	got chan got // WireGuard messages
	ctl chan got // probes and STUN
}

type got struct {
	pkt []byte
	ep  *Endpoint
	way Path
}

// take waits for one datagram.
func take(t *testing.T, c chan got) got {
	t.Helper()
	select {
	case g := <-c:
		return g
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func newSide(t *testing.T, cfg Config) *side {
	t.Helper()
	s := &side{got: make(chan got, 4096), ctl: make(chan got, 64)}
	keep := func(pkt []byte, w Path) {
		select {
		case s.ctl <- got{bytes.Clone(pkt), nil, w}:
		default:
		}
	}
	cfg.Probe, cfg.STUN = keep, keep
	s.Bind = New(cfg)
	fns, _, err := s.Open(0)
	if err != nil || len(fns) != 2 || s.ListenError() != nil {
		t.Fatalf("open: %d functions, %v, %v", len(fns), err, s.ListenError())
	}
	var wg sync.WaitGroup
	for _, fn := range fns {
		wg.Go(func() {
			bufs, sizes, eps := make([][]byte, BatchSize), make([]int, BatchSize), make([]conn.Endpoint, BatchSize)
			for i := range bufs {
				bufs[i] = make([]byte, MaxMessage)
			}
			for {
				n, err := fn(bufs, sizes, eps)
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("receive: %v", err)
					}
					return
				}
				for i := range n {
					if sizes[i] == 0 {
						continue
					}
					ep := eps[i].(*Endpoint)
					msg := bytes.Clone(bufs[i][:sizes[i]])
					ep.Done(1, len(msg), mono.Now())
					s.got <- got{pkt: msg, ep: ep}
				}
			}
		})
	}
	t.Cleanup(func() { s.Close(); wg.Wait() })
	return s
}

// networks runs a test over this machine's network and over one in memory.
func networks(t *testing.T, test func(t *testing.T, open func(*testing.T, Config) *side, at func(*side) netip.AddrPort)) {
	t.Run("kernel", func(t *testing.T) {
		test(t, func(t *testing.T, cfg Config) *side {
			cfg.Listen = Listen
			return newSide(t, cfg)
		}, func(s *side) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.Port())
		})
	})
	t.Run("memory", func(t *testing.T) {
		in := overlaytest.New(1)
		t.Cleanup(in.Close)
		addrs := map[uint16]netip.Addr{}
		n := 0
		test(t, func(t *testing.T, cfg Config) *side {
			n++
			a := netip.AddrFrom4([4]byte{198, 51, 100, byte(n)})
			cfg.Listen = in.Host(a.String(), a.String()).ListenPacket
			s := newSide(t, cfg)
			addrs[s.Port()] = a
			return s
		}, func(s *side) netip.AddrPort { return netip.AddrPortFrom(addrs[s.Port()], s.Port()) })
	})
}

func TestDirect(t *testing.T) {
	networks(t, func(t *testing.T, open func(*testing.T, Config) *side, at func(*side) netip.AddrPort) {
		a, b := open(t, Config{}), open(t, Config{})
		toB, toA := endpoint(a.Bind, bob, addr), endpoint(b.Bind, alice, addr)
		if err := toB.SetPath(Path{Kind: Direct, Addr: at(b)}, 1400); err != nil {
			t.Fatal(err)
		}
		// The path is not verified, so the message is dropped. The probe after it
		// arrives.
		a.Send([][]byte{data(100, 1)}, toB)
		probe := append([]byte{firstProbe}, make([]byte, 60)...)
		if err := a.SendTo(probe, Path{Kind: Direct, Addr: at(b)}); err != nil {
			t.Fatal(err)
		}
		p := take(t, b.ctl)
		want := Path{Kind: Direct, Addr: at(a)}
		if !bytes.Equal(p.pkt, probe) || p.way != want {
			t.Fatalf("%x from %v, want %v", p.pkt, p.way, want)
		}
		if !b.LastReceived(p.way).IsZero() || !b.Verify(toA, p.way) || !b.LastReceived(p.way).IsZero() || b.Verify(NewEndpoint(alice, addr), p.way) {
			t.Error("verified wrongly")
		}
		var sent [][]byte
		for i := range 200 {
			sent = append(sent, data([]int{1400, 1400, 1400, 1300, 32, 148, 64, 64, 64}[i%9], byte(i)))
		}
		for i := 0; i < len(sent); i += 50 {
			a.Send(sent[i:i+50], toB)
			for j := range 50 {
				g := take(t, b.got)
				if !bytes.Equal(g.pkt, sent[i+j]) || g.ep != toA {
					t.Fatalf("message %d: %d bytes, want %d", i+j, len(g.pkt), len(sent[i+j]))
				}
			}
		}
		if time.Since(b.LastReceived(p.way)) > time.Minute || time.Since(toA.LastKeepalive()) > time.Minute || !toA.LastRelayed().IsZero() || toB.Lost() != 0 {
			t.Error("counters are wrong")
		}
		b.Unverify(p.way)
		a.Send(sent[:1], toB)
		a.SendTo(probe, Path{Kind: Direct, Addr: at(b)})
		take(t, b.ctl)
		if len(b.got) != 0 {
			t.Error("taken after Unverify")
		}
	})
}

// Messages that are too long for the path, or that the system refuses, go through the
// relay.
func TestLongMessagesGoByTheRelay(t *testing.T) {
	networks(t, func(t *testing.T, open func(*testing.T, Config) *side, at func(*side) netip.AddrPort) {
		var troubles []error
		a := open(t, Config{SendFailed: func(ep *Endpoint, w Path, err error) { troubles = append(troubles, err) }})
		b := open(t, Config{})
		toB, toA := endpoint(a.Bind, bob, addr), endpoint(b.Bind, alice, addr)
		relay := &counter{}
		toB.SetSender(relay)
		b.Verify(toA, Path{Kind: Direct, Addr: at(a)})
		toB.SetPath(Path{Kind: Direct, Addr: at(b)}, 1000)
		if w, longest := toB.Path(); longest != 1000 || w.Addr != at(b) {
			t.Errorf("%v, %d", w, longest)
		}
		a.Send([][]byte{data(1001, 1), data(1000, 2), data(60000, 3), data(40000, 3), data(900, 4)}, toB)
		if relay.n != 3 || relay.bytes != 101_001 {
			t.Errorf("%d messages of %d bytes by the relay", relay.n, relay.bytes)
		}
		for _, size := range []int{1000, 900} {
			if g := take(t, b.got); len(g.pkt) != size {
				t.Errorf("%d bytes, want %d", len(g.pkt), size)
			}
		}
		toB.SetPath(Path{}, 0)
		a.Send([][]byte{data(900, 4)}, toB)
		if relay.n != 4 {
			t.Error("not by the relay after the zero Way")
		}
		extra, err := a.AddSocket()
		if err != nil {
			t.Fatal(err)
		}
		toB.SetPath(Path{Kind: Direct, Socket: extra, Addr: at(b)}, 1000)
		extra.Close()
		a.Send([][]byte{data(900, 4)}, toB)
		if relay.n != 5 || len(troubles) != 1 || !errors.Is(troubles[0], ErrNoSocket) {
			t.Errorf("%d by the relay, troubles %v", relay.n, troubles)
		}
		for _, w := range []Path{{Kind: Direct}, {Kind: Direct, Addr: netip.MustParseAddrPort("0.0.0.0:1")}, {Kind: RelayedUDP, Addr: netip.MustParseAddrPort("1.2.3.4:0")}, {Kind: 7, Addr: at(b)}} {
			if toB.SetPath(w, 1000) == nil {
				t.Errorf("way %v set", w)
			}
		}
	})
}

type counter struct{ n, bytes int }

func (c *counter) SendPackets(_ cert.NodeID, bufs [][]byte) error {
	for _, b := range bufs {
		c.n++
		c.bytes += len(b)
	}
	return nil
}

func TestLane(t *testing.T) {
	networks(t, func(t *testing.T, open func(*testing.T, Config) *side, at func(*side) netip.AddrPort) {
		a, b, relay := open(t, Config{}), open(t, Config{}), open(t, Config{})
		id := lane.ID{1, 2, 3}
		toB, toA := endpoint(a.Bind, bob, addr), endpoint(b.Bind, alice, addr)
		// a stands in for the relay as b sees it: the header is the same.
		lane := Path{Kind: RelayedUDP, Addr: at(b), Lane: id}
		toB.SetPath(lane, 1400)
		if _, longest := toB.Path(); longest != 1380 {
			t.Errorf("longest %d", longest)
		}
		probe := append([]byte{firstProbe}, bytes.Repeat([]byte{7}, 60)...)
		back := Path{Kind: RelayedUDP, Addr: at(a), Lane: id}
		a.SendTo(probe, lane) // the lane is not verified yet
		a.Send([][]byte{data(100, 1)}, toB)
		a.SendTo(probe, Path{Kind: Direct, Addr: at(b)})
		if g := take(t, b.ctl); g.way.Kind != Direct {
			t.Fatalf("probe by %v", g.way)
		}
		b.Verify(toA, back)
		relay.SendTo(probe, lane) // from another address than the lane's relay
		relay.SendTo(probe, Path{Kind: Direct, Addr: at(b)})
		if g := take(t, b.ctl); g.way.Kind != Direct {
			t.Fatalf("probe by %v", g.way)
		}
		a.SendTo(probe, lane)
		if g := take(t, b.ctl); g.way != back || !bytes.Equal(g.pkt, probe) {
			t.Fatalf("probe by %v, want %v", g.way, back)
		}
		var sent [][]byte
		for i := range 100 {
			sent = append(sent, data([]int{1380, 1380, 1380, 1200, 40}[i%5], byte(i)))
		}
		a.Send(sent, toB)
		for i := range sent {
			if g := take(t, b.got); !bytes.Equal(g.pkt, sent[i]) || g.ep != toA {
				t.Fatalf("message %d: %d bytes, want %d", i, len(g.pkt), len(sent[i]))
			}
		}
		if b.LastReceived(back).IsZero() {
			t.Error("not heard")
		}
		b.Drop(alice)
		if b.inlets.Load().find(back) != nil {
			t.Error("lane stays after Drop")
		}
	})
}

func TestExtraSockets(t *testing.T) {
	networks(t, func(t *testing.T, open func(*testing.T, Config) *side, at func(*side) netip.AddrPort) {
		a, b := open(t, Config{}), open(t, Config{})
		toA := endpoint(b.Bind, alice, addr)
		extra, err := b.AddSocket()
		if err != nil {
			t.Fatal(err)
		}
		to := netip.AddrPortFrom(at(b).Addr(), extra.Port())
		probe := append([]byte{firstProbe}, make([]byte, 60)...)
		a.SendTo(probe, Path{Kind: Direct, Addr: to})
		g := take(t, b.ctl)
		if want := (Path{Kind: Direct, Socket: extra, Addr: at(a)}); g.way != want {
			t.Fatalf("probe by %v", g.way)
		}
		// The answer is sent from the socket that received the request.
		b.SendTo(probe, g.way)
		if back := take(t, a.ctl); back.way.Addr != to {
			t.Errorf("answer from %v, want %v", back.way.Addr, to)
		}
		b.Verify(toA, g.way)
		toB := endpoint(a.Bind, bob, addr)
		toB.SetPath(Path{Kind: Direct, Addr: to}, 1400)
		var sent [][]byte
		for i := range 50 {
			sent = append(sent, data(1400-i, byte(i)))
		}
		a.Send(sent, toB)
		for i := range sent {
			if g := take(t, b.got); !bytes.Equal(g.pkt, sent[i]) || g.ep != toA {
				t.Fatalf("message %d: %d bytes, want %d", i, len(g.pkt), len(sent[i]))
			}
		}
		if !toA.LastRelayed().IsZero() || b.LastReceived(g.way).IsZero() {
			t.Error("heard by the wrong way")
		}
		var all []*Socket
		for {
			s, err := b.AddSocket()
			if err != nil {
				break
			}
			all = append(all, s)
			if len(all) > MaxSockets {
				t.Fatal("no bound on sockets")
			}
		}
		for _, s := range all {
			s.Close()
			s.Close()
		}
		extra.Close()
		if b.inlets.Load().find(g.way) != nil {
			t.Error("way of a closed socket stays verified")
		}
		b.Close()
		if _, err := b.AddSocket(); !errors.Is(err, ErrNoSocket) {
			t.Errorf("socket after Close: %v", err)
		}
		if err := b.SendTo(probe, Path{Kind: Direct, Addr: at(a)}); !errors.Is(err, ErrNoSocket) {
			t.Errorf("send after Close: %v", err)
		}
	})
}

// The verified paths of a peer are bounded; the one that was silent for longest is
// dropped.
func TestVerifiedIsBounded(t *testing.T) {
	b := New(Config{})
	ep := endpoint(b, alice, addr)
	way := func(i int) Path {
		return Path{Kind: Direct, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)}
	}
	b.Verify(ep, way(0))
	b.inlets.Load().find(way(0)).received.Store(1)
	for i := range 1000 {
		b.Verify(ep, way(i))
	}
	if n := len(b.inlets.Load().direct); n != MaxVerified || b.LastReceived(way(0)).IsZero() {
		t.Errorf("%d ways, first %v", n, b.LastReceived(way(0)))
	}
	other := endpoint(b, bob, addr)
	b.Verify(other, way(0))
	if b.inlets.Load().find(way(0)).ep != other {
		t.Error("the later claim does not have the way")
	}
}

func TestNoSocket(t *testing.T) {
	b := New(Config{Listen: func(string, string) (net.PacketConn, error) { return nil, net.ErrClosed }})
	fns, _, err := b.Open(0)
	if err != nil || len(fns) != 1 || b.ListenError() == nil || b.Port() != 0 {
		t.Errorf("%d functions, %v, %v", len(fns), err, b.ListenError())
	}
	relay := &counter{}
	ep := endpoint(b, alice, addr)
	ep.SetSender(relay)
	ep.SetPath(Path{Kind: Direct, Addr: netip.MustParseAddrPort("192.0.2.1:1")}, 1400)
	b.Send([][]byte{data(100, 1)}, ep)
	if relay.n != 1 {
		t.Error("not by the relay")
	}
	b.Close()
}

func FuzzSort(f *testing.F) {
	f.Add(data(148, 1))
	f.Add(append([]byte{firstProbe}, make([]byte, 40)...))
	f.Add(append([]byte{lane.First, 0, 0, 0}, make([]byte, 60)...))
	stun := make([]byte, 32)
	stun[0], stun[1] = 1, 1
	binary.BigEndian.PutUint32(stun[4:], stunCookie)
	f.Add(stun)
	f.Fuzz(func(t *testing.T, b []byte) {
		bd := New(Config{})
		ep := endpoint(bd, alice, addr)
		from := netip.MustParseAddrPort("192.0.2.1:7")
		d := &demux{sock: &Socket{bind: bd}}
		if got, _ := d.take(bytes.Clone(b), from, 1); got != nil {
			t.Fatal("taken from a way that is not verified")
		}
		bd.Verify(ep, Path{Kind: Direct, Addr: from})
		if len(b) >= lane.HeaderLen {
			bd.Verify(ep, Path{Kind: RelayedUDP, Addr: from, Lane: lane.ID(b[4:])})
		}
		buf := bytes.Clone(b)
		got, n := d.take(buf, from, 1)
		if got == nil {
			return
		}
		if got != ep || n < minMessage || n > len(b) || sortOf(buf[:n]) != sortWireGuard || !bytes.HasSuffix(b, buf[:n]) {
			t.Fatalf("took %x of %x", buf[:n], b)
		}
	})
}
