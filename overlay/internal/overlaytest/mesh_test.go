package overlaytest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/overlaytest"
	"weft/overlay/link"
	"weft/overlay/relay"
	"weft/overlay/relay/relayserver"
)

// mesh is a relay and nodes that introduce themselves through it.
type mesh struct {
	t        *testing.T
	in       *overlaytest.Internet
	server   *overlaytest.Host
	serverCA *cert.CA
	netCA    *cert.CA
	network  cert.NetworkID
	roots    *cert.NetworkRoots
	servers  *cert.ServerRoots
	key      *ecdsa.PrivateKey // of the relay
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newMesh(t *testing.T) *mesh {
	now := time.Now()
	m := &mesh{t: t, in: overlaytest.New(1)}
	t.Cleanup(m.in.Close)
	m.server = m.in.Host("relay", "192.0.2.1")
	m.serverCA = must[*cert.CA](t)(cert.NewCA("servers", now))
	m.netCA = must[*cert.CA](t)(cert.NewCA("network", now))
	m.network = cert.PinOf(m.netCA.Cert).NetworkID()
	m.roots = must[*cert.NetworkRoots](t)(cert.NewNetworkRoots(m.network, [][]byte{m.netCA.Cert.Raw}))
	m.servers = must[*cert.ServerRoots](t)(cert.NewServerRoots([]cert.Pin{cert.PinOf(m.serverCA.Cert)}, nil))
	m.key = must[*ecdsa.PrivateKey](t)(cert.NewKey())
	return m
}

// serve runs the relay until stop is called.
func (m *mesh) serve() (stop func()) {
	leaf := must[[]byte](m.t)(m.serverCA.SignServer(&m.key.PublicKey, cert.RoleRelay, time.Now(), time.Hour))
	crt := &tls.Certificate{Certificate: [][]byte{leaf, m.serverCA.Cert.Raw}, PrivateKey: m.key}
	r := relayserver.New(relayserver.Config{Verify: func(leaf *x509.Certificate) (cert.NetworkID, cert.NodeID, bool, error) {
		n, err := m.roots.VerifyNode(leaf.Raw, time.Now(), nil)
		if err != nil {
			return cert.NetworkID{}, cert.NodeID{}, false, err
		}
		return n.Network, n.ID, false, nil
	}})
	s := link.NewServer(link.ServerConfig{Certificate: func() *tls.Certificate { return crt }, Relay: r.Serve})
	l := must[net.Listener](m.t)(m.server.Listen("tcp", ":8443"))
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	return func() {
		r.Shutdown(context.Background())
		s.Shutdown(context.Background())
		<-done
	}
}

// node is a host with a home connection and a switch.
type node struct {
	relay.Handler // nil: an unexpected call panics
	id            cert.NodeID
	intro         *intro.Switch
	home          *relay.Home
	gone          chan cert.NodeID
}

func (n *node) Session(from cert.NodeID, frame []byte)    { n.intro.Deliver(from, frame) }
func (n *node) Gone(peer cert.NodeID, _ relay.GoneReason) { n.gone <- peer }
func (n *node) Drained()                                  {}
func (n *node) Welcome(relay.Welcome)                     {}
func (n *node) Draining(relay.Draining)                   {}
func (m *mesh) verify(der []byte) (*cert.Node, error) {
	return m.roots.VerifyNode(der, time.Now(), nil)
}
func (n *node) hello() intro.Hello                { return intro.Hello{Boot: 1, Key: [32]byte{1}} }
func (n *node) accept(*intro.Session) *intro.Deny { return nil }
func (n *node) send(to cert.NodeID, frame []byte) error {
	c := n.home.Current()
	if c == nil {
		return errors.New("no relay")
	}
	return c.SendSession(to, frame)
}

func (m *mesh) node(h *overlaytest.Host, last byte) *node {
	key, err := cert.NewKey()
	if err != nil {
		m.t.Fatal(err)
	}
	der := must[[]byte](m.t)(m.netCA.SignNode(&key.PublicKey, cert.Attributes{
		Name: h.Name(), FQDN: h.Name() + ".weft.internal", User: "alice",
		IPv4: netip.AddrFrom4([4]byte{100, 64, 0, last}), IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 15: last}),
	}, cert.NewSerial(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	crt := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	self := must[*cert.Node](m.t)(cert.ParseNode(m.network, der))
	n := &node{id: self.ID, gone: make(chan cert.NodeID, 100)}
	identity := func() *tls.Certificate { return crt }
	dialer := &link.Dialer{
		URLs: func() []string { return []string{"https://relay:8443"} }, Roots: func() *cert.ServerRoots { return m.servers },
		Identity: identity, NetDial: h.DialContext,
	}
	n.intro = intro.New(intro.Config{
		Network: m.network, ID: n.id, Identity: identity, Verify: m.verify, Hello: n.hello, Send: n.send, Accept: n.accept,
	})
	id := cert.RelayID(must[[]byte](m.t)(cert.SPKI(&m.key.PublicKey)))
	n.home = relay.NewHome(relay.HomeConfig{
		Self:     n.id,
		Dial:     relay.DialWith(dialer),
		Relays:   func() []api.Relay { return []api.Relay{{ID: id, URLs: []string{"https://relay:8443"}}} },
		Handler:  func(*relay.Conn) relay.Handler { return n },
		Versions: func() api.Versions { return api.Versions{} },
		Active:   func() bool { return true },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.home.Run(ctx); close(done) }()
	m.t.Cleanup(func() {
		cancel()
		<-done
		n.intro.Close()
	})
	return n
}

// TestMesh runs real links, a real relay and real introductions on the simulated
// internet, with 50 ms from either node to the relay: an introduction takes two round
// trips, a dead peer is reported within 3 s, and nodes reconnect to a relay that was off.
func TestMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		stop := m.serve()
		t.Cleanup(func() { stop() })
		hostA := m.in.NAT("home-a", overlaytest.UDPBlocked, "198.51.100.1").Host("a", "192.168.1.2")
		hostB := m.in.NAT("home-b", overlaytest.Symmetric, "203.0.113.1").Host("b", "192.168.1.2")
		for _, h := range []*overlaytest.Host{hostA, hostB} {
			h.Link.SetLatency(50 * time.Millisecond)
		}
		a, b := m.node(hostA, 1), m.node(hostB, 2)
		time.Sleep(5 * time.Second)
		start := time.Now()
		var established time.Duration
		s, err := a.intro.Dial(t.Context(), b.id, func(*intro.Session) { established = time.Since(start) })
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 400*time.Millisecond || established != 200*time.Millisecond {
			t.Errorf("established after %v, accepted after %v, want one and two round trips of 200 ms", established, took)
		}

		// The relay restarts. The session continues, because it is not bound to a relay
		// connection.
		oldA, oldB := a.home.Current(), b.home.Current()
		stop()
		start = time.Now()
		stop = m.serve()
		back := func(n *node, old *relay.Conn) bool { c := n.home.Current(); return c != nil && c != old }
		for !back(a, oldA) || !back(b, oldB) {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("relay found again after %v", took)
		} else {
			t.Logf("relay found again after %v", took)
		}
		if _, err := s.Ping(t.Context()); err != nil {
			t.Errorf("ping after the relay's restart: %v", err)
		}

		// The peer dies without notice.
		hostB.PowerOff()
		time.Sleep(20 * time.Second)
		for len(a.gone) > 0 {
			<-a.gone
		}
		start = time.Now()
		ctx, cancel := context.WithCancelCause(t.Context())
		errGone := errors.New("gone")
		go func() { <-a.gone; cancel(errGone) }()
		if _, err := a.intro.Dial(ctx, b.id, nil); !errors.Is(err, errGone) || time.Since(start) > 3*time.Second {
			t.Errorf("dial of a vanished peer: %v after %v", err, time.Since(start))
		}
	})
}
