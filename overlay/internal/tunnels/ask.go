package tunnels

import (
	"context"
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/intro"
)

// Whether a peer is there, asked over the session.

const askedAnswer = 2 * time.Second // no answer to a question where somebody waits: introduce anew as well

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

// heardFrom is when data of a peer last came out of its tunnel, for its pings.
func (t *Table) heardFrom(id cert.NodeID) time.Time {
	st, _ := t.forwarder.Stats(id)
	return st.LastIn
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

// Measured notes a round trip through the tunnel.
func (t *Table) Measured(id cert.NodeID, rtt time.Duration) {
	t.do(func() {
		if q := t.table[id]; q != nil {
			q.rtt = rtt
			t.publish()
		}
	})
}
