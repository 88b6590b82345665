package gather

import (
	"net/netip"
	"time"

	"weft/overlay/stun"
)

const (
	// maxDests bounds the STUN destinations of one round, per family.
	maxDests = 8
	// maxPeers bounds the peers that are heard in one round.
	maxPeers = 2
	// maxRound bounds a round from the last destination added. An uplink that is
	// full of uploads delays answers by seconds, and does not block them.
	maxRound = 5 * time.Second
)

// tries are the times of the requests to one destination. The first are
// closer together than RFC 8489 has it: a path is waited for, and 28 bytes
// are cheap.
var tries = [...]time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond, 1500 * time.Millisecond}

// request is a datagram to send.
type request struct {
	to  netip.AddrPort
	tx  stun.TxID
	ask int // of round.asks
}

// round is one gathering: no clock, no socket, no goroutine.
type round struct {
	asks   []ask
	open   map[stun.TxID]openTry
	newTx  func() stun.TxID
	failed []Answer // names that were not found
}

// ask is one STUN destination.
type ask struct {
	server string
	to     netip.AddrPort
	start  time.Time
	sent   int  // tries
	went   bool // at least one could be sent
	seen   netip.AddrPort
	rtt    time.Duration
	peer   bool // no STUN server: a peer said so
}

type openTry struct {
	ask  int
	sent time.Time
}

func newRound(newTx func() stun.TxID) *round {
	return &round{open: map[stun.TxID]openTry{}, newTx: newTx}
}

// add asks one more destination; doubles, and more than maxDests of a family,
// are left out.
func (r *round) add(now time.Time, server string, to netip.AddrPort) {
	same := 0
	for i := range r.asks {
		if r.asks[i].to == to {
			return
		}
		if r.asks[i].to.Addr().Is4() == to.Addr().Is4() {
			same++
		}
	}
	if same < maxDests {
		r.asks = append(r.asks, ask{server: server, to: to, start: now})
	}
}

// due returns the requests to send now, and when to ask again: zero once all
// have been answered or given up.
func (r *round) due(now time.Time) (out []request, next time.Time) {
	for i := range r.asks {
		a := &r.asks[i]
		if a.over(now) {
			continue
		}
		for a.sent < len(tries) && !now.Before(a.start.Add(tries[a.sent])) {
			tx := r.newTx()
			r.open[tx] = openTry{ask: i, sent: now}
			out = append(out, request{to: a.to, tx: tx, ask: i})
			a.sent++
		}
		at := a.start.Add(maxRound)
		if a.sent < len(tries) {
			at = a.start.Add(tries[a.sent])
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return out, next
}

// sent notes that a request went out. A destination to which none did counts
// as not asked: there is no way there, which is not the same as blocked.
func (r *round) sent(q request) { r.asks[q.ask].went = true }

// answer takes a datagram and reports whether it changed anything. The
// transaction must be one that is open, and from the address that was asked.
func (r *round) answer(now time.Time, pkt []byte, from netip.AddrPort) bool {
	tx, seen, err := stun.ParseResponse(pkt)
	if err != nil {
		return false
	}
	o, ok := r.open[tx]
	if !ok {
		return false
	}
	a := &r.asks[o.ask]
	if a.to != netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port()) || a.over(now) {
		return false
	}
	if !plausible(seen, a.to) {
		return false
	}
	for t, other := range r.open {
		if other.ask == o.ask {
			delete(r.open, t)
		}
	}
	a.seen, a.rtt = seen, now.Sub(o.sent)
	return true
}

// observe takes what a peer at from saw as our address. It is a witness for
// the kind of NAT only while the mapping that the STUN servers saw is sure to
// be the same one, and only one for each address.
func (r *round) observe(now time.Time, from, seen netip.AddrPort) bool {
	if !public(from.Addr()) || !public(seen.Addr()) || !plausible(seen, from) {
		return false
	}
	answered, peers := false, 0
	for i := range r.asks {
		a := &r.asks[i]
		if a.to.Addr() == from.Addr() {
			return false
		}
		if a.peer {
			peers++
		}
		answered = answered || a.seen.IsValid() && a.to.Addr().Is4() == from.Addr().Is4() && now.Sub(a.start) < fresh
	}
	n := len(r.asks)
	if answered && peers < maxPeers {
		r.add(now, "a peer", from)
	}
	if len(r.asks) == n {
		return false
	}
	a := &r.asks[n]
	a.seen, a.went, a.sent, a.peer = seen, true, len(tries), true
	return true
}

// over reports that nothing more is waited for.
func (a *ask) over(now time.Time) bool {
	return a.seen.IsValid() || !now.Before(a.start.Add(maxRound))
}

// plausible: an address of another family than the one we asked from (a
// translator in between that rewrites nothing inside), or that no packet
// comes from, is no answer.
func plausible(seen, to netip.AddrPort) bool {
	a := seen.Addr()
	return seen.Port() != 0 && a.Is4() == to.Addr().Is4() && !a.IsUnspecified() && !a.IsMulticast()
}

// answers lists what became of each destination.
func (r *round) answers(now time.Time) []Answer {
	out := make([]Answer, 0, len(r.asks)+len(r.failed))
	for i := range r.asks {
		a := &r.asks[i]
		if a.peer {
			continue
		}
		w := Answer{Server: a.server, Addr: a.to, Seen: a.seen, RTT: a.rtt}
		switch {
		case a.seen.IsValid() || !a.over(now):
		case !a.went:
			w.Err = "no way there from here"
		default:
			w.Err = "UDP is blocked, or it is down"
		}
		out = append(out, w)
	}
	return append(out, r.failed...)
}
