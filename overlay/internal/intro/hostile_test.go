package intro

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
)

// TestRetry: one lost, repeated or damaged frame costs one attempt.
func TestRetry(t *testing.T) {
	tampers := map[string]func(h hop) []hop{
		"dropped":   func(h hop) []hop { return nil },
		"doubled":   func(h hop) []hop { return []hop{h, {h.from, h.to, slices.Clone(h.frame), 0}} },
		"damaged":   func(h hop) []hop { h.frame[len(h.frame)/2] ^= 4; return []hop{h} },
		"truncated": func(h hop) []hop { h.frame = h.frame[:len(h.frame)-1]; return []hop{h} },
		"reset":     func(h hop) []hop { h.frame = append(h.frame[:12], byte(kindReset)); return []hop{h} },
		"reflected": func(h hop) []hop { h.from, h.to = h.to, h.from; return []hop{h} },
		"late":      func(h hop) []hop { h.after = time.Minute; return []hop{h} },
		"swapped kind": func(h hop) []hop {
			h.frame[12] = byte(kindOpen + kindData - kind(h.frame[12]))
			return []hop{h}
		},
	}
	for name, tamper := range tampers {
		for victim := range 4 { // open, the callee's flight, hello, accept
			t.Run(fmt.Sprintf("%s/%d", name, victim), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newNetwork(t)
					a, b := w.pair()
					w.wire.latency = oneWay
					n := -1
					w.wire.setTamper(func(h hop) []hop {
						if n++; n == victim {
							return tamper(h)
						}
						return []hop{h}
					})
					start := time.Now()
					s, err := a.Dial(t.Context(), b.id, a.install)
					if err != nil {
						t.Fatal(err)
					}
					if took := time.Since(start); took > HandshakeTimeout+time.Second {
						t.Errorf("took %v", took)
					}
					synctest.Wait()
					if s.Err() == nil && a.psk(b) != b.psk(a) {
						t.Error("different keys installed")
					}
					time.Sleep(2 * time.Minute)
					if _, half := b.table(); half > 0 {
						t.Errorf("%d half open", half)
					}
				})
			})
		}
	}
}

// TestHostileRelay: whatever a relay does to frames at random, no session connects wrong
// ends or has different keys, nothing leaks, and afterwards everything works again.
func TestHostileRelay(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				nodes := []*node{w.node("a"), w.node("b"), w.node("c"), w.node("d")}
				r := rand.New(rand.NewPCG(seed, 1))
				var old []hop
				w.wire.latency = 5 * time.Millisecond
				w.wire.setTamper(func(h hop) []hop {
					clone := func(h hop) hop { h.frame = slices.Clone(h.frame); return h }
					old = append(old, clone(h))
					if r.IntN(100) < 60 {
						return []hop{h}
					}
					any := func() cert.NodeID { return nodes[r.IntN(len(nodes))].id }
					switch r.IntN(8) {
					case 0:
						return nil
					case 1: // repeat an old frame
						return []hop{h, clone(old[r.IntN(len(old))])}
					case 2: // delay
						h.after = time.Duration(r.IntN(100)) * time.Millisecond
					case 3: // cross-deliver
						h.to = any()
					case 4: // forge the sender
						h.from = any()
					case 5: // reflect, under another session id
						h.from, h.to = h.to, h.from
						h.frame[r.IntN(8)] ^= 1
					case 6:
						h.frame[r.IntN(len(h.frame))] ^= byte(1 << r.IntN(8))
					case 7: // forged resets
						return []hop{h, {from: any(), to: any(), frame: appendFrame(nil, frame{id: newSessionID() * uint64(r.IntN(2)), kind: kindReset})},
							{from: h.from, to: h.to, frame: append(slices.Clone(h.frame[:12]), byte(kindReset))}}
					}
					return []hop{h}
				})
				type result struct {
					from, to *node
					s        *Session
				}
				results := make(chan result, 100)
				dials := 0
				for _, a := range nodes {
					for _, b := range nodes {
						if a == b {
							continue
						}
						dials++
						go func() {
							ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
							defer cancel()
							s, err := a.Dial(ctx, b.id, a.install)
							if err != nil {
								s = nil
							}
							results <- result{a, b, s}
						}()
					}
				}
				introduced := 0
				for range dials {
					if r := <-results; r.s != nil {
						introduced++
						if r.s.Peer.ID != r.to.id {
							t.Errorf("dialled %v, got %v", r.to.id, r.s.Peer.ID)
						}
						r.s.Send(Message{Type: TypeCallMe})
					}
				}
				t.Logf("%d of %d introduced", introduced, dials)
				w.wire.setTamper(nil)
				time.Sleep(time.Minute)
				synctest.Wait()
				for _, n := range nodes {
					if _, half := n.table(); half > 0 {
						t.Errorf("%d half open", half)
					}
				}
				for _, a := range nodes {
					for _, b := range nodes {
						if a == b {
							continue
						}
						introduce(t, a, b)
						synctest.Wait()
						if a.psk(b) != b.psk(a) {
							t.Error("different keys installed")
						}
					}
				}
			})
		})
	}
}

// TestHalfOpenBounds: at most 4 per sender and 16 of unknown nodes, for five seconds.
func TestHalfOpenBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		// A ClientHello and nothing after it.
		w.wire.setTamper(func(hop) []hop { return nil })
		ctx, cancel := context.WithCancel(t.Context())
		go a.Dial(ctx, b.id, nil)
		synctest.Wait()
		open := w.wire.frames()[0].frame
		cancel()
		flood := func(from cert.NodeID, n int) {
			for range n {
				f := slices.Clone(open)
				rand := newSessionID()
				for i := range 8 {
					f[i] = byte(rand >> (8 * i))
				}
				b.Deliver(from, f)
			}
		}
		flood(a.id, 100)
		if _, half := b.table(); half != maxHalfOpenPerPeer {
			t.Errorf("%d half open of one sender, want %d", half, maxHalfOpenPerPeer)
		}
		for i := range 100 {
			flood(cert.NodeID{0: 1, 1: byte(i)}, 10)
		}
		if _, half := b.table(); half != maxHalfOpen/2 {
			t.Errorf("%d half open, want %d", half, maxHalfOpen/2)
		}
		time.Sleep(HandshakeTimeout + time.Second)
		if n, half := b.table(); half != 0 || n != 0 {
			t.Errorf("%d half open, %d sessions after the timeout", half, n)
		}
		// Junk that completes no introduction costs tokens of its sender.
		before := len(w.wire.frames())
		for range 100 {
			flood(a.id, 4)
			time.Sleep(HandshakeTimeout / 100)
		}
		if n := len(w.wire.frames()) - before; n > 2*(openBurst+int(HandshakeTimeout/time.Second)*openPerSec) {
			t.Errorf("%d frames sent to a flooder", n)
		}
		time.Sleep(time.Minute)
		w.wire.setTamper(nil)
		introduce(t, a, b)
		// The table of senders is bounded too.
		for i := range 3 * maxPeers {
			b.Deliver(cert.NodeID{0: 2, 1: byte(i), 2: byte(i >> 8)}, appendFrame(nil, frame{id: 1, kind: kindData}))
		}
		b.Switch.mu.Lock()
		if n := len(b.peers); n > maxPeers {
			t.Errorf("%d entries", n)
		}
		b.Switch.mu.Unlock()
		time.Sleep(time.Minute)
		introduce(t, a, b)
	})
}

// TestReceiveQueueIsBounded: what arrives is bounded while nobody reads.
func TestReceiveQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		s := introduce(t, a, b)
		synctest.Wait()
		b.Switch.mu.Lock()
		callee := b.peers[a.id].current
		callee.working = true // as if its worker were busy
		seq := callee.inSeq
		b.Switch.mu.Unlock()
		for i := range uint32(100) {
			b.Deliver(a.id, appendFrame(nil, frame{id: s.sid, seq: seq + i, kind: kindData, payload: make([]byte, maxPayload)}))
		}
		b.Switch.mu.Lock()
		if b.queued != 0 || !errors.Is(callee.err, ErrBroken) {
			t.Errorf("%d bytes queued, session %v", b.queued, callee.err)
		}
		b.Switch.mu.Unlock()
		b.Switch.wg.Go(callee.pump)
	})
}

func TestResetOfUnknownSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		s := introduce(t, a, b)
		for range 50 {
			b.Reset(a.id)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if len(a.resets) != 5 || a.resets[0] != b.id {
			t.Errorf("%d resets in 5 s, want 5", len(a.resets))
		}
		if s.Err() != nil || len(a.ends()) > 0 {
			t.Error("a stranger reset ended a session")
		}
	})
}

// TestUnknownSessionAnswersOncePerSecond: there are no storms of resets, and no reset
// answers a reset.
func TestUnknownSessionAnswersOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		for range 50 {
			for _, k := range []kind{kindData, kindBye, kindReset} {
				b.Deliver(a.id, appendFrame(nil, frame{id: 9, seq: 3, kind: k}))
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(w.wire.frames()); n != 5 {
			t.Errorf("%d resets in 5 s, want 5", n)
		}
	})
}

// TestCRLTravels: a list is sent in either direction, in one piece or many, and takes
// effect.
func TestCRLTravels(t *testing.T) {
	for _, entries := range []int{1, 20_000} {
		for _, newer := range []string{"caller", "callee"} {
			t.Run(fmt.Sprint(newer, entries), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newNetwork(t)
					a, b := w.pair()
					c := w.node("c")
					w.wire.latency = oneWay
					ab := introduce(t, a, b)
					introduce(t, c, a)
					introduce(t, c, b)
					serials := []*big.Int{c.serial}
					for range entries - 1 {
						serials = append(serials, cert.NewSerial())
					}
					der, err := w.ca.SignCRL(5, serials, time.Time{}, time.Now())
					if err != nil {
						t.Fatal(err)
					}
					crl, err := w.roots.VerifyCRL(der)
					if err != nil {
						t.Fatal(err)
					}
					from, to := a, b
					if newer == "callee" {
						from, to = b, a
					}
					from.mu.Lock()
					from.crl = crl
					from.mu.Unlock()
					from.Recheck()
					introduce(t, a, b)
					time.Sleep(20 * time.Second)
					synctest.Wait()
					to.mu.Lock()
					if to.crl == nil || to.crl.Number != 5 || !bytes.Equal(to.crl.Raw, der) {
						t.Error("the list did not arrive")
					}
					to.mu.Unlock()
					for _, n := range []*node{a, b} {
						ends := n.ends()
						if !slices.ContainsFunc(ends, func(err error) bool { return errors.Is(err, cert.ErrRevoked) }) {
							t.Errorf("sessions with the revoked node ended with %v", ends)
						}
						if n, _ := n.table(); n != 1 {
							t.Errorf("%d sessions left, want 1", n)
						}
						n.Switch.mu.Lock()
						if len(n.lists)+len(n.listless) != 0 {
							t.Errorf("%d places still taken, %d wait", len(n.lists), len(n.listless))
						}
						n.Switch.mu.Unlock()
					}
					if !errors.Is(ab.Err(), ErrReplaced) {
						t.Errorf("first session: %v", ab.Err())
					}
				})
			})
		}
	}
}

// TestHostileCRL: pieces that do not fit take no memory and cost at most the session.
func TestHostileCRL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		for _, m := range []Message{
			{Type: TypeCRL, Number: 1, Total: cert.MaxCRL + 1, Data: []byte{1}},
			{Type: TypeCRL, Number: 1, Total: -1, Data: []byte{1}},
			{Type: TypeCRL, Number: 1, Total: 10, Offset: -5, Data: []byte{1}},
			{Type: TypeCRL, Number: 1, Total: 10, Offset: 5, Data: make([]byte, 6)},
			{Type: TypeCRL, Number: 1, Total: 10},
			{Type: TypeCRL, Number: 1, Total: 10, Offset: 3, Data: []byte{1}}, // no start
			{Type: TypeCRL, Number: 1, Total: cert.MaxCRL, Data: []byte{1}},   // no end
			{Type: TypeCRLNext, Number: 9, Offset: 1 << 40},
			{Type: TypeCRLNext, Number: 9, Offset: -1},
		} {
			s := introduce(t, a, b)
			if err := s.Send(m); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			s.Bye()
			synctest.Wait()
			if n, _ := b.table(); n != 0 {
				t.Errorf("%d sessions left", n)
			}
			b.Switch.mu.Lock()
			if len(b.lists)+len(b.listless) != 0 {
				t.Errorf("%d places still taken, %d wait", len(b.lists), len(b.listless))
			}
			b.Switch.mu.Unlock()
		}
	})
}
