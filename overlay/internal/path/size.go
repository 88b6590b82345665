package path

import (
	"time"

	"weft/overlay/internal/probe"
)

const (
	// safeMTU is carried by every IPv6 link, and by nearly all IPv4 links. A path that
	// does not carry it is useless.
	safeMTU   = 1280
	headIPv4  = 20 + 8
	headIPv6  = 40 + 8
	headLane  = 20
	sizeTries = 3
	safeTries = 6                      // pings of the safe size before the path is given up
	sizeWait  = 300 * time.Millisecond // for answers to padded pings, or 2 round trips
	sizeAgain = 10 * time.Minute       // between searches
	sizeFell  = 10 * time.Second       // before a search after full pings were lost
	fullEvery = 2 * time.Second        // between pings of full length
	fullLost  = 3                      // this many lost in a row mean that the full length no longer passes
)

// linkMTUs are the sizes of IP packets to try: tunnels of others, PPPoE, Ethernet. The
// MTU of the node's own interface is tried too.
var linkMTUs = [...]int{1400, 1492, 1500}

// size is what is known about the datagrams that a link carries. Sizes are lengths of
// WireGuard messages and probes in bytes.
type size struct {
	small  bool   // not even the safe size passes
	proven uint16 // largest that has passed; 0: the safe size is assumed
	tries  uint8
	next   instant // when the search continues
	full   instant // when to send a ping of full length, or to check for its answer
	asked  instant // when the last ping of full length without an answer was sent, 0: none
	lost   uint8
}

func (s *size) begin(t instant) {
	if s.next == 0 {
		s.next = t
	}
	s.asked, s.lost = 0, 0
	s.full = t.add(fullEvery)
}

func (s *size) due() instant {
	if s.proven != 0 && (s.next == 0 || s.full < s.next) {
		return s.full
	}
	return s.next
}

// answered records the answer to a ping.
func (s *size) answered(p ping, t instant) {
	if p.size == 0 || p.size < s.proven {
		return
	}
	s.proven, s.asked, s.lost, s.small = p.size, 0, 0, false
	s.full = t.add(fullEvery)
}

// payload returns the longest message in an IP packet of mtu bytes.
func (l *link) payload(mtu int) uint16 {
	head := headIPv6
	switch {
	case l.path.Relayed:
		head += headLane
	case l.path.Addr.Addr().Is4() && mtu > safeMTU:
		head = headIPv4
	}
	return uint16(min(mtu-head, probe.MaxLen))
}

// limit returns the longest message that may be sent.
func (l *link) limit() int { return int(max(l.size.proven, l.payload(safeMTU))) }

// keepSize finds out which sizes pass on the path in use, and whether they still do.
func (a *Agent) keepSize(t instant) {
	l := a.find(a.cur)
	if l == nil || !a.active {
		return
	}
	s, wait := &l.size, max(sizeWait, 2*l.trip())
	if s.next != 0 && t >= s.next {
		switch s.tries++; {
		case s.proven == 0 && s.tries > safeTries && l.answered > s.asked:
			a.tooSmall(l, t)
			return
		case s.proven == 0 && s.tries > sizeTries:
			s.next, s.asked = t.add(wait), t
			a.ping(l, t, l.payload(safeMTU))
		case s.tries > sizeTries:
			s.tries, s.next = 0, t.add(sizeAgain)
		default:
			s.next = t.add(wait)
			if s.proven == 0 {
				a.ping(l, t, l.payload(safeMTU))
			}
			own := a.local.MTU
			if own == 0 {
				own = linkMTUs[len(linkMTUs)-1]
			}
			for _, mtu := range linkMTUs {
				if mtu < own {
					a.tryMTU(l, t, mtu)
				}
			}
			a.tryMTU(l, t, own)
		}
	}
	if s.proven == 0 || t < s.full {
		return
	}
	if s.asked != 0 && l.answered > s.asked { // the answers to both are equally long
		s.lost++
	}
	if s.lost >= fullLost {
		// Small pings pass, full ones do not.
		safe := l.payload(safeMTU)
		if s.proven <= safe {
			a.tooSmall(l, t)
			return
		}
		*s = size{proven: safe, next: t.add(sizeFell)}
	}
	s.asked = t
	a.ping(l, t, s.proven)
	s.full = t.add(wait)
}

// tooSmall takes traffic off a path that does not carry the safe size, until it does (see
// keepLink).
func (a *Agent) tooSmall(l *link, t instant) {
	l.size = size{small: true}
	l.next = t.add(keepKnown)
	a.forgive(l)
	a.cur = Path{}
	a.choose(t)
}

func (a *Agent) tryMTU(l *link, t instant, mtu int) {
	if p := l.payload(mtu); p > l.size.proven && p > l.payload(safeMTU) {
		a.ping(l, t, p)
	}
}
