package intro

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
)

// members opens introductions to a node from n members of the network that never
// continue, as many from each as are allowed, until stop is called.
func (w *network) members(to *node, n int) (stop func()) {
	w.t.Helper()
	// The first frame of an introduction to this node.
	w.wire.setTamper(func(hop) []hop { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	go w.node("opener").Dial(ctx, to.id, nil)
	synctest.Wait()
	frames := w.wire.frames()
	open := frames[len(frames)-1].frame
	cancel()
	synctest.Wait()
	w.wire.setTamper(nil)

	done := make(chan struct{})
	var wg sync.WaitGroup
	var id uint64
	round := func() {
		for i := range n {
			id++
			f := append(binary.BigEndian.AppendUint64(nil, id), open[8:]...)
			to.Deliver(cert.NodeID{1, byte(i), 15: 1}, f)
		}
	}
	for range openBurst {
		round()
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Second / openPerSec):
				round()
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// However many members open introductions and never continue, other nodes succeed at the
// first attempt: a known one, one with a session, and one that comes for the first time.
func TestMembersThatNeverContinue(t *testing.T) {
	for _, n := range []int{1, 8, 64} {
		for _, after := range []time.Duration{0, 300 * time.Millisecond, 3 * time.Second} {
			t.Run(fmt.Sprintf("%d members, %v", n, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newNetwork(t)
					w.t = t
					b, known, met, fresh := w.node("b"), w.node("known"), w.node("met"), w.node("new")
					w.wire.latency = oneWay
					b.cfg.Known = func(id cert.NodeID) bool { return id == known.id }
					introduce(t, met, b)
					stop := w.members(b, n)
					defer stop()
					time.Sleep(after)
					for _, c := range []*node{known, met, fresh} {
						start := time.Now()
						ctx, cancel := context.WithTimeout(t.Context(), HandshakeTimeout)
						defer cancel()
						if _, err := c.Dial(ctx, b.id, nil); err != nil {
							t.Errorf("one that may come in: %v", err)
						} else if took := time.Since(start); took != 4*oneWay {
							t.Errorf("it took %v, want %v", took, 4*oneWay)
						}
					}
					b.Switch.mu.Lock()
					if b.halfOpen > maxHalfOpen || b.places[poolOpen] > maxHalfOpen/2 || len(b.crowd) != b.places[poolOpen] {
						t.Errorf("%d half open, places %v, crowd %d", b.halfOpen, b.places, len(b.crowd))
					}
					b.Switch.mu.Unlock()
				})
			})
		}
	}
}

// Known nodes that never continue take at most the places for known nodes and their share
// of the others.
func TestKnownNodesThatNeverContinue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		b, known, fresh := w.node("b"), w.node("known"), w.node("new")
		w.wire.latency = oneWay
		b.cfg.Known = func(id cert.NodeID) bool { return id != fresh.id }
		stop := w.members(b, 64)
		defer stop()
		time.Sleep(time.Second)
		for _, c := range []*node{known, fresh} {
			if _, err := c.Dial(t.Context(), b.id, nil); err != nil {
				t.Error(err)
			}
		}
	})
}

// A slow verdict delays no other introduction.
func TestSlowVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		b := w.node("b")
		w.wire.latency = oneWay
		const wait = 2 * time.Second
		b.onAccept = func(*Session) { time.Sleep(wait) }
		var wg sync.WaitGroup
		for range 2 * maxHalfOpen {
			c := w.node("c")
			wg.Go(func() {
				start := time.Now()
				if _, err := c.Dial(t.Context(), b.id, nil); err != nil {
					t.Error(err)
				} else if took := time.Since(start); took != wait+4*oneWay {
					t.Errorf("it took %v", took)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		wg.Wait()
		b.Switch.mu.Lock()
		defer b.Switch.mu.Unlock()
		if b.halfOpen != 0 || b.places[poolKnown]+b.places[poolOpen]+b.places[poolDeciding] != 0 {
			t.Errorf("%d half open, places %v", b.halfOpen, b.places)
		}
	})
}

// A node whose tables others have filled can still introduce itself, and a known node can
// still introduce itself to it.
func TestOwnIntroductionsHaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b, known := w.node("a"), w.node("b"), w.node("known")
		b.cfg.Known = func(id cert.NodeID) bool { return id == known.id }
		for i := range 2 * maxPeers {
			b.Deliver(cert.NodeID{0: 2, 1: byte(i), 2: byte(i >> 8)}, appendFrame(nil, frame{id: 1, kind: kindData}))
		}
		introduce(t, b, a)
		introduce(t, known, b)
		b.Switch.mu.Lock()
		b.sessions += maxSessions
		b.Switch.mu.Unlock()
		introduce(t, b, a)
		b.Switch.mu.Lock()
		b.sessions -= maxSessions
		b.Switch.mu.Unlock()
	})
}
