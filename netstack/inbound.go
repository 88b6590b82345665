package netstack

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"weft/netstack/loopback"
)

const (
	// DefaultMaxInbound bounds the forwarded TCP connections, and separately the UDP
	// flows, when Config.MaxInbound is zero; shortMaxInbound applies where memory is
	// short. One address of a peer gets a third: 2,048, enough for a laptop whose
	// scraper or dashboards keep a connection to each of many things behind one device.
	// A connection costs some 28 KB while idle, and 120 KB when all are busy.
	DefaultMaxInbound = 6144
	shortMaxInbound   = 2048

	// maxOpening bounds the incoming TCP connections whose handshake is not complete.
	// One port gets a perPort-th of what one peer may have of them, so that a program
	// that hangs does not block the peer's other ports.
	maxOpening = 1024
	perPort    = 4

	// openTimeout bounds that handshake from the SYN-ACK on; localTimeout bounds the
	// dial to the local program.
	openTimeout  = 15 * time.Second
	localTimeout = 10 * time.Second
)

// Inbound decides what happens to connections and datagrams that peers send to this
// node's addresses and that no listener of the Net takes. Each function gets the peer's
// address and the destination, and returns the local target "HOST:PORT" to forward to,
// in the form of loopback.Target: "" and the host "localhost" mean 127.0.0.1, "" with
// the destination's port. On Linux a connection to 127.0.0.0/8 comes from the address
// that loopback.Source gives the peer.
//
// ok false refuses: the peer gets an RST, or an ICMP port unreachable. A nil function
// refuses everything. The functions must not return an address that weft itself listens
// on. They are called from many goroutines, for UDP from within Net.Write, and must not
// block.
type Inbound struct {
	TCP func(src, dst netip.AddrPort) (target string, ok bool)
	UDP func(src, dst netip.AddrPort) (target string, ok bool)

	// Watch receives which targets refuse and which answer. May be nil.
	Watch *loopback.Watch
}

// SetInbound replaces the policy for new connections and flows. Without one
// everything is refused.
func (n *Net) SetInbound(in Inbound) { n.inbound.Store(&in) }

// quota bounds something in total, per address, and per address and port. A peer has
// two addresses and each gets a third, so one peer gets at most two thirds.
type quota struct {
	max   int // constant
	ports int // constant: one port gets a ports-th of an address's bound; 0: all of it

	// mu guards the following.
	mu     sync.Mutex
	total  int
	by     map[netip.Addr]int
	byPort map[netip.AddrPort]int // the peer's address, our port
	full   refused                // the bound that refused last
}

// refused is a bound that was reached: of one peer, or in total if peer is invalid; of
// one of our ports, or of all ports if port is 0.
type refused struct {
	bound int
	peer  netip.Addr
	port  uint16
}

func newQuota(max, ports int) *quota {
	return &quota{max: max, ports: ports, by: make(map[netip.Addr]int), byPort: make(map[netip.AddrPort]int)}
}

// perAddr is the bound for one address.
func (q *quota) perAddr() int { return max(q.max/3, 1) }

// acquire takes a slot for a connection of a peer to one of our ports.
func (q *quota) acquire(peer netip.Addr, port uint16) bool {
	to := netip.AddrPortFrom(peer, port)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.total >= q.max:
		q.full = refused{bound: q.max}
		return false
	case q.by[peer] >= q.perAddr():
		q.full = refused{bound: q.perAddr(), peer: peer}
		return false
	case q.ports > 0 && q.byPort[to] >= max(q.perAddr()/q.ports, 1):
		q.full = refused{bound: max(q.perAddr()/q.ports, 1), peer: peer, port: port}
		return false
	}
	q.total++
	q.by[peer]++
	q.byPort[to]++
	return true
}

func (q *quota) release(peer netip.Addr, port uint16) {
	to := netip.AddrPortFrom(peer, port)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.by[peer]--; q.by[peer] == 0 {
		delete(q.by, peer)
	}
	if q.byPort[to]--; q.byPort[to] == 0 {
		delete(q.byPort, to)
	}
}

// describe names the bound that refused last, "" for none, and the peer and port with
// the most connections.
func (q *quota) describe() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var most netip.AddrPort
	for to, n := range q.byPort {
		if m := q.byPort[most]; n > m || n == m && to.Compare(most) < 0 {
			most = to
		}
	}
	text := ""
	switch full := q.full; {
	case full.bound == 0:
		return ""
	case full.port != 0:
		text = fmt.Sprintf("%d from %s to port %d", full.bound, full.peer, full.port)
	case full.peer.IsValid():
		text = fmt.Sprintf("%d from %s", full.bound, full.peer)
	default:
		text = fmt.Sprintf("%d in all", full.bound)
	}
	q.full = refused{}
	if n := q.byPort[most]; n > 0 {
		text += fmt.Sprintf(" (now most are from %s to port %d: %d)", most.Addr(), most.Port(), n)
	}
	return text
}

// describeRefusals is the health message when a bound was reached.
func (n *Net) describeRefusals(count int) string {
	var bounds []string
	if text := n.tcpIn.open.describe(); text != "" {
		bounds = append(bounds, "at most "+text+" may be open at a time")
	}
	if text := n.tcpIn.opening.describe(); text != "" {
		bounds = append(bounds, "at most "+text+" may wait for a program here to answer")
	}
	text := fmt.Sprintf("too many connections: %d refused or put off", count)
	if len(bounds) > 0 {
		text += "; " + strings.Join(bounds, ", and ")
	}
	return text
}
