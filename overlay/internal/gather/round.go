package gather

import (
	"net/netip"
	"time"

	"weft/overlay/stun"
)

const (
	// maxDests bounds the STUN destinations of one round, per family.
	maxDests = 8
	// maxPeers bounds the peers whose reports count in one round.
	maxPeers = 2
	// maxRound is when a round ends, counted from the last destination that was added. A
	// full uplink delays answers by seconds, but does not block them.
	maxRound = 5 * time.Second
)

// tries are the times of the requests to one destination. The first are closer together
// than RFC 8489 recommends, because somebody waits for a path and 28 bytes are cheap.
var tries = [...]time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond, 1500 * time.Millisecond}

// request is a datagram to send.
type request struct {
	to  netip.AddrPort
	tx  stun.TxID
	ask int // index in round.asks
}

// round is one round of gathering. It has no clock, no socket and no goroutine.
type round struct {
	asks   []ask
	open   map[stun.TxID]openTry
	newTx  func() stun.TxID
	failed []Answer // servers that could not be asked
}

// ask is one STUN destination.
type ask struct {
	server    string
	to        netip.AddrPort
	start     time.Time
	sent      int  // how many tries were sent
	reachable bool // at least one try could be sent
	seen      netip.AddrPort
	rtt       time.Duration
	peer      bool // a peer that reported, not a STUN server
}

type openTry struct {
	ask  int
	sent time.Time
}

func newRound(newTx func() stun.TxID) *round {
	return &round{open: map[stun.TxID]openTry{}, newTx: newTx}
}

// add adds a destination. It ignores one that is listed already, and those beyond
// maxDests of a family.
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

// due returns the requests to send now, and when to call it again: zero once all are
// answered or given up.
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

// sent records that a request was sent. A destination to which none could be sent counts
// as not asked: it is unreachable, which does not mean that UDP is blocked.
func (r *round) sent(q request) { r.asks[q.ask].reachable = true }

// answer takes a datagram and reports whether it changed anything. Its transaction must
// be open, and it must come from the address that was asked.
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

// observe takes our address as a peer at from has seen it. It counts only while the
// mapping is certainly the one that the STUN servers saw, and once for each address.
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
	a.seen, a.reachable, a.sent, a.peer = seen, true, len(tries), true
	return true
}

// over reports whether no more answer can come.
func (a *ask) over(now time.Time) bool {
	return a.seen.IsValid() || !now.Before(a.start.Add(maxRound))
}

// plausible refuses an address of another family than the one we asked from (a translator
// in between did not rewrite the payload), and one from which no packet can come.
func plausible(seen, to netip.AddrPort) bool {
	a := seen.Addr()
	return seen.Port() != 0 && a.Is4() == to.Addr().Is4() && !a.IsUnspecified() && !a.IsMulticast()
}

// answers returns the outcome for each destination.
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
		case !a.reachable:
			w.Err = "it is unreachable from this network"
		default:
			w.Err = "UDP is blocked, or it is down"
		}
		out = append(out, w)
	}
	return append(out, r.failed...)
}
