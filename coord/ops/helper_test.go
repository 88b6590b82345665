package ops

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/store"
	"weft/coord/store/storetest"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
)

// clock is a server clock that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// relayLog is a Relay that remembers what it was told.
type relayLog struct {
	ping  func() (time.Duration, error) // what Ping answers; nil: an error
	pings atomic.Int64

	mu       sync.Mutex
	notified int
	looks    int
	kicked   []cert.NodeID
	crls     [][]byte
	revoked  [][]cert.NodeID
}

func (r *relayLog) Notify(cert.NetworkID, *cert.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notified++
}

func (r *relayLog) Kick(_ cert.NetworkID, id cert.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kicked = append(r.kicked, id)
}

func (r *relayLog) PushCRL(_ cert.NetworkID, der []byte, revoked []cert.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.crls = append(r.crls, der)
	r.revoked = append(r.revoked, revoked)
}

func (r *relayLog) Look(context.Context, cert.NetworkID, []cert.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks++
}

func (r *relayLog) Heard(cert.NetworkID, cert.NodeID) (time.Time, bool) { return time.Time{}, false }

func (r *relayLog) Traffic(cert.NetworkID, cert.NodeID) (sent, received uint64, ok bool) {
	return 0, 0, false
}

func (r *relayLog) Ping(context.Context, cert.NetworkID, cert.NodeID) (time.Duration, error) {
	r.pings.Add(1)
	if r.ping == nil {
		return 0, errors.New("no relay")
	}
	return r.ping()
}

// site is a Service under test.
type site struct {
	*Service
	t     testing.TB
	clock *clock
	told  *relayLog
	log   *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func openSite(t testing.TB, change ...func(*Options)) *site {
	t.Helper()
	s := &site{t: t, clock: newClock(), told: &relayLog{}, log: &syncBuffer{}}
	o := Options{
		Data: t.TempDir(), Create: true, URLs: []string{"https://127.0.0.1:8443"}, STUN: []string{"127.0.0.1:3478"}, Software: "test", Now: s.clock.Now,
		Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&o)
	}
	storetest.Schema(t, o.Data)
	var err error
	if s.Service, err = OpenService(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s.SetRelay(s.told)
	t.Cleanup(func() { s.Close() })
	return s
}

// token makes a key and returns its token.
func (s *site) token(c CreateKey) cert.Token {
	s.t.Helper()
	_, tok, err := s.CreateKey(context.Background(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	return tok
}

// snapshotOf is what a backup asks for.
func snapshotOf(s *Service) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { return s.Snapshot(ctx, Root()) }
}

// The commands, as root runs them.

func (s *site) CreateKey(ctx context.Context, c CreateKey) (store.Key, cert.Token, error) {
	made, err := Do(ctx, s.Service, Root(), c)
	if err != nil {
		return store.Key{}, cert.Token{}, err
	}
	tok, err := cert.ParseToken(made.Token)
	if err != nil {
		return store.Key{}, cert.Token{}, err
	}
	k, err := s.Key(ctx, Root(), made.ID)
	return k, tok, err
}

func (s *site) RenameDevice(ctx context.Context, id cert.NodeID, name string) (store.Node, error) {
	return Do(ctx, s.Service, Root(), RenameDevice{id, name})
}

func (s *site) DeleteDevice(ctx context.Context, id cert.NodeID) (store.Node, error) {
	return Do(ctx, s.Service, Root(), DeleteDevice{id})
}

func (s *site) ReplaceDevice(ctx context.Context, old, by cert.NodeID) (store.Node, error) {
	return Do(ctx, s.Service, Root(), ReplaceDevice{Old: old, By: by})
}

func (s *site) SetDeviceDNS(ctx context.Context, id cert.NodeID, d DeviceDNS) (store.Node, error) {
	return Do(ctx, s.Service, Root(), SetDeviceDNS{id, d})
}

func (s *site) EditDNS(ctx context.Context, e DNSEdit) (DNSInfo, error) {
	if _, err := Do(ctx, s.Service, Root(), EditDNS{DNSEdit: e}); err != nil {
		return DNSInfo{}, err
	}
	return s.DNS(ctx)
}

func (s *site) RevokeKey(ctx context.Context, id string) error {
	_, err := Do(ctx, s.Service, Root(), RevokeKey{id})
	return err
}

func (s *site) SetPolicy(ctx context.Context, text string) error {
	_, err := Do(ctx, s.Service, Root(), SetPolicy{Text: text})
	return err
}

func (s *site) CreateUser(ctx context.Context, name string) (store.User, error) {
	return Do(ctx, s.Service, Root(), CreateUser{Name: name})
}

func (s *site) DeleteUser(ctx context.Context, id string) error {
	_, err := Do(ctx, s.Service, Root(), DeleteUser{Name: id})
	return err
}

func (s *site) LoginLink(ctx context.Context, user string) (string, error) {
	return Do(ctx, s.Service, Root(), CreateLink{user})
}

func (s *site) RemoveRelay(ctx context.Context, name string) (store.Relay, error) {
	return Do(ctx, s.Service, Root(), RemoveRelay{name})
}

// owner is the network's owner in the console.
func (s *site) owner() Actor {
	s.t.Helper()
	u, err := s.Login(context.Background(), firstUser)
	if err != nil {
		s.t.Fatal(err)
	}
	return ConsoleActor(u, netip.MustParseAddr("192.0.2.50"))
}

// member is a new user in the console, who is not the owner.
func (s *site) member(name string) Actor {
	s.t.Helper()
	u, err := s.CreateUser(context.Background(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return ConsoleActor(u, netip.MustParseAddr("192.0.2.51"))
}

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

func newDevice(t testing.TB, s *Service) *device {
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
	d.id = cert.NodeIDOf(s.network, spki)
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

// ask is a request to be let in.
func (d *device) ask(t testing.TB, hostname string) api.Ask {
	t.Helper()
	r := d.request(t, cert.Token{}, hostname)
	return api.Ask{Protocol: r.Protocol, CSR: r.CSR, Hostname: hostname, OS: r.OS, Software: r.Software}
}

// asks makes a device that asks to be let in, and returns its code.
func (s *site) asks(hostname string) (*device, string) {
	s.t.Helper()
	d := newDevice(s.t, s.Service)
	res, err := d.Ask(s.t.Context(), d.ask(s.t, hostname))
	if err != nil || res.State != api.AskWaiting {
		s.t.Fatalf("%+v, %v", res, err)
	}
	return d, res.Code
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

// joined makes a device that has joined.
func (s *site) joined(nk CreateKey, hostname string) *device {
	s.t.Helper()
	d := newDevice(s.t, s.Service)
	if err := d.join(s.t, s.token(nk), hostname); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *site) laptop(name string) *device { return s.joined(CreateKey{}, name) }
func (s *site) camera(name string) *device {
	return s.joined(CreateKey{Tags: []string{"device"}}, name)
}
func (d *device) name() string { return d.res.Config.Self.Name }

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
	r.RemoteAddr = "192.0.2.1:4711"
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, NegotiatedProtocol: "weft-api/1"}
	if leaf := d.leaf(); leaf != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{leaf}
	}
	w := httptest.NewRecorder()
	d.api.ServeHTTP(w, r)
	return w.Result(), nil
}

// raw sends one request and returns status and the error in the answer.
func (d *device) raw(t testing.TB, s *Service, method, path string, body io.Reader) (int, *api.Error) {
	t.Helper()
	r := httptest.NewRequest(method, path, body)
	res, err := (&direct{api: s.API(), leaf: func() *x509.Certificate { return d.shown }}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	var e api.Error
	json.NewDecoder(res.Body).Decode(&e)
	return res.StatusCode, &e
}

func wantCode(t testing.TB, err error, status int, code string) {
	t.Helper()
	e, ok := err.(*api.Error)
	if !ok || e.Status != status || e.Code != code {
		t.Fatalf("got %v (%T), want %d %s", err, err, status, code)
	}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func mustNode(t testing.TB, s *site, id cert.NodeID) store.Node {
	t.Helper()
	n, err := s.FindDevice(context.Background(), id.String())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// in is the part of a command in a transaction of several.
func (s *site) in(tx *store.Tx) *Tx {
	return &Tx{Tx: tx, s: s.Service, actor: System(), op: opDeviceDelete, now: s.now()}
}

func (s *site) joinIn(tx *store.Tx, c *caller, req *api.JoinRequest, hash [32]byte) (store.Node, error) {
	in := s.in(tx)
	in.actor, in.op = nodeActor(context.Background(), c.id.String()), opDeviceJoin
	return join{c, req, hash}.run(in)
}
