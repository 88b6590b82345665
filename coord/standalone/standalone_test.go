package standalone

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord"
	"weft/coord/listen"
	"weft/coord/ops"
	webclient "weft/coord/webapi/client"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

func testLog(t *testing.T, who string) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil)).With("who", who)
}

// server is a coordination server that can go away and come back.
type server struct {
	*coord.Server
	t *testing.T
	o coord.ServerOptions
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, o: coord.ServerOptions{
		Options: ops.Options{Data: t.TempDir(), Software: "test", Log: testLog(t, "server")},
		Listen:  coord.Address{Addr: "127.0.0.1:0", Explicit: true},
		STUN:    coord.Address{Addr: "127.0.0.1:0", Explicit: true},
	}}
	s.start()
	s.o.Listen.Addr = s.Addr().String()
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *server) start() {
	s.t.Helper()
	var err error
	if s.Server, err = coord.NewServer(s.t.Context(), s.o); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) token(nk ops.CreateKey) string {
	s.t.Helper()
	key, err := ops.Do(s.t.Context(), s.Service, ops.Root(), nk)
	if err != nil {
		s.t.Fatal(err)
	}
	return key.Token
}

func options(t *testing.T, token string) Options {
	return Options{
		Data: filepath.Join(t.TempDir(), "relay"), Token: token, Name: "far", Software: "test", Log: testLog(t, "relay"),
		Listen: coord.Address{Addr: "127.0.0.1:0"}, STUN: coord.Address{Addr: "127.0.0.1:0"},
	}
}

func start(t *testing.T, o Options) *Relay {
	t.Helper()
	r, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// node is a member of the network with a connection to a relay.
type node struct {
	*client.Client
	t     *testing.T
	key   *ecdsa.PrivateKey
	id    cert.NodeID
	shown tls.Certificate
	pin   cert.Pin
	res   *api.JoinResponse
	done  chan error // of the connection

	mu sync.Mutex
	// mu guards the following.
	welcome *relay.Welcome
	nudged  []api.Versions
	crls    int
	holds   api.Versions
}

func (s *server) node(name string, tags ...string) *node {
	t := s.t
	t.Helper()
	tok, err := cert.ParseToken(s.token(ops.CreateKey{Tags: tags}))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, pin: tok.Server}
	if n.key, err = cert.NewKey(); err != nil {
		t.Fatal(err)
	}
	if n.shown, err = cert.SelfSigned(n.key); err != nil {
		t.Fatal(err)
	}
	n.Client = client.New(n.dialer(tok.URLs).Transport(), nil)
	t.Cleanup(n.CloseIdleConnections)
	csr, _ := cert.NewCSR(n.key)
	if n.res, err = n.Join(t.Context(), api.JoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: name}); err != nil {
		t.Fatal(err)
	}
	n.CloseIdleConnections() // they show the old certificate
	n.shown = tls.Certificate{Certificate: [][]byte{n.res.Certificate}, PrivateKey: n.key}
	if n.id, err = cert.ParseNodeID(n.res.Config.Self.ID); err != nil {
		t.Fatal(err)
	}
	n.holds = n.res.Config.Versions
	return n
}

func (n *node) dialer(urls []string) *link.Dialer {
	roots, err := cert.NewServerRoots([]cert.Pin{n.pin}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return &link.Dialer{
		URLs:     func() []string { return urls },
		Roots:    func() *cert.ServerRoots { return roots },
		Identity: func() *tls.Certificate { return &n.shown },
	}
}

// connect makes a home connection.
func (n *node) connect(r *Relay) *relay.Conn {
	n.t.Helper()
	tc, err := n.dialer(nil).DialRelay(n.t.Context(), cert.RelayID(r.id.Load().leaf.Leaf.RawSubjectPublicKeyInfo), r.URLs()[0])
	if err != nil {
		n.t.Fatal(err)
	}
	c := relay.NewConn(tc, n)
	n.mu.Lock()
	n.welcome = nil
	holds := n.holds
	n.mu.Unlock()
	c.SendVersions(holds)
	done := make(chan error, 1)
	n.done = done
	go func() { done <- c.Run(context.Background()) }()
	n.t.Cleanup(func() { c.Close() })
	return c
}

func (n *node) Packet(cert.NodeID, []byte)         {}
func (n *node) Drained()                           {}
func (n *node) Session(cert.NodeID, []byte)        {}
func (n *node) Gone(cert.NodeID, relay.GoneReason) {}
func (n *node) Busy(cert.NodeID)                   {}
func (n *node) Replaced()                          {}
func (n *node) Draining(relay.Draining)            {}

func (n *node) Lane(cert.NodeID, lane.Info)            {}
func (n *node) LaneGone(cert.NodeID, relay.LaneReason) {}
func (n *node) LaneRebind(cert.NodeID)                 {}

func (n *node) Welcome(w relay.Welcome) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.welcome = &w
}
func (n *node) Nudge(nd relay.Nudge) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nudged = append(n.nudged, nd.Versions)
}
func (n *node) CRL([]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.crls++
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func (n *node) welcomed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.welcome != nil
}

// refusedBy wants the relay to say no.
func (n *node) refusedBy(r *Relay) {
	n.t.Helper()
	n.connect(r)
	select {
	case err := <-n.done:
		var e *relay.RefusedError
		if !errors.As(err, &e) || e.Reason != relay.RefusedUnknown {
			n.t.Errorf("connection ended: %v", err)
		}
	case <-time.After(20 * time.Second):
		n.t.Error("was not refused")
	}
}

// The whole life: join, in everybody's config, nodes admitted and found there,
// nudges, a revocation, and the end.
func TestRelay(t *testing.T) {
	s := startServer(t)
	laptop := s.node("laptop")
	r := start(t, options(t, s.token(ops.CreateKey{Relay: true})))
	cfg, err := laptop.Config(t.Context(), laptop.res.Config.Version)
	if err != nil || cfg == nil || len(cfg.Relays) != 2 || cfg.Relays[1].Name != "far" || !slices.Equal(cfg.Relays[1].URLs, r.URLs()) || len(cfg.Relays[1].STUN) == 0 {
		t.Fatalf("config: %+v, %v", cfg, err)
	}
	far := cfg.Relays[1].ID
	if fi, err := os.Stat(filepath.Join(r.o.Data, identityFile)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("identity file: %v, %v", fi, err)
	}

	pi := s.node("pi", "device")
	pi.connect(r)
	laptop.connect(r) // with the versions from before the relay joined
	until(t, "welcome", func() bool { return pi.welcomed() && laptop.welcomed() })
	until(t, "the server knows where the device is", func() bool {
		p, err := laptop.Lookup(t.Context(), "name", "pi")
		return err == nil && p.Online && p.Relay == far
	})
	until(t, "a nudge for the new config", func() bool {
		laptop.mu.Lock()
		defer laptop.mu.Unlock()
		return slices.ContainsFunc(laptop.nudged, func(v api.Versions) bool { return v.Config == cfg.Version })
	})

	// A change of names reaches who remembers some.
	laptop.mu.Lock()
	laptop.holds = laptop.nudged[len(laptop.nudged)-1]
	names := laptop.holds.Names
	laptop.mu.Unlock()
	laptop.connect(r)
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.RenameDevice{ID: pi.id, Name: "hall-pi"}); err != nil {
		t.Fatal(err)
	}
	until(t, "a nudge for the new name", func() bool {
		laptop.mu.Lock()
		defer laptop.mu.Unlock()
		now := laptop.nudged[len(laptop.nudged)-1].Names
		return !names.IsZero() && !now.IsZero() && now != names
	})

	// A revocation reaches relay and clients, and the device is out.
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.DeleteDevice{ID: pi.id}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	select {
	case <-pi.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the deleted device is still connected")
	}
	t.Logf("dropped after %v", time.Since(start))
	pi.refusedBy(r)
	until(t, "the list at the other client", func() bool {
		laptop.mu.Lock()
		defer laptop.mu.Unlock()
		return laptop.crls > 0
	})

	// Moved away and gone.
	laptop.connect(r).Close()
	until(t, "offline", func() bool { return s.Home(laptop.id) == "" })

	phone := s.node("phone")
	phone.connect(r)
	until(t, "the phone is there", func() bool { return s.Home(phone.id) == "far" })
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.RemoveRelay{Name: "far"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-phone.done:
	case <-time.After(20 * time.Second):
		t.Error("a relay that was removed keeps its clients")
	}
	select {
	case err := <-r.Failed():
		if !isRemoved(err) {
			t.Errorf("removed: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the relay does not say that it was removed")
	}
	if got := s.Home(phone.id); got != "" {
		t.Errorf("the phone is at %q", got)
	}
	if cfg, err := phone.Config(t.Context(), api.Version{}); err != nil || len(cfg.Relays) != 1 {
		t.Errorf("config: %+v, %v", cfg, err)
	}
}

// The relay starts and serves without the server, by what it has on disk;
// when the server is back it learns what it missed.
func TestWithoutServer(t *testing.T) {
	s := startServer(t)
	r := start(t, options(t, s.token(ops.CreateKey{Relay: true})))
	pi, cam := s.node("pi", "device"), s.node("cam", "device")
	pi.connect(r)
	until(t, "the device is there", func() bool { return s.Home(pi.id) == "far" })
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.DeleteDevice{ID: cam.id}); err != nil {
		t.Fatal(err)
	}
	number := s.Versions(pi.id).CRL
	until(t, "the relay has the list", func() bool { return r.crl.Load().Number == number })

	s.Close()
	again := r.o
	again.Token, again.Listen.Addr = "", r.Addr().String()
	r.Close()
	r = start(t, again)
	pi.connect(r)
	until(t, "welcome without server", pi.welcomed)
	cam.refusedBy(r)

	// Without a list nobody can say who was revoked.
	r.Close()
	if err := os.WriteFile(filepath.Join(again.Data, crlFile), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, again)
	pi.refusedBy(r)

	s.start()
	until(t, "the relay has a list again", func() bool { return r.crl.Load() != nil })
	pi.connect(r)
	until(t, "the server knows again", func() bool { return s.Home(pi.id) == "far" })
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.DeleteDevice{ID: pi.id}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pi.done:
	case <-time.After(20 * time.Second):
		t.Error("the deleted device is still connected")
	}
}

// The server forgets, restarting while the relay stays: it is told again who
// is connected.
func TestServerRestarts(t *testing.T) {
	s := startServer(t)
	r := start(t, options(t, s.token(ops.CreateKey{Relay: true})))
	pi := s.node("pi", "device")
	pi.connect(r)
	until(t, "the device is there", func() bool { return s.Home(pi.id) == "far" })
	s.Close()
	s.start()
	until(t, "and again", func() bool { return s.Home(pi.id) == "far" })
	select {
	case err := <-pi.done:
		t.Errorf("the device lost its relay: %v", err)
	default:
	}
}

// A server that has started anew knows which nodes are offline once every relay has reported
// which nodes are connected to it, even if there are none.
func TestAllIsTold(t *testing.T) {
	s := startServer(t)
	start(t, options(t, s.token(ops.CreateKey{Relay: true})))
	other := options(t, s.token(ops.CreateKey{Relay: true}))
	other.Name = "other"
	r := start(t, other)
	laptop, pi := s.node("laptop"), s.node("kitchen-pi", "device")
	s.Close()
	// Its clock stands still: time alone does not end what it does not know.
	at, later := time.Now(), atomic.Bool{}
	s.o.Now = func() time.Time {
		if later.Load() {
			return at.Add(5 * time.Second)
		}
		return at
	}
	s.start()
	c := pi.connect(r)
	until(t, "the server knows where it is", func() bool { return s.Home(pi.id) == "other" })
	c.Close()
	until(t, "the server knows that it left", func() bool { return s.Home(pi.id) == "" })
	later.Store(true) // it has not gone to another relay
	until(t, "the server says that it is offline", func() bool {
		p, err := laptop.Lookup(t.Context(), "name", "kitchen-pi")
		return err == nil && !p.Online && !p.Unknown
	})
}

// A server that was restored from a backup learns from a relay which devices were deleted
// since: from a relay that it knows, and from one that joined later, which then ends.
func TestRestoredServer(t *testing.T) {
	for name, late := range map[string]bool{"known relay": false, "later relay": true} {
		t.Run(name, func(t *testing.T) { testRestoredServer(t, late) })
	}
}

func testRestoredServer(t *testing.T, late bool) {
	s := startServer(t)
	var r *Relay
	join := func() { r = start(t, options(t, s.token(ops.CreateKey{Relay: true}))) }
	if !late {
		join()
	}
	stolen, pi := s.node("stolen"), s.node("pi", "device")
	key := []byte("correct horse battery staple")
	a, err := webclient.Open(t.Context(), ops.Options{Data: s.o.Data})
	if err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	_, err = ops.Backup(t.Context(), a.Snapshot, s.o.Data, key, &backup)
	if err := errors.Join(err, a.Close()); err != nil {
		t.Fatal(err)
	}
	if late {
		join()
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.DeleteDevice{ID: stolen.id}); err != nil {
		t.Fatal(err)
	}
	until(t, "the relay has the list", func() bool { return r.crl.Load().Len() > 0 })
	s.Close()
	s.o.Data = filepath.Join(t.TempDir(), "restored")
	if err := ops.Restore(t.Context(), &backup, key, s.o.Data, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.start()
	until(t, "the stolen device is gone again", func() bool {
		_, err := s.FindDevice(t.Context(), stolen.id.String())
		return errors.Is(err, ops.ErrNotFound)
	})
	if _, err := s.FindDevice(t.Context(), pi.id.String()); err != nil {
		t.Errorf("an innocent device: %v", err)
	}
	if late {
		if err := <-r.Failed(); !isRemoved(err) {
			t.Errorf("the relay that is not known: %v", err)
		}
		return
	}
	until(t, "all have one list", func() bool {
		crl, err := r.id.Load().roots.VerifyCRL(s.CRL())
		return err == nil && crl.Len() > 0 && crl.Number == r.crl.Load().Number
	})
}

// What can be wrong with a first start, in words that help.
func TestRefusals(t *testing.T) {
	s := startServer(t)
	relayToken, deviceToken := s.token(ops.CreateKey{Relay: true}), s.token(ops.CreateKey{})
	start(t, options(t, relayToken))
	other := startServer(t)
	serverData := options(t, s.token(ops.CreateKey{Relay: true}))
	serverData.Data = s.o.Data
	wrongServer := options(t, s.token(ops.CreateKey{Relay: true}))
	tok, _ := cert.ParseToken(wrongServer.Token)
	tok.URLs = other.Network().URLs
	wrongServer.Token = tok.String()
	badURL := options(t, s.token(ops.CreateKey{Relay: true}))
	badURL.URLs = []string{"relay:8443"}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcpTaken, udpTaken := options(t, ""), options(t, "")
	tcpTaken.Listen.Addr = s.o.Listen.Addr
	udpTaken.STUN = listen.Address{Addr: udp.LocalAddr().String(), Explicit: true}
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"no token", options(t, ""), "keys create --relay"},
		{"a device's token", options(t, deviceToken), "weft up TOKEN"},
		{"a token used before", options(t, relayToken), "used already"},
		{"not a token", options(t, "weft1nonsense"), "copy the whole word"},
		{"a server's directory", serverData, "give the relay one of its own"},
		{"another server", wrongServer, "is not the one that made this token"},
		{"bad address", badURL, "https://HOST:PORT"},
		{"port taken", tcpTaken, "in use; choose another with --listen ADDR:PORT"},
		{"UDP port taken", udpTaken, "in use; choose another with --stun"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Start(t.Context(), c.o)
			if err == nil {
				r.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
		})
	}

	// A UDP port that nobody asked for is no reason to stay away.
	noSTUN := options(t, s.token(ops.CreateKey{Relay: true}))
	noSTUN.STUN.Addr = udp.LocalAddr().String()
	if r := start(t, noSTUN); len(r.udp) != 0 {
		t.Errorf("%d UDP ports", len(r.udp))
	}

	// The other way round: a relay's token on a device.
	n := s.node("x")
	key, _ := cert.NewKey()
	n.shown, _ = cert.SelfSigned(key)
	csr, _ := cert.NewCSR(key)
	n.CloseIdleConnections()
	rtok, _ := cert.ParseToken(s.token(ops.CreateKey{Relay: true}))
	_, err = n.Join(t.Context(), api.JoinRequest{Protocol: api.Protocol, Secret: rtok.Secret, CSR: csr, Hostname: "y"})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeTokenKind || !strings.Contains(e.Hint, "weft-server relay") {
		t.Errorf("a relay's token on a device: %v", err)
	}
}

// What a relay's certificate is good for, and what its port shows.
func TestBounds(t *testing.T) {
	s := startServer(t)
	r := start(t, options(t, s.token(ops.CreateKey{Relay: true})))
	n := s.node("n")
	// No API there: a relay is no coordination server, whatever it says.
	if tc, err := n.dialer(nil).Dial(t.Context(), r.URLs()[0]); err == nil {
		tc.Close()
		t.Error("a relay took a connection for the API")
	}
	// A node of another network, and one that made its certificate itself.
	stranger := startServer(t).node("n")
	stranger.pin = n.pin
	stranger.refusedBy(r)
	n.shown, _ = cert.SelfSigned(n.key)
	n.refusedBy(r)

	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	for path, want := range map[string]int{"/healthz": 200, "/": 404, "/metrics": 404, "/v1/crl": 404} {
		res, err := c.Get(r.URLs()[0] + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d %q", path, res.StatusCode, b)
		}
	}
}

// The certificate is renewed by the relay itself, and a server that cannot be
// reached at the first start is waited for.
func TestRenewAndWait(t *testing.T) {
	s := startServer(t)
	o := options(t, s.token(ops.CreateKey{Relay: true}))
	s.Close()
	dialled := make(chan struct{}, 100)
	o.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled <- struct{}{}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	type result struct {
		r   *Relay
		err error
	}
	started := make(chan result, 1)
	go func() {
		r, err := Start(t.Context(), o)
		started <- result{r, err}
	}()
	<-dialled
	s.start()
	res := <-started
	if res.err != nil {
		t.Fatal(res.err)
	}
	r := res.r
	t.Cleanup(func() { r.Close() })
	until(t, "the first answer", func() bool { return !r.Synced().IsZero() })
	old := r.id.Load().leaf.Leaf
	if r.renewDue() {
		t.Error("renewal is due at once")
	}
	if err := r.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fresh := r.id.Load().leaf.Leaf; fresh.SerialNumber.Cmp(old.SerialNumber) == 0 || !fresh.PublicKey.(*ecdsa.PublicKey).Equal(old.PublicKey) {
		t.Error("not renewed, or over another key")
	}
	kept, err := loadIdentity(r.o.Data)
	if err != nil || string(kept.Certificate) != string(r.id.Load().Certificate) {
		t.Errorf("on disk: %v", err)
	}
}
