package dns

import (
	"net/netip"
	"sync"
	"time"

	"weft/netstack/loopback"
)

// mayAsk reports whether a query from ip is answered: from this machine, or from an
// overlay address, which reaches us only through the tunnel. Other clients get no
// answer, so that they do not learn that a resolver is here, and so that no answer goes
// to a forged address.
func (st *state) mayAsk(ip netip.Addr) bool {
	if thisMachine(ip) {
		return !loopback.Peers.Contains(ip) // peers have their own resolver
	}
	return st.zone != nil && st.zone.contains(ip)
}

// thisMachine reports whether a query from ip comes from a local program. With a kernel
// interface such queries have ServiceAddr as their source, which no packet from outside
// has.
func thisMachine(ip netip.Addr) bool { return ip.IsLoopback() || ip == ServiceAddr }

// contains reports whether ip is an overlay address.
func (z *Zone) contains(ip netip.Addr) bool {
	return z.IPv4.IsValid() && z.IPv4.Contains(ip) || z.IPv6.IsValid() && z.IPv6.Contains(ip)
}

// A peer may ask ratePerSecond questions per second, with a burst after a pause. This
// machine is not limited.
const (
	ratePerSecond = 200
	maxLimited    = 1024
	maxConnsEach  = 16 // TCP connections of one peer
)

// limiter counts the queries per overlay address.
type limiter struct {
	mu    sync.Mutex
	peers map[netip.Addr]*allowance
	conns map[netip.Addr]int
}

// connect reports whether ip may open one more connection.
func (l *limiter) connect(ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !thisMachine(ip) && l.conns[ip] >= maxConnsEach {
		return false
	}
	if l.conns == nil {
		l.conns = map[netip.Addr]int{}
	}
	l.conns[ip]++
	return true
}

// disconnect undoes connect.
func (l *limiter) disconnect(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[ip]--; l.conns[ip] <= 0 {
		delete(l.conns, ip)
	}
}

// allowance is the remaining quota of one peer at one time.
type allowance struct {
	left float64
	at   time.Time
}

// allow reports whether ip may ask one more question.
func (l *limiter) allow(ip netip.Addr, now time.Time) bool {
	if thisMachine(ip) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.peers[ip]
	if a == nil {
		if l.peers == nil {
			l.peers = map[netip.Addr]*allowance{}
		}
		if len(l.peers) >= maxLimited {
			l.forgetLocked(now)
		}
		a = &allowance{left: ratePerSecond, at: now}
		l.peers[ip] = a
	}
	a.left = min(ratePerSecond, a.left+now.Sub(a.at).Seconds()*ratePerSecond)
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// forgetLocked removes peers that were silent for a second. If there are none, it
// removes all: so many peers do not normally ask one laptop.
func (l *limiter) forgetLocked(now time.Time) {
	for ip, a := range l.peers {
		if now.Sub(a.at) > time.Second {
			delete(l.peers, ip)
		}
	}
	if len(l.peers) >= maxLimited {
		clear(l.peers)
	}
}
