package netstack

import (
	"net/netip"
	"sync"
	"time"

	"weft/netstack/loopback"
)

const (
	// DefaultMaxInbound is the bound of forwarded TCP connections, and of UDP
	// flows, when Config.MaxInbound is zero.
	DefaultMaxInbound = 2048

	// maxOpening bounds the TCP connections of peers whose handshake is not
	// complete.
	maxOpening = 1024

	// openTimeout bounds that handshake from the SYN-ACK on, localTimeout the
	// dial to the local program.
	openTimeout  = 15 * time.Second
	localTimeout = 10 * time.Second
)

// Inbound decides what happens to connections and datagrams that peers send to
// this node's addresses and that no listener of the Net takes. Each function
// gets the peer's address and the destination. It answers with the local
// target, "HOST:PORT", to forward to, as loopback.Dial has it: "" and the host
// "localhost" mean 127.0.0.1, "" on the destination's port. On Linux a connection to
// 127.0.0.0/8 is made from the address that loopback.Source gives the peer.
//
// ok false refuses: the peer gets an RST, or an ICMP port unreachable. A nil
// function refuses all. The functions must not return an address that weft
// itself listens on. They are called from many goroutines, for UDP from within
// Net.Write, and must not block.
type Inbound struct {
	TCP func(src, dst netip.AddrPort) (target string, ok bool)
	UDP func(src, dst netip.AddrPort) (target string, ok bool)

	// Watch is told what targets refused and what they answered. May be nil.
	Watch *loopback.Watch
}

// SetInbound replaces the policy for new connections and flows. Without one
// everything is refused.
func (n *Net) SetInbound(in Inbound) { n.inbound.Store(&in) }

// quota bounds something in total and for each address. A peer has two
// addresses: with a third for each, one peer cannot take more than two thirds
// from the others.
type quota struct {
	max int // constant

	// mu guards the following.
	mu    sync.Mutex
	total int
	by    map[netip.Addr]int
}

func newQuota(max int) *quota { return &quota{max: max, by: make(map[netip.Addr]int)} }

// perAddr is the bound for one address.
func (q *quota) perAddr() int { return max(q.max/3, 1) }

func (q *quota) acquire(peer netip.Addr) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.total >= q.max || q.by[peer] >= q.perAddr() {
		return false
	}
	q.total++
	q.by[peer]++
	return true
}

func (q *quota) release(peer netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.by[peer]--; q.by[peer] == 0 {
		delete(q.by, peer)
	}
}
