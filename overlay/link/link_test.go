package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/fips"
)

// site is a server on loopback: an API that names the caller, a relay that echoes, and a
// public site.
type site struct {
	t    testing.TB
	ca   *cert.CA
	srv  *Server
	addr string
	url  string
	reqs atomic.Int64 // requests received by the API
}

func newCA(t testing.TB, name string) *cert.CA {
	t.Helper()
	ca, err := cert.NewCA(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func leaf(t testing.TB, ca *cert.CA, role cert.Role, at time.Time) *tls.Certificate {
	t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.SignServer(&key.PublicKey, role, at, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.Cert.Raw}, PrivateKey: key, Leaf: crt}
}

func newSite(t testing.TB, edit func(*ServerConfig)) *site {
	t.Helper()
	before := runtime.NumGoroutine()
	s := &site{t: t, ca: newCA(t, "server CA")}
	crt := leaf(t, s.ca, cert.RoleServer, time.Now())
	public := httptest.NewUnstartedServer(nil) // for its self-signed certificate
	public.StartTLS()
	publicCert := public.TLS.Certificates
	public.Close()
	cfg := ServerConfig{
		Certificate: func() *tls.Certificate { return crt },
		Public:      &tls.Config{Certificates: publicCert, NextProtos: []string{"h2", "http/1.1"}},
		API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.reqs.Add(1)
			n, err := io.Copy(io.Discard, r.Body)
			var tooLong *http.MaxBytesError
			if errors.As(err, &tooLong) {
				http.Error(w, "too long", http.StatusRequestEntityTooLarge)
				return
			}
			fmt.Fprintf(w, "%x %d %s", cert.NodeIDOf(cert.NetworkID{}, r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo), n, r.TLS.NegotiatedProtocol)
		}),
		Relay: func(_ context.Context, c *tls.Conn) { io.Copy(c, c) },
		Site:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "console over ", r.Proto) }),
	}
	if edit != nil {
		edit(&cfg)
	}
	s.srv = NewServer(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.url = "https://" + s.addr
	served := make(chan error, 1)
	go func() { served <- s.srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		s.srv.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				break
			}
		}
	})
	return s
}

func rootsOf(t testing.TB, ca *cert.CA) *cert.ServerRoots {
	t.Helper()
	r, err := cert.NewServerRoots([]cert.Pin{cert.PinOf(ca.Cert)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func dialer(t testing.TB, ca *cert.CA, urls ...string) *Dialer {
	t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := cert.SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	roots := rootsOf(t, ca)
	return &Dialer{
		URLs:     func() []string { return urls },
		Roots:    func() *cert.ServerRoots { return roots },
		Identity: func() *tls.Certificate { return &id },
		Proxy:    func(*url.URL) (*url.URL, error) { return nil, nil },
	}
}

// echo sends a megabyte through a relay link and back.
func echo(t testing.TB, tc *tls.Conn) {
	t.Helper()
	want := make([]byte, 1<<20)
	rand.Read(want)
	tc.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		c := Of(tc)
		c.Cork()
		tc.Write(want)
		c.Uncork()
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(tc, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("echo: %v", err)
	}
}

func get(t testing.TB, d *Dialer) (string, error) {
	t.Helper()
	tr := d.Transport()
	defer tr.(*transport).CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Post("https://weft/v1/x", "text/plain", strings.NewReader("hello"))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestDirect(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca, "https://127.0.0.1:1", s.url) // nothing listens at the first
	tc, err := d.DialRelay(t.Context(), "", s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	cs := tc.ConnectionState()
	if cs.Version != tls.VersionTLS13 || cs.CurveID != fips.Hybrids()[0] || Of(tc).WebSocket() {
		t.Errorf("version %x, curve %v", cs.Version, cs.CurveID)
	}
	echo(t, tc)
	got, err := get(t, d)
	if err != nil || !strings.HasSuffix(got, " 5 weft-api/1") {
		t.Errorf("%q %v", got, err)
	}
	if d.ordered()[0] != s.url {
		t.Error("the server that answered does not come first")
	}
}

func TestPublicSite(t *testing.T) {
	s := newSite(t, nil)
	for _, h2 := range []bool{true, false} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
		resp, err := (&http.Client{Transport: tr}).Get(s.url + "/v1/config")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		tr.CloseIdleConnections()
		if want := map[bool]string{true: "console over HTTP/2.0", false: "console over HTTP/1.1"}[h2]; string(b) != want {
			t.Errorf("got %q, want %q", b, want)
		}
		if cs := resp.TLS.PeerCertificates[0]; cs.Issuer.CommonName == "server CA" {
			t.Error("the public site shows the server CA's certificate")
		}
	}
	if s.reqs.Load() != 0 {
		t.Error("the node API was reached without its protocol")
	}
}

// A program that knows the server by a pinned CA reaches the public site without a
// certificate of its own, and no node API; what answers in the server's place has to have
// a certificate that is trusted for its name.
func TestPinnedSite(t *testing.T) {
	s := newSite(t, nil)
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "front") }))
	defer front.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(front.Certificate())
	for _, c := range []struct {
		name, url, host string
		ca              *cert.CA
		trusted         *x509.CertPool
		want            string // "" for none
	}{
		{"the server", s.url, "127.0.0.1", s.ca, nil, "console over HTTP/1.1"},
		{"by any name", s.url, "weft.example", s.ca, nil, "console over HTTP/1.1"},
		{"another server", s.url, "127.0.0.1", newCA(t, "another CA"), trusted, ""},
		{"a proxy", front.URL, "example.com", s.ca, trusted, "front"},
		{"a proxy by another name", front.URL, "evil.example", s.ca, trusted, ""},
		{"a proxy that nobody trusts", front.URL, "example.com", s.ca, x509.NewCertPool(), ""},
	} {
		tr := &http.Transport{TLSClientConfig: SiteConfig(c.host, rootsOf(t, c.ca), c.trusted)}
		resp, err := (&http.Client{Transport: tr}).Get(c.url + "/v1/config")
		got := ""
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			got = string(b)
		}
		tr.CloseIdleConnections()
		if got != c.want || c.name == "another server" && !errors.Is(err, cert.ErrUntrusted) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	if s.reqs.Load() != 0 {
		t.Error("the node API was reached without its protocol")
	}
}

// A server under another CA is refused before any request is sent.
func TestWrongPin(t *testing.T) {
	var ws atomic.Int64
	s := newSite(t, func(c *ServerConfig) {
		c.RemoteAddr = func(*http.Request) net.Addr { ws.Add(1); return nil }
	})
	d := dialer(t, newCA(t, "another CA"), s.url)
	for range 2 {
		if _, err := get(t, d); !errors.Is(err, cert.ErrUntrusted) {
			t.Fatalf("err %v", err)
		}
	}
	if s.reqs.Load() != 0 || ws.Load() != 0 {
		t.Errorf("%d requests and %d websockets reached a server that is not pinned", s.reqs.Load(), ws.Load())
	}
	// The pin is checked inside a WebSocket too.
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.srv.webSocket(w, r, nil) }))
	defer plain.Close()
	if _, err := dialer(t, newCA(t, "another CA")).Dial(t.Context(), plain.URL); !errors.Is(err, cert.ErrUntrusted) {
		t.Errorf("err %v", err)
	}
}

// A relay's certificate is accepted neither for the API nor for a relay with another key.
// Validity dates are ignored: a device whose clock says 1970 or 2040 can connect. Who is
// refused does not learn who called.
func TestRolesAndDates(t *testing.T) {
	ca := newCA(t, "server CA")
	const years = 10 * 365 * 24 * time.Hour
	now, then, later := time.Now(), time.Now().Add(-years), time.Now().Add(years)
	const api, itself, other, unnamed = "the API", "the relay itself", "another relay", "a relay without an id"
	for _, c := range []struct {
		role cert.Role
		at   time.Time
		as   string
		ok   bool
	}{
		{cert.RoleRelay, now, api, false},
		{cert.RoleRelay, now, itself, true},
		{cert.RoleRelay, then, itself, true},
		{cert.RoleRelay, now, other, false},
		{cert.RoleRelay, then, other, false},
		{cert.RoleRelay, now, unnamed, false},
		{cert.RoleServer, then, api, true},
		{cert.RoleServer, later, api, true},
		{cert.RoleServer, now, itself, true},
		{cert.RoleServer, later, itself, true},
		{cert.RoleServer, now, other, false},
		{cert.RoleServer, then, unnamed, true},
	} {
		crt := leaf(t, ca, c.role, c.at)
		s := newSite(t, func(cfg *ServerConfig) { cfg.Certificate = func() *tls.Certificate { return crt } })
		d := dialer(t, ca)
		shown := atomic.Int64{}
		identity := d.Identity
		d.Identity = func() *tls.Certificate { shown.Add(1); return identity() }
		var tc *tls.Conn
		var err error
		switch c.as {
		case api:
			tc, err = d.Dial(t.Context(), s.url)
		case itself:
			tc, err = d.DialRelay(t.Context(), cert.RelayID(crt.Leaf.RawSubjectPublicKeyInfo), s.url)
		case other:
			tc, err = d.DialRelay(t.Context(), strings.Repeat("ab", 16), s.url)
		case unnamed:
			tc, err = d.DialRelay(t.Context(), "", s.url)
		}
		if (err == nil) != c.ok || err != nil && !errors.Is(err, cert.ErrUntrusted) {
			t.Errorf("%s for %s: %v", c.role, c.as, err)
		}
		if err != nil && shown.Load() > 0 {
			t.Errorf("%s for %s: the node showed its certificate to somebody that it refused", c.role, c.as)
		}
		if tc != nil {
			tc.Close()
		}
	}
}

func TestWeakClientsRefused(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca)
	for name, edit := range map[string]func(*tls.Config){
		"no ML-KEM":      func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} },
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no certificate": func(c *tls.Config) { c.GetClientCertificate = nil },
	} {
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		cfg := d.config("127.0.0.1", theAPI)
		edit(cfg)
		tc := tls.Client(nc, cfg)
		tc.SetDeadline(time.Now().Add(5 * time.Second))
		err = tc.Handshake()
		if err == nil { // TLS 1.3 refuses a certificate only after this
			fmt.Fprintf(tc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			_, err = tc.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		nc.Close()
	}
	if s.reqs.Load() != 0 {
		t.Error("the API was reached")
	}
}

// TestReverseProxy runs everything through a TLS-terminating reverse proxy whose
// certificate nobody trusts.
func TestReverseProxy(t *testing.T) {
	s := newSite(t, func(c *ServerConfig) {
		c.RemoteAddr = func(r *http.Request) net.Addr {
			a, _ := net.ResolveTCPAddr("tcp", r.Header.Get("X-Forwarded-For")+":0")
			return a
		}
		c.Relay = func(_ context.Context, tc *tls.Conn) {
			if !Of(tc).WebSocket() || !strings.HasPrefix(tc.RemoteAddr().String(), "127.0.0.1") {
				tc.Close()
			}
			io.Copy(tc, tc)
		}
	})
	plain := httptest.NewServer(s.srv.siteHandler()) // as the console's listener
	defer plain.Close()
	up, _ := url.Parse(plain.URL)
	front := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(up))
	defer front.Close()
	d := dialer(t, s.ca, front.URL)
	var dials atomic.Int64
	d.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tc, err := d.DialRelay(ctx, "", front.URL)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // the dial's context is not the connection's
	defer tc.Close()
	echo(t, tc)
	if !Of(tc).WebSocket() || dials.Load() != 2 {
		t.Errorf("%d dials for the first link", dials.Load())
	}
	if got, err := get(t, d); err != nil || !strings.HasSuffix(got, " 5 weft-api/1") {
		t.Errorf("%q %v", got, err)
	}
	if dials.Load() != 3 {
		t.Errorf("%d dials: that the WebSocket worked was not remembered", dials.Load())
	}
	d.mu.Lock()
	until := d.past[front.URL].wsUntil
	d.past[front.URL] = past{wsUntil: time.Now().Add(-time.Second)} // a day later
	d.mu.Unlock()
	if left := time.Until(until); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("remembered for %v", left)
	}
	if _, err := get(t, d); err != nil || dials.Load() != 5 {
		t.Errorf("%d dials after a day, %v", dials.Load(), err)
	}
}

func TestPlainHTTP(t *testing.T) {
	s := newSite(t, nil)
	plain := httptest.NewServer(s.srv.siteHandler())
	defer plain.Close()
	tc, err := dialer(t, s.ca).DialRelay(t.Context(), "", plain.URL)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, tc)
	tc.Close()
	resp, err := http.Get(plain.URL + Path)
	if err != nil || resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("%v %v", resp, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// Whoever cuts the direct handshake does not prevent the WebSocket.
func TestDirectIsCut(t *testing.T) {
	for name, c := range map[string]struct {
		swallowed bool // the handshake gets no answer, as when the server is too busy
		retry     time.Duration
	}{"cut": {false, retryDirect}, "swallowed": {true, retrySlow}} {
		t.Run(name, func(t *testing.T) { testDirectIsCut(t, c.swallowed, c.retry) })
	}
}

func testDirectIsCut(t *testing.T, swallowed bool, retry time.Duration) {
	s := newSite(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() { // passes TLS on to the server unless it offers weft's ALPN
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				head := make([]byte, 4096)
				n, _ := c.Read(head)
				if bytes.Contains(head[:n], []byte("weft-")) {
					if swallowed {
						io.Copy(io.Discard, c)
					}
					return
				}
				up, err := net.Dial("tcp", s.addr)
				if err != nil {
					return
				}
				defer up.Close()
				up.Write(head[:n])
				go func() { io.Copy(c, up); c.Close() }()
				io.Copy(up, c)
			})
		}
	})
	d, base := dialer(t, s.ca), "https://"+l.Addr().String()
	var until time.Time
	for i := range 2 {
		tc, err := d.DialRelay(t.Context(), "", base)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, tc)
		CloseNow(tc)
		if left := time.Until(d.past[base].wsUntil); left > retry || left < retry-5*time.Minute {
			t.Errorf("the direct way is tried again in %v, want about %v", left, retry)
		}
		if i > 0 && d.past[base].wsUntil != until {
			t.Error("a second time began the wait anew")
		}
		until = d.past[base].wsUntil
	}
}

func TestHTTPProxy(t *testing.T) {
	s := newSite(t, nil)
	var targets []string
	var auth string
	refuse := false
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		targets = append(targets, r.Method+" "+r.Host)
		auth = r.Header.Get("Proxy-Authorization")
		if refuse {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		c, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(up, c); up.Close() }()
		io.Copy(c, up)
		c.Close()
	}))
	defer proxy.Close()
	d := dialer(t, s.ca)
	pu, _ := url.Parse(proxy.URL)
	pu.User = url.UserPassword("me", "secret")
	d.Proxy = func(*url.URL) (*url.URL, error) { return pu, nil }
	tc, err := d.DialRelay(t.Context(), "", s.url)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, tc)
	CloseNow(tc)
	if !slices.Equal(targets, []string{"CONNECT " + s.addr}) || auth != "Basic bWU6c2VjcmV0" {
		t.Errorf("proxy saw %q %q", targets, auth)
	}
	refuse = true
	var unreachable *UnreachableError
	if _, err := d.DialRelay(t.Context(), "", s.url); !errors.As(err, &unreachable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("err %v", err)
	}
}

func TestBadURLs(t *testing.T) {
	d := dialer(t, newCA(t, "x"))
	for _, u := range []string{"", "x", "ftp://h", "https://", "https://%zz", "file:///etc/passwd"} {
		if _, err := d.Dial(t.Context(), u); err == nil {
			t.Errorf("dialled %q", u)
		}
	}
}

// A body longer than 1 MiB is cut off by the server.
func TestLongBody(t *testing.T) {
	s := newSite(t, nil)
	d := dialer(t, s.ca, s.url)
	tr := d.Transport()
	var sent atomic.Int64
	req, _ := http.NewRequest("POST", "https://weft/v1/join", &endless{n: &sent})
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(&endless{n: &sent}), nil }
	resp, err := tr.RoundTrip(req)
	if err == nil {
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("status %s", resp.Status)
		}
		resp.Body.Close()
	}
	tr.(*transport).CloseIdleConnections()
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("%d bytes went out", n)
	}
}

type endless struct{ n *atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) { e.n.Add(int64(len(p))); return len(p), nil }

// Thousands of clients that send nothing, or junk, keep nobody out: a good client gets in
// within a second, and there are never more unauthenticated connections than allowed.
func TestUnauthenticatedFlood(t *testing.T) {
	s := newSite(t, func(c *ServerConfig) { c.MaxHandshakes = 200 })
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	hello := clientHello(t)
	for i := range 1000 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		switch i % 5 {
		case 1:
			c.Write([]byte{0x16})
		case 2:
			io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
		case 3:
			c.Write(hello) // a valid ClientHello, and then nothing
		case 4:
			c.Write(append([]byte{0x16, 3, 1, 0x40, 0}, make([]byte, 5000)...))
		}
	}
	d := dialer(t, s.ca)
	var worst time.Duration
	for range 20 {
		start := time.Now()
		tc, err := d.DialRelay(t.Context(), "", s.url)
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, time.Since(start))
		echo(t, tc)
		CloseNow(tc)
	}
	t.Logf("a good client waited %v at most", worst.Round(time.Millisecond))
	if n := s.srv.handshakes.Len(); n > 200 {
		t.Errorf("%d unauthenticated connections", n)
	}
}

func clientHello(t testing.TB) []byte {
	t.Helper()
	near, far := net.Pipe()
	go tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ProtoRelay}}).Handshake()
	b := make([]byte, 8192)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	near.Close()
	far.Close()
	return b[:n]
}

// A client that sends a byte now and then is cut off after 10 s.
func TestSlowLoris(t *testing.T) {
	s := newSite(t, nil)
	hello := clientHello(t)
	start := time.Now()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan struct{})
	go func() { io.Copy(io.Discard, c); close(done) }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-done:
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("closed after %v", d)
			}
			return
		case <-tick.C:
			c.Write(hello[i : i+1])
		}
	}
}

// Reads end at the end of a record whatever the socket delivers, and an idle
// connection holds no buffer.
func TestRecordBoundaries(t *testing.T) {
	near, far := tcpPair(t)
	defer near.Close()
	defer far.Close()
	rec := func(n int) []byte {
		return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{byte(n)}, n)...)
	}
	recs := [][]byte{rec(1), rec(0), rec(16000), rec(300), rec(5), rec(16384 + 256)}
	go func() {
		for _, r := range recs {
			far.Write(r)
		}
		br := bufio.NewWriterSize(far, 1)
		for _, r := range recs { // and again byte by byte
			for _, b := range r[:min(len(r), 40)] {
				br.WriteByte(b)
				br.Flush()
			}
			far.Write(r[min(len(r), 40):])
		}
	}()
	c := newConn(near)
	for round := range 2 {
		for i, want := range recs {
			var got []byte
			buf := make([]byte, 40000)
			for len(got) < len(want) {
				n, err := c.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, buf[:n]...)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("round %d record %d: %d bytes, want %d", round, i, len(got), len(want))
			}
		}
	}
	if c.in != nil || c.Ready() {
		t.Error("an idle connection holds a buffer")
	}
	far.Write(rec(10))
	far.Write(rec(20))
	time.Sleep(10 * time.Millisecond)
	if n, _ := c.Read(make([]byte, 100)); n != 15 || !c.Ready() {
		t.Errorf("read %d, ready %v", n, c.Ready())
	}
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// A connection to a server that has no certificate yet fails without a panic.
func TestNoCertificateYet(t *testing.T) {
	s := newSite(t, func(c *ServerConfig) { c.Certificate = func() *tls.Certificate { return nil } })
	if _, err := dialer(t, s.ca).Dial(t.Context(), s.url); err == nil {
		t.Error("no error")
	}
}

// A node that gives its identity up during a handshake gets an error, whether roots or
// identity are asked for first.
func TestNoIdentityAnyMore(t *testing.T) {
	s := newSite(t, nil)
	for what, lose := range map[string]func(*Dialer){
		"identity": func(d *Dialer) { d.Identity = func() *tls.Certificate { return nil } },
		"roots":    func(d *Dialer) { d.Roots = func() *cert.ServerRoots { return nil } },
	} {
		d := dialer(t, s.ca)
		lose(d)
		if _, err := d.Dial(t.Context(), s.url); !errors.Is(err, errNoIdentity) {
			t.Errorf("without %s: %v", what, err)
		}
	}
}

// Shutdown ends relay connections and unauthenticated connections, and is quick.
func TestShutdown(t *testing.T) {
	s := newSite(t, func(c *ServerConfig) {
		c.Relay = func(ctx context.Context, tc *tls.Conn) { <-ctx.Done() }
	})
	d := dialer(t, s.ca)
	tc, err := d.DialRelay(t.Context(), "", s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseNow(tc)
	place, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	s.srv.Shutdown(ctx)
	if d := time.Since(start); d > 2500*time.Millisecond {
		t.Errorf("took %v", d)
	}
	if _, err := tc.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
	if err := s.srv.Serve(nopListener{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

type nopListener struct{ net.Listener }

func (nopListener) Close() error { return nil }
