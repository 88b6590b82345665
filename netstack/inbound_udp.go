package netstack

// UDP from peers. A flow is one pair of peer socket and destination. It has a local
// socket and one goroutine, which opens the socket and then carries answers back. The
// peer's datagrams go to the socket directly from Write.
//
// A program may answer from another port, as TFTP servers do. Where the system lets us
// receive that (package loopback), the peer gets the answer from that port, and what
// the peer's socket sends to that port belongs to the flow and reaches the program for
// as long as the flow lives, although no rule opens the port.

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"weft/netstack/loopback"
	"weft/overlay/limited"
)

const (
	udpIdle    = 60 * time.Second
	udpHeld    = 16        // datagrams held while the local socket is being made
	udpHeldMax = 128 << 10 // and their bytes
	udpSample  = 32        // flows looked at to find an old one
	udpOthers  = 8         // ports of a flow besides the original one; the oldest is evicted
)

var began = time.Now()

// elapsed is a monotonic clock: if flows used the wall clock, setting it back would
// extend their lives.
func elapsed() time.Duration { return time.Since(began) }

type inboundUDP struct {
	// Constant after initInboundUDP.
	max  int
	idle time.Duration

	// mu guards the following, and the fields of udpFlow that say so.
	mu     sync.Mutex
	flows  map[udpKey]*udpFlow
	others map[udpKey]*udpFlow // keyed by the ports in udpFlow.others
	byPeer map[netip.Addr]int
}

type udpKey struct{ peer, local netip.AddrPort }

type udpFlow struct {
	// Constant after newUDPFlow.
	key    udpKey
	target string
	watch  *loopback.Watch
	quote  []byte // headers of the first datagram, for an ICMP error

	last atomic.Int64                 // time of the last datagram in either direction, by elapsed
	conn atomic.Pointer[loopback.UDP] // nil until opened

	// Guarded by inboundUDP.mu.
	dead      bool     // removed from flows
	held      [][]byte // datagrams before conn
	heldBytes int
	others    []uint16 // ports that answered besides the original one, oldest first
}

func (n *Net) initInboundUDP() {
	in := &n.udpIn
	in.max = n.memory.most(limited.ToFiles(n.maxInbound))
	in.idle = udpIdle
	in.flows = make(map[udpKey]*udpFlow)
	in.others = make(map[udpKey]*udpFlow)
	in.byPeer = make(map[netip.Addr]int)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, n.handleUDP)
}

// closeInboundUDP ends the flows; Close waits for their goroutines.
func (n *Net) closeInboundUDP() {
	in := &n.udpIn
	in.mu.Lock()
	for _, f := range in.flows {
		in.remove(f)
	}
	in.mu.Unlock()
}

// handleUDP is called within Write for each datagram that belongs to no
// endpoint. Returning false makes the stack answer with an ICMP port
// unreachable.
func (n *Net) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	in := &n.udpIn
	key := udpKey{
		peer:  netip.AddrPortFrom(fromAddress(id.RemoteAddress), id.RemotePort),
		local: netip.AddrPortFrom(fromAddress(id.LocalAddress), id.LocalPort),
	}
	payload, ok := pkt.Data().PullUp(pkt.Data().Size())
	if !ok {
		return false
	}
	in.mu.Lock()
	f := in.flows[key]
	port := uint16(0) // the target's own
	if f == nil {
		if f = in.others[key]; f != nil {
			port = key.local.Port()
		}
	}
	in.mu.Unlock()
	if f == nil {
		if c, ours := n.dialled.find(strayKey{key.local, key.peer.Addr()}); c != nil {
			c.queueStray(key.peer, payload)
			return true
		} else if ours {
			return false
		}
		if !n.addrs.Load().has(key.local.Addr()) {
			return false
		}
		if f = n.newUDPFlow(key, pkt); f == nil {
			return false
		}
	}
	f.last.Store(int64(elapsed()))
	conn := f.conn.Load()
	if conn == nil && n.hold(f, payload) {
		return true
	}
	if conn = f.conn.Load(); conn != nil {
		// What the socket does not take is lost. Send reports the refusal of an earlier
		// datagram; carryUDP handles that.
		if err := conn.Send(payload, port); errors.Is(err, syscall.ECONNREFUSED) {
			conn.Send(payload, port)
		}
	}
	return true
}

// newUDPFlow makes a flow if the policy allows it; if there are too many, it replaces
// an old one.
func (n *Net) newUDPFlow(key udpKey, pkt *stack.PacketBuffer) *udpFlow {
	policy := n.inbound.Load()
	if policy == nil || policy.UDP == nil {
		return nil
	}
	target, ok := policy.UDP(key.peer, key.local)
	if !ok {
		return nil
	}
	f := &udpFlow{key: key, target: target, watch: policy.Watch}
	f.quote = append(f.quote, pkt.NetworkHeader().Slice()...)
	f.quote = append(f.quote, pkt.TransportHeader().Slice()...)
	f.last.Store(int64(elapsed()))

	in, peer := &n.udpIn, key.peer.Addr()
	in.mu.Lock()
	defer in.mu.Unlock()
	if old := in.flows[key]; old != nil {
		return old
	}
	switch {
	case in.byPeer[peer] >= max(in.max/3, 1): // see quota
		in.evict(peer)
	case len(in.flows) >= in.max:
		in.evict(netip.Addr{})
	}
	if len(in.flows) >= in.max {
		return nil
	}
	if !n.start(func() { n.runUDP(f) }) {
		return nil
	}
	in.flows[key] = f
	in.byPeer[peer]++
	return f
}

// evict removes one of the flows that have been silent longest; of one peer, if peer is
// valid. It looks at a sample, since the map's order is random. The caller holds mu.
func (in *inboundUDP) evict(peer netip.Addr) {
	var oldest *udpFlow
	seen := 0
	for key, f := range in.flows {
		if peer.IsValid() && key.peer.Addr() != peer {
			continue
		}
		if oldest == nil || f.last.Load() < oldest.last.Load() {
			oldest = f
		}
		if seen++; seen == udpSample {
			break
		}
	}
	if oldest != nil {
		in.remove(oldest)
	}
}

// remove deletes a flow and closes its socket, which ends its goroutine. The caller
// holds mu.
func (in *inboundUDP) remove(f *udpFlow) {
	if f.dead {
		return
	}
	f.dead = true
	f.held = nil
	delete(in.flows, f.key)
	for _, port := range f.others {
		delete(in.others, f.keyOf(port))
	}
	peer := f.key.peer.Addr()
	if in.byPeer[peer]--; in.byPeer[peer] == 0 {
		delete(in.byPeer, peer)
	}
	if c := f.conn.Load(); c != nil {
		c.Close()
	}
}

// keyOf is the key under which the peer's socket reaches another port of the program.
func (f *udpFlow) keyOf(port uint16) udpKey {
	return udpKey{f.key.peer, netip.AddrPortFrom(f.key.local.Addr(), port)}
}

// addPort records that a flow's program has answered from another port.
func (in *inboundUDP) addPort(f *udpFlow, port uint16) {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := f.keyOf(port)
	if f.dead || in.others[key] == f {
		return
	}
	if old := in.others[key]; old != nil {
		old.others = slices.DeleteFunc(old.others, func(p uint16) bool { return p == port })
	}
	if len(f.others) == udpOthers {
		delete(in.others, f.keyOf(f.others[0]))
		f.others = slices.Delete(f.others, 0, 1)
	}
	in.others[key] = f
	f.others = append(f.others, port)
}

// hold queues a datagram until the socket is open; false if it is open already.
func (n *Net) hold(f *udpFlow, payload []byte) bool {
	in := &n.udpIn
	in.mu.Lock()
	defer in.mu.Unlock()
	if f.conn.Load() != nil {
		return false
	}
	if !f.dead && len(f.held) < udpHeld && f.heldBytes+len(payload) <= udpHeldMax {
		f.held = append(f.held, append([]byte(nil), payload...))
		f.heldBytes += len(payload)
	}
	return true
}

// runUDP is the goroutine of a flow.
func (n *Net) runUDP(f *udpFlow) {
	in := &n.udpIn
	defer func() {
		in.mu.Lock()
		in.remove(f)
		in.mu.Unlock()
	}()
	conn, err := n.dialLocalUDP(f)
	refused := err != nil
	if refused {
		n.log.Debug("datagram refused", "peer", f.key.peer, "port", f.key.local.Port(), "err", err)
	} else if refused = n.carryUDP(f, conn); refused {
		f.watch.Refused("udp", f.target, f.key.local.Port())
	}
	if refused && n.ctx.Err() == nil {
		n.sendPortUnreachable(f)
	}
}

// dialLocalUDP opens a socket to the target and sends the held datagrams.
func (n *Net) dialLocalUDP(f *udpFlow) (*loopback.UDP, error) {
	conn, err := loopback.DialUDP(n.ctx, f.target, f.key.local.Port(), f.key.peer.Addr(), localTimeout)
	if err != nil {
		return nil, err
	}
	in := &n.udpIn
	in.mu.Lock()
	defer in.mu.Unlock()
	if f.dead {
		conn.Close()
		return nil, net.ErrClosed
	}
	// Under mu, so that a concurrent datagram in handleUDP is sent after these.
	for _, b := range f.held {
		conn.Send(b, 0)
	}
	f.held, f.heldBytes = nil, 0
	f.conn.Store(conn)
	return conn, nil
}

// carryUDP sends the local program's answers to the peer until the flow is idle or
// closed. It reports whether the program refused without ever answering.
func (n *Net) carryUDP(f *udpFlow, conn *loopback.UDP) (refused bool) {
	defer conn.Close()
	dst, src := f.key.peer, f.key.local
	route, terr := n.stack.FindRoute(nicID, toAddress(src.Addr()), toAddress(dst.Addr()), protocolOf(dst.Addr()), false)
	if terr != nil {
		return false
	}
	defer route.Release()
	lazy := newLazyReader(conn)
	answered := false
	other := uint16(0) // the last port that answered besides the original one
	for {
		idle := n.udpIn.idle - (elapsed() - time.Duration(f.last.Load()))
		if idle <= 0 {
			return false
		}
		conn.SetReadDeadline(time.Now().Add(idle))
		buf, size, err := lazy.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, syscall.ECONNREFUSED):
			if answered {
				continue // the program may restart; if not, the flow becomes idle
			}
			f.conn.Store(nil)
			return true
		case err != nil:
			return false
		}
		f.last.Store(int64(elapsed()))
		if !answered {
			answered = true
			f.watch.Reached(f.key.local.Port())
		}
		from := src
		if port := lazy.port; port != 0 {
			from = netip.AddrPortFrom(src.Addr(), port)
			if port != other {
				n.udpIn.addPort(f, port)
				other = port
			}
		}
		ok := sendUDP(route, from, dst, buf[:size])
		putBuffer(buf, true)
		if !ok {
			return false
		}
	}
}
