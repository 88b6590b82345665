package ops

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

func TestJoin(t *testing.T) {
	s := openSite(t)
	d := s.camera("kitchen-pi")
	c := d.res.Config
	roots, err := cert.NewNetworkRoots(s.network, c.NetworkCAs)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := roots.VerifyCRL(s.CRL())
	if err != nil {
		t.Fatal(err)
	}
	n, err := roots.VerifyNode(d.res.Certificate, s.clock.Now(), crl)
	if err != nil {
		t.Fatal(err)
	}
	if n.ID != d.id || n.Name != "kitchen-pi" || n.FQDN != "kitchen-pi.weft.internal" || n.User != "admin" || len(n.Tags) != 1 || n.Tags[0] != "device" {
		t.Errorf("certificate says %+v", n.Attributes)
	}
	if c.Self.IPv4 != n.IPv4.String() || c.Self.IPv6 != n.IPv6.String() || c.Self.IPv4 != "100.64.0.1" {
		t.Errorf("config %+v, certificate %v %v", c.Self, n.IPv4, n.IPv6)
	}
	if got := n.NotAfter.Sub(s.clock.Now()); got != 90*24*time.Hour {
		t.Errorf("certificate lives %s", got)
	}
	if c.Directory || len(c.Rules) != 1 || c.Rules[0].From[0] != "user:admin" {
		t.Errorf("a tagged device: directory %v, rules %+v", c.Directory, c.Rules)
	}
	if len(c.Relays) != 1 || c.Relays[0].URLs[0] != "https://127.0.0.1:8443" || c.Relays[0].STUN[0] != "127.0.0.1:3478" || len(c.ServerURLs) != 1 {
		t.Errorf("relays %+v", c.Relays)
	}
	if len(d.times) == 0 || !d.times[0].Equal(s.clock.Now()) {
		t.Errorf("server time heard: %v", d.times)
	}
	if laptop := s.laptop("laptop"); !laptop.res.Config.Directory {
		t.Error("a laptop should hold the directory")
	}
}

// The answer to a join has what the device would ask for next, unless that is long.
func TestJoinBringsAll(t *testing.T) {
	s := openSite(t)
	first := s.camera("cam")
	if first.res.Directory != nil || !bytes.Equal(first.res.CRL, s.CRL()) {
		t.Errorf("a device that reaches nobody: directory %+v, a list of %d bytes", first.res.Directory, len(first.res.CRL))
	}
	tok := s.token(CreateKey{Reusable: true, Tags: []string{"device"}})
	for n := 1; n < joinPeers; n++ {
		if err := newDevice(t, s.Service).join(t, tok, "cam"); err != nil {
			t.Fatal(err)
		}
	}
	laptop := s.laptop("laptop")
	got := laptop.res.Directory
	if got == nil || !got.Full || len(got.Peers) != joinPeers || got.Version != laptop.res.Config.Versions.Directory {
		t.Fatalf("directory %+v", got)
	}
	fetched, err := laptop.Directory(t.Context(), api.Version{})
	if err != nil || !reflect.DeepEqual(fetched, got) {
		t.Errorf("fetched %d peers at %v, brought %d at %v, %v", len(fetched.Peers), fetched.Version, len(got.Peers), got.Version, err)
	}
	// One more, which the others see: now it is long.
	if res := s.laptop("second").res; res.Directory != nil || !res.Config.Directory || len(res.CRL) == 0 {
		t.Errorf("a long directory was brought: %+v", res.Directory)
	}
}

// A one-time key joins one device, however many ask at once.
func TestOneTimeKeyInParallel(t *testing.T) {
	s := openSite(t)
	const n, rounds = 200, 3
	for round := range rounds {
		k, tok, err := s.CreateKey(t.Context(), CreateKey{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		errs := make([]error, n)
		devices := make([]*device, n)
		for i := range n {
			devices[i] = newDevice(t, s.Service)
		}
		for i := range n {
			wg.Go(func() { errs[i] = devices[i].join(t, tok, "cam") })
		}
		wg.Wait()
		ok := 0
		for _, err := range errs {
			if err == nil {
				ok++
				continue
			}
			wantCode(t, err, 401, api.CodeTokenUsed)
		}
		if k, err = s.Key(t.Context(), Root(), k.ID); err != nil {
			t.Fatal(err)
		}
		if _, all := s.index.counts(""); ok != 1 || all != round+1 || k.Uses != 1 {
			t.Fatalf("round %d: %d succeeded, %d nodes, %d uses", round, ok, all, k.Uses)
		}
	}
}

// One identity that asks many times at once is one node.
func TestSameKeyInParallel(t *testing.T) {
	for _, reusable := range []bool{false, true} {
		s := openSite(t)
		tok := s.token(CreateKey{Reusable: reusable})
		d := newDevice(t, s.Service)
		req := d.request(t, tok, "cam")
		var wg sync.WaitGroup
		answers := make([]*api.JoinResponse, 100)
		for i := range answers {
			wg.Go(func() {
				res, err := d.Client.Join(t.Context(), req)
				if err != nil {
					t.Error(err)
				}
				answers[i] = res
			})
		}
		wg.Wait()
		for _, a := range answers {
			if string(a.Certificate) != string(answers[0].Certificate) {
				t.Fatal("two certificates for one join")
			}
		}
		list, err := s.Devices(t.Context(), Root(), DeviceQuery{})
		if err != nil || len(list.Devices) != 1 {
			t.Fatalf("%d devices, %v", len(list.Devices), err)
		}
		keys, _ := s.Keys(t.Context(), Root(), 1)
		if keys[0].Uses != 1 {
			t.Errorf("%d uses", keys[0].Uses)
		}
	}
}

// A6, and every other way in which a token may be no good.
func TestTokens(t *testing.T) {
	s := openSite(t)
	t.Run("unknown", func(t *testing.T) {
		tok := s.token(CreateKey{})
		tok.Secret = cert.NewSecret()
		wantCode(t, newDevice(t, s.Service).join(t, tok, "x"), 401, api.CodeTokenUnknown)
		tok.Secret = []byte("short")
		wantCode(t, newDevice(t, s.Service).join(t, tok, "x"), 401, api.CodeTokenUnknown)
	})
	t.Run("expired", func(t *testing.T) {
		tok := s.token(CreateKey{Life: time.Hour, Reusable: true})
		d := newDevice(t, s.Service)
		if err := d.join(t, tok, "early"); err != nil {
			t.Fatal(err)
		}
		s.clock.Add(time.Hour)
		wantCode(t, newDevice(t, s.Service).join(t, tok, "late"), 401, api.CodeTokenExpired)
		if err := d.join(t, tok, "early"); err != nil {
			t.Errorf("a device repeats its join with a token that expired since: %v", err)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		k, tok, err := s.CreateKey(t.Context(), CreateKey{Reusable: true})
		if err != nil {
			t.Fatal(err)
		}
		d := newDevice(t, s.Service)
		if err := d.join(t, tok, "before"); err != nil {
			t.Fatal(err)
		}
		for range 2 { // twice is no error
			if err := s.RevokeKey(t.Context(), k.ID); err != nil {
				t.Fatal(err)
			}
		}
		wantCode(t, newDevice(t, s.Service).join(t, tok, "after"), 401, api.CodeTokenRevoked)
		if _, err := d.Config(t.Context(), api.Version{}); err != nil {
			t.Errorf("a device whose key was revoked since: %v", err)
		}
	})
	t.Run("used", func(t *testing.T) {
		tok := s.token(CreateKey{})
		d := newDevice(t, s.Service)
		if err := d.join(t, tok, "first"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, newDevice(t, s.Service).join(t, tok, "second"), 401, api.CodeTokenUsed)
		first := d.res.Config.Self
		if err := d.join(t, tok, "first"); err != nil || d.res.Config.Self.ID != first.ID || d.res.Config.Self.IPv4 != first.IPv4 {
			t.Errorf("restart with the spent token: %v, %+v", err, d.res.Config.Self)
		}
		// Deleted, its spent token brings nobody back.
		if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
			t.Fatal(err)
		}
		wantCode(t, d.join(t, tok, "first"), 401, api.CodeTokenUsed)
	})
	t.Run("another token of a joined device", func(t *testing.T) {
		d := s.laptop("twice")
		wantCode(t, d.join(t, s.token(CreateKey{}), "twice"), 409, api.CodeConflict)
	})
	t.Run("reusable", func(t *testing.T) {
		tok := s.token(CreateKey{Reusable: true, Tags: []string{"tag:sensor", "camera", "sensor"}})
		for i := range 3 {
			d := newDevice(t, s.Service)
			if err := d.join(t, tok, "s"); err != nil {
				t.Fatal(i, err)
			}
			if got := strings.Join(d.res.Config.Self.Tags, " "); got != "camera sensor" {
				t.Errorf("tags %q", got)
			}
		}
	})
}

// Nobody becomes somebody else. The caller is the key of the connection;
// a request for another key is refused and changes nothing.
func TestJoinWithAnothersKey(t *testing.T) {
	s := openSite(t)
	victim := s.laptop("victim")
	attacker := newDevice(t, s.Service)
	k, tok, err := s.CreateKey(t.Context(), CreateKey{})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := cert.NewCSR(victim.key) // as if captured
	if err != nil {
		t.Fatal(err)
	}
	req := attacker.request(t, tok, "victim")
	req.CSR = csr
	_, err = attacker.Client.Join(t.Context(), req)
	wantCode(t, err, 401, api.CodeUnauthorized)
	if k, _ := s.Key(t.Context(), Root(), k.ID); k.Uses != 0 {
		t.Error("the token was consumed")
	}
	req.CSR[len(req.CSR)-1] ^= 1
	_, err = attacker.Client.Join(t.Context(), req)
	wantCode(t, err, 400, api.CodeBadRequest)
	// The same bytes again from the same machine are the same node.
	req = attacker.request(t, tok, "victim")
	a, err := attacker.Client.Join(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := attacker.Client.Join(t.Context(), req)
	if err != nil || a.Config.Self.ID != b.Config.Self.ID {
		t.Fatalf("repeated join: %v", err)
	}
	if a.Config.Self.Name != "victim-1" {
		t.Errorf("name %q", a.Config.Self.Name)
	}
	if _, err := victim.Config(t.Context(), api.Version{}); err != nil {
		t.Errorf("the victim: %v", err)
	}
}

func TestProtocol(t *testing.T) {
	s := openSite(t)
	for _, p := range []int{0, -1, api.Newest + 1} {
		d := newDevice(t, s.Service)
		req := d.request(t, s.token(CreateKey{}), "x")
		req.Protocol = p
		_, err := d.Client.Join(t.Context(), req)
		wantCode(t, err, 400, api.CodeProtocol)
		if hint := err.(*api.Error).Hint; strings.Contains(hint, "weft-server") != (p > 0) {
			t.Errorf("protocol %d: %s", p, hint)
		}
	}
	for p := api.Oldest; p <= api.Newest; p++ {
		d := newDevice(t, s.Service)
		req := d.request(t, s.token(CreateKey{}), "x")
		req.Protocol = p
		if _, err := d.Client.Join(t.Context(), req); err != nil {
			t.Errorf("protocol %d: %v", p, err)
		}
	}
}

// A device that was joined and is too old, or a server that is, learns it
// at every request, and the revocation list all the same.
func TestProtocolHeader(t *testing.T) {
	s := openSite(t)
	d := s.laptop("laptop")
	ask := func(path, protocol string) (int, *api.Error) {
		r := httptest.NewRequest("GET", path, nil)
		if protocol != "" {
			r.Header.Set(api.ProtocolHeader, protocol)
		}
		res, err := (&direct{api: s.API(), leaf: func() *x509.Certificate { return d.shown }}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		var e api.Error
		json.NewDecoder(res.Body).Decode(&e)
		return res.StatusCode, &e
	}
	for _, c := range []struct {
		path, protocol string
		status         int
		hint           string
	}{
		{"/v1/config", "", 200, ""}, {"/v1/config", strconv.Itoa(api.Oldest), 200, ""}, {"/v1/config", strconv.Itoa(api.Newest), 200, ""},
		{"/v1/config", strconv.Itoa(api.Oldest - 1), 400, "update weft on the device"},
		{"/v1/directory", strconv.Itoa(api.Newest + 1), 400, "update weft-server"},
		{"/v1/lookup?name=x", "0", 400, "update weft on the device"}, {"/v1/relay/sync", "0", 405, ""},
		{"/v1/config", "new", 400, ""}, {"/v1/crl", "0", 200, ""}, {"/v1/crl", "99", 200, ""},
	} {
		status, e := ask(c.path, c.protocol)
		if status != c.status && !(c.status == 405 && status == 404) || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%s, protocol %q: %d %v", c.path, c.protocol, status, e)
		}
	}
}

// The lowest suffix that is free; a rename to a name that is taken is refused.
func TestNamesOfDevices(t *testing.T) {
	s := openSite(t)
	tok := s.token(CreateKey{Reusable: true})
	join := func(hostname string) *device {
		t.Helper()
		d := newDevice(t, s.Service)
		if err := d.join(t, tok, hostname); err != nil {
			t.Fatalf("%q: %v", hostname, err)
		}
		return d
	}
	want := func(d *device, name string) {
		t.Helper()
		if d.name() != name {
			t.Errorf("got %q, want %q", d.name(), name)
		}
	}
	want(join("kitchen-pi"), "kitchen-pi")
	one := join("kitchen-pi")
	want(one, "kitchen-pi-1")
	want(join("kitchen-pi"), "kitchen-pi-2")
	want(join("kitchen-pi-4"), "kitchen-pi-4") // somebody has it literally
	want(join("kitchen-pi"), "kitchen-pi-3")
	want(join("kitchen-pi"), "kitchen-pi-5")
	if _, err := s.DeleteDevice(t.Context(), one.id); err != nil {
		t.Fatal(err)
	}
	want(join("Kitchen Pi"), "kitchen-pi-1") // the lowest that is free
	want(join("kitchen-pi"), "kitchen-pi-6")

	// Renaming takes a name, and frees the old one after a while.
	d := join("cam")
	if _, err := s.RenameDevice(t.Context(), d.id, "hall"); err != nil {
		t.Fatal(err)
	}
	want(join("cam"), "cam-1")
	want(join("hall"), "hall-1")
	s.clock.Add(store.DefaultAliasDays*24*time.Hour + time.Second)
	if err := s.endAliases(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(s.camera("cam"), "cam")
	if _, err := s.RenameDevice(t.Context(), d.id, "kitchen-pi"); !errors.Is(err, ErrTaken) {
		t.Errorf("rename to a taken name: %v", err)
	}
	for _, bad := range []string{"", "a b", "-x", "x-", "a--b", "ä.b", "../x", "127", "localhost", strings.Repeat("a", 57), "a.b"} {
		if _, err := s.RenameDevice(t.Context(), d.id, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("rename to %q: %v", bad, err)
		}
	}
}

// No device becomes, by what it says or by what it is given, a name that programs
// look up by themselves.
func TestReservedNames(t *testing.T) {
	s := openSite(t)
	tok := s.token(CreateKey{Reusable: true})
	join := func(hostname, want string) *device {
		t.Helper()
		d := newDevice(t, s.Service)
		if err := d.join(t, tok, hostname); err != nil {
			t.Fatalf("%q: %v", hostname, err)
		}
		if d.name() != want {
			t.Errorf("%q joins as %q, want %q", hostname, d.name(), want)
		}
		return d
	}
	join("wpad", "wpad-1")
	second := join("WPAD.corp.example", "wpad-2")
	join("ip6-localhost", "ip6-localhost-1")
	join("Auto Discover", "auto-discover")
	join("autodiscover", "autodiscover-1")
	if _, err := s.DeleteDevice(t.Context(), second.id); err != nil {
		t.Fatal(err)
	}
	join("wpad", "wpad-2")
	pi := join("kitchen-pi", "kitchen-pi")
	for _, name := range []string{"wpad", "Isatap", "local", "localdomain", "broadcasthost", "autoconfig", "puppet"} {
		if _, err := s.RenameDevice(t.Context(), pi.id, name); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "programs look up this name") {
			t.Errorf("rename to %q: %v", name, err)
		}
	}

	// A network of before has such a device: nobody inherits its name.
	if err := s.store.Write(t.Context(), func(tx *store.Tx) error {
		node, err := tx.Node(s.network, pi.id)
		if err != nil {
			return err
		}
		node.Name = "wpad"
		return tx.UpdateNode(s.network, node)
	}); err != nil {
		t.Fatal(err)
	}
	other := join("hall", "hall")
	if _, err := s.ReplaceDevice(t.Context(), pi.id, other.id); !errors.Is(err, ErrInvalid) {
		t.Errorf("another takes the name over: %v", err)
	}
	if _, err := s.RenameDevice(t.Context(), pi.id, "attic"); err != nil {
		t.Fatal(err)
	}
	if list := s.aliasInfos(pi.id); len(list) != 0 {
		t.Errorf("the former name leads on: %v", list)
	}
	join("wpad", "wpad-3")
}

// What a host calls itself becomes a label.
func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"kitchen-pi":                 "kitchen-pi",
		"Kitchen Pi":                 "kitchen-pi",
		"Alice's MacBook Pro":        "alices-macbook-pro",
		"pi.fritz.box":               "pi",
		"":                           "device",
		strings.Repeat("a", 300):     strings.Repeat("a", 56),
		"🍓🍓":                         "device",
		"🍓pi🍓":                       "pi",
		"../x":                       "x",
		"a\"\nProxyCommand x":        "a-proxycommand-x",
		"<script>alert(1)</script>":  "script-alert-1-script",
		"localhost":                  "device",
		"LOCALHOST.localdomain":      "device",
		"127":                        "device-127",
		"0x7f":                       "device-0x7f",
		"0177":                       "device-0177",
		"xn--bcher-kva":              "xn-bcher-kva",
		"---":                        "device",
		"a--b":                       "a-b",
		"\x00\x1b[31m":               "31m",
		"-rf":                        "rf",
		"\u202egnp.exe":              "gnp",
		".":                          "device",
		"99999999999999999999999999": "device-99999999999999999999999999",
		strings.Repeat("a-", 40):     strings.TrimRight(strings.Repeat("a-", 28), "-"),
		"K\u212Aelvin":               "kkelvin",
		"Küche":                      "kuche",
		"Straße":                     "strasse",
		"smørrebrød":                 "smorrebrod",
		"“pi”":                       "pi",
		"kitchen-pi.local":           "kitchen-pi",
		"kitchen-pi.lan":             "kitchen-pi",
		"nas.localdomain":            "nas",
		"раураl":                     "l", // Cyrillic but for one
	} {
		got := CleanName(in)
		if got != want {
			t.Errorf("CleanName(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestPrintableIsBounded: no more bytes than the limit, and no half rune, wherever
// in a rune the limit falls.
func TestPrintableIsBounded(t *testing.T) {
	for _, r := range []string{"é", "€", "🍓"} {
		for pad := range 5 {
			s := strings.Repeat("x", pad) + strings.Repeat(r, 40)
			got := printable(s, 64)
			if len(got) > 64 || len(got) <= 64-len(r) || !strings.HasPrefix(s, got) || !utf8.ValidString(got) {
				t.Errorf("printable(%q, 64) = %q, %d bytes", s, got, len(got))
			}
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"", "kitchen-pi", "../x", "a\"\nProxyCommand x", "<script>", "🍓", "0x7f", strings.Repeat("é-", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := CleanName(s)
		if name == "" || len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || name[0] == '-' || name[len(name)-1] == '-' ||
			strings.Contains(name, "--") || name == "localhost" {
			t.Fatalf("%q -> %q", s, name)
		}
		if _, err := strconv.ParseUint(name, 0, 64); err == nil {
			t.Fatalf("%q -> the number %q", s, name)
		}
		if again := CleanName(name); again != name {
			t.Fatalf("%q -> %q -> %q", s, name, again)
		}
		if p := printable(s, 64); len(p) > 64 || strings.ContainsAny(p, "\n\r\x00\x1b\u202e") {
			t.Fatalf("printable(%q) = %q", s, p)
		}
	})
}

// A pool runs out with a clear error; a freed address rests for an hour.
func TestAddressPool(t *testing.T) {
	s := openSite(t, func(o *Options) { o.IPv4 = prefix("100.64.0.0/29") })
	tok := s.token(CreateKey{Reusable: true})
	var last *device
	seen := map[string]bool{}
	for i := range 6 {
		d := newDevice(t, s.Service)
		if err := d.join(t, tok, "d"); err != nil {
			t.Fatal(i, err)
		}
		if a := d.res.Config.Self.IPv4; seen[a] || a == "100.64.0.0" || a == "100.64.0.7" {
			t.Fatalf("address %s", a)
		}
		seen[d.res.Config.Self.IPv4] = true
		last = d
	}
	for range 4 {
		err := newDevice(t, s.Service).join(t, tok, "d")
		wantCode(t, err, 503, api.CodeFull)
		if !strings.Contains(err.Error(), "100.64.0.0/29") {
			t.Errorf("the error should name the pool: %v", err)
		}
	}
	if _, err := s.DeleteDevice(t.Context(), last.id); err != nil {
		t.Fatal(err)
	}
	s.clock.Add(59 * time.Minute)
	wantCode(t, newDevice(t, s.Service).join(t, tok, "d"), 503, api.CodeFull)
	s.clock.Add(time.Minute)
	d := newDevice(t, s.Service)
	if err := d.join(t, tok, "d"); err != nil || d.res.Config.Self.IPv4 != last.res.Config.Self.IPv4 {
		t.Errorf("after the quarantine: %v", err)
	}
}

// Many at once get addresses of their own, none of them reserved.
func TestAddressesInParallel(t *testing.T) {
	s := openSite(t, func(o *Options) { o.IPv4 = prefix("100.100.100.0/22") })
	tok := s.token(CreateKey{Reusable: true})
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 60 {
				d := newDevice(t, s.Service)
				if err := d.join(t, tok, "d"); err != nil {
					t.Error(err)
					return
				}
				a := d.res.Config.Self.IPv4
				mu.Lock()
				if seen[a] || strings.HasSuffix(a, ".0") || strings.HasSuffix(a, ".255") || a == store.ServiceIPv4.String() {
					t.Errorf("address %s", a)
				}
				seen[a] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 600 {
		t.Errorf("%d addresses", len(seen))
	}
}

// TestManyOfOneName: a hundred devices that join at once under one name get
// a hundred, the lowest that are free, and keep them over a restart.
func TestManyOfOneName(t *testing.T) {
	data := t.TempDir()
	open := func() *site { return openSite(t, func(o *Options) { o.Data = data }) }
	s := open()
	tok := s.token(CreateKey{Reusable: true, Tags: []string{"device"}})
	const devices = 100
	cams := make([]*device, devices)
	var wg sync.WaitGroup
	for i := range cams {
		cams[i] = newDevice(t, s.Service)
		wg.Go(func() {
			if err := cams[i].join(t, tok, "cam"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	names := map[string]bool{}
	for _, d := range cams {
		names[d.name()] = true
	}
	for i := range devices {
		want := "cam"
		if i > 0 {
			want = fmt.Sprintf("cam-%d", i)
		}
		if !names[want] {
			t.Errorf("nobody is %s", want)
		}
	}
	s.Close()
	s = open()
	for _, d := range cams {
		if n := mustNode(t, s, d.id); n.Name != d.name() {
			t.Errorf("%s is %s after a restart", d.name(), n.Name)
		}
	}
}
