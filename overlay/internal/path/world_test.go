package path

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"weft/overlay/internal/overlaytest"
	"weft/overlay/internal/probe"
	"weft/overlay/stun"
)

// world is two nodes on an internet in memory: sockets, probes and agents, but neither
// WireGuard nor TLS. Messages through the relay take relayDelay. The lane is a host that
// forwards datagrams with its id.
type world struct {
	t       *testing.T
	in      *overlaytest.Internet
	stuns   []netip.AddrPort
	relay   *overlaytest.PacketConn
	lane    netip.AddrPort
	oneSTUN bool // one STUN address: hard and easy NATs cannot be distinguished
}

const relayDelay = 40 * time.Millisecond

func newWorld(t *testing.T, in *overlaytest.Internet) *world {
	w := &world{t: t, in: in}
	for i := range 2 {
		h := in.Host(fmt.Sprint("stun", i), fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("2001:db8:ff::%d", i+1))
		w.serveSTUN(socket(t, h, ":3478"))
		w.stuns = append(w.stuns, addr(fmt.Sprintf("192.0.2.%d:3478", i+1)), addr(fmt.Sprintf("[2001:db8:ff::%d]:3478", i+1)))
	}
	w.lane = addr("192.0.2.3:3478")
	w.relay = socket(t, in.Host("relay", "192.0.2.3"), ":3478")
	go w.forward()
	return w
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func socket(t *testing.T, h *overlaytest.Host, at string) *overlaytest.PacketConn {
	t.Helper()
	c, err := h.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*overlaytest.PacketConn)
}

func (w *world) serveSTUN(c *overlaytest.PacketConn) {
	s := stun.NewServer(nil)
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if out := s.Handle(b[:n], from, time.Now()); out != nil {
				c.WriteToUDPAddrPort(out, from)
			}
		}
	}()
}

// forward is the lane. Its datagrams are 0xF6, side, message.
func (w *world) forward() {
	b := make([]byte, 10000)
	var sides [2]netip.AddrPort
	for {
		n, from, err := w.relay.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n < 2 || b[0] != 0xF6 || b[1] > 1 {
			continue
		}
		sides[b[1]] = from
		if to := sides[1-b[1]]; to.IsValid() {
			w.relay.WriteToUDPAddrPort(b[:n], to)
		}
	}
}

// node is one of the two nodes.
type node struct {
	w     *world
	name  string
	side  byte
	host  *overlaytest.Host
	nets  []netip.Prefix
	mtu   int
	peer  *node
	agent *Agent
	sock  *overlaytest.PacketConn
	extra map[uint16]*overlaytest.PacketConn
	calls chan func()
	timer *time.Timer
	tx    [4]stun.TxID
	seen  [4]netip.AddrPort
	send  *probe.Key
	recv  *probe.Key

	admitted map[Path]bool
	deaf     bool // drops all UDP that it receives
	wantLane bool
	lanes    bool // the relay offers lanes
	sending  bool
	counts
}

// counts are the counters of a node.
type counts struct {
	sent     int
	got      [Direct + 1]int
	late     int // data on a path that was not admitted
	probes   int // pings and pongs sent
	lastGot  time.Time
	directAt time.Time
}

func (w *world) node(name string, side byte, h *overlaytest.Host, nets ...string) *node {
	n := &node{w: w, name: name, side: side, host: h, calls: make(chan func(), 4096), extra: map[uint16]*overlaytest.PacketConn{},
		admitted: map[Path]bool{}, lanes: true}
	for _, p := range nets {
		n.nets = append(n.nets, netip.MustParsePrefix(p))
	}
	n.sock = socket(w.t, h, ":0")
	go n.read(n.sock, 0)
	return n
}

func (n *node) read(c *overlaytest.PacketConn, socket uint16) {
	for {
		b := make([]byte, 10000)
		k, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		n.calls <- func() { n.datagram(b[:k], from, socket) }
	}
}

func (n *node) datagram(b []byte, from netip.AddrPort, socket uint16) {
	if n.deaf {
		return
	}
	on := Path{Addr: from, Socket: socket}
	if from == n.w.lane && len(b) > 2 && b[0] == 0xF6 && b[1] == 1-n.side {
		b, on = b[2:], Path{Relayed: true}
	}
	switch {
	case b[0] == probe.First:
		m, ok := n.recv.Open(b)
		switch {
		case !ok:
			n.w.t.Errorf("%s: a probe that does not open, from %v", n.name, on)
		case m.Kind == probe.Ping:
			n.agent.Ping(time.Now(), on, m.Tx, m.Size)
		default:
			n.agent.Pong(time.Now(), on, m.Tx)
		}
	case b[0] == 4:
		if !n.admitted[on] {
			n.late++
			break
		}
		kind := Direct
		if on.Relayed {
			kind = RelayedUDP
		}
		n.data(kind)
		n.agent.Received(on, time.Now())
	default:
		if tx, seen, err := stun.ParseResponse(b); err == nil {
			for i := range n.tx {
				if n.tx[i] == tx {
					n.seen[i] = seen
				}
			}
		}
	}
}

func (n *node) data(kind Kind) {
	n.got[kind]++
	n.lastGot = time.Now()
}

// gather asks the STUN servers and sends the result to the peer.
func (n *node) gather(callMe bool) {
	n.seen = [4]netip.AddrPort{}
	for i, to := range n.w.stuns {
		for j := range n.tx[i] {
			n.tx[i][j] = byte(rand.Uint32())
		}
		n.sock.WriteToUDPAddrPort(stun.AppendRequest(nil, n.tx[i]), to)
	}
	n.tell(callMe)
	time.AfterFunc(150*time.Millisecond, func() { n.calls <- func() { n.tell(callMe) } })
}

func (n *node) tell(callMe bool) {
	local := Local{Nets: n.nets, MTU: n.mtu}
	port := n.sock.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Port()
	for _, a := range n.host.Addrs() {
		local.Candidates = append(local.Candidates, Candidate{netip.AddrPortFrom(a, port), TypeHost})
	}
	local.NAT.IPv4 = n.mapping(n.seen[0], n.seen[2], &local)
	local.NAT.IPv6 = n.mapping(n.seen[1], n.seen[3], &local)
	if local.NAT.IPv6 == MappingBlocked {
		local.NAT.IPv6 = MappingUnknown // no IPv6
	}
	n.agent.SetLocal(time.Now(), local)
	remote := Remote{Candidates: local.Candidates, NAT: local.NAT}
	n.signal(func(p *node) { p.agent.SetRemote(time.Now(), remote) })
	if callMe {
		n.signal(func(p *node) { p.agent.CallMe(time.Now()) })
	}
}

func (n *node) mapping(one, two netip.AddrPort, local *Local) Mapping {
	if !one.IsValid() && !two.IsValid() {
		return MappingBlocked
	}
	for _, c := range local.Candidates {
		if c.Addr == one {
			return MappingNone
		}
	}
	if one.IsValid() {
		local.Candidates = append(local.Candidates, Candidate{one, TypeSTUN})
	}
	switch {
	case n.w.oneSTUN:
		return MappingUnknown
	case one != two:
		return MappingHard
	}
	return MappingEasy
}

// signal runs f at the peer, as if sent through the relay.
func (n *node) signal(f func(*node)) {
	time.AfterFunc(relayDelay, func() { n.peer.calls <- func() { f(n.peer); n.peer.act() } })
}

// act does what the agent's Output asks for.
func (n *node) act() {
	out := n.agent.Take()
	for _, v := range out.Admit {
		n.admitted[v.Path] = true
	}
	for _, v := range out.Forget {
		delete(n.admitted, v)
	}
	for _, s := range out.Send {
		n.probes++
		var b []byte
		if s.Kind == probe.Ping {
			b = n.send.AppendPing(nil, s.Tx, s.Size)
		} else {
			b = n.send.AppendPong(nil, s.Tx, s.To)
		}
		n.write(s.Path, b)
	}
	for k, c := range n.extra {
		if !n.agent.Uses(k) {
			c.Close()
			delete(n.extra, k)
		}
	}
	if out.Lane != n.wantLane {
		n.wantLane = out.Lane
		if n.lanes {
			want := out.Lane
			time.AfterFunc(2*relayDelay, func() { n.calls <- func() { n.agent.SetLane(time.Now(), want) } })
			if want {
				n.signal(func(p *node) { p.agent.SetLane(time.Now(), true) })
			}
		}
	}
	if out.Changed {
		p := n.agent.Selected()
		if testing.Verbose() {
			n.w.t.Logf("%v %s: %v %v limit %d rtt %v: %s", time.Now().Format("05.000"), n.name, p.Kind, p.Path, p.Limit, p.RTT, p.Reason)
		}
		if p.Kind == Direct && n.directAt.IsZero() {
			n.directAt = time.Now()
		}
	}
	if out.Gather {
		n.gather(out.CallMe)
	}
	if next := n.agent.Next(); next.IsZero() {
		n.timer.Stop()
	} else {
		n.timer.Reset(time.Until(next))
	}
}

func (n *node) write(on Path, b []byte) {
	c := n.sock
	switch {
	case on.Relayed:
		c.WriteToUDPAddrPort(append([]byte{0xF6, n.side}, b...), n.w.lane)
		return
	case on.Socket != 0:
		if c = n.extra[on.Socket]; c == nil {
			c = socket(n.w.t, n.host, ":0")
			n.extra[on.Socket] = c
			go n.read(c, on.Socket)
		}
	}
	c.WriteToUDPAddrPort(b, on.Addr)
}

// sendData sends one message on the path in use.
func (n *node) sendData() {
	n.sent++
	n.agent.Data(time.Now(), time.Now())
	p := n.agent.Selected()
	if p.Kind == Relay {
		n.signal(func(p *node) { p.data(Relay); p.agent.Relayed(time.Now()) })
		return
	}
	n.write(p.Path, append([]byte{4}, make([]byte, 99)...))
}

// start runs both nodes until stop is called.
func start(w *world, a, b *node) (stop func()) {
	var k1, k2 [32]byte
	k1[0], k2[0] = 1, 2
	a.peer, b.peer = b, a
	a.send, a.recv, b.send, b.recv = probe.NewKey(k1), probe.NewKey(k2), probe.NewKey(k2), probe.NewKey(k1)
	quit := make(chan struct{})
	done := make(chan struct{}, 2)
	for i, n := range []*node{a, b} {
		rng := rand.New(rand.NewPCG(7, uint64(i)))
		n.agent = New(time.Now(), Config{Rand: rng.Uint64})
		n.timer = time.NewTimer(time.Hour)
	}
	for _, n := range []*node{a, b} {
		go func() {
			n.agent.Open(time.Now())
			n.act()
			data := time.NewTicker(50 * time.Millisecond)
			defer data.Stop()
			for {
				select {
				case <-quit:
					n.sock.Close()
					for _, c := range n.extra {
						c.Close()
					}
					done <- struct{}{}
					return
				case f := <-n.calls:
					f()
				case <-n.timer.C:
					n.agent.Tick(time.Now())
				case <-data.C:
					if !n.sending {
						continue
					}
					n.sendData()
				}
				n.act()
			}
		}()
	}
	return func() { close(quit); <-done; <-done }
}

// do runs f in the node's goroutine.
func (n *node) do(f func()) {
	done := make(chan struct{})
	n.calls <- func() { f(); close(done) }
	<-done
}

func (n *node) path() (p Selection) {
	n.do(func() { p = n.agent.Selected() })
	return p
}

func (n *node) stats() (c counts) {
	n.do(func() { c = n.counts })
	return c
}
