package intro

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
)

// TestGlare: both nodes dial, up to one and a half round trips apart in either order.
// Both Dials return the same session, both ends finally have its keys, and the Dial that
// loses takes at most one round trip more.
func TestGlare(t *testing.T) {
	for _, lead := range []time.Duration{-300, -250, -200, -150, -110, -100, -90, -60, -50, -40, -10, -1, 0, 1, 10, 40, 50, 60, 90, 100, 110, 150, 200, 250, 300} {
		lead *= time.Millisecond
		t.Run(fmt.Sprint(lead), func(t *testing.T) {
			for range 3 { // the scheduler decides ties
				synctest.Test(t, func(t *testing.T) { glare(t, lead) })
			}
		})
	}
}

// glare makes the lower node dial a time lead before the higher one.
func glare(t *testing.T, lead time.Duration) {
	w := newNetwork(t)
	lo, hi := w.pair()
	w.wire.latency = oneWay
	type result struct {
		s    *Session
		err  error
		took time.Duration
	}
	run := func(from, to *node, wait time.Duration) chan result {
		ch := make(chan result, 1)
		go func() {
			time.Sleep(wait)
			start := time.Now()
			s, err := from.Dial(t.Context(), to.id, from.install)
			ch <- result{s, err, time.Since(start)}
		}()
		return ch
	}
	a, b := run(lo, hi, max(0, -lead)), run(hi, lo, max(0, lead))
	ra, rb := <-a, <-b
	if ra.err != nil || rb.err != nil {
		t.Fatalf("lower: %v, higher: %v", ra.err, rb.err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	// Up to a round trip apart the introductions collide; later, the second replaces the
	// first.
	if max(lead, -lead) < 2*oneWay && ra.s.sid != rb.s.sid {
		t.Errorf("two sessions, led by %v", lead)
	}
	if lo.psk(hi) != hi.psk(lo) {
		t.Errorf("different keys installed, led by %v", lead)
	}
	if ra.took > 6*oneWay || rb.took > 6*oneWay {
		t.Errorf("Dial took %v and %v", ra.took, rb.took)
	}
	for _, n := range []*node{lo, hi} {
		if sessions, half := n.table(); sessions != 1 || half != 0 {
			t.Errorf("%d sessions, %d half open, want one", sessions, half)
		}
		for _, p := range []*node{lo, hi} {
			n.Switch.mu.Lock()
			if entry := n.peers[p.id]; entry != nil && (entry.current == nil || entry.current.PSK != n.installed[p.id]) {
				t.Error("the session kept is not the one whose keys are installed")
			}
			n.Switch.mu.Unlock()
		}
	}
}

// TestGlareCrosses: the two introductions go by different relays, and cross. The lower
// node gives its own up for the peer's when the peer has just accepted it, and given up
// its own. Each says so: neither keeps a session, and keys, that the other has not.
func TestGlareCrosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		lo, hi := w.pair()
		w.wire.latency = 10 * time.Millisecond
		// An answer to what is unknown is bounded to one a second, and has been given.
		w.wire.put(hop{from: lo.id, to: hi.id, frame: appendFrame(nil, frame{id: 1, kind: kindData})})
		w.wire.put(hop{from: hi.id, to: lo.id, frame: appendFrame(nil, frame{id: 1, kind: kindData})})
		time.Sleep(100 * time.Millisecond)
		sent := map[cert.NodeID]int{}
		w.wire.setTamper(func(h hop) []hop {
			// The lower node's first frame and the other's hello take longer.
			sent[h.from]++
			f, err := parseFrame(h.frame)
			if err != nil {
				t.Fatal(err)
			}
			if h.from == lo.id && sent[lo.id] == 1 || h.from == hi.id && f.seq == 1 && sent[hi.id] == 2 {
				h.after = 15 * time.Millisecond
			}
			return []hop{h}
		})
		done := make(chan error, 2)
		for _, n := range [][2]*node{{lo, hi}, {hi, lo}} {
			go func() {
				_, err := n[0].Dial(t.Context(), n[1].id, n[0].install)
				done <- err
			}()
		}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if lo.psk(hi) == hi.psk(lo) {
			t.Fatal("they have not crossed")
		}
		for name, n := range map[string]*node{"lower": lo, "higher": hi} {
			if sessions, _ := n.table(); sessions != 0 {
				t.Errorf("the %s node has a session, with keys that the other has not", name)
			}
		}
	})
}

// TestGlareWithDeafPeer: the lower node dials a peer that is not connected yet. When the
// peer connects and dials back, it does not wait for the lost attempt.
func TestGlareWithDeafPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		lo, hi := w.pair()
		w.wire.latency = oneWay
		hi.offline = true
		type result struct {
			s   *Session
			err error
		}
		ch := make(chan result, 1)
		go func() {
			s, err := lo.Dial(t.Context(), hi.id, lo.install)
			ch <- result{s, err}
		}()
		time.Sleep(time.Second)
		hi.mu.Lock()
		hi.offline = false
		hi.mu.Unlock()
		start := time.Now()
		s := introduce(t, hi, lo)
		if took := time.Since(start); took != 4*oneWay {
			t.Errorf("the peer's Dial took %v", took)
		}
		r := <-ch
		if r.err != nil || r.s.sid != s.sid {
			t.Errorf("our Dial: %v", r.err)
		}
		synctest.Wait()
		if lo.psk(hi) != hi.psk(lo) {
			t.Error("different keys installed")
		}
	})
}

// TestGlareOneWayRelay: the relay loses every frame of the lower node's attempt after the
// first, so that the peer has received it but it never completes.
func TestGlareOneWayRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		lo, hi := w.pair()
		w.wire.latency = oneWay
		var sid uint64
		w.wire.setTamper(func(h hop) []hop {
			f, err := parseFrame(h.frame)
			if err != nil {
				t.Fatal(err)
			}
			if f.kind == kindOpen && h.from == lo.id && sid == 0 {
				sid = f.id
				return []hop{h}
			}
			if f.id == sid {
				return nil
			}
			return []hop{h}
		})
		done := make(chan error, 1)
		go func() {
			_, err := lo.Dial(t.Context(), hi.id, lo.install)
			done <- err
		}()
		start := time.Now()
		introduce(t, hi, lo)
		if err := <-done; err != nil {
			t.Errorf("our Dial: %v", err)
		}
		if took := time.Since(start); took > glareHold+time.Second {
			t.Errorf("took %v", took)
		}
		synctest.Wait()
		if lo.psk(hi) != hi.psk(lo) {
			t.Error("different keys installed")
		}
	})
}

// TestGlareDenied: one node may not reach the other, which may reach it; for both orders
// of NodeIDs.
func TestGlareDenied(t *testing.T) {
	for _, lower := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newNetwork(t)
			allowed, denied := w.pair()
			if lower {
				allowed, denied = denied, allowed
			}
			w.wire.latency = oneWay
			allowed.deny = &Deny{Reason: DenyPolicy}
			done := make(chan error, 1)
			go func() {
				_, err := denied.Dial(t.Context(), allowed.id, nil)
				done <- err
			}()
			s := introduce(t, allowed, denied)
			err := <-done
			t.Log(err)
			synctest.Wait()
			if s.Err() != nil {
				t.Errorf("the allowed introduction: %v", s.Err())
			}
		})
	}
}

// TestOldAttemptFails: a relay holds back the end of an abandoned attempt and delivers it
// after a newer one was accepted.
func TestOldAttemptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		var kept []hop
		n := 0
		w.wire.setTamper(func(h hop) []hop {
			if n++; n == 3 { // Finished and hello of the first attempt
				h.after = 0
				kept = append(kept, h, hop{}) // and deliver a reset in its place
				return []hop{{from: b.id, to: a.id, frame: append(append([]byte(nil), h.frame[:12]...), byte(kindReset))}}
			}
			if h.from == a.id && kindOf(h.frame) == kindReset {
				return nil
			}
			return []hop{h}
		})
		s := introduce(t, a, b)
		synctest.Wait()
		w.wire.put(kept[0])
		synctest.Wait()
		if b.psk(a) != s.PSK || b.accepts != 1 {
			t.Error("an abandoned attempt was accepted")
		}
	})
}

// TestDialTwice: there is one Dial at a time per peer; the next waits until it has
// returned, even if it was given up. A node cannot dial itself.
func TestDialTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		w.wire.latency = oneWay
		dial := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() {
				_, err := a.Dial(ctx, b.id, nil)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		ctx, giveUp := context.WithCancelCause(t.Context())
		given := errors.New("given up")
		first, second := dial(ctx), dial(t.Context())
		waits, stop := context.WithCancelCause(t.Context())
		third := dial(waits)
		stop(given)
		if err := <-third; !errors.Is(err, given) {
			t.Errorf("a Dial that was given up while it waited: %v", err)
		}
		if b.accepts != 0 || len(first)+len(second) != 0 {
			t.Fatal("this is not in the middle of an introduction")
		}
		giveUp(given)
		if err := <-first; !errors.Is(err, given) {
			t.Errorf("the first Dial: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the second Dial: %v", err)
		}
		if _, err := a.Dial(t.Context(), a.id, nil); err == nil {
			t.Error("dialled itself")
		}
		if _, err := a.Dial(t.Context(), cert.NodeID{1}, nil); err == nil {
			t.Error("dialled nobody")
		}
	})
}
