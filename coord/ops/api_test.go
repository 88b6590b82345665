package ops

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Who may call what. A route that is not in the table fails the
// test.
func TestRoutes(t *testing.T) {
	type who string
	const (
		nobody  who = "nobody"             // no certificate
		foreign who = "foreign key"        // self-signed, of nobody
		other   who = "other network"      // a node of another network
		forged  who = "forged certificate" // a node's names under another CA, the attacker's key
		self    who = "self-signed node"   // a node's key, but not its certificate
		deleted who = "deleted node"
		expired who = "expired node"
		node    who = "node"
	)
	all := []who{nobody, foreign, other, forged, self, deleted, expired, node}
	// What each route answers; whoever is not listed gets 401.
	table := map[string]map[who]int{
		"POST /v1/join": {foreign: 401, other: 401, node: 409, self: 409, expired: 409}, // the token below is unknown or of another device
		// Who has joined is told so again; all others may ask.
		"POST /v1/ask":      {foreign: 200, other: 200, forged: 200, self: 200, deleted: 200, expired: 200, node: 200},
		"POST /v1/ask/poll": {foreign: 200, other: 200, forged: 200, self: 200, deleted: 200, expired: 200, node: 200},
		"POST /v1/ask/end":  {foreign: 204, other: 204, forged: 204, self: 204, deleted: 204, expired: 204, node: 204},
		"POST /v1/renew":    {node: 200, expired: 200},
		"GET /v1/config":    {node: 200, expired: 200},
		"GET /v1/directory": {node: 200, expired: 200},
		"GET /v1/lookup":    {node: 200, expired: 200},
		"POST /v1/presence": {node: 200, expired: 200},
		"GET /v1/crl":       {node: 200, expired: 200},
		"POST /v1/crl":      {node: 204, expired: 204, deleted: 204}, // below: the list that the server has
		"POST /v1/logout":   {node: 204, expired: 204},
		// Of a relay that runs alone: nobody here is one, and the token is a device's.
		"POST /v1/relay/join":   {foreign: 400, other: 400, forged: 400, self: 400, deleted: 400, expired: 400, node: 400},
		"POST /v1/relay/renew":  {},
		"POST /v1/relay/sync":   {},
		"POST /v1/relay/report": {},
		"POST /v1/relay/crl":    {node: 204, expired: 204, deleted: 204},
	}
	if len(table) != len(routes) {
		t.Errorf("%d routes, %d in the table", len(routes), len(table))
	}
	for _, rt := range routes {
		name := rt.method + " " + rt.path
		want, ok := table[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			continue
		}
		for _, w := range all {
			t.Run(name+" by "+string(w), func(t *testing.T) {
				s := openSite(t)
				victim := s.laptop("victim")
				var d *device
				switch w {
				case nobody:
					d = newDevice(t, s.Service)
					d.shown = nil
				case foreign:
					d = newDevice(t, s.Service)
				case other:
					d = openSite(t).laptop("victim")
				case forged:
					d = newDevice(t, s.Service)
					evil, err := cert.NewCA("weft network CA", s.clock.Now())
					if err != nil {
						t.Fatal(err)
					}
					n, err := cert.ParseNode(s.network, victim.res.Certificate)
					if err != nil {
						t.Fatal(err)
					}
					der, err := evil.SignNode(&d.key.PublicKey, n.Attributes, n.Serial, n.NotBefore, n.NotAfter)
					if err != nil {
						t.Fatal(err)
					}
					d.show(t, der)
				case self:
					d = victim
					c, err := cert.SelfSigned(d.key)
					if err != nil {
						t.Fatal(err)
					}
					d.show(t, c.Certificate[0])
				case deleted:
					d = s.laptop("gone")
					if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
						t.Fatal(err)
					}
				case expired:
					d = victim
					s.clock.Add(400 * 24 * time.Hour)
				case node:
					d = victim
				}
				var body io.Reader
				path := rt.path
				csr, err := cert.NewCSR(d.key)
				if err != nil {
					t.Fatal(err)
				}
				switch rt.path {
				case "/v1/join":
					tok := cert.Token{Secret: cert.NewSecret()}
					if w == node || w == self || w == expired {
						tok = s.token(CreateKey{})
					}
					b, _ := json.Marshal(d.request(t, tok, "x"))
					body = bytes.NewReader(b)
				case "/v1/relay/join":
					b, _ := json.Marshal(api.RelayJoinRequest{Protocol: api.Protocol, Secret: s.token(CreateKey{}).Secret, CSR: csr, URLs: []string{"https://relay:8443"}})
					body = bytes.NewReader(b)
				case "/v1/relay/sync":
					b, _ := json.Marshal(api.RelaySync{Protocol: api.Protocol, URLs: []string{"https://relay:8443"}})
					body = bytes.NewReader(b)
				case "/v1/renew":
					b, _ := json.Marshal(api.RenewRequest{Protocol: api.Protocol, CSR: csr})
					body = bytes.NewReader(b)
				case "/v1/crl", "/v1/relay/crl":
					if rt.method == "POST" {
						body = bytes.NewReader(s.CRL())
					}
				case "/v1/lookup":
					path += "?name=victim"
				case "/v1/presence":
					body = strings.NewReader(`{"ids":["` + victim.id.String() + `"]}`)
				case "/v1/ask":
					b, _ := json.Marshal(d.ask(t, "x"))
					body = bytes.NewReader(b)
				case "/v1/logout", "/v1/ask/poll", "/v1/ask/end":
					body = strings.NewReader("{}")
				}
				status, e := d.rawBy(t, s.Service, w == nobody, rt.method, path, body)
				expect, listed := want[w]
				if !listed {
					expect = 401
				}
				if status != expect {
					t.Errorf("%d %+v, want %d", status, e, expect)
				}
				if status >= 400 && (e.Code == "" || e.Message == "") {
					t.Errorf("a refusal without words: %+v", e)
				}
				if w == deleted && status == 401 && rt.access == anyTimeNode && e.Code != api.CodeRevoked {
					t.Errorf("a deleted node should hear so: %+v", e)
				}
			})
		}
		t.Run(name+" by another method", func(t *testing.T) {
			s := openSite(t)
			d := s.laptop("x")
			if status, _ := d.raw(t, s.Service, "DELETE", rt.path, nil); status != 404 && status != 405 {
				t.Errorf("DELETE: %d", status)
			}
		})
	}
	s := openSite(t)
	d := s.laptop("x")
	for _, path := range []string{"/", "/metrics", "/debug/pprof/", "/v1", "/v1/join/x", "/healthz"} { // A24
		if status, e := d.raw(t, s.Service, "GET", path, nil); status != 404 || e.Code != api.CodeNotFound {
			t.Errorf("%s: %d %+v", path, status, e)
		}
	}
}

func (d *device) rawBy(t testing.TB, s *Service, nobody bool, method, path string, body io.Reader) (int, *api.Error) {
	if nobody {
		d.shown = nil
	}
	return d.raw(t, s, method, path, body)
}

// A body that never ends costs a stranger's connection, not our memory.
func TestHugeBody(t *testing.T) {
	s := openSite(t)
	d := newDevice(t, s.Service)
	read := &countingReader{}
	status, e := d.raw(t, s.Service, "POST", "/v1/join", read)
	if status != http.StatusRequestEntityTooLarge || e.Code != api.CodeTooLarge {
		t.Errorf("%d %+v", status, e)
	}
	if read.n > 1<<20 {
		t.Errorf("read %d bytes", read.n)
	}
}

// countingReader is endless JSON.
type countingReader struct{ n int }

func (r *countingReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	r.n += len(p)
	return len(p), nil
}

// Whatever two parsers may read differently is refused.
func TestDecode(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000)
	var many strings.Builder
	many.WriteString(`{"protocol":1`)
	for i := range 5000 {
		fmt.Fprintf(&many, `,"k%d":1`, i)
	}
	many.WriteString("}")
	for name, c := range map[string]struct {
		body string
		ok   bool
	}{
		"ordinary":             {`{"protocol":1,"hostname":"pi"}`, true},
		"unknown fields":       {`{"protocol":1,"later":{"a":[1,2]}}`, true},
		"many keys":            {many.String(), true},
		"empty":                {``, false},
		"not JSON":             {`protocol`, false},
		"two values":           {`{} {}`, false},
		"trailing":             {`{}x`, false},
		"duplicate key":        {`{"hostname":"a","hostname":"b"}`, false},
		"duplicate by case":    {`{"hostname":"a","HostName":"b"}`, false},
		"duplicate, nested":    {`{"later":{"x":1,"x":2}}`, false},
		"deep":                 {deep, false},
		"deep lists":           {strings.Repeat("[", 10_000), false},
		"lone surrogate":       {`{"hostname":"\ud83c"}`, false},
		"lone surrogate key":   {`{"\udc00":1}`, false},
		"pair of surrogates":   {`{"hostname":"\ud83c\udf53"}`, true},
		"NUL":                  {`{"hostname":"a\u0000"}`, false},
		"not UTF-8":            {"{\"hostname\":\"\xff\"}", false},
		"huge number":          {`{"protocol":1e400}`, false},
		"huge unknown number":  {`{"later":1e400}`, false},
		"wrong type":           {`{"protocol":"1"}`, false},
		"fraction":             {`{"protocol":1.5}`, false},
		"secret of wrong type": {`{"secret":"weft-canary!"}`, false},
		"null":                 {`null`, true},
		"list":                 {`[]`, false},
	} {
		var req api.JoinRequest
		err := Decode([]byte(c.body), &req)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error repeats a value: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"protocol":1,"secret":"AAAA","csr":"AAAA","hostname":"pi","os":"linux","software":"1"}`))
	f.Add([]byte(`{"a":[{},[],"\ud800",1e9,null,true]}`))
	f.Add([]byte(`{"A":1,"a":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var join api.JoinRequest
		var renew api.RenewRequest
		if Decode(b, &join) != nil {
			return
		}
		Decode(b, &renew)
		again, err := json.Marshal(join)
		if err != nil {
			t.Fatal(err)
		}
		var second api.JoinRequest
		if err := Decode(again, &second); err != nil {
			t.Fatalf("%q decodes, %q does not: %v", b, again, err)
		}
	})
}

// Every request to be let in ends in an answer, whatever is in it, and what people and
// records get to see of it is text on one line, of bounded length.
func FuzzAskRoute(f *testing.F) {
	s := openSite(f)
	d := newDevice(f, s.Service)
	b, _ := json.Marshal(d.ask(f, "pi\x1b[2J\u202e<script>"))
	f.Add(b)
	f.Add([]byte(`{"protocol":1,"csr":"MA==","hostname":{}}`))
	f.Add([]byte(`{"protocol":1,"csr":null,"hostname":"\ud800","os":"\u0000"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s.clock.Add(time.Minute) // it is not too often
		status, e := d.raw(t, s.Service, "POST", "/v1/ask", bytes.NewReader(b))
		if status == 500 || status >= 400 && e.Code == "" {
			t.Fatalf("%q: %d %+v", b, status, e)
		}
		list, err := s.Requests(t.Context(), Root())
		if err != nil || len(list) > 1 {
			t.Fatalf("%d requests, %v", len(list), err)
		}
		for _, r := range list {
			for _, text := range []string{r.Hostname, r.OS, r.Version} {
				if len(text) > 255 || text != printable(text, 255) {
					t.Errorf("%q", text)
				}
			}
			if r.Name == "" || r.Name != CleanName(r.Name) {
				t.Errorf("it would be called %q", r.Name)
			}
		}
	})
}

// Every request of a stranger ends in an answer, whatever is in it.
func FuzzJoinRoute(f *testing.F) {
	s := openSite(f)
	d := newDevice(f, s.Service)
	b, _ := json.Marshal(d.request(f, s.token(CreateKey{Reusable: true}), "pi"))
	f.Add(b)
	f.Add([]byte(`{"protocol":1,"secret":"AAAAAAAAAAAAAAAAAAAAAA==","csr":"MA=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		status, e := d.raw(t, s.Service, "POST", "/v1/join", bytes.NewReader(b))
		if status == 500 || status >= 400 && e.Code == "" {
			t.Fatalf("%q: %d %+v", b, status, e)
		}
	})
}

func FuzzQueries(f *testing.F) {
	s := openSite(f)
	d := s.laptop("laptop")
	f.Add("since=1.2&name=a&ip=::1")
	f.Add("name=laptop.weft.internal.")
	f.Add("ip=::ffff:100.64.0.1")
	f.Add("id=00000000000000000000000000000000")
	f.Fuzz(func(t *testing.T, q string) {
		for _, path := range []string{"/v1/lookup", "/v1/directory", "/v1/config"} {
			r, err := http.NewRequest("GET", "https://x"+path, nil)
			if err != nil {
				return
			}
			r.URL.RawQuery = q
			res, err := (&direct{api: s.API(), leaf: func() *x509.Certificate { return d.shown }}).RoundTrip(r)
			if err != nil || res.StatusCode >= 500 {
				t.Fatalf("%s?%s: %v %v", path, q, res, err)
			}
		}
	})
}

// Nothing secret reaches the log, at debug, whatever goes wrong.
func TestLogHoldsNoSecrets(t *testing.T) {
	s := openSite(t)
	tok := s.token(CreateKey{Reusable: true})
	d := newDevice(t, s.Service)
	if err := d.join(t, tok, "pi"); err != nil {
		t.Fatal(err)
	}
	link, err := s.LoginLink(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, s.owner(), ChangePassword{Checked: "argon2-canary", Password: "argon2-canary"}); err == nil {
		t.Error("a password whose old one was not known")
	}
	d.raw(t, s.Service, "POST", "/v1/join", strings.NewReader(`{"secret":"`+tok.String()+`"`))
	bad := d.request(t, tok, "pi")
	bad.CSR = []byte("nonsense")
	newDevice(t, s.Service).Client.Join(t.Context(), bad)
	s.store.Close() // every write fails from here on, and is logged
	newDevice(t, s.Service).join(t, tok, "pi")
	for name, secret := range map[string]string{
		"token": tok.String(), "secret, base64": b64(tok.Secret), "secret, hex": fmt.Sprintf("%x", tok.Secret), "secret": string(tok.Secret),
		"link": strings.TrimPrefix(link, "/welcome?link="), "password": "argon2-canary",
	} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds the %s", name)
		}
	}
	if !strings.Contains(s.log.String(), "device.join") {
		t.Error("the log is not at debug, or empty")
	}
}

func TestClientErrors(t *testing.T) {
	s := openSite(t)
	d := s.laptop("laptop")
	_, err := d.Lookup(t.Context(), "name", "nobody")
	wantCode(t, err, 404, api.CodeNotFound)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Lookup(ctx, "name", "laptop"); err == nil {
		t.Error("a cancelled lookup")
	}
	if err := d.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Logout(t.Context()); err != nil {
		t.Errorf("logging out twice: %v", err)
	}
	_, err = d.Config(t.Context(), api.Version{})
	wantCode(t, err, 401, api.CodeRevoked)
}

// A disk without room is said to each caller as it can use it: 503 and when to
// try again for a device, what to do for the owner.
func TestDiskFullIsSaid(t *testing.T) {
	full := false
	s := openSite(t, func(o *Options) {
		o.BeforeCommit = func() error {
			if full {
				return store.ErrDiskFull
			}
			return nil
		}
	})
	laptop := s.laptop("laptop")
	tok := s.token(CreateKey{})
	full = true
	late := newDevice(t, s.Service)
	err := late.join(t, tok, "late")
	wantCode(t, err, 503, api.CodeUnavailable)
	if !strings.Contains(err.Error(), "disk is full") {
		t.Error(err)
	}
	body, _ := json.Marshal(late.request(t, tok, "late"))
	r := httptest.NewRequest("POST", "/v1/join", bytes.NewReader(body))
	res, err := (&direct{api: s.API(), leaf: func() *x509.Certificate { return late.shown }}).RoundTrip(r)
	if err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("%+v, %v", res, err)
	}
	// What only reads goes on.
	if c, err := laptop.Config(t.Context(), api.Version{}); err != nil || c == nil {
		t.Errorf("config: %v", err)
	}
	if _, err := laptop.Directory(t.Context(), api.Version{}); err != nil {
		t.Errorf("directory: %v", err)
	}
	if _, err := laptop.Lookup(t.Context(), "name", "nobody"); err == nil {
		t.Error("lookup found nobody")
	} else {
		wantCode(t, err, 404, api.CodeNotFound)
	}
	_, err = s.RenameDevice(t.Context(), laptop.id, "x")
	if !errors.Is(err, store.ErrDiskFull) {
		t.Errorf("the console is told %v", err)
	}
	full = false
	if err := late.join(t, tok, "late"); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
