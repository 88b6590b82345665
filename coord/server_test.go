package coord

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/coord/datadir"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
)

func startServer(t testing.TB, change ...func(*ServerOptions)) *Server {
	t.Helper()
	o := ServerOptions{
		Options: Options{Data: t.TempDir(), Software: "test"},
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
	a, err := OpenAdmin(t.Context(), Options{Data: s.data})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, ok := a.(*adminClient); !ok {
		t.Errorf("%T beside a running server", a)
	}
	exerciseAdmin(t, a)

	start := time.Now()
	if err := s.Close(); err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("stopped after %s: %v", time.Since(start), err)
	}
	// Without a server the verbs open the directory themselves.
	d, err := OpenAdmin(t.Context(), Options{Data: s.data})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if list, err := d.ListDevices(t.Context()); err != nil || len(list) != 1 || list[0].Name != "hall" {
		t.Errorf("%+v, %v", list, err)
	}
	if link, err := d.LoginLink(t.Context(), ""); err != nil || !strings.HasPrefix(link, s.Network().URLs[0]+"/") {
		t.Errorf("%q, %v", link, err)
	}
}

// keys list shows all keys, however many; the console's page those that can be
// used, however old.
func TestManyKeys(t *testing.T) {
	s := startServer(t)
	old, _, err := s.CreateKey(t.Context(), NewKey{Note: "old", Reusable: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	const more = 10_500
	err = s.store.Write(t.Context(), func(tx *store.Tx) error {
		for i := range more {
			k := old
			k.ID, k.SecretHash = fmt.Sprintf("k%08d", i), sha256.Sum256([]byte{byte(i), byte(i >> 8)})
			k.Reusable, k.Created = false, old.Created.Add(time.Second)
			if err := tx.CreateKey(s.network, k); err != nil {
				return err
			}
			if err := tx.RevokeKey(s.network, k.ID, k.Created); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAdmin(t.Context(), Options{Data: s.data})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if keys, err := a.ListKeys(t.Context()); err != nil || len(keys) != more+1 || keys[more].ID != old.ID {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	b := &backend{s.Service}
	if keys, err := b.Keys(t.Context(), old.UserID, 200); err != nil || len(keys) != 200 || keys[0].ID != old.ID {
		t.Errorf("the page has %d keys, %v", len(keys), err)
	}
}

// exerciseAdmin is the same for both ways of administering: one device,
// kitchen-pi, which it renames to hall.
func exerciseAdmin(t *testing.T, a Admin) {
	t.Helper()
	k, err := a.CreateKey(t.Context(), NewKey{Tags: []string{"tag:camera"}, Life: time.Hour})
	if err != nil || !strings.HasPrefix(k.Token, "weft1") || k.ID == "" {
		t.Fatalf("%+v, %v", k, err)
	}
	if err := a.RevokeKey(t.Context(), k.ID); err != nil {
		t.Error(err)
	}
	if err := a.RevokeKey(t.Context(), "nope"); err == nil {
		t.Error("revoked a key that is not there")
	}
	keys, err := a.ListKeys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Errorf("%+v, %v", keys, err)
	}
	if _, err := a.CreateKey(t.Context(), NewKey{Life: time.Second}); err == nil {
		t.Error("a key for a second")
	}
	if _, err := a.CreateKey(t.Context(), NewKey{Tags: []string{"a b"}}); err == nil {
		t.Error("a tag with a space")
	}
	if _, err := a.CreateKey(t.Context(), NewKey{User: "nobody"}); err == nil {
		t.Error("a key of nobody")
	}
	if d, err := a.RenameDevice(t.Context(), "kitchen-pi", "hall"); err != nil || d.FQDN != "hall.weft.internal" {
		t.Errorf("%+v, %v", d, err)
	}
	list, err := a.ListDevices(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, word := range []string{"hall", "hall.weft.internal", list[0].IPv4, list[0].IPv6, list[0].ID, strings.ToUpper(list[0].ID)} {
		if d, err := a.ShowDevice(t.Context(), word); err != nil || d.ID != list[0].ID {
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

func TestListen(t *testing.T) {
	s := startServer(t)
	options := func(change func(*ServerOptions)) ServerOptions {
		o := ServerOptions{Options: Options{Data: t.TempDir()}, Listen: Address{Addr: "127.0.0.1:0", Explicit: true}}
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
		"same data":  {options(func(o *ServerOptions) { o.Data = s.data }), false}, // B18
		"bad url":    {options(func(o *ServerOptions) { o.URLs = []string{"http://x"} }), false},
		"bad suffix": {options(func(o *ServerOptions) { o.Suffix = "../etc" }), false},
		"bad range":  {options(func(o *ServerOptions) { o.IPv4 = prefix("10.0.0.1/8") }), false},
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
	if _, err := OpenService(t.Context(), Options{Data: s.data}); !errors.Is(err, datadir.ErrLocked) {
		t.Errorf("two on one directory: %v", err)
	}
	if _, err := OpenService(t.Context(), Options{Data: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("nothing there: %v", err)
	}
}

// Two installs share nothing, and everything secret is for the owner's
// eyes only. A21: the database holds hashes.
func TestSecretsOnDisk(t *testing.T) {
	a, b := openSite(t), openSite(t)
	if a.network == b.network || cert.PinOf(a.auth.Server.Cert) == cert.PinOf(b.auth.Server.Cert) || a.ipv6 == b.ipv6 || a.Network().Epoch == b.Network().Epoch {
		t.Error("two installs share something")
	}
	tok := a.token(NewKey{})
	link, err := a.LoginLink(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	filepath.Walk(a.data, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o077 != 0 && path != a.data {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		if fi.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{string(tok.Secret), tok.String(), b64(tok.Secret), u.Query().Get("link")} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s holds a token's or a link's secret", path)
			}
		}
		if strings.HasPrefix(filepath.Base(path), "weft.db") && strings.Contains(string(text), "PRIVATE KEY") {
			t.Errorf("%s holds a key", path)
		}
		return nil
	})
}

// A restart keeps everything; new addresses reach every node's config.
func TestRestart(t *testing.T) {
	s := openSite(t)
	laptop, cam := s.laptop("laptop"), s.camera("cam")
	gone := s.camera("gone")
	if _, err := s.DeleteDevice(t.Context(), gone.id, nil); err != nil {
		t.Fatal(err)
	}
	before, network := s.Versions(laptop.id), s.Network()
	s.Close()
	reopen := func(o Options) *Service {
		t.Helper()
		o.Data, o.Now = s.data, s.clock.Now
		again, err := OpenService(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { again.Close() })
		return again
	}
	r := reopen(Options{})
	if v := r.Versions(laptop.id); v != before {
		t.Errorf("versions %+v, before %+v", v, before)
	}
	if got := r.Network(); string(got.CRL) != string(network.CRL) || got.Suffix != network.Suffix || len(got.URLs) != 1 {
		t.Errorf("%+v", got)
	}
	r.Close()
	r = reopen(Options{URLs: []string{"https://new:8443", "https://127.0.0.1:8443"}})
	if v := r.Versions(cam.id); v.Config == before.Config || v.Directory != (api.Version{}) {
		t.Errorf("versions %+v", v)
	}
	r.Close()
	if _, err := OpenService(t.Context(), Options{Data: s.data, IPv4: prefix("10.0.0.0/8")}); err == nil || !strings.Contains(err.Error(), "has devices") {
		t.Errorf("another range under devices: %v", err)
	}
	os.Rename(filepath.Join(s.data, "ca"), filepath.Join(s.data, "ca.away"))
	if _, err := OpenService(t.Context(), Options{Data: s.data}); err == nil {
		t.Error("opened without its CAs")
	}
	if _, err := os.Stat(filepath.Join(s.data, "ca", "network-ca.pem")); err == nil {
		t.Error("made new CAs over an existing network")
	}
}

// Writes that fail at the commit leave memory and database alike, and
// answer with an error; the next one works.
func TestFailedWrites(t *testing.T) {
	fail := 0
	boom := errors.New("disk full")
	on := false
	s := openSite(t, func(o *Options) {
		o.BeforeCommit = func() error {
			if fail++; on && fail%10 == 3 {
				return boom
			}
			return nil
		}
	})
	laptop := s.laptop("laptop")
	tok := s.token(NewKey{Reusable: true, Tags: []string{"device"}})
	on = true
	var live []*device
	failed := 0
	for i := range 1000 {
		var err error
		switch {
		case i%3 != 2 || len(live) == 0:
			d := newDevice(t, s.Service)
			if err = d.join(t, tok, "d"); err == nil {
				live = append(live, d)
			}
		case i%2 == 0:
			if _, err = s.DeleteDevice(t.Context(), live[0].id, nil); err == nil {
				live = live[1:]
			}
		default:
			_, err = s.RenameDevice(t.Context(), live[i%len(live)].id, "n"+strings.Repeat("x", i%40), nil)
			if errors.Is(err, ErrTaken) {
				err = nil
			}
		}
		if err != nil {
			failed++
		}
	}
	on = false
	if failed < 50 {
		t.Errorf("only %d failures", failed)
	}
	x := newIndex(store.Network{}, s.index.policy)
	err := s.store.Read(t.Context(), func(r *store.Reader) (err error) {
		if x.network, err = r.Network(); err != nil {
			return err
		}
		return x.load(r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(x.nodes) != len(s.index.nodes) || len(x.nodes) != len(live)+1 {
		t.Errorf("%d nodes in the database, %d in memory, %d alive", len(x.nodes), len(s.index.nodes), len(live)+1)
	}
	for id := range x.nodes {
		a, _ := x.versions(id)
		b, _ := s.index.versions(id)
		if a != b {
			t.Errorf("node %s: database %+v, memory %+v", id, a, b)
		}
	}
	if string(x.network.CRL) != string(s.CRL()) {
		t.Error("the revocation lists differ")
	}
	var h held
	h.fetch(t, s, laptop)
	if len(h.names) != len(live) {
		t.Errorf("the directory has %d, alive are %d", len(h.names), len(live))
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
