package overlay_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"weft/coord"
	"weft/coord/ops"
	"weft/coord/standalone"
	"weft/overlay"
	"weft/overlay/status"
)

// another starts a relay that runs alone.
func (w *world) another(name string) *lone {
	w.t.Helper()
	l := &lone{w: w, o: standalone.Options{
		Data: filepath.Join(w.t.TempDir(), name), Token: w.token(ops.CreateKey{Relay: true}), Name: name, Software: "test",
		Listen: coord.Address{Addr: "127.0.0.1:0"},
	}}
	if testing.Verbose() {
		l.o.Log = slog.New(slog.NewTextHandler(w.t.Output(), nil)).With("relay", name)
	}
	l.start()
	w.t.Cleanup(func() { l.r.Close() })
	return l
}

type lone struct {
	w *world
	o standalone.Options
	r *standalone.Relay
}

func (l *lone) start() {
	l.w.t.Helper()
	var err error
	if l.r, err = standalone.Start(l.w.t.Context(), l.o); err != nil {
		l.w.t.Fatal(err)
	}
	l.o.Token, l.o.URLs, l.o.Listen.Addr = "", l.r.URLs(), l.r.Addr().String()
}

// until waits until ok returns true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// moveTo restarts a node with its home at a relay.
func (n *node) moveTo(name string) {
	n.w.t.Helper()
	id := ""
	n.w.until(n.cfg.Hostname+" knows the relay "+name, func() bool {
		for _, r := range n.Relays() {
			if r.Name == name && r.ID != "" {
				id = r.ID
			}
		}
		return id != ""
	})
	n.stop()
	if err := overlay.SaveHome(n.cfg.StateDir, id); err != nil {
		n.w.t.Fatal(err)
	}
	n.start()
	if at := n.Status().Self.Relay; at != name {
		n.w.t.Fatalf("%s is at the relay %s, want %s", n.cfg.Hostname, at, name)
	}
}

func (n *node) peer(name string) status.PeerStatus {
	for _, p := range n.Status().Peers {
		if p.Name == name {
			return p
		}
	}
	return status.PeerStatus{}
}

// ticking sends words at short intervals until stop is called. stop returns the longest
// silence.
func ticking(t *testing.T, c net.Conn) (stop func() time.Duration) {
	end, done := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		var worst time.Duration
		defer func() { done <- worst }()
		b := make([]byte, 5)
		for {
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
			}
			start := time.Now()
			c.SetDeadline(start.Add(40 * time.Second))
			if _, err := io.WriteString(c, "tick\n"); err != nil {
				t.Errorf("the flow broke: %v", err)
				return
			}
			if _, err := io.ReadFull(c, b); err != nil {
				t.Errorf("the flow broke: %v", err)
				return
			}
			worst = max(worst, time.Since(start))
		}
	}()
	return func() time.Duration { close(end); return <-done }
}

// A peer on another relay is reached through that relay, in both directions, and the
// guest connection ends when nothing uses it any more.
func TestGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.another("far")
	laptop := w.node("laptop")
	laptop.prepare = func(n *overlay.Node) { n.SetGuestIdle(300 * time.Millisecond); n.SetIdle(3 * time.Second) }
	pi := w.node("pi", "device")
	pi.moveTo("far")
	pi.echo()
	laptop.moveTo("server")

	c := laptop.dial("tcp", "pi:7")
	say(t, c, "over the other relay")
	if p := laptop.peer("pi"); p.Relay != "far" || p.Path != status.PathRelay || laptop.Guests() != 1 {
		t.Errorf("laptop sees %+v with %d guests", p, laptop.Guests())
	}
	if p := pi.peer("laptop"); p.Relay != "far" || pi.Guests() != 0 {
		t.Errorf("the device sees %+v with %d guests", p, pi.Guests())
	}
	if st := laptop.Status().Self; st.Relay != "server" {
		t.Errorf("laptop is at %q", st.Relay)
	}
	// The server knows where it is, although it is not at the server's own relay.
	d, err := w.svc.FindDevice(t.Context(), "pi")
	if err != nil {
		t.Fatal(err)
	}
	if s := laptop.peer("pi"); !s.Online {
		t.Errorf("device %s: %+v", d.Name, s)
	}
	c.Close()
	w.until("the guest connection goes", func() bool { return laptop.Guests() == 0 })
	say(t, laptop.dial("tcp", "pi:7"), "and again")

	if pong, err := laptop.Ping(t.Context(), "pi"); err != nil || pong.Relay != "far" {
		t.Errorf("ping: %+v, %v", pong, err)
	}
}

// The home relay of both ends dies: they move, and the flow between them continues.
func TestHomeDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	far := w.another("far")
	laptop, pi := w.node("laptop"), w.node("pi", "device")
	laptop.moveTo("far")
	pi.moveTo("far")
	pi.echo()
	c := laptop.dial("tcp", "pi:7")
	say(t, c, "before")
	stop := ticking(t, c)
	far.r.Close()
	w.until("both have moved", func() bool {
		return laptop.Status().Self.Relay == "server" && pi.Status().Self.Relay == "server"
	})
	say(t, laptop.dial("tcp", "pi:7"), "anew")
	t.Logf("longest silence %v", stop())
}

// The relay of a guest connection dies: the peer moves, is found at its new relay, and
// the flow continues. Then both are at one relay.
func TestGuestsRelayDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	far := w.another("far")
	laptop, pi := w.node("laptop"), w.node("pi", "device")
	pi.moveTo("far")
	laptop.moveTo("server")
	pi.echo()
	c := laptop.dial("tcp", "pi:7")
	say(t, c, "before")
	stop := ticking(t, c)
	far.r.Close()
	w.until("the device has moved", func() bool { return pi.Status().Self.Relay == "server" })
	say(t, laptop.dial("tcp", "pi:7"), "anew")
	t.Logf("longest silence %v", stop())
	if p := laptop.peer("pi"); p.Relay != "server" {
		t.Errorf("laptop sees %+v", p)
	}
}

// Server and its relay stay unreachable. Nodes at the other relay keep communicating,
// those at the server's move there, all find each other with what they have on disk, and
// a node that restarts comes back. Then the server returns.
func TestServerAwayOtherRelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	far := w.another("far")
	laptop, pi, cam, phone := w.node("laptop"), w.node("pi", "device"), w.node("cam", "device"), w.node("phone")
	for _, n := range []*node{pi, phone} {
		n.moveTo("far")
	}
	for _, n := range []*node{laptop, cam} {
		n.moveTo("server")
	}
	pi.echo()
	cam.echo()
	w.until("the laptop lists everybody", func() bool { return laptop.peer("cam").Name != "" && laptop.peer("phone").Name != "" })
	w.until("the phone lists everybody", func() bool { return phone.peer("cam").Name != "" && phone.peer("pi").Name != "" })
	c := laptop.dial("tcp", "pi:7")
	say(t, c, "before")
	stop := ticking(t, c)

	w.stopRelay() // and the API with it
	w.until("all are at the other relay", func() bool {
		return laptop.Status().Self.Relay == "far" && cam.Status().Self.Relay == "far"
	})
	say(t, laptop.dial("tcp", "pi:7"), "another connection")
	say(t, laptop.dial("tcp", "cam:7"), "a new introduction, by what the laptop knew")
	say(t, phone.dial("tcp", "pi:7"), "and one between two who never moved")
	t.Logf("longest silence %v", stop())

	phone.restart()
	say(t, phone.dial("tcp", "cam:7"), "after a restart")
	if st := phone.Status(); st.Self.Relay != "far" {
		t.Errorf("phone: %+v", st)
	}
	w.until("the phone says that the server is away", func() bool { return !phone.Status().Server.Online })
	// The relay needs no server to start either.
	far.r.Close()
	far.start()
	for _, n := range []*node{laptop, pi, cam, phone} {
		n.wait("")
	}
	say(t, phone.dial("tcp", "pi:7"), "over the relay that restarted")

	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	w.startRelay(l)
	w.until("the server knows who is where", func() bool {
		d, err := w.svc.FindDevice(t.Context(), "pi")
		return err == nil && w.svc.Home(d.ID) == "far"
	})
	w.until("the phone says that the server is back", func() bool { return phone.Status().Server.Online })
	fresh := w.node("fresh")
	say(t, fresh.dial("tcp", "pi:7"), "from a device that joined just now")
}

// A device that is at no relay is soon reported offline, however many relays there are;
// and nodes leave a relay that was removed from the list.
func TestNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.another("far")
	laptop, pi := w.node("laptop"), w.node("pi", "device")
	laptop.moveTo("server")
	pi.moveTo("far")
	pi.stop()
	err := laptop.dialFails("pi:7", 8*time.Second)
	if status.KindOf(err) != status.KindUnreachable {
		t.Errorf("%v", err)
	}
	phone := w.node("phone")
	phone.moveTo("far")
	if _, err := ops.Do(context.Background(), w.svc, ops.Root(), ops.RemoveRelay{Name: "far"}); err != nil {
		t.Fatal(err)
	}
	w.until("the phone has left the relay that was removed", func() bool { return phone.Status().Self.Relay == "server" })
}
