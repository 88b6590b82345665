package path

import (
	"net/netip"
	"slices"
	"time"

	"weft/overlay/internal/probe"
)

const (
	roundTime     = 2500 * time.Millisecond // length of a round with all answers
	askedSpacing  = time.Second             // between rounds that the peer asked for
	gatherSpacing = 10 * time.Second        // between gatherings because the peer asked
	minFollow     = 20 * time.Millisecond   // between pings that follow the peer's
	followAlways  = time.Second             // between such pings beyond the budget
	keepSocket    = time.Minute             // for an extra socket on which the peer has sent
	keepKnown     = 10 * time.Second        // between pings to working addresses that are not in use

	unverifiedPerSec = 8
	unverifiedBurst  = 256
	perAddress       = 14
	perAddressTime   = 30 * time.Second
)

// tryAfter are the waits between the pings of a round to one address.
var tryAfter = [...]time.Duration{
	30 * time.Millisecond, 60 * time.Millisecond, 110 * time.Millisecond,
	200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond,
}

// roundAfter are the waits between rounds that fail.
var roundAfter = [...]time.Duration{8 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}

// flowRound is the longest wait while data flow without a pause. The data are many times
// the traffic of a round, and nothing signals when an obstacle has gone.
const flowRound = time.Minute

// startRound schedules pings to every candidate that does not work already. With ask it
// also asks the peer to do the same.
func (a *Agent) startRound(t instant, ask bool) {
	a.roundAt = t
	a.nextRound = t.add(roundAfter[min(a.failed, len(roundAfter)-1)])
	for i := range a.links {
		l := &a.links[i]
		if l.verified == 0 || l.path != a.cur {
			l.tries, l.next = 0, t
		}
	}
	if ask {
		a.gathered = t
		a.out.Gather, a.out.CallMe = true, true
	}
}

// keepRound sends due pings to addresses not in use, and starts another round when the
// last one has failed.
func (a *Agent) keepRound(t instant) {
	if l := a.find(a.best); l != nil && l.path != a.cur {
		a.keepLink(l, t)
	}
	for _, lan := range [...]bool{true, false} {
		for i := range a.links {
			if l := &a.links[i]; l.lan == lan && l.path != a.cur {
				a.keepLink(l, t)
			}
		}
	}
	for i := range a.links {
		if l := &a.links[i]; l.path.Socket != 0 && l.path != a.cur && t.sub(l.probed) >= keepSocket {
			on := l.path
			a.dropLinks(func(l *link) bool { return l.path == on })
			break
		}
	}
	if next := a.roundDue(); a.active && next != 0 && t >= next {
		if a.isDirect() {
			a.nextRound = 0
		} else {
			a.failed++
			a.startRound(t, true)
			a.keepRound(t)
		}
	}
}

// roundDue returns when to start another round if data still flow; 0 for never.
func (a *Agent) roundDue() instant {
	if a.nextRound == 0 || a.without == 0 {
		return a.nextRound
	}
	return min(a.nextRound, max(a.roundAt, a.without).add(flowRound))
}

func (a *Agent) keepLink(l *link, t instant) {
	if l.verified != 0 && l.next == 0 && a.active {
		l.next = max(l.verified.add(keepKnown), t)
	}
	if l.next == 0 || t < l.next {
		return
	}
	switch {
	case l.verified != 0 && !a.active:
		l.next = 0
	case l.verified != 0 && l.misses < 3:
		a.ping(l, t, 0)
		if l.size.small {
			a.ping(l, t, l.payload(safeMTU))
		}
		l.next = t.add(keepKnown)
		if l.misses > 1 {
			l.next = t.add(tryAfter[3])
		}
	case l.verified != 0:
		l.verified, l.next = 0, 0
		a.forgive(l)
	case int(l.tries) > len(tryAfter):
		l.next = 0
		a.forgive(l)
	default:
		a.pingUnverified(l, t)
		if l.next = 0; int(l.tries) < len(tryAfter) {
			l.next = t.add(tryAfter[l.tries])
		}
		l.tries++
	}
}

// pingUnverified pings an address that is not verified as the peer's, if the budget
// allows it, and reports whether it did.
func (a *Agent) pingUnverified(l *link, t instant) bool {
	if t.sub(l.from) >= perAddressTime {
		l.from, l.spent = t, 0
	}
	if l.spent >= perAddress || a.isBroadcast(l.path.Addr.Addr()) || !a.unverified.take(t, unverifiedPerSec, unverifiedBurst) {
		return false
	}
	l.spent++
	a.ping(l, t, 0)
	return true
}

// ping sends a ping of size bytes, 0 for a small one.
func (a *Agent) ping(l *link, t instant, size uint16) {
	slot := 0
	for i := range l.open {
		if l.open[i].at < l.open[slot].at {
			slot = i
		}
	}
	l.open[slot] = ping{tx: a.newTx(), at: t, size: size}
	if size == 0 {
		l.pinged = t
		if l.misses++; l.oldest == 0 {
			l.oldest = t
		}
	}
	a.out.Send = append(a.out.Send, Send{Path: l.path, Kind: probe.Ping, Tx: l.open[slot].tx, Size: max(int(size), probe.Len)})
}

// forgive clears the missed pings.
func (a *Agent) forgive(l *link) {
	clear(l.open[:])
	l.oldest, l.misses, l.size.asked = 0, 0, 0
}

// forgiveUntil clears missed small pings up to the time at of an answered one.
func (a *Agent) forgiveUntil(l *link, at instant) {
	l.oldest, l.misses = 0, 0
	for i := range l.open {
		switch p := &l.open[i]; {
		case p.at == 0 || p.size != 0:
		case p.at <= at:
			*p = ping{}
		default:
			l.misses++
			if l.oldest == 0 || p.at < l.oldest {
				l.oldest = p.at
			}
		}
	}
}

// isBroadcast reports whether an address is the broadcast address of one of this node's
// LANs.
func (a *Agent) isBroadcast(ip netip.Addr) bool {
	return ip.Is4() && slices.ContainsFunc(a.local.Nets, func(p netip.Prefix) bool {
		if !p.Addr().Is4() || p.Bits() >= 31 || !p.Contains(ip) {
			return false
		}
		b := ip.As4()
		host := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		mask := uint32(1)<<(32-p.Bits()) - 1
		return host&mask == mask || host&mask == 0
	})
}
