package dns

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// eventually waits until is returns true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen within 15 s", what)
		}
	}
}

// silentUDP is a resolver that receives questions and never answers.
func silentUDP(t testing.TB) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.LocalAddr().String()
}

// counting counts the questions that h answers.
func counting(n *atomic.Int32, h dns.HandlerFunc) dns.HandlerFunc {
	return func(w dns.ResponseWriter, r *dns.Msg) { n.Add(1); h(w, r) }
}

// record answers with records; "NAME" at the start of a record means the requested
// name.
func record(rcode int, answer, authority string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(r, rcode)
		for _, sec := range []struct {
			text string
			to   *[]dns.RR
		}{{answer, &m.Answer}, {authority, &m.Ns}} {
			for _, line := range strings.Split(sec.text, "\n") {
				if line == "" {
					continue
				}
				if rest, ok := strings.CutPrefix(line, "NAME "); ok {
					line = r.Question[0].Name + " " + rest
				}
				rr, err := dns.NewRR(line)
				if err != nil {
					panic(err)
				}
				*sec.to = append(*sec.to, rr)
			}
		}
		w.WriteMsg(m)
	}
}

func TestTCP(t *testing.T) {
	gate := make(chan struct{})
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { <-gate; static("192.0.2.1")(w, r) })
	_, addr := start(t, Config{}, up)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var all []byte
	add := func(id uint16, name string) {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		m.Id = id
		b, _ := m.Pack()
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(b))), b...)
	}
	add(0, "slow.example.com.")
	for i := range 200 {
		add(uint16(i+1), "kitchen-pi.weft.internal.")
	}
	for _, b := range [][]byte{all[:1], all[1:3], all[3:50], all[50:]} { // the length prefixes are split, too
		c.Write(b)
	}
	conn := dns.Conn{Conn: c}
	for i := range 201 {
		if i == 200 {
			close(gate)
		}
		r, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		if (r.Id == 0) != (i == 200) {
			t.Fatalf("answer %d has id %d: quick answers wait for a slow one", i, r.Id)
		}
	}
	// Half-closed: questions already sent are answered.
	m := new(dns.Msg)
	m.SetQuestion("kitchen-pi.weft.internal.", dns.TypeA)
	conn.WriteMsg(m)
	c.(*net.TCPConn).CloseWrite()
	if r, err := conn.ReadMsg(); err != nil || len(r.Answer) != 1 {
		t.Errorf("half-closed: %v %v", r, err)
	}
	if _, err := conn.ReadMsg(); err != io.EOF {
		t.Errorf("then: %v", err)
	}
	// Idle connections are closed, and their number is bounded.
	var conns []net.Conn
	for range maxTCP + 10 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(tcpIdle + 10*time.Second))
			conns = append(conns, c)
		}
	}
	var wg sync.WaitGroup
	var closed atomic.Int32
	for _, c := range conns {
		wg.Go(func() {
			if _, err := c.Read(make([]byte, 1)); err == io.EOF || strings.Contains(fmt.Sprint(err), "reset") {
				closed.Add(1)
			}
		})
	}
	wg.Wait()
	if int(closed.Load()) != len(conns) {
		t.Errorf("%d of %d idle connections were closed", closed.Load(), len(conns))
	}
}

func TestCache(t *testing.T) {
	var n atomic.Int32
	gate := make(chan struct{})
	up := fakeUpstream(t, counting(&n, func(w dns.ResponseWriter, r *dns.Msg) { <-gate; static("192.0.2.1")(w, r) }))
	s, addr := start(t, Config{}, up)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { want(ok, "192.0.2.1", "")(t, ask(t, addr, "udp", "example.com.", dns.TypeA)) })
	}
	eventually(t, "a question upstream", func() bool { return n.Load() > 0 })
	close(gate)
	wg.Wait()
	both(t, addr, "EXAMPLE.com.", dns.TypeA, want(ok, "192.0.2.1", ""))
	if n.Load() != 1 {
		t.Errorf("asked %d times", n.Load())
	}
	// The cache is bounded in entries and bytes; the least recently used entries go.
	c := &s.cache
	c.clear()
	e := func(i, size int) *entry {
		now := time.Now()
		return &entry{key: cacheKey{name: fmt.Sprint(i)}, msg: make([]byte, size), stored: now, expires: now.Add(time.Hour)}
	}
	for i := range 3 * cacheEntries {
		c.put(e(i, 10))
		c.get(cacheKey{name: "0"}, time.Now())
	}
	entries, bytes := c.size()
	if entries > cacheEntries || bytes > cacheBytes || entries < cacheEntries/2 {
		t.Errorf("%d entries, %d bytes", entries, bytes)
	}
	if _, fresh := c.get(cacheKey{name: "0"}, time.Now()); !fresh {
		t.Error("an entry that is used all the time is gone")
	}
	for i := range 1000 {
		c.put(e(i, 60_000))
	}
	if entries, bytes = c.size(); bytes > cacheBytes || entries < 10 {
		t.Errorf("%d entries, %d bytes", entries, bytes)
	}
	c.put(e(-1, cacheBytes)) // larger than the whole cache
	if entries, bytes = c.size(); bytes > cacheBytes || entries < 10 {
		t.Errorf("%d entries, %d bytes", entries, bytes)
	}
	c.clear()
	if entries, bytes = c.size(); entries != 0 || bytes != 0 {
		t.Errorf("%d entries, %d bytes after clear", entries, bytes)
	}
}

func TestLifetimes(t *testing.T) {
	msg := func(rcode int, answer, authority string) *dns.Msg {
		var out *dns.Msg
		record(rcode, answer, authority)(writer{func(m *dns.Msg) { out = m }}, new(dns.Msg).SetQuestion("x.example.", dns.TypeA))
		return out
	}
	soa := func(ttl, minimum int) string {
		return fmt.Sprintf("example. %d IN SOA a. b. 1 2 3 4 %d", ttl, minimum)
	}
	for _, c := range []struct {
		m    *dns.Msg
		want time.Duration // 0: not cached
	}{
		{msg(ok, "NAME 60 IN A 192.0.2.1", ""), time.Minute},
		{msg(ok, "NAME 60 IN CNAME y.\ny. 20 IN A 192.0.2.1", ""), 20 * time.Second},
		{msg(ok, "NAME 86400 IN A 192.0.2.1", ""), time.Hour},
		{msg(ok, "NAME 0 IN A 192.0.2.1", ""), 0},
		{msg(nx, "", soa(60, 30)), 30 * time.Second},
		{msg(nx, "", soa(20, 30)), 20 * time.Second},
		{msg(nx, "", soa(86400, 86400)), 5 * time.Minute},
		{msg(ok, "", soa(60, 30)), 30 * time.Second},
		{msg(ok, "NAME 60 IN CNAME y.", soa(60, 30)), 30 * time.Second},
		{msg(nx, "", ""), failureTTL},
		{msg(sf, "", ""), 0},
	} {
		d, keep := lifetime(c.m)
		if d != c.want && keep || keep != (c.want > 0) {
			t.Errorf("%v: %v %v, want %v", c.m, d, keep, c.want)
		}
	}
	if failureTTL < time.Second || failureTTL > 5*time.Second {
		t.Errorf("failures are cached for %v", failureTTL)
	}
	// NXDOMAIN, NODATA and failures are asked for once.
	for _, h := range []dns.HandlerFunc{record(nx, "", soa(60, 60)), record(ok, "", soa(60, 60)), rcode(sf)} {
		var n atomic.Int32
		_, addr := start(t, Config{}, fakeUpstream(t, counting(&n, h)))
		first := ask(t, addr, "udp", "x.example.", dns.TypeA)
		asked := n.Load()
		for range 5 {
			if r := ask(t, addr, "tcp", "x.example.", dns.TypeA); r.Rcode != first.Rcode {
				t.Errorf("%v", r)
			}
		}
		if n.Load() != asked {
			t.Errorf("%s: asked again", rcodeName(first.Rcode))
		}
	}
}

// writer gives a handler's answer to a function.
type writer struct{ got func(*dns.Msg) }

func (w writer) WriteMsg(m *dns.Msg) error { w.got(m); return nil }
func (writer) LocalAddr() net.Addr         { return &net.UDPAddr{} }
func (writer) RemoteAddr() net.Addr        { return &net.UDPAddr{} }
func (writer) Write([]byte) (int, error)   { return 0, nil }
func (writer) Close() error                { return nil }
func (writer) TsigStatus() error           { return nil }
func (writer) TsigTimersOnly(bool)         {}
func (writer) Hijack()                     {}

func TestServeStale(t *testing.T) {
	var broken atomic.Bool
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if broken.Load() {
			rcode(sf)(w, r)
			return
		}
		record(ok, "NAME 1 IN A 192.0.2.1", "")(w, r)
	})
	for _, noStale := range []bool{false, true} {
		broken.Store(false)
		_, addr := start(t, Config{Settings: settings(Settings{NoStale: noStale})}, up)
		ask(t, addr, "udp", "example.com.", dns.TypeA)
		broken.Store(true)
		var r *dns.Msg
		eventually(t, "expiry", func() bool {
			r = ask(t, addr, "udp", "example.com.", dns.TypeA, edns)
			return r.Rcode == sf || len(edeOf(r)) > 0
		})
		switch {
		case noStale && (r.Rcode != sf || len(r.Answer) != 0):
			t.Errorf("without stale answers: %v", r)
		case !noStale && (r.Rcode != ok || len(r.Answer) != 1 || r.Answer[0].Header().Ttl != staleTTL || edeOf(r)[0] != dns.ExtendedErrorCodeStaleAnswer):
			t.Errorf("stale: %v", r)
		}
	}
	var c cache
	now := time.Now()
	c.put(&entry{key: cacheKey{name: "x"}, stored: now, expires: now.Add(time.Second)})
	if e, fresh := c.get(cacheKey{name: "x"}, now.Add(24*time.Hour)); e == nil || fresh {
		t.Error("not cached for a day")
	}
	if e, _ := c.get(cacheKey{name: "x"}, now.Add(25*time.Hour)); e != nil {
		t.Error("cached for more than a day")
	}
}

func TestCacheKey(t *testing.T) {
	var n atomic.Int32
	up := fakeUpstream(t, counting(&n, static("192.0.2.1")))
	s, addr := start(t, Config{}, up)
	changes := []func(*dns.Msg){
		func(*dns.Msg) {},
		func(m *dns.Msg) { m.SetEdns0(1232, true) },
		func(m *dns.Msg) { m.CheckingDisabled = true },
		func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
	}
	for i, c := range changes {
		for range 3 {
			ask(t, addr, "udp", "example.com.", dns.TypeA, c)
		}
		if int(n.Load()) != i+1 {
			t.Errorf("after kind %d asked %d times", i, n.Load())
		}
	}
	// After a change of the network no cached answer is used.
	s.LinkChanged()
	eventually(t, "a question after the link has changed", func() bool {
		ask(t, addr, "udp", "example.com.", dns.TypeA)
		return int(n.Load()) > len(changes)
	})
}

func TestDNSSECPassesThrough(t *testing.T) {
	const sig = "NAME 60 IN A 192.0.2.1\nNAME 60 IN RRSIG A 13 2 60 20300101000000 20200101000000 1 example. AAAA"
	var got atomic.Pointer[dns.Msg]
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		got.Store(r)
		record(ok, sig, "")(writer{func(m *dns.Msg) {
			m.AuthenticatedData = true
			if o := r.IsEdns0(); o == nil || !o.Do() {
				m.Answer = m.Answer[:1]
			}
			w.WriteMsg(m)
		}}, r)
	})
	_, addr := start(t, Config{}, up)
	both(t, addr, "x.example.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if len(r.Answer) != 2 || !r.AuthenticatedData || !r.CheckingDisabled || !r.IsEdns0().Do() {
			t.Errorf("%v", r)
		}
		if q := got.Load(); !q.IsEdns0().Do() || !q.CheckingDisabled {
			t.Errorf("asked %v", q)
		}
	}, func(m *dns.Msg) { m.SetEdns0(1232, true); m.CheckingDisabled = true })
	both(t, addr, "y.example.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if len(r.Answer) != 1 || r.AuthenticatedData {
			t.Errorf("without DO: %v", r)
		}
	})
	both(t, addr, "y.example.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if !r.AuthenticatedData {
			t.Errorf("with AD: %v", r)
		}
	}, func(m *dns.Msg) { m.AuthenticatedData = true })
	both(t, addr, "weft.internal.", dns.TypeDS, want(ok, "", "weft.internal."))
	both(t, addr, "kitchen-pi.weft.internal.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if r.AuthenticatedData || len(r.Answer) != 1 {
			t.Errorf("%v", r)
		}
	}, func(m *dns.Msg) { m.SetEdns0(1232, true); m.AuthenticatedData = true })
}

func TestServiceBinding(t *testing.T) {
	const https = `NAME 60 IN HTTPS 1 . alpn="h3,h2" ipv4hint="192.0.2.1" key65400="x"`
	_, addr := start(t, Config{}, fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { record(ok, https, "")(w, r) }))
	for _, typ := range []uint16{dns.TypeSVCB, dns.TypeHTTPS} {
		both(t, addr, "kitchen-pi.weft.internal.", typ, want(ok, "", "weft.internal."))
	}
	both(t, addr, "example.com.", dns.TypeHTTPS, want(ok, `1 . alpn="h3,h2" ipv4hint="192.0.2.1" key65400="x"`, ""))
	const raw = `NAME 60 IN TYPE65280 \# 4 0a000001`
	_, addr = start(t, Config{}, fakeUpstream(t, record(ok, raw, "")))
	both(t, addr, "example.com.", 65280, func(t *testing.T, r *dns.Msg) {
		if len(r.Answer) != 1 || !strings.HasSuffix(r.Answer[0].String(), `\# 4 0a000001`) {
			t.Errorf("%v", r)
		}
	})
}

// authority makes certificates for tests.
type authority struct {
	pool *x509.CertPool
	key  *ecdsa.PrivateKey
	ca   *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, _ := x509.ParseCertificate(der)
	a := &authority{pool: x509.NewCertPool(), key: key, ca: ca}
	a.pool.AddCert(ca)
	return a
}

func (a *authority) cert(t testing.TB, names ...string) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.ca, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

// fakeDoT serves DNS over TLS; conns counts its connections.
func fakeDoT(t testing.TB, cert tls.Certificate, conns *atomic.Int32, h dns.HandlerFunc) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{Listener: countingListener{tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}), conns}, Handler: h}
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	go srv.ActivateAndServe()
	<-started
	t.Cleanup(func() { srv.Shutdown() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

type countingListener struct {
	net.Listener
	n *atomic.Int32
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// fakeDoH serves DNS over HTTPS; proto is the protocol of the last request.
func fakeDoH(t testing.TB, cert tls.Certificate, http2 bool, conns *atomic.Int32, proto *atomic.Value, h dns.HandlerFunc) (port string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		body, _ := io.ReadAll(r.Body)
		m := new(dns.Msg)
		if r.URL.Path != "/q" || r.Header.Get("Content-Type") != "application/dns-message" || m.Unpack(body) != nil || m.Id != 0 {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		h(writer{func(m *dns.Msg) {
			b, _ := m.Pack()
			w.Header().Set("Content-Type", "application/dns-message")
			w.Header().Set("Age", "10")
			w.Write(b)
		}}, m)
	}))
	srv.EnableHTTP2 = http2
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return port
}

// An upstream that does not prove its name gets no question.
func TestEncryptedUpstreams(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	slow := func(w dns.ResponseWriter, r *dns.Msg) {
		if strings.HasPrefix(r.Question[0].Name, "slow") {
			time.Sleep(100 * time.Millisecond)
		}
		static("192.0.2.1")(w, r)
	}
	system := fakeUpstream(t, static("127.0.0.1")) // resolves dns.test
	var conns atomic.Int32
	var proto atomic.Value
	for _, c := range []struct {
		name  string
		ns    func(port string) Nameserver
		serve func() string
		proto string
		fails bool
	}{
		{"DoT", func(p string) Nameserver {
			return Nameserver{Address: "tls://dns.test:" + p, Bootstrap: []string{"127.0.0.1"}}
		}, func() string { return fakeDoT(t, ca.cert(t, "dns.test"), &conns, slow) }, "", false},
		{"DoT by address", func(p string) Nameserver { return Nameserver{Address: "tls://127.0.0.1:" + p} }, func() string { return fakeDoT(t, ca.cert(t, "127.0.0.1"), &conns, slow) }, "", false},
		{"DoT found by the system", func(p string) Nameserver { return Nameserver{Address: "tls://dns.test:" + p} }, func() string { return fakeDoT(t, ca.cert(t, "dns.test"), &conns, slow) }, "", false},
		{"DoT second address", func(p string) Nameserver {
			return Nameserver{Address: "tls://dns.test:" + p, Bootstrap: []string{"127.0.0.9", "127.0.0.1"}}
		}, func() string { return fakeDoT(t, ca.cert(t, "dns.test"), &conns, slow) }, "", false},
		{"DoT other name", func(p string) Nameserver {
			return Nameserver{Address: "tls://dns.test:" + p, Bootstrap: []string{"127.0.0.1"}}
		}, func() string { return fakeDoT(t, ca.cert(t, "evil.test"), &conns, slow) }, "", true},
		{"DoT other CA", func(p string) Nameserver {
			return Nameserver{Address: "tls://dns.test:" + p, Bootstrap: []string{"127.0.0.1"}}
		}, func() string { return fakeDoT(t, other.cert(t, "dns.test"), &conns, slow) }, "", true},
		{"DoH HTTP/1.1", func(p string) Nameserver {
			return Nameserver{Address: "https://dns.test:" + p + "/q", Bootstrap: []string{"127.0.0.1"}}
		}, func() string { return fakeDoH(t, ca.cert(t, "dns.test"), false, &conns, &proto, slow) }, "HTTP/1.1", false},
		{"DoH HTTP/2", func(p string) Nameserver { return Nameserver{Address: "https://dns.test:" + p + "/q"} }, func() string { return fakeDoH(t, ca.cert(t, "dns.test"), true, &conns, &proto, slow) }, "HTTP/", false},
		{"DoH other name", func(p string) Nameserver {
			return Nameserver{Address: "https://dns.test:" + p + "/q", Bootstrap: []string{"127.0.0.1"}}
		}, func() string { return fakeDoH(t, ca.cert(t, "evil.test"), true, &conns, &proto, slow) }, "", true},
		{"DoH other path", func(p string) Nameserver {
			return Nameserver{Address: "https://dns.test:" + p + "/x", Bootstrap: []string{"127.0.0.1"}}
		}, func() string { return fakeDoH(t, ca.cert(t, "dns.test"), true, &conns, &proto, slow) }, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			conns.Store(0)
			port := c.serve()
			s, addr := start(t, Config{RootCAs: ca.pool, Settings: settings(Settings{Nameservers: []Nameserver{c.ns(port)}})}, system)
			if c.fails {
				if r := ask(t, addr, "udp", "example.com.", dns.TypeA, edns); r.Rcode != sf || len(edeOf(r)) != 1 {
					t.Errorf("%v", r)
				}
				return
			}
			want(ok, "192.0.2.1", "")(t, ask(t, addr, "udp", "example.com.", dns.TypeA))
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					want(ok, "192.0.2.1", "")(t, ask(t, addr, "tcp", fmt.Sprintf("slow%d.example.com.", i), dns.TypeA))
				})
			}
			wg.Wait()
			if n := conns.Load(); n > 8 {
				t.Errorf("%d connections for 21 questions", n)
			}
			if p, _ := proto.Load().(string); c.proto != "" && !strings.HasPrefix(p, c.proto) {
				t.Errorf("asked by %q, want %s", p, c.proto)
			}
			if c.proto != "" {
				if ttl := ask(t, addr, "udp", "x.example.com.", dns.TypeA).Answer[0].Header().Ttl; ttl > 50 {
					t.Errorf("TTL %d for an answer that is 10 s old", ttl)
				}
			}
			if st := s.Status().Upstreams; len(st) != 1 || st[0].State != "ok" {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestOtherResolvers(t *testing.T) {
	up := fakeUpstream(t, static("192.0.2.1"))
	_, addr := start(t, Config{Settings: settings(Settings{KeepBrowsers: true})}, up)
	both(t, addr, "_dns.resolver.arpa.", dns.TypeSVCB, want(ok, "", "resolver.arpa."))
	both(t, addr, "x.resolver.arpa.", dns.TypeA, want(nx, "", "resolver.arpa."))
	both(t, addr, "use-application-dns.net.", dns.TypeA, want(nx, "", "use-application-dns.net."))
	_, addr = start(t, Config{}, up)
	both(t, addr, "use-application-dns.net.", dns.TypeA, want(ok, "192.0.2.1", ""))
}

func TestCaptivePortal(t *testing.T) {
	var open atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open.Load() {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		http.Redirect(w, r, "http://login.example/", http.StatusFound)
	}))
	defer web.Close()
	_, port, _ := net.SplitHostPort(web.Listener.Addr().String())
	ca := newAuthority(t)
	var conns atomic.Int32
	private := fakeDoT(t, ca.cert(t, "127.0.0.1"), &conns, func(w dns.ResponseWriter, r *dns.Msg) {
		if open.Load() {
			static("192.0.2.1")(w, r)
			return
		}
		w.Close()
	})
	system := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if strings.HasPrefix(r.Question[0].Name, "check.") {
			static("127.0.0.1")(w, r)
			return
		}
		static("192.0.2.99")(w, r) // the portal
	})
	s, addr := start(t, Config{RootCAs: ca.pool, Settings: settings(Settings{
		Nameservers: []Nameserver{{Address: "tls://127.0.0.1:" + private}}, PortalURL: "http://check.example:" + port + "/204",
	})}, system)
	eventually(t, "the portal is detected", func() bool {
		r := ask(t, addr, "udp", "www.example.com.", dns.TypeA)
		return answers(r) == "192.0.2.99"
	})
	if !s.Status().Portal || len(s.Health()) == 0 {
		t.Errorf("not in status and health: %+v %v", s.Status(), s.Health())
	}
	want(ok, "100.64.0.2", "")(t, ask(t, addr, "udp", "kitchen-pi.weft.internal.", dns.TypeA))
	open.Store(true)
	s.portal.mu.Lock()
	s.portal.checked = time.Time{} // some seconds later
	s.portal.mu.Unlock()
	eventually(t, "the portal is gone", func() bool {
		return answers(ask(t, addr, "udp", "www.example.com.", dns.TypeA)) == "192.0.2.1"
	})
	if s.Status().Portal {
		t.Error("still in status and health")
	}
}

func TestLoops(t *testing.T) {
	// A resolver on this machine forwards our questions back to us.
	var us atomic.Pointer[string]
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	var asked atomic.Int32
	go func() {
		for {
			buf := make([]byte, 1500)
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			asked.Add(1)
			go func() {
				c, err := net.Dial("udp", *us.Load())
				if err != nil {
					return
				}
				defer c.Close()
				c.Write(buf[:n])
				c.SetReadDeadline(time.Now().Add(10 * time.Second))
				if n, err := c.Read(buf); err == nil {
					pc.WriteTo(buf[:n], from)
				}
			}()
		}
	}()
	s, addr := start(t, Config{}, pc.LocalAddr().String())
	us.Store(&addr)
	both(t, addr, "example.com.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		if r.Rcode != sf {
			t.Errorf("%v", r)
		}
	})
	eventually(t, "the loop is detected", func() bool { return s.Status().Upstreams[0].State == "loop" })
	if h := s.Health(); len(h) == 0 || h[0].Code != "dns-loop" {
		t.Errorf("%v", h)
	}
	before := asked.Load()
	for i := range 50 {
		ask(t, addr, "udp", fmt.Sprintf("%d.example.com.", i), dns.TypeA)
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("asked %d times after the loop was detected", n)
	}
	if before > 10 {
		t.Errorf("%d questions in the loop", before)
	}
	TestOwnAddressesRefused(t)
	// Too many queries for one question.
	s, _ = start(t, Config{}, silentUDP(t))
	var busy atomic.Int32
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range maxSame + 20 {
		wg.Go(func() {
			req := new(dns.Msg)
			req.SetQuestion("example.com.", dns.TypeA)
			if a := s.answerNow(ctx, &query{req: req, st: s.current()}); a.out == outBusy {
				if busy.Add(1) == 20 {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	cancel()
	if busy.Load() < 20 {
		t.Errorf("%d were refused", busy.Load())
	}
	if h := s.Health(); len(h) == 0 || h[0].Code != "dns-loop" {
		t.Errorf("%v", h)
	}
}

func TestLinkChange(t *testing.T) {
	one, two := fakeUpstream(t, static("192.0.2.1")), fakeUpstream(t, static("192.0.2.2"))
	conf := writeConf(t)
	s, addr := start(t, Config{ResolvConf: conf})
	if r := ask(t, addr, "udp", "example.com.", dns.TypeA, edns); r.Rcode != sf || edeOf(r)[0] != dns.ExtendedErrorCodeNetworkError {
		t.Errorf("%v", r)
	}
	// The file is empty at first and is read again.
	setConf(t, conf, one)
	want(ok, "192.0.2.1", "")(t, ask(t, addr, "udp", "example.com.", dns.TypeA))
	// The network changes, and LinkChanged is called more than once.
	setConf(t, conf, two)
	for range 100 {
		s.LinkChanged()
	}
	eventually(t, "the new resolver", func() bool { return answers(ask(t, addr, "udp", "example.com.", dns.TypeA)) == "192.0.2.2" })
	// Or LinkChanged is not called.
	setConf(t, conf, one, one)
	eventually(t, "the new resolver", func() bool { return answers(ask(t, addr, "udp", "example.com.", dns.TypeA)) == "192.0.2.1" })
	// A query does not wait for a connection that died in the meantime.
	ca := newAuthority(t)
	var conns atomic.Int32
	var mute atomic.Bool
	port := fakeDoT(t, ca.cert(t, "127.0.0.1"), &conns, func(w dns.ResponseWriter, r *dns.Msg) {
		if mute.Load() && conns.Load() == 1 {
			return
		}
		static("192.0.2.3")(w, r)
	})
	_, addr = start(t, Config{RootCAs: ca.pool, Settings: settings(Settings{Nameservers: []Nameserver{{Address: "tls://127.0.0.1:" + port}}})})
	want(ok, "192.0.2.3", "")(t, ask(t, addr, "udp", "a.example.com.", dns.TypeA))
	mute.Store(true)
	want(ok, "192.0.2.3", "")(t, ask(t, addr, "udp", "b.example.com.", dns.TypeA))
	if conns.Load() != 2 {
		t.Errorf("%d connections", conns.Load())
	}
}

func TestLocalAndServiceDiscovery(t *testing.T) {
	up := fakeUpstream(t, func(_ dns.ResponseWriter, r *dns.Msg) { t.Errorf("forwarded %s", r.Question[0].Name) })
	_, addr := start(t, Config{}, up)
	both(t, addr, "printer.local.", dns.TypeA, want(nx, "", "local."))
	both(t, addr, "1.1.168.192.in-addr.arpa.local.", dns.TypeA, want(nx, "", "local."))
	for _, name := range []string{"b._dns-sd._udp.example.com.", "lb._dns-sd._udp.0.1.168.192.in-addr.arpa.", "db._dns-sd._udp.weft.internal."} {
		both(t, addr, name, dns.TypePTR, want(nx, "", name))
	}
	// A route of the owner takes precedence.
	_, addr = start(t, Config{Settings: settings(Settings{Routes: []Route{{Suffix: "corp.local", Nameservers: []Nameserver{{Address: fakeUpstream(t, static("192.0.2.1"))}}}}})}, up)
	both(t, addr, "x.corp.local.", dns.TypeA, want(ok, "192.0.2.1", ""))
	both(t, addr, "x.local.", dns.TypeA, want(nx, "", "local."))
}

func TestSpecialNames(t *testing.T) {
	system, global := fakeUpstream(t, static("192.0.2.1")), fakeUpstream(t, static("192.0.2.2"))
	_, addr := start(t, Config{Settings: settings(Settings{Nameservers: []Nameserver{{Address: global}}})}, system)
	both(t, addr, "localhost.", dns.TypeA, want(ok, "127.0.0.1", ""))
	both(t, addr, "a.localhost.", dns.TypeAAAA, want(ok, "::1", ""))
	both(t, addr, "localhost.", dns.TypeMX, want(ok, "", "localhost."))
	for _, top := range []string{"onion.", "alt.", "invalid."} {
		both(t, addr, "x."+top, dns.TypeA, want(nx, "", top))
	}
	for name, ip := range map[string]string{"x.home.arpa.": "192.0.2.1", "ipv4only.arpa.": "192.0.2.1", "example.com.": "192.0.2.2"} {
		both(t, addr, name, dns.TypeA, want(ok, ip, ""))
	}
}

func TestRebinding(t *testing.T) {
	const bad = "NAME 60 IN A 192.168.1.1\nNAME 60 IN A 198.51.100.1\nNAME 60 IN A 100.64.0.2\nNAME 60 IN A 127.0.0.1\nNAME 60 IN A 169.254.169.254"
	const bad6 = "NAME 60 IN AAAA ::1\nNAME 60 IN AAAA 2001:db8::1\nNAME 60 IN AAAA fd00:77::2\nNAME 60 IN AAAA fe80::1\nNAME 60 IN AAAA 64:ff9b::c0a8:101\nNAME 60 IN AAAA ::ffff:10.0.0.1"
	h := func(w dns.ResponseWriter, r *dns.Msg) {
		switch r.Question[0].Qtype {
		case dns.TypeAAAA:
			record(ok, bad6, "")(w, r)
		case dns.TypeHTTPS:
			record(ok, "NAME 60 IN HTTPS 1 . ipv4hint=\"192.168.1.1\"\nNAME 60 IN HTTPS 2 . alpn=\"h2\"", "")(w, r)
		default:
			record(ok, bad, "")(w, r)
		}
	}
	up := fakeUpstream(t, h)
	_, addr := start(t, Config{Settings: settings(Settings{StopRebinding: true, RebindingAllowed: []string{"plex.example"}, Routes: []Route{{Suffix: "corp.example", Nameservers: []Nameserver{{Address: up}}}}})}, up)
	both(t, addr, "evil.example.", dns.TypeA, func(t *testing.T, r *dns.Msg) {
		want(ok, "198.51.100.1", "")(t, r)
		if e := edeOf(r); len(e) != 1 || e[0] != dns.ExtendedErrorCodeBlocked {
			t.Errorf("%v", r)
		}
	}, edns)
	both(t, addr, "evil.example.", dns.TypeAAAA, want(ok, "2001:db8::1", ""))
	both(t, addr, "evil.example.", dns.TypeHTTPS, want(ok, `2 . alpn="h2"`, ""))
	for _, name := range []string{"x.plex.example.", "x.corp.example.", "x.home.arpa."} {
		if r := ask(t, addr, "udp", name, dns.TypeA); len(r.Answer) != 5 {
			t.Errorf("%s: %v", name, r)
		}
	}
	_, addr = start(t, Config{}, up)
	if r := ask(t, addr, "udp", "evil.example.", dns.TypeA); len(r.Answer) != 5 {
		t.Errorf("switched off: %v", r)
	}
}

func TestExtraRecords(t *testing.T) {
	var records []Record
	for i := range 12 {
		records = append(records, Record{Name: fmt.Sprintf("c%d", i), Type: "CNAME", Value: fmt.Sprintf("c%d", i+1)})
	}
	records = append(records,
		Record{Name: "c12", Type: "A", Value: "192.0.2.12"},
		Record{Name: "www", Type: "CNAME", Value: "kitchen-pi"}, Record{Name: "ext", Type: "CNAME", Value: "example.com", TTL: 77},
		Record{Name: "loop", Type: "CNAME", Value: "loop2"}, Record{Name: "loop2", Type: "CNAME", Value: "loop"},
		Record{Name: "dead", Type: "CNAME", Value: "nobody"},
		Record{Name: "t", Type: "TXT", Value: `v=1 "q" \ ` + strings.Repeat("x", 300)}, Record{Name: "t", Type: "AAAA", Value: "2001:db8::7"},
		Record{Name: "@", Type: "MX", Value: "10 mail"}, Record{Name: "_s._tcp.weft.internal", Type: "SRV", Value: "0 5 443 kitchen-pi"},
		Record{Name: "kitchen-pi", Type: "A", Value: "192.0.2.66"}, Record{Name: "kitchen-pi", Type: "TXT", Value: "hello"},
		Record{Name: "192.0.2.12", Type: "PTR", Value: "c12"}, Record{Name: "100.64.77.7", Type: "PTR", Value: "c12"},
		Record{Name: "100.64.0.2", Type: "PTR", Value: "c12"},
		Record{Name: "split.example.com", Type: "A", Value: "10.1.2.3"},
	)
	_, addr := start(t, Config{Settings: settings(Settings{Records: records})}, fakeUpstream(t, static("192.0.2.1")))
	rev := reverse6
	for _, c := range []struct {
		name string
		typ  uint16
		want func(*testing.T, *dns.Msg)
	}{
		{"www.weft.internal.", dns.TypeA, want(ok, "100.64.0.2 kitchen-pi.weft.internal.", "")},
		{"www.weft.internal.", dns.TypeCNAME, want(ok, "kitchen-pi.weft.internal.", "")},
		{"www.weft.internal.", dns.TypeMX, want(ok, "kitchen-pi.weft.internal.", "weft.internal.")},
		{"ext.weft.internal.", dns.TypeA, want(ok, "192.0.2.1 example.com.", "")},
		{"dead.weft.internal.", dns.TypeA, want(nx, "nobody.weft.internal.", "weft.internal.")},
		{"c4.weft.internal.", dns.TypeA, want(ok, "192.0.2.12 c10.weft.internal. c11.weft.internal. c12.weft.internal. c5.weft.internal. c6.weft.internal. c7.weft.internal. c8.weft.internal. c9.weft.internal.", "")},
		{"t.weft.internal.", dns.TypeAAAA, want(ok, "2001:db8::7", "")},
		{"t.weft.internal.", dns.TypeA, want(ok, "", "weft.internal.")},
		{"weft.internal.", dns.TypeMX, want(ok, "10 mail.weft.internal.", "")},
		{"_s._tcp.weft.internal.", dns.TypeSRV, want(ok, "0 5 443 kitchen-pi.weft.internal.", "")},
		{"kitchen-pi.weft.internal.", dns.TypeA, want(ok, "100.64.0.2", "")},
		{"kitchen-pi.weft.internal.", dns.TypeTXT, want(ok, `"hello"`, "")},
		{rev("192.0.2.12"), dns.TypePTR, want(ok, "c12.weft.internal.", "")},
		{rev("100.64.77.7"), dns.TypePTR, want(ok, "c12.weft.internal.", "")},
		{rev("100.64.0.2"), dns.TypePTR, want(ok, "kitchen-pi.weft.internal.", "")},
		{"split.example.com.", dns.TypeA, want(ok, "10.1.2.3", "")},
		{"split.example.com.", dns.TypeAAAA, want(ok, "", "split.example.com.")},
		{"x.split.example.com.", dns.TypeA, want(ok, "192.0.2.1", "")},
	} {
		both(t, addr, c.name, c.typ, c.want)
	}
	for _, name := range []string{"c0.weft.internal.", "loop.weft.internal."} {
		if r := ask(t, addr, "udp", name, dns.TypeA); r.Rcode != sf {
			t.Errorf("%s: %v", name, r)
		}
	}
	r := ask(t, addr, "tcp", "t.weft.internal.", dns.TypeTXT)
	if txt := strings.Join(r.Answer[0].(*dns.TXT).Txt, ""); txt != `v=1 \"q\" \\ `+strings.Repeat("x", 300) {
		t.Errorf("TXT %q", txt)
	}
	if ttl := ask(t, addr, "udp", "ext.weft.internal.", dns.TypeCNAME).Answer[0].Header().Ttl; ttl != 77 {
		t.Errorf("TTL %d", ttl)
	}
	if r := ask(t, addr, "udp", "split.example.com.", dns.TypeA); r.Authoritative {
		t.Error("AA for a zone that is not ours")
	}
}

func TestWildcards(t *testing.T) {
	cfg := Config{Settings: settings(Settings{
		Wildcards: []string{"kitchen-pi", "far"},
		Records:   []Record{{Name: "www.kitchen-pi.weft.internal", Type: "A", Value: "192.0.2.7"}, {Name: "*.v4only.weft.internal", Type: "TXT", Value: "any"}},
	})}
	_, addr := start(t, cfg)
	check := func(name string, typ uint16, w func(*testing.T, *dns.Msg)) {
		t.Helper()
		both(t, addr, name, typ, w)
	}
	check("a.kitchen-pi.weft.internal.", dns.TypeA, want(ok, "100.64.0.2", ""))
	check("A.b.kitchen-pi.weft.internal.", dns.TypeAAAA, want(ok, "fd00:77::2", ""))
	check("a.kitchen-pi.weft.internal.", dns.TypeMX, want(ok, "", "weft.internal."))
	check("www.kitchen-pi.weft.internal.", dns.TypeA, want(ok, "192.0.2.7", ""))
	check("www.kitchen-pi.weft.internal.", dns.TypeAAAA, want(ok, "", "weft.internal."))
	check("x.www.kitchen-pi.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
	check("a.v4only.weft.internal.", dns.TypeA, want(ok, "", "weft.internal."))
	check("a.v4only.weft.internal.", dns.TypeTXT, want(ok, `"any"`, ""))
	check("a.google.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
	check("a.far.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
	// A device that has to be looked up.
	part := *testZone
	part.Complete = false
	cfg.Zone = func() *Zone { return &part }
	cfg.Lookup = func(_ context.Context, name string, _ netip.Addr) (Host, error) {
		if name != "far" {
			t.Errorf("looked up %q", name)
		}
		return Host{Name: "far", IPv4: netip.MustParseAddr("100.64.3.3")}, nil
	}
	_, addr = start(t, cfg)
	check("a.far.weft.internal.", dns.TypeA, want(ok, "100.64.3.3", ""))
	check("a.google.weft.internal.", dns.TypeA, want(nx, "", "weft.internal."))
}

func TestPrivacy(t *testing.T) {
	var got atomic.Pointer[dns.Msg]
	up := fakeUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) { got.Store(r); static("192.0.2.1")(w, r) })
	for _, on := range []bool{false, true} {
		var mu sync.Mutex
		var log bytes.Buffer
		h := slog.NewTextHandler(&lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug})
		_, addr := start(t, Config{Log: slog.New(h), Settings: settings(Settings{QueryLog: on})}, up, "127.0.0.1:1")
		for _, name := range []string{"secret.example.com.", "hidden.weft.internal."} {
			ask(t, addr, "udp", name, dns.TypeA, func(m *dns.Msg) {
				m.SetEdns0(1232, false)
				m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(1, 2, 3, 0)})
			})
		}
		if o := got.Load().IsEdns0(); o == nil || len(o.Option) != 0 {
			t.Errorf("asked upstream: %v", got.Load())
		}
		mu.Lock()
		text := log.String()
		mu.Unlock()
		if strings.Contains(text, "secret") || strings.Contains(text, "hidden") {
			t.Errorf("names are in the log:\n%s", text)
		}
		if strings.Contains(text, "dns: query") != on {
			t.Errorf("query log %v:\n%s", on, text)
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestStatusTraceFlush(t *testing.T) {
	var n atomic.Int32
	up := fakeUpstream(t, counting(&n, static("192.0.2.1")))
	s, addr := start(t, Config{Settings: settings(Settings{Routes: []Route{{Suffix: "corp.example", Nameservers: []Nameserver{{Address: "127.0.0.1:1"}}}}, TTL: 99})}, up)
	trace := func(name, typ string) string {
		t.Helper()
		a, err := s.Trace(t.Context(), name, typ)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, st := range a.Steps {
			fmt.Fprintf(&b, "%s: %s\n", st.Stage, st.Text)
		}
		return b.String()
	}
	for _, c := range []struct{ name, want string }{
		{"kitchen-pi", "own: kitchen-pi.weft.internal. is a device, serial 42"},
		{"nobody", "own: there is no device nobody"},
		{"printer.local", "special: .local is for multicast DNS"},
		{"example.com", "cache: not cached\nforward: " + up + " answered NOERROR with 1 records"},
		{"example.com", "cache: cached from " + up},
		{"x.corp.example", "route: corp.example goes to 127.0.0.1:1"},
	} {
		if got := trace(c.name, "A"); !strings.Contains(got, c.want) {
			t.Errorf("%s: no %q in\n%s", c.name, c.want, got)
		}
	}
	if a, _ := s.Query(t.Context(), "kitchen-pi", "A"); len(a.Steps) != 0 {
		t.Error("a plain query returns steps")
	}
	asked := n.Load()
	if s.Flush() == 0 {
		t.Error("nothing was flushed")
	}
	ask(t, addr, "udp", "example.com.", dns.TypeA)
	ask(t, addr, "udp", "example.com.", dns.TypeA)
	ask(t, addr, "udp", "kitchen-pi.weft.internal.", dns.TypeA)
	if n.Load() != asked+1 {
		t.Error("not asked again after a flush")
	}
	st := s.Status()
	if len(st.Listen) != 1 || st.Suffix != "weft.internal" || len(st.Zones) != 3 || len(st.Upstreams) != 1 || st.Upstreams[0].State != "ok" ||
		len(st.Routes) != 1 || st.Routes[0].Upstreams[0].State != "failing" || len(st.Problems) != 1 || st.Cache.Entries != 1 {
		t.Errorf("%+v", st)
	}
	if c := st.Counters; c["overlay"] != 1 || c["forwarded"] != 1 || c["cached"] != 1 {
		t.Errorf("%v", c)
	}
	codes := ""
	for _, h := range s.Health() {
		codes += h.Code + " "
	}
	if codes != "dns-settings dns-upstream " {
		t.Errorf("health: %s", codes)
	}
}

// Questions, a tenth of them malformed, use no lasting memory, and each valid one is
// answered.
func TestNoGrowth(t *testing.T) {
	s := New(Config{Zone: func() *Zone { return testZone }, ResolvConf: "/nonexistent"})
	defer s.Close()
	valid := make([][]byte, 0, 1000)
	for i := range 1000 {
		m := new(dns.Msg)
		m.SetQuestion([]string{"kitchen-pi.weft.internal.", fmt.Sprintf("%d.weft.internal.", i), "2.0.64.100.in-addr.arpa.", "example.com."}[i%4], dns.TypeA)
		b, _ := m.Pack()
		valid = append(valid, b)
	}
	i := incoming{st: s.current(), from: netip.MustParseAddr("127.0.0.1"), now: time.Now()}
	out := make([]byte, 0, maxUDP)
	round := func(n int) {
		bad := make([]byte, 0, 1500)
		for k := range n {
			in := valid[k%len(valid)]
			if k%10 == 0 {
				bad = append(bad[:0], in[:len(in)-1-k%(len(in)-1)]...)
				for j := 4; j < len(bad); j += 7 {
					bad[j] ^= byte(k >> (j % 13))
				}
				s.answer(&i, bad, out)
				continue
			}
			b, rest := s.answer(&i, in, out)
			if rest != nil {
				b = rest(nil)
			}
			if b == nil || b[0] != in[0] || b[1] != in[1] {
				t.Fatal("a valid question is not answered")
			}
		}
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round(20_000)
	before := live()
	round(200_000)
	after := live()
	t.Logf("live heap: %d KB, then %d KB", before>>10, after>>10)
	if after > before+1<<20 {
		t.Errorf("live heap grew from %d to %d KB", before>>10, after>>10)
	}
}

// A cache filled to its bounds stays under 7 MB.
func TestFullMemory(t *testing.T) {
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	s := New(Config{Zone: func() *Zone { return testZone }, ResolvConf: "/nonexistent"})
	defer s.Close()
	for n := range 40_000 {
		m := new(dns.Msg)
		m.SetQuestion(fmt.Sprintf("host-%d.example.com.", n), dns.TypeA)
		q := m.Copy()
		m.Response = true
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 600}, A: net.IPv4(192, 0, 2, 1)}}
		b, _ := m.Pack()
		now := time.Now()
		s.cache.put(&entry{key: cacheKey{name: q.Question[0].Name, qtype: dns.TypeA, route: "system"}, msg: b, source: "192.0.2.53:53", stored: now, expires: now.Add(time.Hour)})
	}
	entries, bytes := s.cache.size()
	after := live()
	t.Logf("%d entries, %d KB counted; live heap %d KB", entries, bytes>>10, (after-before)>>10)
	if after-before > 7<<20 {
		t.Errorf("%d KB", (after-before)>>10)
	}
	runtime.KeepAlive(s)
}
