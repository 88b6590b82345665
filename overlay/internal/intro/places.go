package intro

import (
	"errors"
	"math"
	"slices"
	"time"
)

// Which introductions are answered when there are too many. Any member of the network can
// open some and never continue; each takes a place for HandshakeTimeout, or twice that.
// So half of the places are for known nodes (see Config.Known), which use the other half
// only when theirs are taken. The other half always has a place for one more: the sender
// that is the greatest burden loses its oldest introduction. The burden of a sender
// counts the introductions that it has open there and those that failed lately, so a node
// that comes for the first time is no burden.
//
// An introduction whose caller has presented a certificate and sent hello frees its place
// and waits for the verdict elsewhere, if there is room: a verdict may take two seconds
// after a start.

// pool is a group of places for introductions by other nodes.
type pool uint8

const (
	poolNone     pool = iota // none: decided, or by this node
	poolKnown                // for known nodes
	poolOpen                 // for any node
	poolDeciding             // after the caller's hello
	pools
)

// poolSize is the number of places of each pool.
var poolSize = [pools]int{poolKnown: maxHalfOpen / 2, poolOpen: maxHalfOpen / 2, poolDeciding: maxDeciding}

// errCrowded ends an introduction whose place is needed for another node's.
var errCrowded = errors.New("too many introductions at once: another node's took its place")

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

// moveLocked moves an introduction to another pool.
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

// deciding moves an introduction whose caller has sent hello to poolDeciding, if that has
// room.
func (sw *Switch) deciding(s *Session) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if s.halfOpen && sw.places[poolDeciding] < poolSize[poolDeciding] {
		sw.moveLocked(s, poolDeciding)
	}
}

// wasteAt returns the count of a sender's failed introductions, which decays over time.
func (p *peer) wasteAt(now time.Time) float64 {
	if p.waste == 0 {
		return 0
	}
	return p.waste * math.Exp2(-float64(now.Sub(p.wastedAt))/float64(wasteHalf))
}

// wastes counts one more failed introduction.
func (p *peer) wastes(now time.Time) {
	p.waste, p.wastedAt = p.wasteAt(now)+1, now
}
