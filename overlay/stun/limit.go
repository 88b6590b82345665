package stun

import (
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	perSecond = 20
	buckets   = 1 << 14
)

// Limiter limits datagrams to addresses that may not have asked for them, for
// a source can be anybody's: 20 a second to an IPv4 address or an IPv6 /64.
// One goroutine uses it.
type Limiter struct {
	// Addresses share buckets by hash under a random seed, so the table cannot
	// grow and nobody can choose whom to share with.
	seed  maphash.Seed
	table []bucket
}

// bucket counts datagrams within one second.
type bucket struct {
	second int64
	n      uint8
}

// NewLimiter makes a Limiter of 256 KB.
func NewLimiter() *Limiter { return &Limiter{maphash.MakeSeed(), make([]bucket, buckets)} }

// Allow counts one more datagram to ip and reports whether it may be sent.
func (l *Limiter) Allow(ip netip.Addr, now time.Time) bool {
	if ip = ip.Unmap(); ip.Is6() {
		p, _ := ip.WithZone("").Prefix(64)
		ip = p.Addr()
	}
	b := &l.table[maphash.Comparable(l.seed, ip)%buckets]
	if sec := now.Unix(); b.second != sec {
		*b = bucket{second: sec}
	}
	if b.n >= perSecond {
		return false
	}
	b.n++
	return true
}
