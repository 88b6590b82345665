package relayserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
	"weft/overlay/stun"
)

// patient is how long tests wait for something that must arrive.
const patient = 20 * time.Second

// laneEnd is a node with a UDP socket that has asked for lanes.
type laneEnd struct {
	counter
	t     testing.TB
	node  *node
	conn  *relay.Conn
	udp   *net.UDPConn
	relay netip.AddrPort // where it sends to

	welcome chan struct{}
	lanes   chan lane.Info
	gone    chan relay.LaneReason
	rebind  chan struct{}
	info    lane.Info
}

func (e *laneEnd) Welcome(relay.Welcome)                      { close(e.welcome) }
func (e *laneEnd) Lane(_ cert.NodeID, i lane.Info)            { e.lanes <- i }
func (e *laneEnd) LaneGone(_ cert.NodeID, r relay.LaneReason) { e.gone <- r }
func (e *laneEnd) LaneRebind(cert.NodeID) {
	select {
	case e.rebind <- struct{}{}:
	default:
	}
}

// serveUDP serves a socket until the test ends.
func serveUDP(t testing.TB, s *Server, network, address string) netip.AddrPort {
	t.Helper()
	return serveOn(t, s, network, address, func(c *net.UDPConn) UDPConn { return c })
}

func serveOn(t testing.TB, s *Server, network, address string, as func(*net.UDPConn) UDPConn) netip.AddrPort {
	t.Helper()
	a, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP(network, a)
	if err != nil {
		t.Fatal(err)
	}
	already := s.lanes.serving.Load()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeUDP(ctx, as(c)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ServeUDP: %v", err)
		}
		c.Close()
	})
	for before := time.Now(); s.lanes.serving.Load() == already && time.Since(before) < patient; {
		time.Sleep(time.Millisecond)
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// end connects a node with a UDP socket. The relay's UDP address is to.
func (w *world) end(name string, to netip.AddrPort) *laneEnd {
	w.t.Helper()
	e := &laneEnd{t: w.t, node: w.node(name), relay: to, welcome: make(chan struct{}), lanes: make(chan lane.Info, 8), gone: make(chan relay.LaneReason, 8), rebind: make(chan struct{}, 8)}
	e.open()
	e.conn = e.node.run(e)
	<-e.welcome
	return e
}

// open opens another socket.
func (e *laneEnd) open() {
	e.t.Helper()
	var err error
	if e.udp, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.relay)); err != nil {
		e.t.Fatal(err)
	}
	e.udp.SetReadBuffer(4 << 20)
	c := e.udp
	e.t.Cleanup(func() { c.Close() })
}

// bind binds the end's side to its socket.
func (e *laneEnd) bind() {
	e.t.Helper()
	b := lane.NewBinder(e.info)
	var buf [2000]byte
	for b.State() == lane.Binding {
		out, wake := b.Poll(time.Now())
		if out != nil {
			e.udp.Write(out)
		}
		e.udp.SetReadDeadline(wake)
		if n, err := e.udp.Read(buf[:]); err == nil {
			if out := b.Handle(buf[:n]); out != nil {
				e.udp.Write(out)
			}
		}
	}
	e.udp.SetReadDeadline(time.Time{})
	if b.State() != lane.IsBound {
		e.t.Fatal("cannot bind")
	}
}

func (e *laneEnd) send(payload string) {
	e.udp.Write(append(lane.AppendHeader(nil, e.info.Send), payload...))
}

// want waits for a datagram.
func (e *laneEnd) want(payload string) {
	e.t.Helper()
	var buf [70000]byte
	e.udp.SetReadDeadline(time.Now().Add(patient))
	defer e.udp.SetReadDeadline(time.Time{})
	n, err := e.udp.Read(buf[:])
	if err != nil {
		e.t.Fatal(err)
	}
	id, got, ok := lane.ParseData(buf[:n])
	if !ok || id != e.info.Recv || string(got) != payload {
		e.t.Fatalf("got %d bytes %.20q of side %x, want %d bytes %.20q of %x", n, got, id, len(payload), payload, e.info.Recv)
	}
}

// nothing checks that no datagram arrives: it sends STUN and expects the answer to be the
// next one.
func (e *laneEnd) nothing() {
	e.t.Helper()
	var tx stun.TxID
	copy(tx[:], "nothing else")
	var buf [2000]byte
	e.udp.Write(stun.AppendRequest(nil, tx))
	e.udp.SetReadDeadline(time.Now().Add(patient))
	defer e.udp.SetReadDeadline(time.Time{})
	n, err := e.udp.Read(buf[:])
	if err != nil {
		e.t.Fatal(err)
	}
	got, seen, err := stun.ParseResponse(buf[:n])
	if err != nil || got != tx || seen.Port() != e.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port() {
		e.t.Fatalf("got %x, want nothing but the answer to a STUN request", buf[:n])
	}
}

// pair makes a bound lane between two nodes.
func (w *world) pair(a, b *laneEnd) {
	w.t.Helper()
	w.ask(a, b)
	a.bind()
	b.bind()
}

func (w *world) ask(a, b *laneEnd) {
	w.t.Helper()
	if err := a.conn.RequestLane(b.node.id); err != nil {
		w.t.Fatal(err)
	}
	for _, e := range []*laneEnd{a, b} {
		select {
		case e.info = <-e.lanes:
		case <-time.After(patient):
			w.t.Fatal("no lane")
		}
	}
}

// at returns the address of a served socket as nodes with the family of ip see it.
func at(served netip.AddrPort, ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), served.Port())
}

func TestLaneOverUDP(t *testing.T) {
	for _, c := range []struct{ name, network, listen, a, b string }{
		{"IPv4", "udp4", "127.0.0.1:0", "127.0.0.1", "127.0.0.1"},
		{"IPv4 on all addresses", "udp4", ":0", "127.0.0.1", "127.0.0.2"},
		{"IPv6", "udp6", "[::1]:0", "::1", "::1"},
		{"one socket for both", "udp", ":0", "127.0.0.3", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Config{})
			udp := serveUDP(t, w.relay, c.network, c.listen)
			a, b := w.end("a", at(udp, c.a)), w.end("b", at(udp, c.b))
			w.pair(a, b)
			// The sockets are connected: a datagram from another address of the relay
			// would not arrive.
			for _, size := range []int{1, 100, 1200, 1472, 9000, 60000} {
				p := string(packet(uint32(size), size+8))
				a.send(p)
				b.want(p)
				b.send(p)
				a.want(p)
			}
			a.nothing()
			b.nothing()
			if s := w.relay.Stats(); s.LaneBytes == 0 || s.LaneDropped != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// plainConn hides that a socket is the kernel's.
type plainConn struct{ UDPConn }

func TestLaneDatagramByDatagram(t *testing.T) {
	w := newWorld(t, Config{})
	plain := serveOn(t, w.relay, "udp4", "127.0.0.1:0", func(c *net.UDPConn) UDPConn { return plainConn{c} })
	fast := serveUDP(t, w.relay, "udp", ":0")
	a, b, c := w.end("a", plain), w.end("b", plain), w.end("c", at(fast, "::1"))
	for _, x := range []*laneEnd{b, c} {
		w.pair(a, x)
		for _, size := range []int{1, 1200, 9000} {
			p := string(packet(uint32(size), size+8))
			a.send(p)
			x.want(p)
			x.send(p)
			a.want(p)
		}
	}
	a.nothing()
	b.nothing()
	c.nothing()
}

// Both ends on sockets of their own at the relay.
func TestLaneOverTwoSockets(t *testing.T) {
	w := newWorld(t, Config{})
	four := serveUDP(t, w.relay, "udp4", "127.0.0.1:0")
	six := serveUDP(t, w.relay, "udp6", "[::1]:0")
	a, b := w.end("a", four), w.end("b", six)
	w.pair(a, b)
	a.send("from four")
	b.want("from four")
	b.send("from six")
	a.want("from six")
}

// A side moves to another socket. The relay drops datagrams from there until it is bound,
// and sends the node a rebind over TLS.
func TestLaneMoves(t *testing.T) {
	w := newWorld(t, Config{})
	udp := serveUDP(t, w.relay, "udp4", "127.0.0.1:0")
	a, b := w.end("a", udp), w.end("b", udp)
	w.pair(a, b)
	a.send("one")
	b.want("one")
	a.open()
	a.send("lost")
	a.nothing()
	b.nothing()
	select {
	case <-a.rebind:
	case <-time.After(patient):
		t.Fatal("no rebind")
	}
	a.bind()
	a.send("two")
	b.want("two")
	b.send("three")
	a.want("three")
}

func TestLaneNotForOlderRelays(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	var got counter
	c := relay.NewConn(near, &got)
	done := make(chan struct{})
	go func() { c.Run(context.Background()); close(done) }()
	if err := c.RequestLane(id(1)); err != relay.ErrNoLanes {
		t.Errorf("before the welcome: %v", err)
	}
	far.Write(relay.AppendFrame(nil, relay.TypeWelcome, []byte(`{"server_time":"2026-01-01T00:00:00Z"}`)))
	far.Write(relay.AppendFrame(nil, relay.TypePing, make([]byte, 8)))
	var buf [relay.HeadLen + 8]byte
	far.Read(buf[:]) // the welcome has arrived
	if err := c.RequestLane(id(1)); err != relay.ErrNoLanes {
		t.Errorf("after it: %v", err)
	}
	c.Close()
	<-done
}

// A side whose socket is closed or not read loses its own datagrams only.
func TestLaneToTheDead(t *testing.T) {
	w := newWorld(t, Config{})
	udp := serveUDP(t, w.relay, "udp4", "127.0.0.1:0")
	a, dead, deaf, live := w.end("a", udp), w.end("dead", udp), w.end("deaf", udp), w.end("live", udp)
	w.pair(a, dead)
	toDead := a.info
	w.pair(a, deaf)
	toDeaf := a.info
	w.pair(a, live)
	deaf.udp.SetReadBuffer(4 << 10)
	dead.udp.Close()
	junk := make([]byte, 1200)
	for i := range 200 {
		for range 20 {
			lane.PutHeader(junk, toDead.Send)
			a.udp.Write(junk)
			lane.PutHeader(junk, toDeaf.Send)
			a.udp.Write(junk)
		}
		p := fmt.Sprint("to the living ", i)
		a.send(p)
		live.want(p)
	}
}

// Datagrams of other sockets get no answer and disturb nothing.
func TestUnknownSendersAtTheUDPPort(t *testing.T) {
	w := newWorld(t, Config{})
	udp := serveUDP(t, w.relay, "udp4", "127.0.0.1:0")
	a, b := w.end("a", udp), w.end("b", udp)
	w.pair(a, b)
	stranger, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(udp))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	e := &laneEnd{t: t, udp: stranger, relay: udp}
	request := stun.AppendRequest(nil, stun.TxID{1})
	for i := range 2000 {
		d := packet(uint32(i), 8+i%1400)
		switch i % 5 {
		case 1:
			d = append(lane.AppendHeader(nil, lane.NewID()), d...)
		case 2:
			d = append(lane.AppendHeader(nil, a.info.Send), d...)
		case 3:
			d = lane.AppendControl(nil, lane.Kind(1+i%3), a.info.Send, lane.Cookie{byte(i / 2 % 2)}, lane.NewKey())
		case 4:
			d = append([]byte(nil), request...)
			d[i%8] ^= 1 << (i / 8 % 8)
		}
		stranger.Write(d)
		if i%50 == 49 {
			a.send("still here")
			b.want("still here")
		}
	}
	e.nothing()
	b.nothing()
}
