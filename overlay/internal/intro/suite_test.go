package intro

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
)

// Both sides come to the same suite, whatever each can and demands, and share a secret for
// it. Who calls does not matter.
func TestSuite(t *testing.T) {
	plain := func(n *node) {}
	aes := func(n *node) { n.hello.AES = true }
	only := func(n *node) { n.hello.AES, n.hello.Only = true, true }
	keyless := func(n *node) { n.hello.AES, n.hello.Key = true, [32]byte{} } // no WireGuard
	for _, test := range []struct {
		name string
		a, b func(*node)
		want Suite // "": refused
	}{
		{"WireGuard only", plain, plain, SuiteWireGuard},
		{"one can", aes, plain, SuiteWireGuard},
		{"both can", aes, aes, SuiteAES},
		{"one demands", only, aes, SuiteAES},
		{"both demand", only, only, SuiteAES},
		{"one demands, the other cannot", only, plain, ""},
		{"no WireGuard", keyless, aes, SuiteAES},
		{"no WireGuard, and the other has nothing else", keyless, plain, ""},
		{"neither has WireGuard", keyless, keyless, SuiteAES},
	} {
		for _, swap := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, swapped %v", test.name, swap), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newNetwork(t)
					caller, callee := w.node("caller"), w.node("callee")
					test.a(caller)
					test.b(callee)
					if swap {
						caller, callee = callee, caller
					}
					var theirs *Session
					callee.onAccept = func(s *Session) { theirs = s }
					s, err := caller.Dial(t.Context(), callee.id, nil)
					if test.want == "" {
						denied, ok := errors.AsType[*DenyError](err)
						if !ok || denied.Reason != DenySuite || theirs != nil {
							t.Fatalf("Dial: %v", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if s.Suite != test.want || theirs.Suite != test.want || s.Secret() != theirs.Secret() || s.Secret() == [32]byte{} {
						t.Errorf("suites %q and %q, secrets equal: %v", s.Suite, theirs.Suite, s.Secret() == theirs.Secret())
					}
					if (s.Secret() == s.PSK) != (s.Suite == SuiteWireGuard) {
						t.Error("one secret for two purposes")
					}
					if s.KeyExchange != "X25519MLKEM768" {
						t.Errorf("key exchange %q", s.KeyExchange)
					}
				})
			})
		}
	}
}

// A callee that states another suite than both hellos lead to is refused, at once.
func TestSuiteChanged(t *testing.T) {
	for _, test := range []struct {
		name  string
		can   bool
		claim Suite
	}{
		{"less than it can", true, SuiteWireGuard},
		{"more than it can", false, SuiteAES},
		{"unknown", true, "rot13"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newNetwork(t)
				a, b := w.node("a"), w.node("b")
				a.hello.AES, b.hello.AES = true, test.can
				b.onAccept = func(s *Session) { s.Suite = test.claim }
				if _, err := a.Dial(t.Context(), b.id, nil); !errors.Is(err, ErrSuite) {
					t.Errorf("Dial: %v", err)
				}
				if b.accepts != 1 {
					t.Errorf("%d attempts", b.accepts)
				}
			})
		})
	}
}

// Nodes before 2026-11-30 understand a hello unless it demands AES or has no WireGuard key:
// this is how they read one.
func TestSuiteOfEarlierNodes(t *testing.T) {
	earlier := func(h Hello) error {
		b, err := json.Marshal(h.message())
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			Type string `json:"type"`
			Key  []byte `json:"key,omitempty"`
		}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if m.Type != "hello" || len(m.Key) != 32 || [32]byte(m.Key) == ([32]byte{}) {
			return errors.New("refused")
		}
		return nil
	}
	key := [32]byte{1}
	for _, h := range []Hello{{Key: key}, {Key: key, AES: true}} {
		if err := earlier(h); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
	for _, h := range []Hello{{AES: true}, {Key: key, AES: true, Only: true}} {
		if earlier(h) == nil {
			t.Errorf("%+v was understood", h)
		}
	}
	// Whatever else a later node offers is ignored; what it demands is not.
	m := Hello{Key: key}.message()
	m.Suites = []Suite{"later", SuiteAES}
	if h, err := m.hello(); err != nil || !h.AES {
		t.Errorf("%+v, %v", h, err)
	}
	m.Type = "hello-later"
	if _, err := m.hello(); err == nil {
		t.Error("an unknown demand was ignored")
	}
}
