package overlay_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/netstack"
	"weft/overlay"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/status"
	"weft/overlay/stun"
)

// natWorld is a world whose nodes have UDP, behind NATs, and whose relay offers STUN on
// two ports and relayed UDP.
type natWorld struct {
	*world
	in     *overlaytest.Internet
	server *overlaytest.Host
}

func newNATWorld(t *testing.T) *natWorld {
	checkLeaks(t)
	in := overlaytest.New(1)
	t.Cleanup(in.Close)
	s := setup{host: in.Host("server", "192.0.2.1", "2001:db8:ff::1"), stun: []string{"192.0.2.1:3478", "192.0.2.1:3479", "[2001:db8:ff::1]:3478"}}
	w := &natWorld{newWorldOf(t, s), in, s.host}
	w.serveUDP(":3478")
	w.serveUDP(":3479")
	return w
}

// serveUDP answers STUN, and forwards datagrams of lanes to the relay's kernel socket,
// from a socket of its own for each sender.
func (w *natWorld) serveUDP(at string) {
	t := w.t
	lane, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.relay.ServeUDP(ctx, lane) })
	pc, err := w.server.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	c := pc.(*overlaytest.PacketConn)
	senders := map[netip.AddrPort]*net.UDPConn{}
	read := make(chan struct{})
	go func() {
		defer close(read)
		answers := stun.NewServer(nil)
		b := make([]byte, 10000)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if out := answers.Handle(b[:n], from, time.Now()); out != nil {
				c.WriteToUDPAddrPort(out, from)
			}
			if b[0] != 0xF6 {
				continue
			}
			s := senders[from]
			if s == nil {
				if s, err = net.DialUDP("udp4", nil, lane.LocalAddr().(*net.UDPAddr)); err != nil {
					t.Error(err)
					return
				}
				senders[from] = s
				wg.Go(func() {
					b := make([]byte, 10000)
					for {
						n, err := s.Read(b)
						if err != nil {
							return
						}
						c.WriteToUDPAddrPort(b[:n], from)
					}
				})
			}
			s.Write(b[:n])
		}
	}()
	t.Cleanup(func() {
		cancel()
		c.Close()
		lane.Close()
		<-read
		for _, s := range senders {
			s.Close()
		}
		wg.Wait()
	})
}

// at starts a node on a host, whose networks have 24 bits (IPv6: 64).
func (w *natWorld) at(name string, h *overlaytest.Host, tags ...string) *node {
	w.t.Helper()
	return w.nodeOf(name, overlay.Config{NetDial: h.DialContext, UDP: overlay.UDP{
		NoPortMap: true,
		Listen:    h.ListenPacket,
		Interfaces: func() (out []overlay.Interface, err error) {
			for _, a := range h.Addrs() {
				bits := 24
				if a.Is6() {
					bits = 64
				}
				out = append(out, overlay.Interface{Name: "eth0", Net: netip.PrefixFrom(a, bits), MTU: 1500})
			}
			return out, nil
		},
	}}, tags...)
}

// home starts a node behind a NAT of its own.
func (w *natWorld) home(name string, k overlaytest.Kind, net, addr string, tags ...string) (*node, *overlaytest.Host, *overlaytest.NAT) {
	w.t.Helper()
	nat := w.in.NAT(name+"-nat", k, net)
	h := nat.Host(name, addr)
	h.Link.SetLatency(5 * time.Millisecond)
	return w.at(name, h, tags...), h, nat
}

// pathTo returns the status of a peer.
func (n *node) pathTo(name string) status.PeerStatus {
	for _, p := range n.Status().Peers {
		if p.Name == name {
			return p
		}
	}
	return status.PeerStatus{}
}

// flow sends words over a connection until stop is called. stop returns the longest time
// until an answer.
func (n *node) flow(c net.Conn) (stop func() time.Duration) {
	quit, done := make(chan struct{}), make(chan time.Duration, 1)
	t := n.w.t
	go func() {
		worst := time.Duration(0)
		defer func() { done <- worst }()
		for i := 0; ; i++ {
			words := fmt.Sprintf("%08d", i)
			begun := time.Now()
			c.SetDeadline(begun.Add(20 * time.Second))
			if _, err := io.WriteString(c, words); err != nil {
				t.Errorf("flow: write: %v", err)
				return
			}
			b := make([]byte, len(words))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != words {
				t.Errorf("flow: read %q, %v", b, err)
				return
			}
			worst = max(worst, time.Since(begun))
			select {
			case <-quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() time.Duration { close(quit); return <-done }
}

// send moves 10 MB to a peer's port 9 and back, and compares.
func (n *node) tenMB(to *node) {
	t := n.w.t
	t.Helper()
	l, err := to.Listen("tcp", ":9")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const size = 10 << 20
	sums := make(chan [32]byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		io.Copy(h, c)
		sums <- [32]byte(h.Sum(nil))
	}()
	c := n.dial("tcp", to.cfg.Hostname+":9")
	h := sha256.New()
	b := make([]byte, 64<<10)
	for i := 0; i < size; i += len(b) {
		for j := range b {
			b[j] = byte(i>>16 + j*7)
		}
		h.Write(b)
		if _, err := c.Write(b); err != nil {
			t.Fatalf("after %d bytes: %v", i, err)
		}
	}
	c.(interface{ CloseWrite() error }).CloseWrite()
	select {
	case got := <-sums:
		if got != [32]byte(h.Sum(nil)) {
			t.Error("other bytes arrived")
		}
	case <-time.After(60 * time.Second):
		t.Error("not all arrived in a minute")
	}
	c.Close()
}

// TestLaneBeforeSTUN: the peer knows that the relay offers relayed UDP and requests a
// lane. This node has an older configuration and does not know it yet. It uses the lane
// as soon as it does.
func TestLaneBeforeSTUN(t *testing.T) {
	t.Parallel()
	checkLeaks(t)
	in := overlaytest.New(1)
	t.Cleanup(in.Close)
	newer := make(chan struct{}) // what a waits for
	give := sync.OnceFunc(func() { close(newer) })
	defer give()
	var late atomic.Bool
	w := &natWorld{newWorldOf(t, setup{host: in.Host("server", "192.0.2.1"), api: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if late.Load() && r.URL.Path == "/v1/config" && r.TLS.PeerCertificates[0].DNSNames[0] == "a.weft.internal" {
				<-newer
			}
			h.ServeHTTP(w, r)
		})
	}}), in, nil}
	w.server = w.setup.host
	a, _, _ := w.home("a", overlaytest.Symmetric, "198.51.100.1", "192.168.1.2")
	b, _, _ := w.home("b", overlaytest.Symmetric, "203.0.113.1", "192.168.7.2")
	b.echo()
	w.stopServer()
	late.Store(true)
	w.setup.stun = []string{"192.0.2.1:3478", "192.0.2.1:3479"}
	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	w.startServer(l)
	w.serveUDP(":3478")
	w.serveUDP(":3479")
	eventually(t, 20*time.Second, "b knows the relay's UDP addresses", func() bool { return len(b.Relays()[1].STUN) == 2 })
	a.wait("b")
	stop := a.flow(a.dial("tcp", "b:7"))
	defer stop()
	eventually(t, 20*time.Second, "a lane is made", func() bool { return w.relay.Stats().Lanes > 0 })
	give()
	eventually(t, 20*time.Second, "both use the lane", func() bool {
		return a.pathTo("b").Path == status.PathLane && b.pathTo("a").Path == status.PathLane
	})
}

// TestPaths: one pair of NATs of each outcome, with 10 MB over it.
func TestPaths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		ka, kb overlaytest.Kind
		want   status.PathKind
	}{
		{"easy", overlaytest.PortRestricted, overlaytest.PortRestricted, status.PathDirect},
		{"one hard", overlaytest.Symmetric, overlaytest.PortRestricted, status.PathDirect},
		{"both hard", overlaytest.Symmetric, overlaytest.Symmetric, status.PathLane},
		{"no UDP", overlaytest.UDPBlocked, overlaytest.PortRestricted, status.PathRelay},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newNATWorld(t)
			a, _, _ := w.home("a", c.ka, "198.51.100.1", "192.168.1.2")
			b, _, _ := w.home("b", c.kb, "203.0.113.1", "192.168.7.2")
			b.echo()
			conn := a.dial("tcp", "b:7")
			begun := time.Now()
			stop := a.flow(conn)
			if c.want != status.PathRelay {
				eventually(t, 20*time.Second, "path "+string(c.want), func() bool {
					return a.pathTo("b").Path == c.want && b.pathTo("a").Path == c.want
				})
				t.Logf("%s after %v", c.want, time.Since(begun))
			} else {
				eventually(t, 20*time.Second, "a reason", func() bool { return len(a.pathTo("b").PathReason) > 60 })
			}
			p := a.pathTo("b")
			t.Logf("%+v", p)
			if p.Path != c.want || p.PathReason == "" || (p.Endpoint != "") != (c.want == status.PathDirect) {
				t.Errorf("status: %+v", p)
			}
			a.tenMB(b)
			// A machine that is busy with 10 MB may miss a few answers.
			eventually(t, 20*time.Second, "path "+string(c.want)+" after 10 MB", func() bool { return a.pathTo("b").Path == c.want })
			t.Logf("longest wait %v", stop())
		})
	}
}

// pair is two nodes behind usual NATs with a flow over a direct path.
func (w *natWorld) pair() (a, b *node, ha, hb *overlaytest.Host, na *overlaytest.NAT, stop func() time.Duration) {
	t := w.t
	t.Helper()
	a, ha, na = w.home("a", overlaytest.PortRestricted, "198.51.100.1", "192.168.1.2")
	b, hb, _ = w.home("b", overlaytest.PortRestricted, "203.0.113.1", "192.168.7.2")
	b.echo()
	stop = a.flow(a.dial("tcp", "b:7"))
	w.direct(a, b)
	return a, b, ha, hb, na, stop
}

func (w *natWorld) direct(a, b *node) {
	w.t.Helper()
	begun := time.Now()
	eventually(w.t, 20*time.Second, "a direct path", func() bool {
		return a.pathTo("b").Path == status.PathDirect && b.pathTo("a").Path == status.PathDirect
	})
	w.t.Logf("direct after %v: %s", time.Since(begun), a.pathTo("b").Endpoint)
}

// TestPathCut: the direct path is cut in the middle of a flow, and comes back; then the
// relay is cut off, and the flow continues.
func TestPathCut(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	a, b, ha, hb, _, stop := w.pair()
	time.Sleep(time.Second)
	w.in.Partition(ha, hb)
	eventually(t, 20*time.Second, "the relay", func() bool {
		return a.pathTo("b").Path != status.PathDirect && b.pathTo("a").Path != status.PathDirect
	})
	time.Sleep(time.Second)
	if p := a.pathTo("b"); p.Path == status.PathDirect || p.PathReason == "" {
		t.Errorf("cut, and yet %+v", p)
	}
	t.Logf("longest wait %v", stop())
	w.in.Heal(ha, hb)
	stop = a.flow(a.dial("tcp", "b:7"))
	w.direct(a, b)

	w.stopRelay()
	time.Sleep(3 * time.Second)
	if p := a.pathTo("b"); p.Path != status.PathDirect {
		t.Errorf("without the relay: %+v", p)
	}
	t.Logf("longest wait without the relay %v", stop())
	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	w.startRelay(l)
}

// TestKeysThatDoNotMatch: probes show that the direct path works, but data do not arrive.
// After two seconds the peer is asked and says so, and the nodes introduce themselves
// anew.
func TestKeysThatDoNotMatch(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	a, b, _, _, _, stop := w.pair()
	time.Sleep(time.Second)
	if err := a.SpoilKeys("b"); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	eventually(t, 20*time.Second, "keys that fit", func() bool {
		p := a.pathTo("b")
		return p.LastHandshake != nil && p.LastHandshake.After(begun)
	})
	took := time.Since(begun)
	wait := stop()
	t.Logf("longest wait %v, keys after %v", wait, took)
	if wait > 8*time.Second || b.pathTo("a").Path != status.PathDirect {
		t.Errorf("longest wait %v, then %+v", wait, b.pathTo("a"))
	}
}

// TestOneWay: a stream without answers, over a direct path. The peer says that it
// arrives, and the tunnel does not change.
func TestOneWay(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	a, b, _, _, _, stop := w.pair()
	l, err := b.cfg.Net.(*netstack.Net).ListenUDP(netip.AddrPortFrom(netip.MustParseAddr(b.Status().Self.IPv4), 514))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := a.dial("udp", "b:514")
	stop()
	time.Sleep(1200 * time.Millisecond) // answers to the last words of the flow
	handshake := a.pathTo("b").LastHandshake
	heard := make(chan int, 1)
	go func() {
		n, buf := 0, make([]byte, 100)
		for {
			if _, _, err := l.ReadFrom(buf); err != nil {
				heard <- n
				return
			}
			n++
		}
	}()
	for range 50 {
		c.Write([]byte("log line"))
		time.Sleep(100 * time.Millisecond)
	}
	l.Close()
	if n := <-heard; n < 40 {
		t.Errorf("%d of 50 arrived", n)
	}
	if got := a.pathTo("b").LastHandshake; got == nil || !got.Equal(*handshake) {
		t.Errorf("introduced anew: handshake %v, before %v", got, handshake)
	}
}

// TestPathMoves: the NAT forgets its mappings, then the host moves to another network.
func TestPathMoves(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	a, b, ha, _, na, stop := w.pair()
	na.Reboot()
	// Streams through a router that has forgotten its mappings stall for ever, the relay
	// connection too, which is checked when the network changes.
	a.NetworkChanged()
	time.Sleep(3 * time.Second)
	w.direct(a, b)
	t.Logf("longest wait, router forgot: %v", stop())

	stop = a.flow(a.dial("tcp", "b:7"))
	cafe := w.in.NAT("cafe", overlaytest.PortRestricted, "198.51.100.77")
	ha.Move(cafe.Net, "10.9.8.7")
	a.NetworkChanged()
	eventually(t, 20*time.Second, "b sees the new address", func() bool {
		return strings.HasPrefix(b.pathTo("a").Endpoint, "198.51.100.77:")
	})
	w.direct(a, b)
	t.Logf("longest wait, new network: %v", stop())
}

// TestPathLAN: nodes in one LAN use a direct path, with IPv6 where IPv4 cannot work.
func TestPathLAN(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	home := w.in.NAT("home", overlaytest.Symmetric, "198.51.100.1")
	a := w.at("a", home.Host("a", "192.168.1.2"))
	b := w.at("b", home.Host("b", "192.168.1.3"))
	b.echo()
	stop := a.flow(a.dial("tcp", "b:7"))
	w.direct(a, b)
	if p := a.pathTo("b"); !strings.HasPrefix(p.Endpoint, "192.168.1.3:") {
		t.Errorf("neighbours by %+v", p)
	}
	stop()
}

// TestPathIPv6: firewalls without NAT, where IPv4 cannot work.
func TestPathIPv6(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	na := w.in.NAT("na", overlaytest.Symmetric, "198.51.100.1")
	nb := w.in.NAT("nb", overlaytest.Symmetric, "203.0.113.1")
	a := w.at("a", na.Host("a", "192.168.1.2", "2001:db8:a::2"))
	b := w.at("b", nb.Host("b", "192.168.7.2", "2001:db8:b::2"))
	b.echo()
	stop := a.flow(a.dial("tcp", "b:7"))
	w.direct(a, b)
	if p := a.pathTo("b"); !strings.HasPrefix(p.Endpoint, "[2001:db8:b::2]:") {
		t.Errorf("by %+v", p)
	}
	stop()
}

// TestPathIdle: no UDP is sent while there are no data. (Package path tests what
// follows.)
func TestPathIdle(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	_, _, _, _, _, stop := w.pair()
	stop()
	var last atomic.Int64 // when a datagram was last sent
	begun := time.Now()
	w.in.OnPacket(func(p overlaytest.Packet) {
		if p.Network == "udp" {
			last.Store(int64(time.Since(begun)))
		}
	})
	// First let what was begun end: a round of STUN takes up to 5 s.
	eventually(t, 40*time.Second, "nothing is sent for 6 s", func() bool {
		return time.Since(begun)-time.Duration(last.Load()) > 6*time.Second
	})
}

// TestPathReplay: an attacker that replays everything from its own address, or makes up
// probes, STUN answers and WireGuard messages, changes no path and gets no more bytes
// than it sends.
func TestPathReplay(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	evil := w.in.Host("evil", "192.0.2.66")
	ec, err := evil.ListenPacket("udp", ":666")
	if err != nil {
		t.Fatal(err)
	}
	defer ec.Close()
	a, _, _ := w.home("a", overlaytest.FullCone, "198.51.100.1", "192.168.1.2")
	b, hb, _ := w.home("b", overlaytest.FullCone, "203.0.113.1", "192.168.7.2")
	b.echo()
	var mu sync.Mutex
	var captured [][]byte
	var sent, answered int // bytes of evil, to evil
	w.in.OnPacket(func(p overlaytest.Packet) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case p.Network != "udp":
		case p.From == evil:
			sent += len(p.Payload)
		case p.Dst.Addr().String() == "192.0.2.66":
			answered += len(p.Payload)
		case p.From != hb && len(captured) < 100 && p.Payload[0] != 0:
			captured = append(captured, slices.Clone(p.Payload))
		}
	})
	stop := a.flow(a.dial("tcp", "b:7"))
	w.direct(a, b)
	eventually(t, 20*time.Second, "something to replay", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(captured) == 100
	})
	target := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(a.pathTo("b").Endpoint))
	before := [2]string{a.pathTo("b").Endpoint, b.pathTo("a").Endpoint}
	mu.Lock()
	replay := slices.Clone(captured)
	mu.Unlock()
	for range 20 {
		for _, pkt := range replay {
			ec.WriteTo(pkt, target)
			bad := slices.Clone(pkt)
			bad[len(bad)-1]++
			ec.WriteTo(bad, target)
		}
		ec.WriteTo(append([]byte{1, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, make([]byte, 12)...), target)
		time.Sleep(50 * time.Millisecond)
	}
	// On a busy machine a path may be lost meanwhile, and then another comes: at
	// another port if it was found by one of the sockets with which a node looks for
	// one. Nobody but the peer is behind its NAT.
	eventually(t, 20*time.Second, "a path to the peer", func() bool {
		back := true
		for i, e := range []string{a.pathTo("b").Endpoint, b.pathTo("a").Endpoint} {
			if e == "" {
				back = false
			} else if netip.MustParseAddrPort(e).Addr() != netip.MustParseAddrPort(before[i]).Addr() {
				t.Fatalf("moved from %s to %s", before[i], e)
			}
		}
		return back
	})
	mu.Lock()
	t.Logf("%d bytes sent, %d answered", sent, answered)
	if answered > sent/10 {
		t.Errorf("%d bytes answered to %d", answered, sent)
	}
	mu.Unlock()
	if worst := stop(); worst > 5*time.Second {
		t.Errorf("an answer took %v meanwhile", worst)
	}
}
