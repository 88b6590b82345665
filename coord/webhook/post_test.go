package webhook

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

// receiver is an HTTPS server, with who certified it.
func receiver(t *testing.T, h http.HandlerFunc) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, roots
}

func post(t *testing.T, s *Sender, to string, allow []netip.Prefix) Result {
	t.Helper()
	r, err := s.Receiver(to, allow)
	if err != nil {
		return Result{Err: err}
	}
	defer r.Close()
	return r.Post(t.Context(), Event{Schema: Schema, ID: "a1-x", Op: "device.rename", Count: 1}, []string{"whsec_of-at-least-14", "whsec_bytes-in-FIPS-mode"}, time.Now())
}

// TestPost: what arrives can be checked with either secret.
func TestPost(t *testing.T) {
	s, roots := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		for _, secret := range []string{"whsec_of-at-least-14", "whsec_bytes-in-FIPS-mode"} {
			if e := Verify(secret, r.Header.Get(SignatureHeader), body, time.Now()); err == nil {
				err = e
			}
		}
		if err != nil || r.Method != "POST" || r.URL.RequestURI() != "/hook?key=x" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get(IDHeader) != "a1-x" ||
			r.Header.Get(EventHeader) != "device.rename" || r.UserAgent() != "weft-server/test" || r.Header.Get("Accept-Encoding") != "" || !bytes.Contains(body, []byte(`"id":"a1-x"`)) {
			t.Errorf("%s %s %v %s, %v", r.Method, r.URL, r.Header, body, err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if res := post(t, &Sender{Agent: "weft-server/test", Roots: roots}, s.URL+"/hook?key=x", loopback); res.Err != nil || res.Status != 204 {
		t.Errorf("%+v", res)
	}
}

// TestHostileReceivers: whatever a receiver does, the attempt ends, reads little, and
// says in few words what was wrong, and nothing of the URL but its host.
func TestHostileReceivers(t *testing.T) {
	inside := atomic.Int32{}
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { inside.Add(1) }))
	defer target.Close()
	var sent atomic.Int64
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"/redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target.URL, http.StatusTemporaryRedirect)
		},
		"/found": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) },
		"/big": func(w http.ResponseWriter, r *http.Request) {
			part := bytes.Repeat([]byte("x"), 64<<10)
			for range 160 {
				n, err := w.Write(part)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		},
		"/header": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 64<<10))
		},
		"/error": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"/busy":  func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Retry-After", "120"); w.WriteHeader(429) },
		"/never": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "9999999")
			w.WriteHeader(503)
		},
		"/reset": func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				c.Close()
			}
		},
		"/junk": func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				io.WriteString(c, "\x1b[31mHTTP/9 \u202e nonsense\r\n\r\n")
				c.Close()
			}
		},
		"/ok": func(w http.ResponseWriter, r *http.Request) { inside.Add(1) },
	} {
		mux.HandleFunc(path, h)
	}
	s, roots := receiver(t, mux.ServeHTTP)
	good := &Sender{Roots: roots}
	for _, c := range []struct {
		path   string
		status int
		says   string
		wait   time.Duration
	}{
		{"/redirect", 307, "it answered 307: redirects are not followed", 0},
		{"/found", 302, "it answered 302: redirects are not followed", 0},
		{"/big", 200, "", 0},
		{"/header", 0, "headers exceeded", 0},
		{"/error", 500, "it answered 500", 0},
		{"/busy", 429, "it answered 429", 2 * time.Minute},
		{"/never", 503, "it answered 503", 0},
		{"/reset", 0, "EOF", 0},
		{"/junk", 0, "malformed HTTP", 0},
	} {
		res := post(t, good, s.URL+c.path+"?key=secret", loopback)
		if res.Status != c.status || (res.Err == nil) != (c.says == "") || res.Err != nil && (!strings.Contains(res.Err.Error(), c.says) || strings.Contains(res.Err.Error(), "secret")) || res.RetryAfter != c.wait {
			t.Errorf("%s: %+v, want %d %q", c.path, res, c.status, c.says)
		}
	}
	if inside.Load() != 0 {
		t.Error("a redirect was followed")
	}
	if n := sent.Load(); n >= 10<<20 {
		t.Errorf("%d bytes of an answer were read", n)
	}
	// Nobody trusts its certificate; and it is of another name.
	if res := post(t, &Sender{}, s.URL+"/ok?key=secret", loopback); res.Err == nil || !strings.Contains(res.Err.Error(), "certificate") || strings.Contains(res.Err.Error(), "secret") {
		t.Errorf("a certificate that nobody trusts: %+v", res)
	}
	u, _ := url.Parse(s.URL)
	other := &Sender{Roots: roots, Lookup: func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}}
	if res := post(t, other, "https://elsewhere.test:"+u.Port()+"/ok", loopback); res.Err == nil || !strings.Contains(res.Err.Error(), "certificate") {
		t.Errorf("a certificate of another name: %+v", res)
	}
	if inside.Load() != 0 {
		t.Error("an event went to who has no certificate")
	}
}

// TestDial: every address of a host is checked, and what is dialled is what was checked,
// whatever the name leads to a moment later.
func TestDial(t *testing.T) {
	addr := func(s ...string) (list []netip.Addr) {
		for _, a := range s {
			list = append(list, netip.MustParseAddr(a))
		}
		return list
	}
	for _, c := range []struct {
		name    string
		answers [][]netip.Addr // of one lookup after the other
		allow   []netip.Prefix
		dialled string
		says    string
	}{
		{"public", [][]netip.Addr{addr("203.0.113.7")}, nil, "203.0.113.7:443", "refused by the test"},
		{"rebinding", [][]netip.Addr{addr("203.0.113.7"), addr("127.0.0.1")}, nil, "203.0.113.7:443", "refused by the test"},
		{"loopback", [][]netip.Addr{addr("127.0.0.1")}, nil, "", "127.0.0.1 is a loopback address; the network's owner can allow this address"},
		{"one of two", [][]netip.Addr{addr("203.0.113.7", "169.254.169.254")}, nil, "", "169.254.169.254 is a link-local or metadata address"},
		{"mapped", [][]netip.Addr{addr("::ffff:127.0.0.1")}, nil, "", "a loopback address"},
		{"NAT64", [][]netip.Addr{addr("64:ff9b::a9fe:a9fe")}, nil, "", "leads to 169.254.169.254"},
		{"6to4", [][]netip.Addr{addr("2002:7f00:1::")}, nil, "", "leads to 127.0.0.1"},
		{"overlay", [][]netip.Addr{addr("100.64.0.9")}, nil, "", "an address of an overlay network"},
		{"allowed", [][]netip.Addr{addr("127.0.0.1")}, loopback, "127.0.0.1:443", "refused by the test"},
		{"several", [][]netip.Addr{addr("203.0.113.7", "2001:db8::1")}, nil, "203.0.113.7:443 [2001:db8::1]:443", "refused by the test"},
		{"nothing", [][]netip.Addr{nil}, nil, "", "it has no addresses"},
	} {
		lookups := 0
		var dialled []string
		s := &Sender{
			Lookup: func(context.Context, string) ([]netip.Addr, error) {
				lookups++
				return c.answers[min(lookups, len(c.answers))-1], nil
			},
			Dial: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
				dialled = append(dialled, to.String())
				return nil, errors.New("refused by the test")
			},
		}
		res := post(t, s, "https://hook.test/secret", c.allow)
		if got := strings.Join(dialled, " "); got != c.dialled || res.Err == nil || !strings.Contains(res.Err.Error(), c.says) || lookups != 1 || strings.Contains(res.Err.Error(), "secret") {
			t.Errorf("%s: dialled %q after %d lookups: %v", c.name, got, lookups, res.Err)
		}
	}
	plain := &Sender{Lookup: func(context.Context, string) ([]netip.Addr, error) { return addr("192.168.1.5"), nil }}
	if res := post(t, plain, "http://hook.test/", loopback); res.Err == nil || !strings.Contains(res.Err.Error(), "asked for without TLS") {
		t.Errorf("another target without TLS: %v", res.Err)
	}
	if res := post(t, &Sender{Lookup: func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "hook.test", Server: "192.0.2.53:53"}
	}}, "https://hook.test/", nil); res.Err == nil || res.Err.Error() != "look up hook.test: no such host" {
		t.Errorf("%v", res.Err)
	}
}

// TestNoProxy: a proxy of the environment would dial what was not checked.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	var dialled string
	s := &Sender{
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("203.0.113.7")}, nil
		},
		Dial: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
			dialled = to.String()
			return nil, errors.New("refused by the test")
		},
	}
	if post(t, s, "https://hook.test/", nil); dialled != "203.0.113.7:443" {
		t.Errorf("dialled %q", dialled)
	}
}
