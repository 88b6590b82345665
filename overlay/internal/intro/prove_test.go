package intro

import (
	"errors"
	"testing"
	"testing/synctest"
)

// What callee and caller know of each other's WireGuard key, when each is a present node,
// an earlier version, or a liar.
func TestProofOfKeys(t *testing.T) {
	type ends struct{ a, b *node } // a calls b
	noProofs := func(n *node) { n.cfg.PairKey = nil }
	// steal makes a node name the key of another.
	steal := func(n *node, key [32]byte) { n.hello.Key = key }
	lie := func(n *node) {
		n.cfg.PairKey = func(_, _ [32]byte) ([32]byte, error) { return [32]byte{1}, nil }
	}
	// show makes a callee send another proof in its accept.
	show := func(n *node, proof func(*Session) []byte) {
		n.onAccept = func(s *Session) { s.proof = proof(s) }
	}
	const (
		proven = iota
		unproven
		fails
	)
	for _, test := range []struct {
		name           string
		setup          func(w *network, e ends)
		caller, callee int // what each knows of the other's key
		want           error
	}{
		{"both prove", func(*network, ends) {}, proven, proven, nil},
		{"caller of before", func(_ *network, e ends) { noProofs(e.a) }, unproven, unproven, nil},
		{"callee of before", func(_ *network, e ends) { noProofs(e.b) }, unproven, unproven, nil},
		{"callee shows none", func(_ *network, e ends) { show(e.b, func(*Session) []byte { return nil }) }, proven, unproven, nil},
		{"caller with a false proof", func(w *network, e ends) { steal(e.a, w.node("c").hello.Key); lie(e.a) }, fails, fails, &DenyError{}},
		{"callee reflects the caller's proof", func(_ *network, e ends) {
			show(e.b, func(s *Session) []byte { return s.wantProof })
		}, proven, fails, ErrKey},
		{"callee with a false proof", func(_ *network, e ends) {
			show(e.b, func(s *Session) []byte { s.proof[0] ^= 1; return s.proof })
		}, proven, fails, ErrKey},
		{"callee with half a proof", func(_ *network, e ends) {
			show(e.b, func(s *Session) []byte { return s.proof[:16] })
		}, proven, fails, ErrKey},
		{"callee with the proof of another session", func(w *network, e ends) {
			var old []byte
			show(e.b, func(s *Session) []byte { old = s.proof; return old })
			introduce(w.t, e.a, e.b).Bye()
			synctest.Wait()
			e.b.mu.Lock()
			defer e.b.mu.Unlock()
			show(e.b, func(*Session) []byte { return old })
		}, proven, fails, ErrKey},
		{"caller names the callee's key", func(_ *network, e ends) { noProofs(e.a); steal(e.a, e.b.hello.Key) }, fails, fails, &DenyError{}},
		{"callee names the caller's key", func(_ *network, e ends) { noProofs(e.b); steal(e.b, e.a.hello.Key) }, fails, fails, ErrKey},
		{"caller with a key of low order", func(_ *network, e ends) { noProofs(e.a); steal(e.a, [32]byte{1}) }, fails, fails, ErrReset},
		{"callee with a key of low order", func(_ *network, e ends) { noProofs(e.b); steal(e.b, [32]byte{1}) }, fails, fails, ErrBroken},
		{"callee has another key by now", func(_ *network, e ends) {
			first := true
			pairKey := e.b.cfg.PairKey
			e.b.cfg.PairKey = func(own, peer [32]byte) ([32]byte, error) {
				if first {
					first = false
					return [32]byte{}, errors.New("another key by now")
				}
				return pairKey(own, peer)
			}
		}, proven, proven, nil}, // at the second attempt
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				w.t = t
				var e ends
				e.a, e.b = w.pair()
				test.setup(w, e)
				var seen []bool
				hook := e.b.onAccept
				e.b.onAccept = func(s *Session) {
					seen = append(seen, s.Proven())
					if hook != nil {
						hook(s)
					}
				}
				established := func(s *Session) {
					if s.Proven() {
						t.Error("the callee's key is proven before it has accepted")
					}
					e.a.install(s)
				}
				s, err := e.a.Dial(t.Context(), e.b.id, established)
				_, denied := errors.AsType[*DenyError](err)
				_, wantDeny := test.want.(*DenyError)
				if wantDeny && !denied || !wantDeny && !errors.Is(err, test.want) {
					t.Fatalf("Dial: %v, want %v", err, test.want)
				}
				if (len(seen) > 0) != (test.caller != fails) || len(seen) > 0 && seen[0] != (test.caller == proven) {
					t.Errorf("the callee knows of the caller's key: %v", seen)
				}
				if test.callee != fails && s.Proven() != (test.callee == proven) {
					t.Errorf("the callee's key is proven: %v", s.Proven())
				}
				if errors.Is(test.want, ErrKey) && test.caller == proven && len(seen) > 1 {
					t.Error("a lie was given a second attempt")
				}
			})
		})
	}
}
