package overlay_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"weft/overlay"
	"weft/overlay/cert"
	"weft/overlay/internal/intro"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// thief is a member of the network that introduces itself with the WireGuard key of
// another node.
type thief struct {
	*intro.Switch
	id   cert.NodeID
	name string

	mu     sync.Mutex
	stolen [32]byte // mu guards it
}

// thief makes a node join, ends it, and uses its identity.
func (w *farWorld) thief(name, addr string, pairKey func(own, peer [32]byte) ([32]byte, error), tags ...string) *thief {
	t := w.t
	t.Helper()
	n := w.node(name, addr, tags...)
	th := &thief{id: n.id(), name: name}
	n.stop()
	var id struct {
		Key         string
		Certificate []byte
	}
	b, err := os.ReadFile(filepath.Join(n.cfg.StateDir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &id); err != nil {
		t.Fatal(err)
	}
	key, err := cert.ParseKey([]byte(id.Key))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the node is gone", func() bool {
		w.evil.mu.Lock()
		defer w.evil.mu.Unlock()
		return w.evil.clients[th.id] == nil
	})
	in, done := make(chan []byte, 8192), make(chan struct{})
	w.evil.mu.Lock()
	w.evil.clients[th.id] = &evilClient{out: in}
	w.evil.mu.Unlock()
	th.Switch = intro.New(intro.Config{
		Network: w.auth.ID,
		ID:      th.id,
		Identity: func() *tls.Certificate {
			return &tls.Certificate{Certificate: [][]byte{id.Certificate}, PrivateKey: key}
		},
		Verify: func(der []byte) (*cert.Node, error) { return w.auth.Roots.VerifyNode(der, time.Now(), nil) },
		Hello: func() intro.Hello {
			th.mu.Lock()
			defer th.mu.Unlock()
			return intro.Hello{Boot: 1, Key: th.stolen}
		},
		PairKey: pairKey,
		Send: func(to cert.NodeID, frame []byte) error {
			w.evil.carry(carried{th.id, to, relay.TypeSession, append([]byte(nil), frame...)})
			return nil
		},
		Accept: func(*intro.Session) *intro.Deny { return nil },
	})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case f := <-in:
				if relay.Type(f[0]) == relay.TypeSession {
					th.Deliver(relay.Peer(f), f[relay.HeadLen+relay.PeerLen:])
				}
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() { th.Close(); close(done); reader.Wait() })
	return th
}

// steal gets a node's WireGuard key by an introduction, and names it as its own from now
// on.
func (th *thief) steal(t *testing.T, from cert.NodeID) {
	t.Helper()
	th.mu.Lock()
	th.stolen = [32]byte{31: 77}
	th.mu.Unlock()
	s, err := th.Dial(t.Context(), from, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Bye()
	th.mu.Lock()
	th.stolen = s.Remote.Key
	th.mu.Unlock()
}

// insist introduces the thief to a node repeatedly until stop is called.
func (th *thief) insist(t *testing.T, to cert.NodeID) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			th.Dial(ctx, to, nil)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// A node that names another's WireGuard key does not shut it out: the owner of the key
// gets its tunnel, at once if it proves the key, and keeps it while the thief continues.
func TestStolenKeyOfACaller(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		owner func(*overlay.Node)
	}{
		{"owner proves its key", nil},
		{"owner proves nothing", (*overlay.Node).ProveNothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newFarWorld(t, setup{evil: true})
			w.suite = overlay.SuiteWireGuard
			pi := w.node("kitchen-pi", "198.51.100.2", "device")
			pi.echo()
			laptop := w.node("laptop", "198.51.100.1")
			if c.owner != nil {
				laptop.prepare = c.owner
				laptop.restart()
			}
			laptop.echo()
			th := w.thief("thief", "198.51.100.3", nil)
			th.steal(t, laptop.id())
			if _, err := th.Dial(t.Context(), pi.id(), nil); err != nil {
				t.Fatalf("the thief, before the owner comes: %v", err)
			}
			if !pi.tunnel("thief") {
				t.Fatal("a key that nobody else holds was refused")
			}
			relent := th.insist(t, pi.id())
			defer relent()
			start := time.Now()
			conn := laptop.dial("tcp", "kitchen-pi:7")
			say(t, conn, "hello")
			t.Logf("the owner's first answer after %v, a round trip being %v", time.Since(start).Round(time.Millisecond), rtt)
			stop := flow(t, conn)
			time.Sleep(2 * time.Second) // of attack
			if _, rounds := stop(); rounds == 0 {
				t.Error("the flow stood still")
			}
			if pi.tunnel("thief") || !pi.tunnel("laptop") {
				t.Errorf("tunnels: thief %v, laptop %v", pi.tunnel("thief"), pi.tunnel("laptop"))
			}
			relent()
			if _, err := th.Dial(t.Context(), pi.id(), nil); !denied(err, intro.DenyConflict) {
				t.Errorf("the thief, after the owner: %v", err)
			}
		})
	}
}

func denied(err error, reason string) bool {
	d, ok := errors.AsType[*intro.DenyError](err)
	return ok && d.Reason == reason
}

// The same when the thief is the callee: the key that it names is its own until another
// node proves it.
func TestStolenKeyOfACallee(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		first string // which node calls which first
	}{{"thief first", "thief"}, {"owner first", "owner"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newFarWorld(t, setup{evil: true})
			w.suite = overlay.SuiteWireGuard
			hub := w.node("hub", "198.51.100.2")
			laptop := w.node("laptop", "198.51.100.1")
			hub.echo()
			laptop.echo()
			th := w.thief("thief", "198.51.100.3", nil)
			th.steal(t, laptop.id())
			call := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				c, err := hub.Dial(ctx, "tcp", "thief:7")
				if err == nil {
					c.Close()
					t.Error("the thief answered through a tunnel")
				}
				return err
			}
			if c.first == "thief" {
				call()
				if !hub.tunnel("thief") {
					t.Fatal("a key that nobody else holds was refused")
				}
				say(t, laptop.dial("tcp", "hub:7"), "hello")
				if hub.tunnel("thief") {
					t.Error("two nodes have one key")
				}
			}
			conn := hub.dial("tcp", "laptop:7")
			say(t, conn, "hello")
			stop := flow(t, conn)
			for range 3 {
				if err := call(); status.KindOf(err) != status.KindUnreachable {
					t.Errorf("call of the thief: %v", err)
				}
			}
			// And when both call each other.
			relent := th.insist(t, hub.id())
			for range 3 {
				if err := call(); err == nil {
					t.Error("the thief has a tunnel")
				}
			}
			relent()
			stop()
			if hub.tunnel("thief") || !hub.tunnel("laptop") {
				t.Errorf("tunnels: thief %v, laptop %v", hub.tunnel("thief"), hub.tunnel("laptop"))
			}
		})
	}
}

// A wrong proof is refused, and so is the other side's own key.
func TestFalseProofOfAKey(t *testing.T) {
	t.Parallel()
	w := newFarWorld(t, setup{evil: true})
	hub, laptop := w.node("hub", "198.51.100.2"), w.node("laptop", "198.51.100.1")
	hub.echo()
	th := w.thief("thief", "198.51.100.3", func(own, peer [32]byte) ([32]byte, error) { return [32]byte{1}, nil })
	th.mu.Lock()
	th.stolen = [32]byte{31: 78}
	th.mu.Unlock()
	if _, err := th.Dial(t.Context(), hub.id(), nil); !denied(err, intro.DenyConflict) {
		t.Errorf("caller with a false proof: %v", err)
	}
	if hub.tunnel("thief") {
		t.Error("it has a tunnel")
	}
	th.mu.Lock()
	th.stolen = hub.WireGuardKey()
	th.mu.Unlock()
	if _, err := th.Dial(t.Context(), hub.id(), nil); err == nil {
		t.Error("a node may name the key of the other end")
	}
	say(t, laptop.dial("tcp", "hub:7"), "all the same")
}

// Nodes with and without proofs work together, whichever calls.
func TestNodesWithoutProofs(t *testing.T) {
	t.Parallel()
	w := newFarWorld(t, setup{evil: true})
	before, now := w.node("before", "198.51.100.2"), w.node("now", "198.51.100.1")
	before.prepare = (*overlay.Node).ProveNothing
	for _, c := range []struct{ from, to *node }{{before, now}, {now, before}} {
		before.restart()
		now.restart()
		c.to.echo()
		conn := c.from.dial("tcp", c.to.cfg.Hostname+":7")
		say(t, conn, "hello")
		c.from.echo()
		say(t, c.to.dial("tcp", c.from.cfg.Hostname+":7"), "and back")
		say(t, conn, "still")
	}
}
