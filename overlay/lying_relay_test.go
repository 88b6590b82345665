package overlay_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/link"
	"weft/overlay/relay/relayserver"
)

const oneDay = 24 * time.Hour

// liarWorld is a network on an internet in memory, with a coordination server whose clock
// can be set, and relays that accept everybody and may lie about the time.
type liarWorld struct {
	*world
	in  *overlaytest.Internet
	off atomic.Int64 // how far the server's clock is ahead of the test's
	far *liar
}

// liar is a relay of the network with a genuine key and certificate.
type liar struct {
	w       *liarWorld
	host    *overlaytest.Host
	id      string
	key     *ecdsa.PrivateKey
	shown   tls.Certificate
	says    atomic.Int64 // how far its time is ahead of the test's
	began   atomic.Int64 // handshakes
	clients atomic.Int64 // completed handshakes
	stop    func()
}

func newLiarWorld(t *testing.T, off time.Duration, s setup) *liarWorld {
	checkLeaks(t)
	w := &liarWorld{in: overlaytest.New(1)}
	t.Cleanup(w.in.Close)
	w.off.Store(int64(off))
	s.host = w.in.Host("server", "192.0.2.1")
	s.now = func() time.Time { return time.Now().Add(time.Duration(w.off.Load())) }
	w.world = newWorldOf(t, s)
	w.far = w.joinRelay("far", "192.0.2.2")
	w.far.says.Store(int64(off))
	w.far.serve(w.far.host)
	return w
}

// joinRelay makes a relay of the network, with a host for it.
func (w *liarWorld) joinRelay(name, addr string) *liar {
	t := w.t
	t.Helper()
	h := w.in.Host(name, addr)
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := cert.ParseToken(w.token(ops.CreateKey{Relay: true}))
	if err != nil {
		t.Fatal(err)
	}
	self, err := cert.SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := cert.NewServerRoots([]cert.Pin{tok.Server}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &link.Dialer{
		URLs: func() []string { return tok.URLs }, Roots: func() *cert.ServerRoots { return roots },
		Identity: func() *tls.Certificate { return &self }, NetDial: h.DialContext,
	}
	rt := d.Transport()
	defer rt.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	csr, err := cert.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.New(rt, nil).JoinRelay(t.Context(), api.RelayJoinRequest{
		Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Name: name, URLs: []string{"https://" + name + ":443"},
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{w: w, host: h, key: key}
	l.show(res.Certificate)
	return l
}

func (l *liar) show(der []byte) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		l.w.t.Fatal(err)
	}
	l.id = cert.RelayID(leaf.RawSubjectPublicKeyInfo)
	l.shown = tls.Certificate{Certificate: [][]byte{der, l.w.auth.Server.Cert.Raw}, PrivateKey: l.key}
}

// serve runs the relay on a host, its own or another's, until stop is called.
func (l *liar) serve(h *overlaytest.Host) {
	t := l.w.t
	t.Helper()
	rs := relayserver.New(relayserver.Config{
		Verify: func(leaf *x509.Certificate) (cert.NetworkID, cert.NodeID, bool, error) {
			n, err := cert.ParseNode(l.w.auth.ID, leaf.Raw)
			if err != nil {
				return cert.NetworkID{}, cert.NodeID{}, false, err
			}
			return n.Network, n.ID, n.Tagged(), nil
		},
		Now: func() time.Time { return time.Now().Add(time.Duration(l.says.Load())) },
	})
	site := link.NewServer(link.ServerConfig{
		Certificate: func() *tls.Certificate { l.began.Add(1); return &l.shown },
		Relay:       func(ctx context.Context, tc *tls.Conn) { l.clients.Add(1); rs.Serve(ctx, tc) },
		Site:        http.NotFoundHandler(),
	})
	ln, err := h.Listen("tcp", ":443")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { site.Serve(ln); close(done) }()
	running := true
	l.stop = func() {
		if running {
			running = false
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			rs.Shutdown(ctx)
			site.Shutdown(ctx)
			<-done
		}
	}
	t.Cleanup(l.stop)
}

// on starts a node on a host of its own, with its home at the server.
func (w *liarWorld) on(name, addr string, tags ...string) *node {
	w.t.Helper()
	n := w.nodeOf(name, overlay.Config{NetDial: w.in.Host(name, addr).DialContext}, tags...)
	n.moveTo("server")
	return n
}

// startAt starts a stopped node with its home at a relay and a machine clock that is off;
// nil: the right time.
func (n *node) startAt(l *liar, off *time.Duration) {
	n.w.t.Helper()
	if err := overlay.SaveHome(n.cfg.StateDir, l.id); err != nil {
		n.w.t.Fatal(err)
	}
	n.cfg.Wall = nil
	if off != nil {
		n.cfg.Wall = func() time.Time { return time.Now().Add(*off) }
	}
	n.start()
}

// reaches uses the echo of a device, which has 10 s to answer.
func (n *node) reaches(name string) error { return n.reachesIn(name, 10*time.Second) }

func (n *node) reachesIn(name string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(n.w.t.Context(), limit)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", name+":7")
	if err != nil {
		return err
	}
	defer c.Close()
	say(n.w.t, c, "hello")
	return nil
}

// inStep waits until a node that is online at the server has its revocation list and a
// valid certificate.
func (n *node) inStep() {
	n.w.t.Helper()
	list, err := n.w.auth.Roots.VerifyCRL(n.w.svc.CRL())
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.until(n.cfg.Hostname+" is in step with the server", func() bool {
		until := n.Status().Self.CertificateExpires
		return n.CRLNumber() == list.Number && until != nil && until.After(n.w.setup.now())
	})
}

// A device was deleted long ago: its certificate has expired and left the list. The
// server is unreachable, a peer restarts, and the only relay says that it is still that
// time. The deleted device does not get in again; others do.
func TestLyingRelayBringsNobodyBack(t *testing.T) {
	t.Parallel()
	const life, then = 10 * oneDay, -20 * oneDay
	past := -56 * 365 * oneDay // 1970
	for name, c := range map[string]struct {
		wall   *time.Duration // the peer's machine clock
		forget bool           // the peer's saved server time is no later than the relay's
	}{
		"right clock":    {},
		"1970":           {wall: &past},
		"the list alone": {wall: &past, forget: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newLiarWorld(t, then, setup{life: life})
			pi, cam := w.on("pi", "192.0.2.11", "device"), w.on("cam", "192.0.2.12")
			thief, other := w.on("thief", "192.0.2.13"), w.on("other", "192.0.2.14")
			pi.echo()
			w.until("it knows the device", func() bool { return thief.peer("pi").Name != "" })
			if err := thief.reaches("pi"); err != nil {
				t.Fatalf("before it was deleted: %v", err)
			}
			for _, n := range []*node{thief, other, pi, cam} {
				n.stop()
			}
			if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: mustFind(t, w.world, "thief")}); err != nil {
				t.Fatal(err)
			}
			w.off.Store(0) // 20 days go by
			if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: mustFind(t, w.world, "other")}); err != nil {
				t.Fatal(err)
			}
			pi.start() // so that the others know it
			for _, n := range []*node{pi, cam} {
				if n != pi {
					n.start()
				}
				n.inStep()
			}
			w.until("cam lists the device", func() bool { return cam.peer("pi").Name != "" })
			pi.stop()
			cam.stop()
			w.stopRelay() // and the server with it
			w.far.says.Store(int64(then + time.Hour))
			if c.forget {
				pi.setServerTime(time.Now().Add(then))
			}
			pi.startAt(w.far, c.wall)
			pi.echo()
			w.far.says.Store(0) // only one node is lied to: callers get the right time
			thief.startAt(w.far, nil)
			if err := thief.reachesIn("pi", 4*time.Second); err == nil {
				t.Error("a device that was deleted is back")
			}
			if p := pi.peer("thief"); p.Online {
				t.Errorf("it is a peer: %+v", p)
			}
			if c.forget {
				return // at a time 20 days earlier the others' certificates are not valid yet
			}
			cam.startAt(w.far, nil)
			if err := cam.reaches("pi"); err != nil {
				t.Errorf("another device: %v", err)
			}
		})
	}
}

// setServerTime changes the server's time on the disk of a node that is stopped.
func (n *node) setServerTime(at time.Time) {
	n.w.t.Helper()
	path := filepath.Join(n.cfg.StateDir, "node.json")
	b, err := os.ReadFile(path)
	id := map[string]any{}
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	id["server_time"] = at
	if err == nil {
		b, err = json.Marshal(id)
	}
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		n.w.t.Fatal(err)
	}
}

// A relay that is ten years ahead makes no certificate expire: neither for nodes that
// have had contact with the server in this boot, nor for those that come up in 1970 and
// reach only this relay.
func TestRelayYearsAhead(t *testing.T) {
	t.Parallel()
	w := newLiarWorld(t, 0, setup{})
	pi, laptop := w.on("pi", "192.0.2.11", "device"), w.on("laptop", "192.0.2.12")
	pi.echo()
	if err := laptop.reaches("pi"); err != nil {
		t.Fatal(err)
	}
	w.far.says.Store(int64(3650 * oneDay))
	w.stopRelay() // and the server with it
	for _, n := range []*node{pi, laptop} {
		w.until(n.cfg.Hostname+" is at the other relay", func() bool { st := n.Status().Self; return st.Online && st.Relay == "far" })
	}
	if err := laptop.reaches("pi"); err != nil {
		t.Errorf("nodes that have heard from the server: %v", err)
	}
	for _, ahead := range []time.Duration{3650 * oneDay, 100 * oneDay} {
		w.far.says.Store(int64(ahead))
		for _, n := range []*node{pi, laptop} {
			n.stop()
			past := -56 * 365 * oneDay
			n.startAt(w.far, &past)
		}
		pi.echo()
		if err := laptop.reaches("pi"); err != nil {
			t.Errorf("nodes in 1970 at a relay that is %v ahead: %v", ahead, err)
		}
	}
}

// A relay must have the key in the config: another relay at its address, or a removed
// one, is refused before it learns who called, and the age of a certificate does not
// matter.
func TestRelayInPlaceOfAnother(t *testing.T) {
	t.Parallel()
	w := newLiarWorld(t, 0, setup{})
	another, removed := w.joinRelay("another", "192.0.2.3"), w.joinRelay("removed", "192.0.2.4")
	laptop := w.on("laptop", "192.0.2.12")
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.RemoveRelay{Name: "removed"}); err != nil {
		t.Fatal(err)
	}
	w.until("the laptop knows the relays", func() bool { return len(laptop.Relays()) == 4 }) // with the server twice
	laptop.moveTo("far")
	w.stopRelay() // and the server with it
	old, err := w.auth.Server.SignServer(&removed.key.PublicKey, cert.RoleRelay, time.Now().AddDate(-5, 0, 0), 90*oneDay)
	if err != nil {
		t.Fatal(err)
	}
	removed.show(old)
	for name, l := range map[string]*liar{"another": another, "removed": removed} {
		w.far.stop()
		l.serve(w.far.host)
		begun := l.began.Load()
		w.until("the laptop tries it a few times", func() bool { laptop.NetworkChanged(); return l.began.Load() > begun+3 })
		if l.clients.Load() > 0 || laptop.Status().Self.Online {
			t.Errorf("%s: taken for the relay of the config", name)
		}
		l.stop()
		w.far.serve(w.far.host)
		w.until("the laptop is back at its own", func() bool {
			laptop.NetworkChanged()
			st := laptop.Status().Self
			return st.Online && st.Relay == "far"
		})
	}
}

// Guests leave a removed relay, too, whether it stops or not.
func TestGuestOfRemovedRelay(t *testing.T) {
	t.Parallel()
	w := newLiarWorld(t, 0, setup{})
	pi, laptop := w.on("pi", "192.0.2.11", "device"), w.on("laptop", "192.0.2.12")
	pi.moveTo("far")
	pi.echo()
	w.until("the laptop reaches the device over the other relay", func() bool { return laptop.reaches("pi") == nil && laptop.Guests() == 1 })
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.RemoveRelay{Name: "far"}); err != nil {
		t.Fatal(err)
	}
	w.until("the laptop is its guest no more", func() bool { return laptop.Guests() == 0 })
	if laptop.reaches("pi") == nil && laptop.Guests() > 0 {
		t.Error("it came back as a guest")
	}
}

// A device comes up in 1970 after its certificate has expired. The relay refuses it
// because of the list. It renews the certificate at the server and gets in.
func TestRefusedForEndedCertificate(t *testing.T) {
	t.Parallel()
	const life, then = 10 * oneDay, -20 * oneDay
	var off atomic.Int64
	off.Store(int64(then))
	w := newWorldOf(t, setup{life: life, now: func() time.Time { return time.Now().Add(time.Duration(off.Load())) }})
	lone := w.another("lone")
	pi, other := w.node("pi", "device"), w.node("other")
	pi.moveTo("lone")
	pi.stop()
	other.stop()
	off.Store(0)
	for range 2 { // the second list no longer covers the first device
		if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: mustFind(t, w, "other")}); err != nil {
			t.Fatal(err)
		}
		other = w.node("other")
		other.stop()
	}
	list, err := w.auth.Roots.VerifyCRL(w.svc.CRL())
	if err != nil || list.Since.IsZero() {
		t.Fatalf("list %v, %v", list, err)
	}
	w.until("the relay has the list", func() bool {
		held, _ := os.ReadFile(filepath.Join(lone.o.Data, "crl.der"))
		return bytes.Equal(held, list.Raw)
	})
	past := -56 * 365 * oneDay
	pi.cfg.Wall = func() time.Time { return time.Now().Add(past) }
	began := time.Now()
	pi.start()
	if st := pi.Status().Self; st.Relay != "lone" || st.CertificateExpires.Before(time.Now()) {
		t.Errorf("at %q, with a certificate until %v", st.Relay, st.CertificateExpires)
	}
	t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
}

// A node whose certificate the list no longer covers renews it at once, and only once,
// even if the new one is not covered either.
func TestOmittedCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	var renewals atomic.Int64
	w := newWorldOf(t, setup{api: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/renew" {
				renewals.Add(1)
			}
			h.ServeHTTP(rw, r)
		})
	}})
	pi := w.node("pi", "device")
	number := uint64(time.Now().Unix()) + 1000
	for i, since := range []time.Time{*pi.Status().Self.CertificateExpires, time.Now().AddDate(5, 0, 0)} {
		der, err := w.auth.Network.SignCRL(number+uint64(i), []*big.Int{}, since.Truncate(time.Second).Add(time.Second), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w.until("the list is taken", func() bool { // not within a second of another
			w.relay.PushCRL(w.auth.ID, der, nil)
			return pi.CRLNumber() == number+uint64(i)
		})
		w.until("the certificate is renewed", func() bool { return renewals.Load() == int64(i+1) })
	}
	time.Sleep(3 * time.Second) // in which it could renew three times more
	if n := renewals.Load(); n != 2 {
		t.Errorf("%d renewals for two lists", n)
	}
}
