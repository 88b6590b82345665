package coord

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
)

// device is a node under test.
type device struct {
	*client.Client
	key   *ecdsa.PrivateKey
	id    cert.NodeID
	shown *x509.Certificate // what it shows to the server
	res   *api.JoinResponse

	mu    sync.Mutex
	times []time.Time // server times heard; mu guards it
}

func newDevice(t testing.TB, s *ops.Service) *device {
	t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	d := &device{key: key}
	self, err := cert.SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	d.show(t, self.Certificate[0])
	spki, _ := cert.SPKI(&key.PublicKey)
	d.id = cert.NodeIDOf(s.Network().ID, spki)
	d.Client = client.New(&direct{api: s.API(), leaf: func() *x509.Certificate { return d.shown }}, func(at time.Time) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.times = append(d.times, at)
	})
	return d
}

func (d *device) show(t testing.TB, der []byte) {
	t.Helper()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	d.shown = leaf
}

func (d *device) request(t testing.TB, tok cert.Token, hostname string) api.JoinRequest {
	t.Helper()
	csr, err := cert.NewCSR(d.key)
	if err != nil {
		t.Fatal(err)
	}
	return api.JoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: hostname, OS: "linux/amd64", Software: "1.0"}
}

func (d *device) join(t testing.TB, tok cert.Token, hostname string) error {
	t.Helper()
	res, err := d.Join(t.Context(), d.request(t, tok, hostname))
	if err != nil {
		return err
	}
	d.res = res
	d.show(t, res.Certificate)
	return nil
}

// direct is a transport that calls the API with the state that package link
// leaves: a TLS session whose client certificate is of the caller's key.
type direct struct {
	api  http.Handler
	leaf func() *x509.Certificate
}

func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if r.Body == nil {
		r.Body = http.NoBody
	}
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, NegotiatedProtocol: "weft-api/1"}
	if leaf := d.leaf(); leaf != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{leaf}
	}
	w := httptest.NewRecorder()
	d.api.ServeHTTP(w, r)
	return w.Result(), nil
}

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// newToken makes a key and returns its token.
func newToken(ctx context.Context, s *ops.Service, c ops.CreateKey) (cert.Token, error) {
	key, err := ops.Do(ctx, s, ops.Root(), c)
	if err != nil {
		return cert.Token{}, err
	}
	return cert.ParseToken(key.Token)
}
