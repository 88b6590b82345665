package netstack

import (
	"context"
	"hash/fnv"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"time"
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
// target, "HOST:PORT", to forward to: "" and the host "localhost" mean
// 127.0.0.1, then ::1 if that refuses, "" on the destination's port. On Linux a
// connection to 127.0.0.0/8 is made from the address source, if that is valid:
// see LoopbackSource.
//
// ok false refuses: the peer gets an RST, or an ICMP port unreachable. A nil
// function refuses all. The functions must not return an address that weft
// itself listens on. They are called from many goroutines, for UDP from within
// Net.Write, and must not block.
type Inbound struct {
	TCP func(src, dst netip.AddrPort) (target string, source netip.Addr, ok bool)
	UDP func(src, dst netip.AddrPort) (target string, source netip.Addr, ok bool)
}

// SetInbound replaces the policy for new connections and flows. Without one
// everything is refused.
func (n *Net) SetInbound(in Inbound) { n.inbound.Store(&in) }

// LoopbackSource derives from a peer's overlay address the loopback address in
// 127.64.0.0/10 that its connections come from: always the same for a peer, so
// that the logs of local programs tell peers apart, and never 127.0.0.1, so that
// rules that trust local users do not match. Addresses of 100.64.0.0/10 map one
// to one, others by hash.
func LoopbackSource(peer netip.Addr) netip.Addr {
	peer = peer.Unmap()
	var low uint32
	if peer.Is4() {
		b := peer.As4()
		low = uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		if b[0] != 100 || b[1]&0xc0 != 64 {
			low = hashAddr(peer)
		}
	} else {
		low = hashAddr(peer)
	}
	low &= 1<<22 - 1
	return netip.AddrFrom4([4]byte{127, 64 | byte(low>>16), byte(low >> 8), byte(low)})
}

func hashAddr(a netip.Addr) uint32 {
	h := fnv.New32a()
	b := a.As16()
	h.Write(b[:])
	return h.Sum32()
}

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

// localTargets lists the addresses to try for a target of Inbound.
func localTargets(target string, port uint16) []string {
	if target == "" {
		target = net.JoinHostPort("localhost", strconv.Itoa(int(port)))
	}
	host, p, err := net.SplitHostPort(target)
	if err == nil && (host == "localhost" || host == "") {
		return []string{net.JoinHostPort("127.0.0.1", p), net.JoinHostPort("::1", p)}
	}
	return []string{target}
}

// dialLocal dials one of localTargets.
func dialLocal(ctx context.Context, network, target string, source netip.Addr) (net.Conn, error) {
	d := net.Dialer{Timeout: localTimeout, KeepAlive: -1}
	if source.IsValid() && runtime.GOOS == "linux" {
		host, _, _ := net.SplitHostPort(target)
		if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() && ip.IsLoopback() {
			if network == "udp" {
				d.LocalAddr = &net.UDPAddr{IP: source.AsSlice()}
			} else {
				d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
				d.Control = bindWithoutPort
			}
		}
	}
	return d.DialContext(ctx, network, target)
}
