package tunnels

import (
	"context"
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/path"
)

// The life of a tunnel after its introduction. No tunnel is watched by the
// clock: each has a time at which something could be due, and the owning
// goroutine sleeps until the first of them. Data after a pause (stirred), a
// lost session and an introduction bring that time forward. So a tunnel that
// is quiet costs nothing until its ten minutes are over.

// Stirred is called by the forwarder when data goes out after a pause.
func (t *Table) Stirred() { t.hint(t.lookSoon) }

// lookSoon has the tunnels looked at once what was sent just now could be
// found unanswered.
func (t *Table) lookSoon() {
	now := time.Now()
	if t.rekeyed {
		t.lookAt(now)
	}
	t.lookAt(now.Add(silentAfter))
	t.stirPaths(now)
}

// lookAt has the tunnels looked at, then at the latest.
func (t *Table) lookAt(at time.Time) {
	if t.nextLook.IsZero() || at.Before(t.nextLook) {
		t.nextLook = at
	}
}

// look gives every tunnel what it needs and notes when to look again.
func (t *Table) look(now time.Time) {
	t.nextLook, t.rekeyed = time.Time{}, false
	weftNow := t.cfg.Clock.Now()
	for _, q := range t.table {
		if !q.installed() {
			continue
		}
		st, ok := t.forwarder.Stats(q.id)
		if !ok {
			continue
		}
		if weftNow.After(q.node.NotAfter) {
			// It may have a new one by now, but has to show it.
			t.endAndRedial(q, "its certificate has expired", true)
			continue
		}
		ending := t.renewPeer(q, now, st.LastTx)
		if !q.gone.IsZero() && st.LastRx.After(q.gone) {
			q.gone = time.Time{} // the relay said so, and yet it is there
			t.cfg.Directory.SetPresence(directory.Sighting{ID: q.id, Online: true})
			t.publish()
		}
		act, again := q.judge(now, st, q.endpoint.Kept(), t.patience(q), t.cfg.Idle)
		switch act {
		case actDrop:
			t.drop(q, "idle", true)
			continue
		case actPing:
			t.ping(q, now, st.LastTx)
		case actCall:
			t.call(q, nil)
		}
		t.tellKey(q, now, st)
		t.lookAt(earliest(again, ending))
	}
	if again := t.cfg.Filters.Note(now); !again.IsZero() {
		t.lookAt(again)
	}
}

// renewPeer has a peer with traffic show its new certificate before the one
// that it showed ends, so that the tunnel goes on without a break. It returns
// when to look at the certificate again.
func (t *Table) renewPeer(q *peer, now time.Time, sent time.Time) (again time.Time) {
	if due := t.renewal(q.node); now.Before(due) {
		return due
	}
	end := t.expiry(q.node)
	if now.Sub(sent) > silentAfter+recently { // data that comes later stirs
		return end
	}
	if q.dial == nil && !now.Before(latest(q.nextRenew, q.nextRedial)) {
		q.nextRenew = now.Add(max(end.Sub(now)/4, renewMin)) // it may not have a new one yet
		t.call(q, nil)
	}
	return earliest(end, latest(now.Add(renewMin), q.nextRenew, q.nextRedial))
}

// renewal is when, by the machine's clock, a node should show a new
// certificate: it has renewed it at two thirds of its life.
func (t *Table) renewal(n *cert.Node) time.Time {
	return t.expiry(n).Add(-expirySlack - n.NotAfter.Sub(n.NotBefore)/lastShare)
}

// expiry is when, by the machine's clock, a node's certificate is no longer
// good.
func (t *Table) expiry(n *cert.Node) time.Time {
	return time.Now().Add(n.NotAfter.Sub(t.cfg.Clock.Now()) + expirySlack)
}

type action int

const (
	actNothing action = iota
	actDrop           // idle for long
	actPing           // data unanswered: is the peer alive?
	actCall           // no: introduce anew
)

// patience is how long data may go unanswered that is sent again and again. A
// relay says by itself when a peer is gone or has no tunnel, and its TLS
// connection may well stand still for a while; nobody says so of UDP. What the
// session cannot carry is not asked.
func (t *Table) patience(q *peer) time.Duration {
	if q.path.shown.Kind == path.Relay || !t.home.Connected() {
		return keptQuietAfter
	}
	trip := 3 * time.Duration(q.path.rtt.Load())
	return min(max(q.trip.Wait(silentAfter, keptQuietAfter), trip), keptQuietAfter)
}

// judge decides what a tunnel needs, from its counters and from when a keepalive
// of the peer last came in, and when to ask again. It changes only the
// peer's notes about unanswered data and introductions.
//
// Probes say within a second that a path is dead, but nothing of whether the
// keys of both sides fit. What is unanswered for patience is therefore asked
// about over the session. To ask costs bytes, so it is not done for the last
// word of a talk, nor again and again for a flow to which nobody answers, such as
// a log by UDP: once the peer has said that it arrives, or WireGuard's keepalive
// has, only the keepalive is waited for until data come back.
func (q *peer) judge(now time.Time, st dataplane.Stats, kept time.Time, patience, idle time.Duration) (act action, again time.Time) {
	active := latest(st.LastTx, st.LastRx, q.made)
	end := active.Add(idle)
	if !now.Before(end) {
		return actDrop, now
	}
	answer := q.trip.Wait(pingAnswer, answerMost)
	if q.dial != nil {
		return actNothing, now.Add(answer)
	}
	if pause := st.LastTx.Add(dataplane.Pause); now.Before(pause) {
		end = earliest(end, pause) // data that goes on does not stir
	}
	heard := latest(st.LastIn, kept, q.proved)
	if !st.LastTx.After(heard) {
		q.unanswered, q.pinging = time.Time{}, time.Time{}
		return q.judgeSession(now, st, end)
	}
	if q.unanswered.IsZero() || heard.After(q.unanswered) {
		if !q.unanswered.IsZero() && kept.After(q.unanswered) {
			q.oneWay = kept
		}
		// Data have gone out since Stirred, without a pause to speak of.
		q.unanswered, q.pinging = latest(heard, st.Stirred), time.Time{}
	}
	if st.LastTx.Sub(q.unanswered) < insistAfter || q.oneWay.After(st.LastIn) {
		patience = keptQuietAfter
	}
	if due := q.unanswered.Add(patience); q.pinging.IsZero() && now.Before(due) {
		act, again = q.judgeSession(now, st, end)
		return act, earliest(again, due)
	}
	switch {
	case !q.pinging.IsZero() && now.Before(q.pinging.Add(answer)):
		return actNothing, q.pinging.Add(answer)
	case q.pinging.IsZero() && q.session != nil:
		return actPing, now.Add(answer)
	case now.Before(q.nextRedial):
		return actNothing, q.nextRedial
	}
	return actCall, now.Add(answer)
}

// judgeSession redials a lost session whose tunnel goes on: without it neither
// side can say bye. The side with traffic does it, first the one that called.
func (q *peer) judgeSession(now time.Time, st dataplane.Stats, end time.Time) (act action, again time.Time) {
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

// ping asks over the session whether the peer is there and hears us, who last
// sent data at sent.
func (t *Table) ping(q *peer, now, sent time.Time) {
	q.pinging = now
	q.asks(now)
	s := q.session
	t.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, answerMost)
		defer cancel()
		pong, err := s.Ping(ctx)
		t.do(func() {
			if err == nil {
				q.spoke(pong.RTT)
			}
			if q.pinging != now {
				return
			}
			if err == nil {
				q.answered(time.Now(), sent, pong)
			}
			t.lookAt(time.Now())
		})
	})
}

// answered takes the answer to a ping. What was sent last may be lost by chance,
// but not all of what was sent again. Whatever the answer, the next question is
// for when data have come.
func (q *peer) answered(now, sent time.Time, pong intro.Pong) {
	q.oneWay = now
	again := sent.Sub(q.unanswered) >= insistAfter
	if again && !pong.HeardWithin(q.pinging.Sub(sent)+pong.RTT/2+insistAfter) {
		q.pinging = now.Add(-answerMost) // as good as no answer
		return
	}
	q.proved, q.pinging = now, time.Time{}
}

// heardFrom is when data of a peer last came out of its tunnel, for its pings.
func (t *Table) heardFrom(id cert.NodeID) time.Time {
	st, _ := t.forwarder.Stats(id)
	return st.LastIn
}

// Watch tells of what happens to a peer while somebody waits for its answer:
// gone is closed when the relay says that it is not there, renewed when the
// tunnel was made anew, so that what was sent into the old one is lost. stop
// ends the watch.
func (t *Table) Watch(id cert.NodeID) (gone, renewed <-chan struct{}, stop func()) {
	g, r := make(chan struct{}), make(chan struct{})
	t.do(func() {
		if q := t.table[id]; q != nil {
			q.watchers, q.renewed = append(q.watchers, g), append(q.renewed, r)
		}
	})
	return g, r, func() {
		t.do(func() {
			if q := t.table[id]; q != nil {
				q.watchers = slices.DeleteFunc(q.watchers, func(x chan struct{}) bool { return x == g })
				q.renewed = slices.DeleteFunc(q.renewed, func(x chan struct{}) bool { return x == r })
			}
		})
	}
}

// Measured notes a round trip through the tunnel.
func (t *Table) Measured(id cert.NodeID, rtt time.Duration) {
	t.do(func() {
		if q := t.table[id]; q != nil {
			q.rtt = rtt
			t.publish()
		}
	})
}

// Prove finds out whether a peer with a tunnel is really there, for somebody
// who waits for its answer: by a ping over the session, and when that is not
// answered soon, or the relay has just said that the peer is gone, by introducing
// anew as well. Whatever succeeds first says that it is there: behind an uplink
// that has just filled up the answer takes longer than ever before. The frame also
// makes the relay look for the peer, so that one that vanished is known to be gone
// within silentFor.
func (t *Table) Prove(ctx context.Context, id cert.NodeID, gone <-chan struct{}) error {
	s, answer := t.askOver(id)
	if s == nil {
		return t.CallAnew(ctx, id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := t.pinged(ctx, id, s)
		answered <- err
	}()
	timer := time.NewTimer(answer)
	defer timer.Stop()
	select {
	case err := <-answered:
		if err == nil {
			return nil
		}
		return t.CallAnew(ctx, id)
	case <-gone:
	case <-timer.C:
	}
	called := make(chan error, 1)
	go func() { called <- t.CallAnew(ctx, id) }()
	for {
		select {
		case err := <-answered:
			if err == nil {
				return nil
			}
			answered = nil
		case err := <-called:
			return err
		}
	}
}

// askOver returns the session with a peer, nil if there is none, for a question of
// somebody who waits, and how long the answer may take.
func (t *Table) askOver(id cert.NodeID) (s *intro.Session, answer time.Duration) {
	t.inLoop(func() error {
		if q := t.table[id]; q != nil {
			s, answer = q.session, q.trip.Wait(askedAnswer, answerMost)
			q.asks(time.Now())
		}
		return nil
	})
	return s, answer
}

// pinged pings a peer over the session, and notes what comes of it.
func (t *Table) pinged(ctx context.Context, id cert.NodeID, s *intro.Session) (intro.Pong, error) {
	pong, err := s.Ping(ctx)
	if err == nil {
		t.do(func() {
			if q := t.table[id]; q != nil {
				q.spoke(pong.RTT)
				delete(t.silent, id)
			}
		})
	}
	return pong, err
}

// asks notes that the session asks a peer for an answer.
func (q *peer) asks(now time.Time) {
	if q.asked.IsZero() {
		q.asked = now
	}
}

// spoke notes that a peer has answered over the session.
func (q *peer) spoke(after time.Duration) {
	q.asked = time.Time{}
	q.trip.Add(after)
}

// Took notes that a peer has answered through the tunnel, and how long that took
// with what had to be done before: no measurement, but what took longer once does so
// no more.
func (t *Table) Took(id cert.NodeID, d time.Duration) {
	t.do(func() {
		if q := t.table[id]; q != nil && d < q.trip.Trip() {
			q.trip.Add(d)
		}
	})
}

// TripTo returns how long answers of a peer take, 0 if that is not known.
func (t *Table) TripTo(id cert.NodeID) (trip time.Duration) {
	t.inLoop(func() error {
		if q := t.table[id]; q != nil {
			trip = q.trip.Trip()
		}
		return nil
	})
	return min(trip, answerMost)
}

// IsHeard reports whether a peer says that data of this node came out of its
// tunnel since then. Who cannot be asked is believed.
func (t *Table) IsHeard(ctx context.Context, id cert.NodeID, since time.Time) bool {
	s, answer := t.askOver(id)
	if s == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	pong, err := t.pinged(ctx, id, s)
	return err != nil || pong.HeardWithin(time.Since(since))
}

// CallAnew introduces this node to a peer, whether there is a tunnel or not,
// and returns the result. It does nothing for who waits no more.
func (t *Table) CallAnew(ctx context.Context, id cert.NodeID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	if !t.do(func() {
		q := t.table[id]
		if q == nil {
			q = &peer{id: id}
			t.table[id] = q
		}
		t.call(q, done)
	}) {
		return ErrDown
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
