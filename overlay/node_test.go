package overlay_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ca"
	"weft/coord/ops"
	"weft/coord/store/storetest"
	"weft/netstack"
	"weft/overlay"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/link"
	"weft/overlay/relay/relayserver"
	"weft/overlay/status"
)

// world is a network on loopback, or on an internet in memory: a coordination
// server whose API can be switched off, a relay that can be restarted, and
// nodes in user space.
type world struct {
	t        *testing.T
	setup    setup
	suite    string // of nodes that are made from now on, if they have none of their own
	svc      *ops.Service
	auth     *ca.Authorities
	data     string // the coordination server's directory
	addr     string
	away     atomic.Bool  // the coordination server does not answer
	requests atomic.Int64 // asked of the coordination server
	policies atomic.Int64 // set so far
	present  sync.Map     // NodeID, hex -> whether the coordination server was last told that it is online

	stopServer func() // everything of it

	link  *link.Server
	relay *relayserver.Server
	evil  *evilRelay // in place of relay
	done  chan struct{}
}

// setup configures a world.
type setup struct {
	life time.Duration                   // of node certificates; 0: as usual
	host *overlaytest.Host               // where the server runs; nil: on loopback
	evil bool                            // the relay is an evilRelay
	look bool                            // nodes look names up rather than read the directory
	stun []string                        // where the relay does STUN
	api  func(http.Handler) http.Handler // wraps the coordination server's API; may be nil
	now  func() time.Time                // the coordination server's clock; may be nil
	site *site                           // the public site; nil: there is none
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOf(t, setup{})
}

func newWorldOf(t *testing.T, s setup) *world {
	t.Helper()
	checkLeaks(t)
	w := &world{t: t, setup: s}
	if s.host != nil {
		w.addr = "server:443"
	} else {
		w.addr = "127.0.0.1:0"
	}
	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	if s.host == nil {
		w.addr = l.Addr().String()
	}
	w.data = t.TempDir()
	w.startServer(l)
	t.Cleanup(func() { w.stopServer() })
	return w
}

// startServer starts the coordination server with its relay.
func (w *world) startServer(l net.Listener) {
	t, s := w.t, w.setup
	t.Helper()
	storetest.Schema(t, w.data)
	var err error
	w.svc, err = ops.OpenService(t.Context(), ops.Options{Data: w.data, Create: true, URLs: []string{"https://" + w.addr}, NodeLife: s.life, STUN: s.stun, Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	w.auth, err = ca.Open(filepath.Join(w.data, "ca"), false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.startRelay(l)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	svc := w.svc
	go func() { svc.Run(ctx); close(ran) }()
	w.stopServer = func() {
		w.stopRelay()
		cancel()
		<-ran
		w.svc.Close() // perhaps another one, restored from a backup
	}
}

func (w *world) listen() (net.Listener, error) {
	if w.setup.host != nil {
		return w.setup.host.Listen("tcp", ":443")
	}
	return net.Listen("tcp", w.addr)
}

func (w *world) startRelay(l net.Listener) {
	w.relay = relayserver.New(relayserver.Config{
		Verify: func(leaf *x509.Certificate) (cert.NetworkID, cert.NodeID, bool, error) {
			n, err := w.auth.Roots.VerifyNodeAnyTime(leaf.Raw)
			if err != nil {
				return cert.NetworkID{}, cert.NodeID{}, false, err
			}
			if _, err := w.svc.FindDevice(context.Background(), n.ID.String()); err != nil {
				return cert.NetworkID{}, cert.NodeID{}, false, err
			}
			return n.Network, n.ID, n.Tagged(), nil
		},
		Versions: func(_ cert.NetworkID, id cert.NodeID) api.Versions {
			v := w.svc.Versions(id)
			if w.setup.look {
				v.Directory = api.Version{}
			}
			return v
		},
		Changes: func(_ cert.NetworkID, id cert.NodeID, held api.Version) *api.Changes {
			return w.svc.Changes(context.Background(), id, held)
		},
		CRL: func(cert.NetworkID) []byte { return w.svc.CRL() },
		Now: w.setup.now,
		Presence: func(e relayserver.Event) {
			w.svc.Presence(e.Node, e.Conn, e.Online, e.At, e.Addr.Addr())
			w.present.Store(e.Node.String(), e.Online)
		},
	})
	serve := w.relay.Serve
	w.svc.SetRelay(w.relay)
	if w.setup.evil {
		w.evil = newEvilRelay(w)
		w.svc.SetRelay(w.evil)
		serve = w.evil.serve
	}
	handler := w.svc.API()
	if w.setup.look {
		handler = unlisted(handler)
	}
	if w.setup.api != nil {
		handler = w.setup.api(handler)
	}
	w.link = link.NewServer(link.ServerConfig{
		Certificate: func() *tls.Certificate { c, _ := w.auth.Leaf(time.Now()); return c },
		API: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.requests.Add(1)
			if w.away.Load() {
				panic(http.ErrAbortHandler)
			}
			handler.ServeHTTP(rw, r)
		}),
		Relay:  serve,
		Site:   w.setup.site.handler(w),
		Public: w.setup.site.config(),
		Log:    slog.New(slog.DiscardHandler),
	})
	w.done = make(chan struct{})
	go func() { w.link.Serve(l); close(w.done) }()
}

func (w *world) stopRelay() {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	w.relay.Shutdown(ctx)
	if w.evil != nil {
		w.evil.close()
	}
	w.link.Shutdown(ctx)
	<-w.done
}

func (w *world) restartRelay() {
	w.t.Helper()
	w.stopRelay()
	l, err := w.listen()
	if err != nil {
		w.t.Fatal(err)
	}
	w.startRelay(l)
}

func (w *world) token(k ops.CreateKey) string {
	w.t.Helper()
	key, err := ops.Do(w.t.Context(), w.svc, ops.Root(), k)
	if err != nil {
		w.t.Fatal(err)
	}
	return key.Token
}

// node is a running node with a state directory from which it can be restarted.
type node struct {
	*overlay.Node
	w    *world
	cfg  overlay.Config
	stop func()

	wrap    func(*netstack.Net) overlay.Net // around the node's network; may be nil
	prepare func(*overlay.Node)             // before it starts; may be nil
}

func (w *world) node(name string, tags ...string) *node {
	w.t.Helper()
	return w.nodeOf(name, overlay.Config{}, tags...)
}

// nodeOf starts a node with this configuration.
func (w *world) nodeOf(name string, cfg overlay.Config, tags ...string) *node {
	w.t.Helper()
	n := &node{w: w, cfg: cfg}
	w.add(n, name, tags...)
	return n
}

// add starts a node that was made elsewhere.
func (w *world) add(n *node, name string, tags ...string) {
	w.t.Helper()
	n.cfg.Suite = cmp.Or(n.cfg.Suite, w.suite, os.Getenv("WEFT_TEST_SUITE"))
	n.cfg.StateDir, n.cfg.Hostname, n.cfg.Version = filepath.Join(w.t.TempDir(), name), name, "test"
	n.cfg.Token = w.token(ops.CreateKey{Tags: tags})
	// Most tests are about traffic through the relay.
	n.cfg.UDP.Off = n.cfg.UDP.Listen == nil
	if testing.Verbose() && n.cfg.Log == nil {
		n.cfg.Log = slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
	}
	n.start()
}

// start starts the node and waits until it is connected.
func (n *node) start() {
	n.w.t.Helper()
	n.begin()
	n.wait("")
}

func (n *node) begin() {
	t := n.w.t
	t.Helper()
	nw, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	n.cfg.Net = nw
	if n.wrap != nil {
		n.cfg.Net = n.wrap(nw)
	}
	n.Node, err = overlay.New(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n.prepare != nil {
		n.prepare(n.Node)
	}
	running := n.Node
	if n.stop == nil { // the ones before were stopped
		t.Cleanup(func() { n.stop() })
	}
	n.stop = func() { running.Close() }
	if err := n.Start(t.Context()); err != nil {
		t.Fatalf("start %s: %v", n.cfg.Hostname, err)
	}
}

func (n *node) wait(peer string) {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(n.w.t.Context(), 15*time.Second)
	defer cancel()
	if err := n.Wait(ctx, peer); err != nil {
		n.w.t.Fatalf("%s waits for %q: %v", n.cfg.Hostname, peer, err)
	}
}

func (n *node) restart() {
	n.w.t.Helper()
	n.stop()
	n.start()
}

// echo serves an echo on the node's overlay port 7.
func (n *node) echo() {
	t := n.w.t
	t.Helper()
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := n.Listen(network, ":7")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		}()
	}
}

// say sends words over a connection and expects them back.
func say(t *testing.T, c net.Conn, words string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, words); err != nil {
		t.Fatalf("write: %v", err)
	}
	b := make([]byte, len(words))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != words {
		t.Fatalf("read back %q, %v", b, err)
	}
}

func (n *node) dial(network, address string) net.Conn {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(n.w.t.Context(), 10*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, network, address)
	if err != nil {
		n.w.t.Fatalf("%s dials %s: %v", n.cfg.Hostname, address, err)
	}
	n.w.t.Cleanup(func() { c.Close() })
	return c
}

func (n *node) dialFails(address string, within time.Duration) error {
	n.w.t.Helper()
	ctx, cancel := context.WithTimeout(n.w.t.Context(), within+5*time.Second)
	defer cancel()
	start := time.Now()
	c, err := n.Dial(ctx, "tcp", address)
	if err == nil {
		c.Close()
		n.w.t.Fatalf("%s reached %s", n.cfg.Hostname, address)
	}
	if took := time.Since(start); took > within {
		n.w.t.Errorf("%s dials %s: error after %v, want %v: %v", n.cfg.Hostname, address, took, within, err)
	}
	return err
}

func wantKind(t *testing.T, err error, want status.Kind) {
	t.Helper()
	if got := status.KindOf(err); got != want {
		t.Errorf("kind %q, want %q: %v", got, want, err)
	}
}

// eventually waits until ok returns true.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, within)
		}
	}
}

func TestReachByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	for _, address := range []string{"kitchen-pi:7", "KITCHEN-PI.weft.internal.:7", pi.Status().Self.IPv4 + ":7", "[" + pi.Status().Self.IPv6 + "]:7"} {
		say(t, laptop.dial("tcp", address), "hello "+address)
	}
	say(t, laptop.dial("tcp6", "kitchen-pi:7"), "over IPv6")
	pong, err := laptop.Ping(t.Context(), "kitchen-pi")
	if err != nil || pong.RTT <= 0 || pong.Path != status.PathRelay {
		t.Errorf("ping: %+v, %v", pong, err)
	}
	st := laptop.Status()
	if st.State != status.StateRunning || len(st.Peers) != 1 || st.Peers[0].Name != "kitchen-pi" || st.Peers[0].Path != status.PathRelay || st.Peers[0].KeyExchange == "" {
		t.Errorf("status: %+v", st)
	}
	err = laptop.dialFails("kitchen-pi:8", 2*time.Second)
	wantKind(t, err, status.KindRefused)
	wantKind(t, laptop.dialFails("attic-pi:7", 2*time.Second), status.KindUnknown)
	wantKind(t, laptop.dialFails("laptop:7", time.Second), status.KindUsage)
	// A tagged device may not begin anything: for it the laptop does not exist.
	wantKind(t, pi.dialFails("laptop:7", 2*time.Second), status.KindUnknown)
	wantKind(t, pi.dialFails(laptop.Status().Self.IPv4+":7", 2*time.Second), status.KindUnknown)
}

func TestBothDialAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("a"), w.node("b")
	a.echo()
	b.echo()
	for round := range 5 {
		var conns [2]net.Conn
		errs := make(chan error, 2)
		for i, d := range []struct {
			from *node
			to   string
		}{{a, "b:7"}, {b, "a:7"}} {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				var err error
				conns[i], err = d.from.Dial(ctx, "tcp", d.to)
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		for _, c := range conns {
			say(t, c, "glare")
			c.Close()
		}
		// Both drop at once, too.
		done := make(chan struct{}, 2)
		for _, n := range []*node{a, b} {
			go func() { n.Down(t.Context()); n.Up(t.Context(), ""); done <- struct{}{} }()
		}
		<-done
		<-done
		a.wait("")
		b.wait("")
	}
}

// Nodes that know each other do not need the coordination server.
func TestServerAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	eventually(t, 20*time.Second, "the directory", func() bool { return len(laptop.Status().Peers) == 1 })
	w.away.Store(true)
	laptop.restart() // with nothing but the state directory
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "from the cache")
	wantKind(t, laptop.dialFails("attic-pi:7", 6*time.Second), status.KindUnavailable)
	attic := make(chan struct{})
	go func() {
		defer close(attic)
		w.away.Store(false)
	}()
	<-attic
	w.node("attic-pi", "device").echo()
	eventually(t, 20*time.Second, "recovery", func() bool {
		_, err := laptop.Resolve(t.Context(), "attic-pi")
		return err == nil
	})
	say(t, laptop.dial("tcp", "attic-pi:7"), "the server is back")
}

func TestRestartOfEitherSide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
	id := pi.Status().Self.ID
	pi.restart()
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "device restarted")
	laptop.restart()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "laptop restarted")
	if pi.Status().Self.ID != id {
		t.Error("the device became somebody else")
	}
}

func TestRelayRestartUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	c := laptop.dial("tcp", "kitchen-pi:7")
	say(t, c, "before")
	stop := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		b := make([]byte, 4096)
		for {
			select {
			case <-stop:
				return
			default:
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Write(b); err != nil {
				failed <- err
				return
			}
			if _, err := io.ReadFull(c, b); err != nil {
				failed <- err
				return
			}
		}
	}()
	for range 3 {
		w.restartRelay()
		laptop.wait("kitchen-pi")
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Fatalf("the flow died: %v", err)
	}
	say(t, c, "after three restarts")
}

// A deleted device reports that to its user, whatever the user asks, at once and after a
// restart.
func TestDeletedDeviceReportsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi := w.node("kitchen-pi", "device")
	node, err := w.svc.FindDevice(t.Context(), "kitchen-pi")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: node.ID}); err != nil {
		t.Fatal(err)
	}
	told := func() bool {
		return slices.ContainsFunc(pi.Status().Health, func(h status.Health) bool {
			return h.Code == "revoked" && strings.Contains(h.Message, "weft logout, then weft up TOKEN")
		})
	}
	check := func(when string) {
		t.Helper()
		for verb, err := range map[string]error{"up": pi.Up(t.Context(), ""), "wait": pi.Wait(t.Context(), "")} {
			var e *status.Error
			if !errors.As(err, &e) || e.Kind != status.KindFailed || !strings.Contains(e.Message, "removed from the network") || e.Hint == "" {
				t.Errorf("%s, %s: %v", when, verb, err)
			}
		}
	}
	eventually(t, 20*time.Second, "the device is told", told)
	check("after a while")
	pi.stop()
	pi.begin()
	eventually(t, 20*time.Second, "it is told after a restart", told)
	check("after a restart")
	// Then the owner logs it out.
	if err := pi.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := pi.Up(t.Context(), w.token(ops.CreateKey{Tags: []string{"device"}})); err != nil {
		t.Fatal(err)
	}
	if err := pi.Wait(t.Context(), ""); err != nil || told() {
		t.Errorf("joined again: %v, told %v", err, told())
	}
}

func TestDeletedDeviceIsCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop, asleep := w.node("kitchen-pi", "device"), w.node("laptop"), w.node("asleep")
	pi.echo()
	c := laptop.dial("tcp", "kitchen-pi:7")
	say(t, c, "before")
	say(t, asleep.dial("tcp", "kitchen-pi:7"), "before")
	asleep.stop()
	node, err := w.svc.FindDevice(t.Context(), "kitchen-pi")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: node.ID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the tunnel ends", func() bool {
		for _, p := range laptop.Status().Peers {
			if p.Name == "kitchen-pi" {
				return false
			}
		}
		return true
	})
	c.SetDeadline(time.Now().Add(time.Second))
	io.WriteString(c, "after")
	if n, err := c.Read(make([]byte, 5)); err == nil {
		t.Errorf("a revoked device still answers: %d bytes", n)
	}
	wantKind(t, laptop.dialFails("kitchen-pi:7", 3*time.Second), status.KindUnknown)
	// A node that was offline gets the revocation list before its first packet.
	asleep.start()
	asleep.dialFails("kitchen-pi:7", 3*time.Second)
	eventually(t, 20*time.Second, "the device is forgotten", func() bool {
		_, err := asleep.Resolve(t.Context(), "kitchen-pi")
		return status.KindOf(err) == status.KindUnknown
	})
	eventually(t, 20*time.Second, "the device says why", func() bool {
		for _, h := range pi.Status().Health {
			if h.Code == "revoked" || h.Code == "relay-offline" {
				return true
			}
		}
		return false
	})
}

// The reason is returned even if the time is up meanwhile.
func TestReasonAtTheLastMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := laptop.Through(ctx, "kitchen-pi", func(try context.Context) error {
		<-try.Done() // the peer is offline
		cancel()
		return try.Err()
	})
	wantKind(t, err, status.KindUnreachable)
}

func TestOfflinePeerSaysSinceWhen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
	laptop.restart() // no tunnel
	pi.stop()
	err := laptop.dialFails("kitchen-pi:7", time.Second)
	wantKind(t, err, status.KindUnreachable)
	if !strings.Contains(err.Error(), "last seen") {
		t.Errorf("%v: does not say since when", err)
	}
	// And with a tunnel that still exists at this end.
	pi.start()
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "again")
	pi.stop()
	wantKind(t, laptop.dialFails("kitchen-pi:7", 3*time.Second), status.KindUnreachable)
	pi.start()
	pi.echo()
	eventually(t, 20*time.Second, "it is back", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		c, err := laptop.Dial(ctx, "tcp", "kitchen-pi:7")
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

func TestDownUpLogout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "up")
	id := laptop.Status().Self.ID
	if err := laptop.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := laptop.State(); st != status.StateDown {
		t.Errorf("state %s after down", st)
	}
	if h := laptop.Status().Health; len(h) != 0 {
		t.Errorf("what was taken down on purpose warns: %v", h)
	}
	if err := laptop.dialFails("kitchen-pi:7", time.Second); !strings.Contains(err.Error(), "weft up") {
		t.Errorf("down: %v: no way out named", err)
	}
	if err := laptop.Up(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	laptop.wait("")
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "up again")
	if laptop.Status().Self.ID != id {
		t.Error("down and up made another node")
	}
	if err := laptop.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := laptop.State(); st != status.StateUnjoined {
		t.Errorf("state %s after logout", st)
	}
	if _, err := w.svc.FindDevice(t.Context(), "laptop"); err == nil {
		t.Error("the server still has the node")
	}
	wantKind(t, laptop.dialFails("kitchen-pi:7", time.Second), status.KindNotJoined)
	if err := laptop.Up(t.Context(), w.token(ops.CreateKey{})); err != nil {
		t.Fatal(err)
	}
	laptop.wait("")
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "as another node")
	if laptop.Status().Self.ID == id {
		t.Error("the identity survived logout")
	}
}

func TestTokensThatDoNotWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	used := w.token(ops.CreateKey{})
	n := w.node("first")
	n.stop()
	try := func(token string) error {
		nw, err := netstack.New(netstack.Config{})
		if err != nil {
			t.Fatal(err)
		}
		n, err := overlay.New(overlay.Config{Net: nw, StateDir: t.TempDir(), Token: token, Hostname: "x"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		err = n.Start(t.Context())
		if err != nil && strings.Contains(err.Error(), token[20:60]) {
			t.Errorf("the error shows the token: %v", err)
		}
		return err
	}
	if err := try(used); err != nil {
		t.Fatal(err)
	}
	if err := try(used); err == nil || !strings.Contains(err.Error(), "used") {
		t.Errorf("used token: %v", err)
	}
	good, err := cert.ParseToken(w.token(ops.CreateKey{}))
	if err != nil {
		t.Fatal(err)
	}
	wrong := good
	wrong.Server[3] ^= 1
	if err := try(wrong.String()); !errors.Is(err, cert.ErrUntrusted) {
		t.Errorf("token with another pin: %v", err)
	}
	if err := try(good.String()); err != nil {
		t.Errorf("the secret was spent on a server that was refused: %v", err)
	}
	unknown := good
	unknown.Secret = cert.NewSecret()
	if err := try(unknown.String()); err == nil {
		t.Error("unknown token was accepted")
	}
	key, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.CreateKey{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.RevokeKey{ID: key.ID}); err != nil {
		t.Fatal(err)
	}
	if err := try(key.Token); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked token: %v", err)
	}
	if err := try(used[:len(used)-3]); status.KindOf(err) != status.KindUsage {
		t.Errorf("truncated token: %v", err)
	}
}

// A device whose clock says 1970 or 2040 can join and be reached.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop := w.node("laptop")
	for name, at := range map[string]time.Time{"past": time.Unix(1000, 0), "future": time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)} {
		skew := time.Until(at)
		pi := &node{w: w, cfg: overlay.Config{
			StateDir: t.TempDir(), Hostname: name, Token: w.token(ops.CreateKey{Tags: []string{"device"}}),
			Wall: func() time.Time { return time.Now().Add(skew) }, BuildTime: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		}}
		pi.start()
		pi.echo()
		say(t, laptop.dial("tcp", name+":7"), "what time is it?")
		pi.restart() // with nothing but the server's last time on disk
		pi.echo()
		say(t, laptop.dial("tcp", name+":7"), "and now?")
	}
}

func TestLostConfigIsFetchedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	for _, name := range []string{"config.json", "crl.der", "directory.json", "names.json"} {
		laptop.stop()
		if err := os.WriteFile(filepath.Join(laptop.cfg.StateDir, name), []byte("{damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		laptop.start()
		say(t, laptop.dial("tcp", "kitchen-pi:7"), name)
	}
}

func TestRenamedDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
	node, _ := w.svc.FindDevice(t.Context(), "kitchen-pi")
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.RenameDevice{ID: node.ID, Name: "pantry-pi"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the device knows its name", func() bool { return pi.Status().Self.Name == "pantry-pi" })
	eventually(t, 20*time.Second, "the laptop knows it", func() bool {
		_, err := laptop.Resolve(t.Context(), "pantry-pi")
		return err == nil
	})
	say(t, laptop.dial("tcp", "pantry-pi:7"), "after")
}

func TestPolicyChangeCutsLiveFlows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	pi.echo()
	c := laptop.dial("tcp", "kitchen-pi:7")
	say(t, c, "before")
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: `{"rules":[{"from":["user:*"],"to":["self"],"ports":["tcp:80"]}]}`}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the flow is cut", func() bool {
		c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		io.WriteString(c, "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		return err != nil
	})
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: `{"rules":[]}`}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the laptop reaches nobody", func() bool {
		_, err := laptop.Resolve(t.Context(), "kitchen-pi")
		return status.KindOf(err) == status.KindUnknown
	})
}

// All of many connections have the address of the node that made them.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "device"), w.node("laptop")
	const n = 200
	errs := make(chan error, 2*n)
	from := netip.MustParseAddr(laptop.Status().Self.IPv4)
	l, err := pi.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if a := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); a != from {
				errs <- fmt.Errorf("a connection of %v comes from %v", from, a)
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	for i := range n {
		go func() {
			errs <- func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				c, err := laptop.Dial(ctx, "tcp", "kitchen-pi:7")
				if err != nil {
					return err
				}
				defer c.Close()
				words := fmt.Sprint("connection ", i)
				io.WriteString(c, words)
				b := make([]byte, len(words))
				if _, err := io.ReadFull(c, b); err != nil || string(b) != words {
					return fmt.Errorf("%q, %v", b, err)
				}
				return nil
			}()
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
