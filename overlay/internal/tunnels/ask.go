package tunnels

import (
	"context"
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/intro"
)

// Asking a peer for a sign of life, over the session.

const askedAnswer = 2 * time.Second // when somebody waits: without an answer after this time, introduce anew as well

// ping asks the peer, over the session, for a sign of life and whether it receives our
// data. sent is when we last sent data.
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
				q.answeredIn(pong.RTT)
			}
			if q.pinging != now {
				return
			}
			if err == nil {
				q.answered(time.Now(), sent, pong)
			}
			t.checkAt(time.Now())
		})
	})
}

// answered handles the answer to a ping. The last packet may be lost by chance, but not
// all retransmissions. Whatever the answer, the next ping is sent only after data were
// received.
func (q *peer) answered(now, sent time.Time, pong intro.Pong) {
	q.oneWay = now
	again := sent.Sub(q.unanswered) >= insistAfter
	if again && !pong.ReceivedWithin(q.pinging.Sub(sent)+pong.RTT/2+insistAfter) {
		q.pinging = now.Add(-answerMost) // as good as no answer
		return
	}
	q.proved, q.pinging = now, time.Time{}
}

// Watch is what happens to a peer while somebody waits for its answer.
type Watch struct {
	Gone    <-chan struct{} // closed when the relay says that the peer is not connected
	Renewed <-chan struct{} // closed when the tunnel was made anew: packets sent in the old one are lost
	// WasGone says that the relay had said so before, and that nothing was received from the
	// peer since. The relay says it once, or once a second, however much is sent.
	WasGone bool
}

// Watch begins to watch a peer. Call stop at the end.
func (t *Table) Watch(id cert.NodeID) (w Watch, stop func()) {
	gone, renewed := make(chan struct{}), make(chan struct{})
	was, _ := fromLoop(t, func() bool {
		q := t.table[id]
		if q == nil {
			return false
		}
		q.watchers, q.renewed = append(q.watchers, gone), append(q.renewed, renewed)
		st, _ := t.forwarder.Stats(id)
		return !q.gone.IsZero() && !st.LastRx.After(q.gone)
	})
	return Watch{gone, renewed, was}, func() {
		t.do(func() {
			if q := t.table[id]; q != nil {
				q.watchers = slices.DeleteFunc(q.watchers, func(x chan struct{}) bool { return x == gone })
				q.renewed = slices.DeleteFunc(q.renewed, func(x chan struct{}) bool { return x == renewed })
			}
		})
	}
}

// Prove finds out whether a peer with a tunnel is alive, for a caller that waits for its
// answer. It pings the peer over the session. If there is no answer soon, or the relay
// has just said that the peer is gone, it introduces this node anew as well. Whichever
// succeeds first proves that the peer is alive: behind an uplink that has just filled up,
// the answer to the ping may be slower than ever. The ping also makes the relay check the
// peer, so that a dead one is known to be gone within silentFor.
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

// Receives reports whether a peer says that it has received data of this node through the
// tunnel since a time. It returns true if the peer cannot be asked.
func (t *Table) Receives(ctx context.Context, id cert.NodeID, since time.Time) bool {
	s, answer := t.askOver(id)
	if s == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	pong, err := t.pinged(ctx, id, s)
	return err != nil || pong.ReceivedWithin(time.Since(since))
}

// askOver returns the session with a peer, nil if there is none, and how long an answer
// may take.
func (t *Table) askOver(id cert.NodeID) (*intro.Session, time.Duration) {
	type over struct {
		s      *intro.Session
		answer time.Duration
	}
	o, _ := fromLoop(t, func() (o over) {
		if q := t.table[id]; q != nil {
			o = over{q.session, q.trip.Wait(askedAnswer, answerMost)}
			q.asks(time.Now())
		}
		return o
	})
	return o.s, o.answer
}

// pinged pings a peer over the session and records the result.
func (t *Table) pinged(ctx context.Context, id cert.NodeID, s *intro.Session) (intro.Pong, error) {
	pong, err := s.Ping(ctx)
	if err == nil {
		t.do(func() {
			if q := t.table[id]; q != nil {
				q.answeredIn(pong.RTT)
				delete(t.silent, id)
			}
		})
	}
	return pong, err
}

// asks records that a peer was asked for an answer over the session.
func (q *peer) asks(now time.Time) {
	if q.asked.IsZero() {
		q.asked = now
	}
}

// answeredIn records that a peer has answered over the session, and how long that took.
func (q *peer) answeredIn(after time.Duration) {
	q.asked = time.Time{}
	q.trip.Add(after)
}

// receivedFrom returns when data of a peer were last received through its tunnel, for
// answers to its pings.
func (t *Table) receivedFrom(id cert.NodeID) time.Time {
	st, _ := t.forwarder.Stats(id)
	return st.LastIn
}

// Took records that a peer has answered through the tunnel, and how long that took
// including everything before. That is not a measurement of the round trip, but bounds
// it.
func (t *Table) Took(id cert.NodeID, d time.Duration) {
	t.do(func() {
		if q := t.table[id]; q != nil && d < q.trip.Trip() {
			q.trip.Add(d)
		}
	})
}

// TripTo returns how long answers of a peer take, 0 if unknown.
func (t *Table) TripTo(id cert.NodeID) time.Duration {
	trip, _ := fromLoop(t, func() time.Duration {
		if q := t.table[id]; q != nil {
			return q.trip.Trip()
		}
		return 0
	})
	return min(trip, answerMost)
}

// Measured records a round trip through the tunnel.
func (t *Table) Measured(id cert.NodeID, rtt time.Duration) {
	t.do(func() {
		if q := t.table[id]; q != nil {
			q.rtt = rtt
			t.publish()
		}
	})
}
