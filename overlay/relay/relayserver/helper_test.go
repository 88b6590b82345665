package relayserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// world is a server CA, a network and a relay behind a link server on
// loopback TCP.
type world struct {
	t        testing.TB
	serverCA *cert.CA
	netCA    *cert.CA
	network  cert.NetworkID
	roots    *cert.ServerRoots
	nodes    *cert.NetworkRoots
	relay    *Server
	link     *link.Server
	url      string
	id       string // api.Relay.ID

	mu      sync.Mutex
	refused map[cert.NodeID]bool
	down    bool
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	w := &world{t: t, refused: map[cert.NodeID]bool{}}
	now := time.Now()
	var err error
	check := func() {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	w.serverCA, err = cert.NewCA("server CA", now)
	check()
	w.netCA, err = cert.NewCA("network CA", now)
	check()
	w.network = cert.PinOf(w.netCA.Cert).NetworkID()
	w.nodes, err = cert.NewNetworkRoots(w.network, [][]byte{w.netCA.Cert.Raw})
	check()
	w.roots, err = cert.NewServerRoots([]cert.Pin{cert.PinOf(w.serverCA.Cert)}, nil)
	check()
	crt := w.leaf()
	w.id = cert.RelayID(crt.Leaf.RawSubjectPublicKeyInfo)
	cfg.Verify = w.verify
	w.relay = New(cfg)
	w.link = link.NewServer(link.ServerConfig{Certificate: func() *tls.Certificate { return crt }, Relay: w.relay.Serve})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check()
	w.url = "https://" + l.Addr().String()
	served := make(chan struct{})
	go func() { w.link.Serve(l); close(served) }()
	t.Cleanup(func() {
		w.relay.Shutdown(context.Background())
		w.link.Shutdown(context.Background())
		<-served
	})
	return w
}

// leaf makes a relay certificate.
func (w *world) leaf() *tls.Certificate {
	w.t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := w.serverCA.SignServer(&key.PublicKey, cert.RoleRelay, time.Now(), 30*24*time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, w.serverCA.Cert.Raw}, PrivateKey: key, Leaf: crt}
}

func (w *world) verify(leaf *x509.Certificate) (cert.NetworkID, cert.NodeID, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return cert.NetworkID{}, cert.NodeID{}, false, errors.New("database is down")
	}
	n, err := w.nodes.VerifyNode(leaf.Raw, time.Now(), nil)
	if err != nil {
		return cert.NetworkID{}, cert.NodeID{}, false, err
	}
	if w.refused[n.ID] {
		return cert.NetworkID{}, cert.NodeID{}, false, cert.ErrRevoked
	}
	return n.Network, n.ID, n.Tagged(), nil
}

// node is a member with a certificate.
type node struct {
	w    *world
	id   cert.NodeID
	cert *tls.Certificate
}

func (w *world) node(name string, tags ...string) *node {
	w.t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	a := cert.Attributes{Name: name, FQDN: name + ".weft.internal", IPv4: netip.MustParseAddr("100.64.0.1"), IPv6: netip.MustParseAddr("fd00::1"), User: "alice", Tags: tags}
	now := time.Now()
	der, err := w.netCA.SignNode(&key.PublicKey, a, cert.NewSerial(), now.Add(-time.Minute), now.Add(time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return &node{w: w, id: cert.NodeIDOf(w.network, leaf.RawSubjectPublicKeyInfo), cert: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func (n *node) dialer() *link.Dialer {
	return &link.Dialer{
		URLs:     func() []string { return []string{n.w.url} },
		Roots:    func() *cert.ServerRoots { return n.w.roots },
		Identity: func() *tls.Certificate { return n.cert },
	}
}

// dial returns a link without a relay.Conn on it.
func (n *node) dial() *tls.Conn {
	n.w.t.Helper()
	tc, err := n.dialer().DialRelay(context.Background(), n.w.id, n.w.url)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return tc
}

// run returns a running relay.Conn that ends with the test.
func (n *node) run(h relay.Handler) *relay.Conn {
	n.w.t.Helper()
	c := relay.NewConn(n.dial(), h)
	done := make(chan struct{})
	go func() { c.Run(context.Background()); close(done) }()
	n.w.t.Cleanup(func() { c.Close(); <-done })
	return c
}
