package intro

import (
	"errors"
	"math"
	"slices"
	"time"
)

// How many introductions are answered at a time, and whose. Any member of the
// network can open some and never go on: each holds its place for
// HandshakeTimeout, or twice that. So half of the places are for nodes that are known (see
// Config.Known), who come into the other half only when theirs are taken. In that
// one there is always a place for one more: the sender that is the greatest
// burden, by the introductions that it has open there and by those that came to
// nothing of late, loses its oldest. Who comes for the first time is no burden
// yet, however many others are.
//
// Whoever has shown a certificate and said hello gives the place up, if there is
// room for waiting for the verdict: that may take two seconds after a start.

// pool is where an introduction by another node has its place.
type pool uint8

const (
	poolNone     pool = iota // decided, or by this node
	poolKnown                // of nodes that are known
	poolOpen                 // of any
	poolDeciding             // the caller has said hello
	pools
)

// poolSize is how many introductions by other nodes there are at a time.
var poolSize = [pools]int{poolKnown: maxHalfOpen / 2, poolOpen: maxHalfOpen / 2, poolDeciding: maxDeciding}

// errCrowded ends an introduction whose place is given to that of another node.
var errCrowded = errors.New("introduction made room for that of another node")

// placeLocked finds a place for one more introduction by a node, or returns
// poolNone.
func (sw *Switch) placeLocked(p *peer, now time.Time) pool {
	if sw.places[poolKnown] < poolSize[poolKnown] && sw.knownLocked(p) {
		return poolKnown
	}
	if sw.places[poolOpen] >= poolSize[poolOpen] {
		out := sw.burdenLocked(p, now)
		if out == nil {
			return poolNone
		}
		sw.failLocked(out, errCrowded)
	}
	return poolOpen
}

func (sw *Switch) knownLocked(p *peer) bool {
	return p.current != nil || p.dial != nil || sw.cfg.Known != nil && sw.cfg.Known(p.id)
}

// burdenLocked returns the introduction that has to make room for one more by
// the newcomer: the oldest of the sender that is the greatest burden. It is nil
// when that is the newcomer itself, and it has none to give up.
func (sw *Switch) burdenLocked(newcomer *peer, now time.Time) *Session {
	burden := func(p *peer) float64 {
		b := p.wasteAt(now)
		for _, s := range sw.crowd {
			if s.peer == p {
				b++
			}
		}
		return b
	}
	worst, most := newcomer, burden(newcomer)+1
	for _, s := range sw.crowd {
		if s.peer == newcomer {
			continue
		}
		if b := burden(s.peer); b > most || b == most && worst == newcomer {
			worst, most = s.peer, b
		}
	}
	if i := slices.IndexFunc(sw.crowd, func(s *Session) bool { return s.peer == worst }); i >= 0 {
		return sw.crowd[i]
	}
	return nil
}

// moveLocked gives an introduction another place.
func (sw *Switch) moveLocked(s *Session, to pool) {
	if s.place == poolOpen {
		sw.crowd = slices.DeleteFunc(sw.crowd, func(o *Session) bool { return o == s })
	}
	if to == poolOpen {
		sw.crowd = append(sw.crowd, s)
	}
	sw.places[s.place]--
	sw.places[to]++
	s.place = to
}

// deciding gives up the place of an introduction whose caller has said hello.
func (sw *Switch) deciding(s *Session) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if s.halfOpen && sw.places[poolDeciding] < poolSize[poolDeciding] {
		sw.moveLocked(s, poolDeciding)
	}
}

// wasteAt returns how many introductions of a sender have come to nothing of
// late.
func (p *peer) wasteAt(now time.Time) float64 {
	if p.waste == 0 {
		return 0
	}
	return p.waste * math.Exp2(-float64(now.Sub(p.wastedAt))/float64(wasteHalf))
}

// wastes counts one more.
func (p *peer) wastes(now time.Time) {
	p.waste, p.wastedAt = p.wasteAt(now)+1, now
}
