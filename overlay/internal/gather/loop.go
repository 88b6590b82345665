package gather

import (
	"crypto/rand"
	"slices"
	"time"

	"weft/overlay/stun"
)

// loop owns the rounds.
func (g *Gatherer) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var next time.Time
	for {
		var fire <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			fire = timer.C
		}
		select {
		case <-g.ctx.Done():
			return
		case <-g.want:
			g.mu.Lock()
			unasked := g.unasked
			g.mu.Unlock()
			if unasked || g.begun.IsZero() || time.Since(g.begun) > fresh {
				g.begin()
			}
			g.Keep()
		case <-g.force:
			g.begin()
			g.Keep()
		case <-g.wake:
			g.last4, g.last6, g.lastSeen4, g.lastSeen6 = Family{}, Family{}, nil, nil
			g.mu.Lock()
			g.names.expire()
			inUse := !g.wanted.IsZero() && time.Since(g.wanted) < inUse
			g.mu.Unlock()
			if g.mapper != nil {
				g.mapper.Wake()
			}
			if inUse {
				g.begin()
			} else {
				g.forget()
			}
		case <-g.kick:
		case <-fire:
		}
		next = g.step()
	}
}

// begin starts a round. It asks servers with known addresses at once, others as soon as
// their name is resolved.
func (g *Gatherer) begin() {
	now := time.Now()
	g.begun = now
	g.rounds.Add(1)
	v4, v6 := g.cfg.Ports()
	all, err := g.cfg.Interfaces()
	if err != nil && !g.lastFailed {
		g.log.Warn("cannot list the addresses of this machine", "err", err)
	}
	g.lastFailed = err != nil
	g.locals = usable(all, g.cfg.Refuse)

	g.mu.Lock()
	defer g.mu.Unlock()
	g.v4, g.v6, g.unasked = v4, v6, false
	g.round = newRound(func() (tx stun.TxID) {
		rand.Read(tx[:])
		return tx
	})
	for _, s := range g.servers {
		g.askLocked(now, s)
	}
}

// step sends what is due, publishes the result, and returns when to call it again; zero:
// only after the next event.
func (g *Gatherer) step() (next time.Time) {
	now := time.Now()
	if g.begun.IsZero() {
		g.publish(g.view(now, false))
		return time.Time{}
	}
	g.mu.Lock()
	out, next := g.round.due(now)
	over := next.IsZero() && g.names.pending == 0
	g.mu.Unlock()

	var b [64]byte
	for _, q := range out {
		err := g.cfg.Send(stun.AppendRequest(b[:0], q.tx), q.to)
		if err != nil {
			g.log.Debug("send STUN request", "to", q.to, "err", err)
			continue
		}
		g.mu.Lock()
		g.round.sent(q)
		g.mu.Unlock()
	}
	g.publish(g.view(now, over))
	return next
}

// publish stores a snapshot, wakes those who wait for it, and calls Changed if it
// differs.
func (g *Gatherer) publish(s *Snapshot) {
	old := g.snap.Swap(s)
	g.mu.Lock()
	close(g.updated)
	g.updated = make(chan struct{})
	g.mu.Unlock()
	if g.cfg.Changed == nil {
		return
	}
	if s.Complete && (!old.Complete || old.round != s.round) || s.NAT() != old.NAT() ||
		s.PortMap.Kind != old.PortMap.Kind || !slices.Equal(s.Candidates, old.Candidates) {
		g.cfg.Changed(s)
	}
}

// forget drops all results, as before the first round.
func (g *Gatherer) forget() {
	g.begun, g.locals = time.Time{}, nil
	g.mu.Lock()
	defer g.mu.Unlock()
	g.round = nil
}
