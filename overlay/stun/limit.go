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

// Limiter allows 20 datagrams a second to an IPv4 address or an IPv6 /64. A source
// address can be forged, so its owner may not have asked for them. One goroutine uses a
// Limiter.
type Limiter struct {
	// An address is hashed to a bucket with a random seed, so the table has a fixed size
	// and nobody can choose with whom to share a bucket.
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
