package coord

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/coord/datadir"
	"weft/coord/ops"
	webclient "weft/coord/webapi/client"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
)

func startServer(t testing.TB, change ...func(*ServerOptions)) *Server {
	t.Helper()
	o := ServerOptions{
		Options: ops.Options{Data: t.TempDir(), Software: "test"},
		Listen:  Address{Addr: "127.0.0.1:0", Explicit: true},
		Console: Address{Addr: "127.0.0.1:0", Explicit: true},
		STUN:    Address{Addr: "127.0.0.1:0", Explicit: true},
	}
	for _, f := range change {
		f(&o)
	}
	s, err := NewServer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// dial returns a client of the API through the real listener.
func dial(t testing.TB, tok cert.Token, shown func() *tls.Certificate) *client.Client {
	t.Helper()
	roots, err := cert.NewServerRoots([]cert.Pin{tok.Server}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := client.New((&link.Dialer{
		URLs:     func() []string { return tok.URLs },
		Roots:    func() *cert.ServerRoots { return roots },
		Identity: shown,
	}).Transport(), nil)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// The whole way of a first start: token, join over TLS with pinned CA,
// config, directory, lookup, console, admin socket, stop within 5 s.
func TestServer(t *testing.T) {
	s := startServer(t)
	w, err := s.Welcome(t.Context())
	if err != nil || w == nil {
		t.Fatal(w, err)
	}
	if again, err := s.Welcome(t.Context()); again != nil || err != nil {
		t.Errorf("welcomed twice: %v, %v", again, err)
	}
	tok, err := cert.ParseToken(w.Token)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := cert.NewKey()
	shown, _ := cert.SelfSigned(key)
	c := dial(t, tok, func() *tls.Certificate { return &shown })
	csr, _ := cert.NewCSR(key)
	res, err := c.Join(t.Context(), api.JoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: "kitchen-pi"})
	if err != nil {
		t.Fatal(err)
	}
	if res.Config.Self.Tags[0] != "device" || len(res.Config.Relays[0].STUN) == 0 {
		t.Errorf("%+v", res.Config)
	}
	node := tls.Certificate{Certificate: [][]byte{res.Certificate}, PrivateKey: key}
	nc := dial(t, tok, func() *tls.Certificate { return &node })
	if c, err := nc.Config(t.Context(), api.Version{}); err != nil || c.Self.Name != "kitchen-pi" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := nc.Lookup(t.Context(), "name", "kitchen-pi"); err != nil {
		t.Error(err)
	}
	// A server whose pin differs hears nothing of the secret.
	bad := tok
	bad.Server[0] ^= 1
	if _, err := dial(t, bad, func() *tls.Certificate { return &shown }).Join(t.Context(), api.JoinRequest{}); !errors.Is(err, cert.ErrUntrusted) {
		t.Errorf("a wrong pin: %v", err)
	}

	// The site, on both listeners; no node API on it.
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, base := range []string{"http://" + s.plain.Addr().String(), "https://" + s.tcp.Addr().String()} {
		for path, want := range map[string]int{"/healthz": 200, "/v1/config": 404, "/metrics": 404, "/debug/pprof/": 404, "/weft": 426} {
			res, err := insecure.Get(base + path)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want && !(want == 404 && (res.StatusCode == 401 || res.StatusCode == 403)) {
				t.Errorf("%s%s: %d", base, path, res.StatusCode)
			}
		}
	}
	res2, err := insecure.Get(w.ConsoleURL)
	if err != nil || res2.StatusCode != 200 {
		t.Errorf("sign-in link: %v, %v", res2, err)
	}
	insecure.CloseIdleConnections()

	// The verbs, through the socket.
	a, err := webclient.Open(t.Context(), ops.Options{Data: s.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	exerciseClient(t, a)

	start := time.Now()
	if err := s.Close(); err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("stopped after %s: %v", time.Since(start), err)
	}
	// Without a server the verbs open the directory themselves.
	d, err := webclient.Open(t.Context(), ops.Options{Data: s.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if list, err := d.Devices(t.Context(), ops.DeviceQuery{}); err != nil || len(list) != 1 || list[0].Name != "hall" {
		t.Errorf("%+v, %v", list, err)
	}
	if link, err := d.LoginLink(t.Context(), ""); err != nil || !strings.HasPrefix(link, s.Network().URLs[0]+"/") {
		t.Errorf("%q, %v", link, err)
	}
}

// exerciseClient does what verbs do to one device, kitchen-pi, which it renames to
// hall.
func exerciseClient(t *testing.T, a *webclient.Client) {
	t.Helper()
	k, err := a.CreateKey(t.Context(), ops.CreateKey{Tags: []string{"tag:camera"}, Life: time.Hour})
	if err != nil || !strings.HasPrefix(k.Token, "weft1") || k.ID == "" {
		t.Fatalf("%+v, %v", k, err)
	}
	if _, err := a.RevokeKey(t.Context(), k.ID); err != nil {
		t.Error(err)
	}
	if _, err := a.RevokeKey(t.Context(), "nope"); err == nil {
		t.Error("revoked a key that is not there")
	}
	keys, err := a.Keys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Errorf("%+v, %v", keys, err)
	}
	if _, err := a.CreateKey(t.Context(), ops.CreateKey{Life: time.Second}); err == nil {
		t.Error("a key for a second")
	}
	if _, err := a.CreateKey(t.Context(), ops.CreateKey{Tags: []string{"a b"}}); err == nil {
		t.Error("a tag with a space")
	}
	if _, err := a.CreateKey(t.Context(), ops.CreateKey{User: "nobody"}); err == nil {
		t.Error("a key of nobody")
	}
	hall := "hall"
	if d, err := a.EditDevice(t.Context(), "kitchen-pi", ops.EditDevice{Name: &hall}); err != nil || d.FQDN != "hall.weft.internal" {
		t.Errorf("%+v, %v", d, err)
	}
	list, err := a.Devices(t.Context(), ops.DeviceQuery{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, word := range []string{"hall", "hall.weft.internal", list[0].IPv4.String(), list[0].IPv6.String(), list[0].ID.String(), strings.ToUpper(list[0].ID.String())} {
		if d, err := a.Device(t.Context(), word); err != nil || d.ID != list[0].ID {
			t.Errorf("show %s: %+v, %v", word, d, err)
		}
	}
	for _, word := range []string{"kitchen-pi", "", "100.64.9.9", "::1"} {
		if _, err := a.DeleteDevice(t.Context(), word); err == nil {
			t.Errorf("deleted %q", word)
		}
	}
	if link, err := a.LoginLink(t.Context(), ""); err != nil || !strings.Contains(link, "/welcome?link=") {
		t.Errorf("%q, %v", link, err)
	}
}

// Open streams of consoles and idle connections do not hold up the end.
func TestCloseWithStreams(t *testing.T) {
	s := startServer(t)
	for range 20 {
		c, err := net.Dial("tcp", s.tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	w, err := s.Welcome(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	res, err := browser.Get(w.ConsoleURL)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	slow, err := net.Dial("tcp", s.plain.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	io.WriteString(slow, "POST /signin HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nname=") // and no more
	time.Sleep(10 * time.Millisecond)
	start := time.Now()
	if err := s.Close(); err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("stopped after %s: %v", time.Since(start), err)
	}
}

// The live stream of an open page ends with the server and is not waited for: its end is
// an orderly one, and not that of a connection that is cut off. Nor does it say that the
// person was signed out, who is not.
func TestCloseEndsLivePages(t *testing.T) {
	for _, on := range []string{"plain", "tls"} {
		s := startServer(t)
		base := map[string]string{"plain": "http://" + s.plain.Addr().String(), "tls": "https://" + s.tcp.Addr().String()}[on]
		w, err := s.Welcome(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link, err := url.Parse(w.ConsoleURL)
		if err != nil {
			t.Fatal(err)
		}
		jar, _ := cookiejar.New(nil)
		browser := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
		t.Cleanup(browser.CloseIdleConnections)
		res, err := browser.PostForm(base+"/welcome", url.Values{"link": {link.Query().Get("link")}, "password": {"correct horse battery"}})
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res, err)
		}
		res.Body.Close()
		if res, err = browser.Get(base + "/events"); err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res, err)
		}
		defer res.Body.Close()
		first := make([]byte, len("event: resync"))
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "event: resync" {
			t.Fatalf("%s: %q, %v", on, first, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(res.Body); err != nil || strings.Contains(string(rest), "signed-out") {
			t.Errorf("%s: the stream ended with %v, after %q", on, err, rest)
		}
	}
}

func TestListen(t *testing.T) {
	s := startServer(t)
	options := func(change func(*ServerOptions)) ServerOptions {
		o := ServerOptions{Options: ops.Options{Data: t.TempDir()}, Listen: Address{Addr: "127.0.0.1:0", Explicit: true}}
		change(&o)
		return o
	}
	taken, udp := s.plain.Addr().String(), s.udp[0].LocalAddr().String()
	for name, c := range map[string]struct {
		o  ServerOptions
		ok bool
	}{
		"console taken, explicit": {options(func(o *ServerOptions) { o.Console = Address{Addr: taken, Explicit: true} }), false},
		"console taken, default":  {options(func(o *ServerOptions) { o.Console = Address{Addr: taken, Explicit: false} }), true},
		"stun taken, explicit":    {options(func(o *ServerOptions) { o.STUN = Address{Addr: udp, Explicit: true} }), false},
		"stun taken, default":     {options(func(o *ServerOptions) { o.STUN = Address{Addr: udp, Explicit: false} }), true},
		"listen taken":            {options(func(o *ServerOptions) { o.Listen = Address{Addr: taken, Explicit: true} }), false},
		"console on the network":  {options(func(o *ServerOptions) { o.Console = Address{Addr: "0.0.0.0:0", Explicit: true} }), false},
		"console behind a proxy": {options(func(o *ServerOptions) {
			o.Console, o.TrustedProxies = Address{Addr: "0.0.0.0:0", Explicit: true}, prefixes("10.0.0.0/8")
		}), true},
		"same data":  {options(func(o *ServerOptions) { o.Data = s.Dir() }), false}, // B18
		"bad url":    {options(func(o *ServerOptions) { o.URLs = []string{"http://x"} }), false},
		"bad suffix": {options(func(o *ServerOptions) { o.Suffix = "../etc" }), false},
		"bad range":  {options(func(o *ServerOptions) { o.IPv4 = netip.MustParsePrefix("10.0.0.1/8") }), false},
	} {
		got, err := NewServer(t.Context(), c.o)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			got.Close()
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: an error of many lines: %v", name, err)
		}
	}
	if _, err := ops.OpenService(t.Context(), ops.Options{Data: s.Dir()}); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("two on one directory: %v", err)
	}
	if _, err := ops.OpenService(t.Context(), ops.Options{Data: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, ops.ErrNoNetwork) {
		t.Errorf("nothing there: %v", err)
	}
}

// Who is in front is believed by address only.
func TestRemoteAddr(t *testing.T) {
	s := &Server{trusted: prefixes("127.0.0.1/32", "10.0.0.0/8")}
	for _, c := range []struct{ from, header, want string }{
		{"192.0.2.1:5", "203.0.113.9", ""},
		{"127.0.0.1:5", "203.0.113.9", "203.0.113.9:0"},
		{"127.0.0.1:5", "1.2.3.4, 203.0.113.9", "203.0.113.9:0"},
		{"127.0.0.1:5", "203.0.113.9, 10.1.1.1", "203.0.113.9:0"},
		{"127.0.0.1:5", "", ""},
		{"127.0.0.1:5", "junk", ""},
	} {
		r := &http.Request{RemoteAddr: c.from, Header: http.Header{"X-Forwarded-For": {c.header}}}
		got := ""
		if a := s.remoteAddr(r); a != nil {
			got = a.String()
		}
		if got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

// A directory of releases that somebody named and that holds none is said to; the one
// that is looked into by itself may be empty.
func TestMissingReleases(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for dir, want := range map[string]int{none: 1, "": 0} {
		var log strings.Builder
		startServer(t, func(o *ServerOptions) {
			o.Releases, o.Log = dir, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		}).Close()
		if got := strings.Count(log.String(), "no release in "+none); got != want || strings.Contains(log.String(), "no release") && want == 0 {
			t.Errorf("--releases %q: %s", dir, log.String())
		}
	}
}
