package intro

import (
	"context"
	"crypto/tls"
	"errors"
	"math/big"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
)

const oneWay = 50 * time.Millisecond

// TestTwoRoundTrips: established is called after one round trip and Dial returns after
// two, with four frames in all and equal keys at both ends.
func TestTwoRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		w.wire.latency = oneWay
		start := time.Now()
		var early *Session
		var at time.Duration
		s, err := a.Dial(t.Context(), b.id, func(s *Session) { early, at = s, time.Since(start) })
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 4*oneWay {
			t.Errorf("Dial took %v, want two round trips, %v", took, 4*oneWay)
		}
		if at != 2*oneWay || early != s {
			t.Errorf("established after %v, want %v", at, 2*oneWay)
		}
		if n := len(w.wire.frames()); n != 4 {
			t.Errorf("%d frames, want 4", n)
		}
		synctest.Wait()
		var callee *Session
		b.Switch.mu.Lock()
		callee = b.peers[a.id].current
		b.Switch.mu.Unlock()
		if callee == nil {
			t.Fatal("callee has no session")
		}
		if s.PSK != callee.PSK || s.ProbeSend != callee.ProbeRecv || s.ProbeRecv != callee.ProbeSend {
			t.Error("the two ends have different keys")
		}
		if z := ([32]byte{}); s.PSK == z || s.ProbeSend == z || s.PSK == s.ProbeSend || s.ProbeSend == s.ProbeRecv {
			t.Error("keys are zero or equal to each other")
		}
		if s.Remote != b.hello || callee.Remote != a.hello {
			t.Errorf("hellos: %v and %v, want %v and %v", s.Remote, callee.Remote, b.hello, a.hello)
		}
		if s.Peer.ID != b.id || callee.Peer.ID != a.id || !s.Initiator || callee.Initiator {
			t.Error("wrong peer or role")
		}
		// Two introductions never have the same keys.
		again, err := b.Dial(t.Context(), a.id, nil)
		if err != nil || again.PSK == s.PSK {
			t.Errorf("second introduction: %v, same key %v", err, again.PSK == s.PSK)
		}
	})
}

func TestMessagesBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		w.wire.latency = oneWay
		s := introduce(t, a, b)
		want := Message{Type: TypeCandidates, Candidates: []Candidate{{Addr: netip.MustParseAddrPort("192.0.2.1:41641"), Kind: "host"}}}
		for range 100 {
			if err := s.Send(want); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Send(Message{Type: "from-the-future"}); err != nil {
			t.Fatal(err)
		}
		if err := s.Send(Message{Type: "x", Text: strings.Repeat("x", MaxMessage)}); err == nil {
			t.Error("an oversized message was sent")
		}
		// The peer also says when it last received data through the tunnel.
		if pong, err := s.Ping(t.Context()); err != nil || pong.RTT != 2*oneWay || pong.ReceivedWithin(time.Hour) {
			t.Errorf("ping of who was never heard: %+v, %v", pong, err)
		}
		b.setHeard(time.Now())
		time.Sleep(time.Minute)
		pong, err := s.Ping(t.Context())
		if err != nil || pong.ReceivedWithin(time.Minute) || !pong.ReceivedWithin(time.Minute+time.Second) {
			t.Errorf("ping of who was heard a minute ago: %+v, %v", pong, err)
		}
		synctest.Wait()
		if len(b.messages) != 101 || !slices.Equal(b.messages[99].Candidates, want.Candidates) {
			t.Errorf("%d messages arrived", len(b.messages))
		}
		// Without an answer the ping ends with its context; the session stays.
		w.wire.setTamper(func(hop) []hop { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := s.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) || s.Err() != nil {
			t.Errorf("unanswered ping: %v, session: %v", err, s.Err())
		}
	})
}

// TestEnds: what each side gets for each way to end a session.
func TestEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(w *network, a, b *node, s *Session)
		want error // of b's Closed; nil: Closed is not called
	}{
		{"bye", func(w *network, a, b *node, s *Session) { s.Bye() }, ErrBye},
		{"close", func(w *network, a, b *node, s *Session) { s.Close() }, ErrEnded},
		{"switch closed, nothing said", func(w *network, a, b *node, s *Session) { a.Close() }, nil},
		{"message after restart", func(w *network, a, b *node, s *Session) {
			a.Close()
			a.start(w)
			b.Switch.mu.Lock()
			callee := b.peers[a.id].current
			b.Switch.mu.Unlock()
			if err := callee.Send(Message{Type: TypePing}); err != nil {
				w.t.Error(err)
			}
		}, ErrReset},
		{"forged reset", func(w *network, a, b *node, s *Session) {
			w.wire.put(hop{from: a.id, to: b.id, frame: appendFrame(nil, frame{id: s.sid, kind: kindReset})})
		}, ErrReset},
		{"forged bye", func(w *network, a, b *node, s *Session) {
			w.wire.put(hop{from: a.id, to: b.id, frame: appendFrame(nil, frame{id: s.sid, seq: 2, kind: kindBye})})
		}, ErrEnded},
		{"gap", func(w *network, a, b *node, s *Session) {
			w.wire.setTamper(func(hop) []hop { return nil })
			s.Send(Message{Type: TypePing})
			w.wire.setTamper(nil)
			s.Send(Message{Type: TypePing})
		}, ErrBroken},
		{"duplicate", func(w *network, a, b *node, s *Session) {
			w.wire.setTamper(func(h hop) []hop { return []hop{h, {h.from, h.to, slices.Clone(h.frame), 0}} })
			s.Send(Message{Type: TypePing})
		}, ErrBroken},
		{"bad record", func(w *network, a, b *node, s *Session) {
			w.wire.setTamper(func(h hop) []hop { h.frame[len(h.frame)-1] ^= 1; return []hop{h} })
			s.Send(Message{Type: TypePing})
		}, ErrBroken},
		{"record of the other direction", func(w *network, a, b *node, s *Session) {
			w.wire.setTamper(func(h hop) []hop {
				if h.from == b.id {
					h.from, h.to = h.to, h.from
				}
				return []hop{h}
			})
			s.Send(Message{Type: TypePing, Nonce: 1})
		}, ErrBroken},
		{"replaced", func(w *network, a, b *node, s *Session) { introduce(w.t, a, b) }, ErrReplaced},
		{"verdict in the middle", func(w *network, a, b *node, s *Session) { s.Send(Message{Type: TypeAccept}) }, ErrBroken},
		{"not JSON", func(w *network, a, b *node, s *Session) { s.tls.Write([]byte{0, 1, 'x'}); s.flush(false) }, ErrBroken},
		{"message too long", func(w *network, a, b *node, s *Session) {
			s.tls.Write(append([]byte{0xff, 0xff}, make([]byte, 100)...))
			s.flush(false)
		}, ErrBroken},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				w.t = t
				a, b := w.pair()
				s := introduce(t, a, b)
				test.end(w, a, b, s)
				time.Sleep(time.Second)
				synctest.Wait()
				ends := b.ends()
				switch {
				case test.want == nil && len(ends) > 0:
					t.Errorf("Closed was called with %v", ends)
				case test.want != nil && (len(ends) != 1 || !errors.Is(ends[0], test.want)):
					t.Errorf("Closed was called with %v, want %v", ends, test.want)
				}
				// However a session ends, a new one can be made at once.
				w.wire.setTamper(nil)
				if test.want != nil {
					introduce(t, a, b)
				}
			})
		})
	}
}

// TestLocalEndsAreNotReported: Closed is not called for ends made locally.
func TestLocalEndsAreNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		s := introduce(t, a, b)
		s.Bye()
		s.Bye()
		s.Close()
		synctest.Wait()
		if len(a.ends()) != 0 || len(b.ends()) != 1 {
			t.Errorf("Closed here: %v, there: %v", a.ends(), b.ends())
		}
		if err := s.Send(Message{Type: TypePing}); !errors.Is(err, ErrClosed) {
			t.Errorf("Send after Bye: %v", err)
		}
		if _, err := s.Ping(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Ping after Bye: %v", err)
		}
		if n, _ := a.table(); n != 0 {
			t.Errorf("%d sessions left", n)
		}
		a.Close()
		if _, err := a.Dial(t.Context(), b.id, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Dial after Close: %v", err)
		}
	})
}

// TestCertificates: which certificates are refused, by which side, and that nobody else
// gets keys.
func TestCertificates(t *testing.T) {
	type world struct {
		*network
		a, b, c *node // a dials b; c is a third node
	}
	resign := func(w *world, n *node, ca *cert.CA, from, to time.Duration) {
		now := time.Now()
		n.identity.Certificate = [][]byte{w.sign(ca, n.key, "evil", cert.NewSerial(), now.Add(from), now.Add(to))}
		n.identity.Leaf = nil
	}
	otherCA := func(w *world) *cert.CA {
		ca, err := cert.NewCA("another", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	revoke := func(w *world, at, bad *node) {
		der, err := w.ca.SignCRL(7, []*big.Int{bad.serial}, time.Time{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		at.crl, err = w.roots.VerifyCRL(der)
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		setup func(*world)
		want  error // of Dial; DenyError{} for any
	}{
		{"caller of another network", func(w *world) { resign(w, w.a, otherCA(w), -time.Hour, time.Hour) }, &DenyError{}},
		{"callee of another network", func(w *world) { resign(w, w.b, otherCA(w), -time.Hour, time.Hour) }, cert.ErrUntrusted},
		{"caller expired", func(w *world) { resign(w, w.a, w.ca, -2*time.Hour, -time.Hour) }, &DenyError{}},
		{"callee expired", func(w *world) { resign(w, w.b, w.ca, -2*time.Hour, -time.Hour) }, cert.ErrExpired},
		{"callee of the future", func(w *world) { resign(w, w.b, w.ca, time.Hour, 2*time.Hour) }, cert.ErrExpired},
		{"caller revoked", func(w *world) { revoke(w, w.b, w.a) }, &DenyError{}},
		{"callee revoked", func(w *world) { revoke(w, w.a, w.b) }, cert.ErrRevoked},
		{"callee with a server certificate", func(w *world) {
			der, err := w.ca.SignServer(&w.b.key.PublicKey, cert.RoleServer, time.Now(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			w.b.identity.Certificate, w.b.identity.Leaf = [][]byte{der}, nil
		}, nil},
		{"caller self-signed", func(w *world) {
			crt, err := cert.SelfSigned(w.a.key)
			if err != nil {
				t.Fatal(err)
			}
			w.a.identity = crt
		}, &DenyError{}},
		{"relay delivers to another node", func(w *world) {
			w.wire.setTamper(func(h hop) []hop {
				switch {
				case h.from == w.a.id && h.to == w.b.id:
					h.to = w.c.id
				case h.from == w.c.id:
					h.from = w.b.id
				}
				return []hop{h}
			})
		}, ErrIdentity},
		{"relay names another sender", func(w *world) {
			w.wire.setTamper(func(h hop) []hop {
				switch {
				case h.from == w.a.id:
					h.from = w.c.id
				case h.to == w.c.id:
					h.to, h.from = w.a.id, w.b.id
				}
				return []hop{h}
			})
		}, &DenyError{}},
		{"relay reflects all to the sender", func(w *world) {
			w.wire.setTamper(func(h hop) []hop { h.from, h.to = h.to, h.from; return []hop{h} })
		}, nil},
		{"relay reflects under another session id", func(w *world) {
			w.wire.setTamper(func(h hop) []hop {
				h.from, h.to = h.to, h.from
				h.frame[0] ^= 0x80
				return []hop{h}
			})
		}, ErrIdentity},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{network: newNetwork(t)}
				w.a, w.b, w.c = w.node("a"), w.node("b"), w.node("c")
				test.setup(w)
				_, err := w.a.Dial(t.Context(), w.b.id, w.a.install)
				_, wantDeny := test.want.(*DenyError)
				_, denied := errors.AsType[*DenyError](err)
				switch {
				case err == nil:
					t.Error("introduced")
				case wantDeny && !denied, !wantDeny && test.want != nil && !errors.Is(err, test.want):
					t.Errorf("Dial: %v, want %v", err, test.want)
				}
				time.Sleep(3 * HandshakeTimeout)
				synctest.Wait()
				for _, n := range []*node{w.a, w.b, w.c} {
					if n.accepts > 0 {
						t.Error("a node accepted")
					}
					if n, half := n.table(); n > 0 || half > 0 {
						t.Errorf("%d sessions, %d half open left", n, half)
					}
				}
				// The caller gets keys only for the peer that it dialled.
				if !wantDeny && len(w.a.installed) > 0 {
					t.Error("the caller installed a peer")
				}
			})
		})
	}
}

// TestDeny: the reason arrives and is safe to print.
func TestDeny(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		b.deny = &Deny{Reason: DenyPolicy, Text: "not on my watch\n\x1b[31m"}
		_, err := a.Dial(t.Context(), b.id, nil)
		deny, ok := errors.AsType[*DenyError](err)
		if !ok || deny.Reason != DenyPolicy || deny.Text != "not on my watch[31m" {
			t.Errorf("Dial: %v", err)
		}
		if b.accepts != 1 {
			t.Errorf("policy was asked %d times", b.accepts)
		}
		synctest.Wait()
		if len(a.ends())+len(b.ends()) > 0 {
			t.Error("Closed was called")
		}
	})
}

// TestOldCryptography: peers without hybrid key exchange, TLS 1.3 or this protocol are
// refused.
func TestOldCryptography(t *testing.T) {
	for name, change := range map[string]func(*tls.Config){
		"no ML-KEM":            func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} },
		"P-384 hybrid":         func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.SecP384r1MLKEM1024} },
		"TLS 1.2":              func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no ALPN":              func(c *tls.Config) { c.NextProtos = nil },
		"other ALPN":           func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"no certificate":       func(c *tls.Config) { c.Certificates = nil },
		"the other hybrid: ok": func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.SecP256r1MLKEM768} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				a, b := w.pair()
				b.deny = nil
				node, err := cert.ParseNode(w.id, b.identity.Certificate[0])
				if err != nil {
					t.Fatal(err)
				}
				a.alter = func(s *Session, c *tls.Config) {
					change(c)
					c.VerifyConnection = func(tls.ConnectionState) error { s.Peer = node; return nil }
				}
				ok := strings.HasSuffix(name, "ok")
				if _, err := a.Dial(t.Context(), b.id, nil); (err == nil) != ok {
					t.Errorf("as caller: %v", err)
				}
				if _, err := b.Dial(t.Context(), a.id, nil); (err == nil) != ok {
					t.Errorf("as callee: %v", err)
				}
				if !ok && b.accepts > 0 {
					t.Error("accepted")
				}
			})
		})
	}
}

// TestIdleSessionIsSmall: an idle session costs a few kilobytes and no goroutine.
func TestIdleSessionIsSmall(t *testing.T) {
	w := newNetwork(t)
	hub := w.node("hub")
	const n = 50
	var before, after runtime.MemStats
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = w.node("n")
	}
	direct(append(nodes, hub)...)
	introduce(t, nodes[0], hub)
	goroutines := settle(func() bool { return false })
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, c := range nodes[1:] {
		if _, err := c.Dial(t.Context(), hub.id, nil); err != nil {
			t.Fatal(err)
		}
	}
	now := 0
	settle(func() bool {
		now = runtime.NumGoroutine()
		return now <= goroutines
	})
	if now > goroutines {
		t.Errorf("%d goroutines, before %d", now, goroutines)
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := int(after.HeapAlloc-before.HeapAlloc) / (n - 1)
	per /= 2
	t.Logf("an idle session: about %d bytes per end", per)
	if per > 32<<10 {
		t.Errorf("an idle session holds %d bytes per end", per)
	}
}

// settle waits for real time until f holds, for a second at most.
func settle(f func() bool) int {
	for range 100 {
		if f() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return runtime.NumGoroutine()
}

func introduce(t testing.TB, from, to *node) *Session {
	t.Helper()
	s, err := from.Dial(t.Context(), to.id, from.install)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCloseAtAnyTime: whatever is in progress, Close and Dial return and nothing is left
// (synctest reports remaining goroutines).
func TestCloseAtAnyTime(t *testing.T) {
	for step := range 10 {
		for _, who := range []string{"caller", "callee", "context", "recheck"} {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				a, b := w.pair()
				w.wire.latency = oneWay
				cause := errors.New("the test's")
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				type result struct {
					s   *Session
					err error
				}
				done := make(chan result, 1)
				go func() {
					s, err := a.Dial(ctx, b.id, a.install)
					done <- result{s, err}
				}()
				time.Sleep(time.Duration(step) * oneWay / 2)
				finished := len(done) == 1
				switch who {
				case "caller":
					a.Close()
				case "callee":
					b.Close()
				case "context":
					cancel(cause)
				case "recheck":
					b.mu.Lock()
					b.crl = &cert.CRL{Number: 1}
					b.mu.Unlock()
					b.Recheck()
				}
				if who == "callee" {
					synctest.Wait()
					time.Sleep(time.Minute)
				}
				r := <-done
				switch {
				case who == "recheck" && r.err != nil,
					who == "callee" && step != 6 && (r.err == nil) != (step > 6), // accept is sent in step 6
					finished && r.err != nil,
					who == "caller" && !finished && !errors.Is(r.err, ErrClosed) && r.err != nil,
					who == "context" && !finished && !errors.Is(r.err, cause) && r.err != nil:
					t.Errorf("%s, step %d, finished %v: %v", who, step, finished, r.err)
				}
				if who != "recheck" {
					time.Sleep(time.Minute)
					for _, n := range []*node{a, b} {
						if _, half := n.table(); half > 0 {
							t.Errorf("%s, step %d: %d half open", who, step, half)
						}
					}
				}
			})
		}
	}
}

// TestCallbacksMayEndTheSession: a callback at either end may end its session.
func TestCallbacksMayEndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t)
		a, b := w.pair()
		if _, err := a.Dial(t.Context(), b.id, func(s *Session) { s.Bye() }); err == nil {
			t.Error("Dial returned a session that was ended in established")
		}
		b.mu.Lock()
		b.onAccept = func(s *Session) { s.Close() }
		b.mu.Unlock()
		if _, err := a.Dial(t.Context(), b.id, nil); !errors.Is(err, ErrEnded) {
			t.Errorf("Dial: %v", err)
		}
		synctest.Wait()
		for _, n := range []*node{a, b} {
			if n, _ := n.table(); n != 0 {
				t.Errorf("%d sessions left", n)
			}
		}
	})
}
