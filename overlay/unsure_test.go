package overlay_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay/status"
)

// restarting is a world whose server restarts and then gets no reports of relays that run
// alone until heard is set. After freeze the server's clock stands still, so that what is
// unknown stays unknown however slow this machine is.
type restarting struct {
	*world
	heard atomic.Bool
	where atomic.Int64 // how often the server was asked where a node is
	still atomic.Pointer[time.Time]
	// config, if set, is closed when nodes may get their configuration.
	config atomic.Pointer[chan struct{}]
}

func (r *restarting) freeze() {
	now := time.Now()
	r.still.Store(&now)
}

func newRestarting(t *testing.T) *restarting {
	t.Helper()
	r := &restarting{}
	r.heard.Store(true)
	now := func() time.Time {
		if at := r.still.Load(); at != nil {
			return *at
		}
		return time.Now()
	}
	r.world = newWorldOf(t, setup{now: now, api: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.HasPrefix(req.URL.Path, "/v1/relay/") && !r.heard.Load() {
				panic(http.ErrAbortHandler)
			}
			if c := r.config.Load(); c != nil && req.URL.Path == "/v1/config" {
				<-*c
			}
			if req.URL.Path == "/v1/lookup" && req.URL.Query().Has("id") {
				defer r.where.Add(1)
			}
			h.ServeHTTP(w, req)
		})
	}})
	return r
}

// down stops the server with its relay; up starts it anew.
func (r *restarting) down() { r.stopServer() }

func (r *restarting) up() {
	r.t.Helper()
	l, err := r.listen()
	if err != nil {
		r.t.Fatal(err)
	}
	r.startServer(l)
}

// dialing dials at once. The function that it returns waits for the connection.
func dialing(n *node, address string) func() net.Conn {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithTimeout(n.w.t.Context(), 30*time.Second)
	go func() {
		c, err := n.Dial(ctx, "tcp", address)
		done <- result{c, err}
	}()
	return func() net.Conn {
		n.w.t.Helper()
		defer cancel()
		r := <-done
		if r.err != nil {
			n.w.t.Fatalf("dial %s: %v", address, r.err)
		}
		n.w.t.Cleanup(func() { r.c.Close() })
		return r.c
	}
}

// lookedFor dials, and waits until the server was asked once where the device is.
func (r *restarting) lookedFor(n *node, address string) func() net.Conn {
	r.t.Helper()
	from := r.where.Load()
	reached := dialing(n, address)
	eventually(r.t, 20*time.Second, "the server is asked", func() bool { return r.where.Load() > from })
	return reached
}

// A node that has just reconnected, and does not have the new list of relays yet, reaches
// a device at a relay that it does not know, and of which the server, which has just
// started, knows nothing either.
func TestServerStartedAMomentAgo(t *testing.T) {
	t.Parallel()
	w := newRestarting(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	laptop.stop()
	w.another("far")
	pi.moveTo("far")
	pi.echo()
	w.down()
	w.heard.Store(false)
	w.freeze()
	w.up()
	config := make(chan struct{})
	w.config.Store(&config)
	give := sync.OnceFunc(func() { close(config) })
	defer give()
	laptop.start()
	reached := w.lookedFor(laptop, "kitchen-pi:7")
	give()
	say(t, reached(), "found where the server does not know it")
	if p := laptop.peer("kitchen-pi"); p.Relay != "far" || !p.Online {
		t.Errorf("%+v", p)
	}
}

// The same with a laptop that shows the status: the device is not reported offline.
func TestNobodyKnowsYet(t *testing.T) {
	t.Parallel()
	w := newRestarting(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	w.another("far")
	pi.moveTo("far")
	w.down()
	w.heard.Store(false)
	w.up()
	laptop.restart()
	if p := looked(t, laptop, "kitchen-pi"); p.Path == status.PathOffline || p.PresenceAt != nil || p.PathReason == "" {
		t.Errorf("nobody knows, and it is said to be %+v", p)
	}
	w.heard.Store(true)
	eventually(t, 20*time.Second, "it is online once the relay has said so", func() bool { return looked(t, laptop, "kitchen-pi").Online })
}

// A device that was at the server's own relay is still reconnecting when another node is
// back already and wants to reach it.
func TestServerStartedDeviceComesBack(t *testing.T) {
	t.Parallel()
	w := newRestarting(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	w.down()
	pi.stop()
	w.freeze()
	w.up()
	laptop.restart()
	reached := w.lookedFor(laptop, "kitchen-pi:7")
	pi.start()
	pi.echo()
	say(t, reached(), "back")
}

// Server and relay restart, the server first, and the device reconnects to the relay last
// of all.
func TestServerAndRelayStarted(t *testing.T) {
	t.Parallel()
	w := newRestarting(t)
	far := w.another("far")
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.moveTo("far")
	laptop.moveTo("server")
	pi.stop()
	far.r.Close()
	w.down()
	w.freeze()
	w.up()
	laptop.restart()
	reached := w.lookedFor(laptop, "kitchen-pi:7")
	far.start()
	pi.start()
	pi.echo()
	say(t, reached(), "back")
}

// The relay restarts, and the server knows that before the device is back.
func TestRelayStartedAMomentAgo(t *testing.T) {
	t.Parallel()
	w := newRestarting(t)
	far := w.another("far")
	pi, cam, laptop := w.node("kitchen-pi", "device"), w.node("cam", "device"), w.node("laptop")
	pi.moveTo("far")
	cam.moveTo("far")
	laptop.moveTo("server")
	eventually(t, 20*time.Second, "the server knows where they are", func() bool {
		return w.homeOf("kitchen-pi") == "far" && w.homeOf("cam") == "far"
	})
	// The relay's machine dies, so that the server gets no report.
	w.heard.Store(false)
	pi.stop()
	cam.stop()
	far.r.Close()
	far.start()
	w.freeze()
	w.heard.Store(true)
	cam.start()
	eventually(t, 20*time.Second, "the server knows that the relay started anew", func() bool { return w.homeOf("kitchen-pi") == "" })
	reached := w.lookedFor(laptop, "kitchen-pi:7")
	pi.start()
	pi.echo()
	say(t, reached(), "back")
}

// homeOf returns the relay at which the server believes a device to be.
func (w *world) homeOf(name string) string {
	d, err := w.svc.FindDevice(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.svc.Home(d.ID)
}

// The device moves to another relay while it is being looked for.
func TestMovesDuringDial(t *testing.T) {
	t.Parallel()
	w := newRestarting(t)
	w.another("far")
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.moveTo("far")
	laptop.moveTo("server")
	eventually(t, 20*time.Second, "the server knows where it is", func() bool { return w.homeOf("kitchen-pi") == "far" })
	w.freeze()
	pi.stop()
	eventually(t, 20*time.Second, "the server knows that it left", func() bool { return w.homeOf("kitchen-pi") == "" })
	reached := w.lookedFor(laptop, "kitchen-pi:7")
	pi.moveTo("server")
	pi.echo()
	say(t, reached(), "moved")
}

// A relay does not come back, and a device that was not seen since the server started is
// not found. A caller gets that, not that the device is offline, until the server has had
// time to know.
func TestRelayDoesNotComeBack(t *testing.T) {
	t.Parallel()
	w := newRestarting(t)
	far := w.another("far")
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.moveTo("far")
	laptop.moveTo("server")
	pi.stop()
	far.r.Close()
	w.down()
	w.heard.Store(false)
	w.freeze()
	w.up()
	laptop.restart()
	err := laptop.dialFails("kitchen-pi:7", 20*time.Second)
	wantKind(t, err, status.KindUnreachable)
	if strings.Contains(err.Error(), "offline") || !strings.Contains(err.Error(), "does not know yet") {
		t.Error(err)
	}
}
