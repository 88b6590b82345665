package overlay

import (
	"context"
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/intro"
	"weft/overlay/wg"
)

// The life of a tunnel after its introduction. No tunnel is watched by the
// clock: each has a time at which something could be due, and the owning
// goroutine sleeps until the first of them. Data after a pause (stirred), a
// lost session and an introduction bring that time forward. So a tunnel that
// is quiet costs nothing until its ten minutes are over.

// stirred is called by the WireGuard device when data goes out after a pause.
func (n *Node) stirred() {
	if r := n.active.Load(); r != nil {
		r.peers.hint(r.peers.lookSoon)
	}
}

// lookSoon has the tunnels looked at once what was sent just now could be
// found unanswered.
func (p *peers) lookSoon() {
	now := time.Now()
	p.lookAt(now.Add(silentAfter))
	p.stirPaths(now)
}

// lookAt has the tunnels looked at, at t at the latest.
func (p *peers) lookAt(t time.Time) {
	if p.nextLook.IsZero() || t.Before(p.nextLook) {
		p.nextLook = t
	}
}

// look gives every tunnel what it needs and notes when to look again.
func (p *peers) look(now time.Time) {
	p.nextLook = time.Time{}
	weftNow := p.n.clock.Now()
	for _, q := range p.table {
		if !q.installed() {
			continue
		}
		st, ok := p.device.Stats(q.id)
		if !ok {
			continue
		}
		if weftNow.After(q.node.NotAfter) {
			// It may have a new one by now, but has to show it.
			redial := p.hasTraffic(q, now)
			p.drop(q, "its certificate has expired", true)
			if redial {
				p.redial(q.id)
			}
			continue
		}
		ending := p.renewPeer(q, now, st.LastTx)
		if !q.gone.IsZero() && st.LastRx.After(q.gone) {
			q.gone = time.Time{} // the relay said so, and yet it is there
			p.n.dir.setPresence(q.id, true, time.Time{})
			p.publish()
		}
		act, again := q.judge(now, st, q.endpoint.Received(), p.n.idleAfter)
		switch act {
		case actDrop:
			p.drop(q, "idle", true)
			continue
		case actPing:
			p.ping(q, now)
		case actCall:
			p.call(q, nil)
		}
		p.lookAt(earliest(again, ending))
	}
}

// renewPeer has a peer with traffic show its new certificate before the one
// that it showed ends, so that the tunnel goes on without a break. It returns
// when to look at the certificate again.
func (p *peers) renewPeer(q *peer, now time.Time, sent time.Time) (again time.Time) {
	if due := p.renewal(q.node); now.Before(due) {
		return due
	}
	end := p.expiry(q.node)
	if now.Sub(sent) > silentAfter+recently { // data that comes later stirs
		return end
	}
	if q.dial == nil && !now.Before(latest(q.nextRenew, q.nextRedial)) {
		q.nextRenew = now.Add(max(end.Sub(now)/4, renewMin)) // it may not have a new one yet
		p.call(q, nil)
	}
	return earliest(end, latest(now.Add(renewMin), q.nextRenew, q.nextRedial))
}

// renewal is when, by the machine's clock, a node should show a new
// certificate: it has renewed it at two thirds of its life.
func (p *peers) renewal(n *cert.Node) time.Time {
	return p.expiry(n).Add(-expirySlack - n.NotAfter.Sub(n.NotBefore)/lastShare)
}

// expiry is when, by the machine's clock, a node's certificate is no longer
// good.
func (p *peers) expiry(n *cert.Node) time.Time {
	return time.Now().Add(n.NotAfter.Sub(p.n.clock.Now()) + expirySlack)
}

type action int

const (
	actNothing action = iota
	actDrop           // idle for long
	actPing           // data unanswered: is the peer alive?
	actCall           // no: introduce anew
)

// judge decides what a tunnel needs, from its counters and from when anything
// of the peer last came in, and when to ask again. It changes only the peer's
// notes about unanswered data and introductions.
func (q *peer) judge(now time.Time, st wg.Stats, received time.Time, idle time.Duration) (act action, again time.Time) {
	active := latest(st.LastTx, st.LastRx, q.made)
	end := active.Add(idle)
	if !now.Before(end) {
		return actDrop, now
	}
	if q.dial != nil {
		return actNothing, now.Add(pingAnswer)
	}
	if pause := st.LastTx.Add(wg.Pause); now.Before(pause) {
		end = earliest(end, pause) // data that goes on does not stir
	}
	heard := latest(st.LastRx, received, q.proved)
	if !st.LastTx.After(heard) {
		q.unanswered, q.pinging = time.Time{}, time.Time{}
		return q.judgeSession(now, st, end)
	}
	if q.unanswered.IsZero() || heard.After(q.unanswered) {
		q.unanswered, q.pinging = st.LastTx, time.Time{}
	}
	if due := q.unanswered.Add(silentAfter); now.Before(due) {
		act, again = q.judgeSession(now, st, end)
		return act, earliest(again, due)
	}
	switch {
	case !q.pinging.IsZero() && now.Before(q.pinging.Add(pingAnswer)):
		return actNothing, q.pinging.Add(pingAnswer)
	case q.pinging.IsZero() && q.session != nil:
		return actPing, now.Add(pingAnswer)
	case now.Before(q.nextRedial):
		return actNothing, q.nextRedial
	}
	return actCall, now.Add(pingAnswer)
}

// judgeSession redials a lost session whose tunnel goes on: without it neither
// side can say bye. The side with traffic does it, first the one that called.
func (q *peer) judgeSession(now time.Time, st wg.Stats, end time.Time) (act action, again time.Time) {
	if q.session != nil || !st.LastTx.After(q.lost) {
		return actNothing, end
	}
	turn := q.lost
	if !q.ours {
		turn = turn.Add(calledTurn)
	}
	if due := latest(turn, q.nextRedial, q.nextHint); now.Before(due) {
		return actNothing, earliest(due, end)
	}
	q.nextHint = now.Add(resetSpacing)
	return actCall, q.nextHint
}

func latest(ts ...time.Time) time.Time { return slices.MaxFunc(ts, time.Time.Compare) }

func earliest(ts ...time.Time) time.Time { return slices.MinFunc(ts, time.Time.Compare) }

// ping asks over the session whether the peer is there.
func (p *peers) ping(q *peer, now time.Time) {
	q.pinging = now
	s := q.session
	p.wg.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, pingAnswer)
		defer cancel()
		_, err := s.Ping(ctx)
		p.do(func() {
			if q.pinging != now {
				return
			}
			if err == nil {
				// It lives; a one-way flow is nothing to worry about.
				q.proved, q.pinging = time.Now(), time.Time{}
			}
			p.lookAt(time.Now())
		})
	})
}

// watch tells of what happens to a peer while somebody waits for its answer:
// gone is closed when the relay says that it is not there, renewed when the
// tunnel was made anew, so that what was sent into the old one is lost. stop
// ends the watch.
func (p *peers) watch(id cert.NodeID) (gone, renewed <-chan struct{}, stop func()) {
	g, r := make(chan struct{}), make(chan struct{})
	p.do(func() {
		if q := p.table[id]; q != nil {
			q.watchers, q.renewed = append(q.watchers, g), append(q.renewed, r)
		}
	})
	return g, r, func() {
		p.do(func() {
			if q := p.table[id]; q != nil {
				q.watchers = slices.DeleteFunc(q.watchers, func(x chan struct{}) bool { return x == g })
				q.renewed = slices.DeleteFunc(q.renewed, func(x chan struct{}) bool { return x == r })
			}
		})
	}
}

// measured notes a round trip through the tunnel.
func (p *peers) measured(id cert.NodeID, rtt time.Duration) {
	p.do(func() {
		if q := p.table[id]; q != nil {
			q.rtt = rtt
			p.publish()
		}
	})
}

// prove finds out whether a peer with a tunnel is really there, for somebody
// who waits for its answer: by a ping over the session, unless the relay has
// just said that it is gone, and when that fails by introducing anew. The
// frame also makes the relay look for the peer, so that one that vanished is
// known to be gone within two seconds.
func (p *peers) prove(ctx context.Context, id cert.NodeID, gone <-chan struct{}) error {
	var s *intro.Session
	p.inLoop(func() error {
		if q := p.table[id]; q != nil {
			s = q.session
		}
		return nil
	})
	if s != nil {
		ping, cancel := context.WithTimeout(ctx, pingAnswer)
		answered := make(chan error, 1)
		go func() {
			_, err := s.Ping(ping)
			answered <- err
		}()
		var err error
		select {
		case err = <-answered:
		case <-gone:
			cancel()
			err = <-answered
		}
		cancel()
		if err == nil {
			return nil
		}
	}
	return p.callAnew(ctx, id)
}

// callAnew introduces this node to a peer, whether there is a tunnel or not,
// and returns the result.
func (p *peers) callAnew(ctx context.Context, id cert.NodeID) error {
	done := make(chan error, 1)
	if !p.do(func() {
		q := p.table[id]
		if q == nil {
			q = &peer{id: id}
			p.table[id] = q
		}
		p.call(q, done)
	}) {
		return errDown
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
