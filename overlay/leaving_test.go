package overlay_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay/status"
)

// heldLookups is a coordination server that delays its answers to lookups until the test
// releases them.
type heldLookups struct {
	asked chan struct{}
	hold  chan struct{} // closed: no more
}

func (l *heldLookups) api(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/lookup" {
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		select {
		case l.asked <- struct{}{}:
		default:
		}
		<-l.hold
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	})
}

// A node leaves its network while it looks a name up: the lookup returns that the node is
// in no network, and nothing of the answer remains, in memory or on disk.
func TestLogoutDuringLookup(t *testing.T) {
	t.Parallel()
	for what, ask := range map[string]func(context.Context, *node) error{
		"resolve": func(ctx context.Context, n *node) error { _, err := n.Resolve(ctx, "kitchen-pi"); return err },
		"ping":    func(ctx context.Context, n *node) error { _, err := n.Ping(ctx, "kitchen-pi"); return err },
		"dial": func(ctx context.Context, n *node) error {
			c, err := n.Dial(ctx, "tcp", "kitchen-pi:7")
			if err == nil {
				c.Close()
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := &heldLookups{asked: make(chan struct{}, 1), hold: make(chan struct{})}
			w := newWorldOf(t, setup{api: l.api, look: true})
			w.node("kitchen-pi", "device").echo()
			laptop := w.node("laptop")
			said := make(chan error, 1)
			go func() { said <- ask(t.Context(), laptop) }()
			<-l.asked
			if err := laptop.Logout(t.Context()); err != nil {
				t.Fatal(err)
			}
			close(l.hold)
			if err := <-said; err == nil {
				t.Error("no error after a logout")
			}
			left, err := filepath.Glob(filepath.Join(laptop.cfg.StateDir, "*"))
			if err != nil || len(left) != 1 || filepath.Base(left[0]) != "lock" {
				t.Errorf("left in the state directory: %v, %v", left, err)
			}
			if err := laptop.Up(t.Context(), w.token(ops.CreateKey{})); err != nil {
				t.Fatal(err)
			}
			laptop.wait("kitchen-pi")
		})
	}
}

// Whatever is called while a node goes down, leaves its network, joins again and is
// closed returns, and nothing crashes.
func TestLeaveWhileUsed(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{look: true})
	pi := w.node("kitchen-pi", "device")
	pi.echo()
	laptop := w.node("laptop")
	addr := netip.MustParseAddr(pi.Status().Self.IPv4)
	ctx, cancel := context.WithCancel(t.Context())
	var users sync.WaitGroup
	for _, use := range []func(context.Context){
		func(ctx context.Context) { laptop.Resolve(ctx, "kitchen-pi") },
		func(ctx context.Context) { laptop.Resolve(ctx, addr.String()) },
		func(ctx context.Context) { laptop.Resolve(ctx, "nobody") },
		func(ctx context.Context) { laptop.Ping(ctx, "kitchen-pi") },
		func(ctx context.Context) { laptop.Ping(ctx, "laptop") },
		func(ctx context.Context) { laptop.Wait(ctx, "kitchen-pi") },
		func(ctx context.Context) {
			for _, network := range []string{"tcp", "udp"} {
				if c, err := laptop.Dial(ctx, network, "kitchen-pi:7"); err == nil {
					c.Close()
				}
			}
		},
		func(context.Context) {
			if l, err := laptop.Listen("tcp", ":8"); err == nil {
				l.Close()
			}
		},
		func(context.Context) { laptop.Status(); laptop.State(); laptop.Relays() },
		func(ctx context.Context) { laptop.Look(ctx, "") },
		func(context.Context) { laptop.Names(); laptop.DNS() },
		func(context.Context) { laptop.NetworkChanged() },
		func(ctx context.Context) {
			laptop.Up(ctx, "") // during a logout
			time.Sleep(5 * time.Millisecond)
		},
	} {
		users.Go(func() {
			for ctx.Err() == nil {
				once, cancel := context.WithTimeout(ctx, 2*time.Second)
				use(once)
				cancel()
				// Let the other goroutines run on a small machine.
				time.Sleep(time.Millisecond)
			}
		})
	}
	for round := range 8 {
		if round%2 == 0 {
			if err := laptop.Down(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if err := laptop.Logout(t.Context()); err != nil {
			t.Fatal(err)
		} else if st := laptop.State(); st != status.StateUnjoined {
			t.Fatalf("after a logout: %s", st)
		} else if _, err := os.Stat(filepath.Join(laptop.cfg.StateDir, "node.json")); err == nil {
			t.Fatal("an identity is on disk after a logout")
		} else if err := laptop.Up(t.Context(), w.token(ops.CreateKey{})); err != nil {
			t.Fatal(err)
		}
		if err := laptop.Up(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		laptop.wait("")
		// Some calls are still in progress when the next round begins.
		soon, stop := context.WithTimeout(t.Context(), 10*time.Second)
		laptop.Ping(soon, "kitchen-pi")
		stop()
	}
	if err := laptop.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	users.Wait()
}
