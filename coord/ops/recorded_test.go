package ops

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	goflag "flag" // coord has one of its own
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/api/wiretest"
	"weft/overlay/cert"
)

// testdata/protocol-N is a server's backup of protocol N, and what nodes and a
// relay said to that server afterwards, and it to them. Recorded once (with
// -update, when the directory is not there) and kept: today's server has to
// understand those nodes, and today's nodes that server.
var update = goflag.Bool("update", false, "record what is not recorded yet")

const recordedKey = "correct horse battery staple"

// exchange is one request and its answer. Bodies that are not JSON are in Raw.
type exchange struct {
	By        string            `json:"by"`
	Shown     []byte            `json:"shown"` // certificate, DER
	Method    string            `json:"method"`
	Path      string            `json:"path"`
	Header    map[string]string `json:"header"`
	Body      json.RawMessage   `json:"body,omitempty"`
	Raw       []byte            `json:"raw,omitempty"`
	Status    int               `json:"status"`
	Answer    json.RawMessage   `json:"answer,omitempty"`
	RawAnswer []byte            `json:"raw_answer,omitempty"`
}

// recorder is a transport that keeps what goes through.
type recorder struct {
	to   http.RoundTripper
	by   string
	d    *device
	list *[]exchange
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchange{By: r.by, Shown: r.d.shown.Raw, Method: req.Method, Path: req.URL.RequestURI(), Header: map[string]string{}}
	for k := range req.Header {
		x.Header[k] = req.Header.Get(k)
	}
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(b))
		if json.Valid(b) {
			x.Body = b
		} else {
			x.Raw = b
		}
	}
	res, err := r.to.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	x.Status = res.StatusCode
	if json.Valid(b) {
		x.Answer = b
	} else {
		x.RawAnswer = b
	}
	*r.list = append(*r.list, x)
	return res, nil
}

// converse lets a network live, with a backup in between, and returns what was
// said after it: every request of the protocol.
func converse(t *testing.T) (backup []byte, list []exchange) {
	s := openSite(t)
	laptop, pi, stolen := s.laptop("laptop"), s.camera("kitchen-pi"), s.laptop("stolen")
	first, second := s.token(CreateKey{Tags: []string{"device"}}), s.token(CreateKey{Relay: true})
	if _, err := s.RenameDevice(t.Context(), pi.id, "pantry-pi"); err != nil {
		t.Fatal(err)
	}
	backup = s.backedUp(recordedKey)
	if _, err := s.DeleteDevice(t.Context(), stolen.id); err != nil {
		t.Fatal(err)
	}
	listen := func(by string, d *device) *client.Client {
		return client.New(&recorder{&direct{api: s.API(), leaf: func() *x509.Certificate { return d.shown }}, by, d, &list}, nil)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(err error) {
		t.Helper()
		var e *api.Error
		if !errors.As(err, &e) {
			t.Fatalf("got %v", err)
		}
	}
	ctx := t.Context()
	late := newDevice(t, s.Service)
	c := listen("late", late)
	res, err := c.Join(ctx, late.request(t, first, "late-pi"))
	must(err)
	late.show(t, res.Certificate)
	csr, _ := cert.NewCSR(late.key)
	_, err = c.Renew(ctx, api.RenewRequest{Protocol: api.Protocol, CSR: csr, OS: "linux/arm64", Software: "1.0"})
	must(err)
	config, err := c.Config(ctx, api.Version{})
	must(err)
	_, err = c.Config(ctx, config.Version)
	must(err)
	another := newDevice(t, s.Service)
	_, err = listen("another", another).Join(ctx, another.request(t, first, "another"))
	refused(err)
	l := listen("laptop", laptop)
	_, err = l.Directory(ctx, api.Version{})
	must(err)
	for _, q := range [][2]string{{"name", "pantry-pi"}, {"name", "kitchen-pi"}, {"id", pi.id.String()}, {"ip", pi.res.Config.Self.IPv4}} {
		_, err = l.Lookup(ctx, q[0], q[1])
		must(err)
	}
	_, err = l.Lookup(ctx, "name", "nobody")
	refused(err)
	_, err = l.Presence(ctx, []string{pi.id.String()})
	must(err)
	crl, _, err := l.CRL(ctx)
	must(err)
	must(l.SendCRL(ctx, crl))
	_, err = listen("stolen", stolen).Config(ctx, api.Version{})
	refused(err)
	relay := newDevice(t, s.Service)
	r := listen("relay", relay)
	csr, _ = cert.NewCSR(relay.key)
	addrs, stun := []string{"https://relay.example:8443"}, []string{"relay.example:3478"}
	_, err = r.JoinRelay(ctx, api.RelayJoinRequest{Protocol: api.Protocol, Secret: second.Secret, CSR: csr, Name: "far", URLs: addrs, STUN: stun, Software: "1.0"})
	must(err)
	_, err = r.RenewRelay(ctx, api.RelayRenewRequest{Protocol: api.Protocol, CSR: csr})
	must(err)
	_, err = r.SyncRelay(ctx, api.RelaySync{Protocol: api.Protocol, URLs: addrs, STUN: stun, Software: "1.0"})
	must(err)
	_, err = r.ReportRelay(ctx, api.RelayReport{Run: "run", Events: []api.RelayEvent{
		{Node: pi.id.String(), Conn: 1, Online: true, At: s.clock.Now(), Addr: "192.0.2.7"}, {Node: cert.NodeID{1}.String(), Conn: 2, Online: true, At: s.clock.Now()}}})
	must(err)
	must(r.SendRelayCRL(ctx, crl))
	must(c.Logout(ctx))
	asker := newDevice(t, s.Service)
	a := listen("asker", asker)
	_, err = a.Ask(ctx, asker.ask(t, "asker"))
	must(err)
	_, err = a.PollAsk(ctx, api.Poll{})
	must(err)
	must(a.EndAsk(ctx))
	return backup, list
}

func protocolDir(n int) string { return filepath.Join("testdata", "protocol-"+strconv.Itoa(n)) }

// load reads what was recorded of a protocol version.
func load(t *testing.T, protocol int) (backup []byte, list []exchange) {
	t.Helper()
	dir := protocolDir(protocol)
	if _, err := os.Stat(dir); os.IsNotExist(err) && *update && protocol == api.Protocol {
		backup, list := converse(t)
		b, err := json.MarshalIndent(list, "", "\t")
		err = errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "backup"), backup, 0o644), os.WriteFile(filepath.Join(dir, "exchanges.json"), append(b, '\n'), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	backup, err := os.ReadFile(filepath.Join(dir, "backup"))
	if err != nil {
		t.Fatalf("%v: record it with -update", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "exchanges.json"))
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil || len(list) < 20 {
		t.Fatalf("%d exchanges: %v", len(list), err)
	}
	return backup, list
}

// A server restored from a recorded backup is asked what the recorded server
// was, byte for byte; then by a node of the next version, with fields that
// nobody knows yet. It answers with all that it answered then.
func TestRecordedRequests(t *testing.T) {
	for p := api.Oldest; p <= api.Protocol; p++ {
		backup, list := load(t, p)
		for _, v := range []struct {
			name string
			as   func(*exchange)
		}{
			{"as recorded", func(*exchange) {}},
			{"before the header", func(x *exchange) { delete(x.Header, api.ProtocolHeader) }},
			{"by a later one", func(x *exchange) {
				x.Header[api.ProtocolHeader], x.Header["Weft-Later"] = strconv.Itoa(p+1), "x"
				if x.Body != nil {
					x.Body = bytes.Replace(wiretest.Later(t, x.Body), []byte(`"protocol":`+strconv.Itoa(p)), []byte(`"protocol":`+strconv.Itoa(p+1)), 1)
				}
			}},
		} {
			t.Run(v.name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "data")
				if err := Restore(t.Context(), bytes.NewReader(backup), []byte(recordedKey), dir, newClock().Now()); err != nil {
					t.Fatal(err)
				}
				s := openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
				s.clock.Add(time.Minute)
				for _, x := range list {
					v.as(&x)
					leaf, err := x509.ParseCertificate(x.Shown)
					if err != nil {
						t.Fatal(err)
					}
					r := httptest.NewRequest(x.Method, x.Path, bytes.NewReader(append(x.Raw, x.Body...)))
					for k, h := range x.Header {
						r.Header.Set(k, h)
					}
					res, err := (&direct{api: s.API(), leaf: func() *x509.Certificate { return leaf }}).RoundTrip(r)
					if err != nil {
						t.Fatal(err)
					}
					b, _ := io.ReadAll(res.Body)
					what := x.By + " " + x.Method + " " + x.Path
					if x.Status == http.StatusNotModified { // the epoch is another since the restore
						if res.StatusCode != 200 {
							t.Errorf("%s: %d", what, res.StatusCode)
						}
						continue
					}
					if res.StatusCode != x.Status {
						t.Errorf("%s: %d, was %d: %s", what, res.StatusCode, x.Status, b)
						continue
					}
					if x.Answer != nil {
						for _, lost := range wiretest.Lost(t, x.Answer, b, false) {
							t.Errorf("%s: %s", what, lost)
						}
					}
					if x.Status >= 400 {
						var then, now api.Error
						json.Unmarshal(x.Answer, &then)
						json.Unmarshal(b, &now)
						if then.Code != now.Code {
							t.Errorf("%s: code %q, was %q", what, now.Code, then.Code)
						}
					}
				}
			})
		}
	}
}

// canned answers with what was recorded.
type canned struct{ x exchange }

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.Header().Set(api.TimeHeader, "2026-03-01T12:00:00Z")
	w.WriteHeader(c.x.Status)
	w.Write(append(c.x.RawAnswer, c.x.Answer...))
	return w.Result(), nil
}

// Today's client reads every recorded answer to the last field, and so when a
// later server adds some.
func TestRecordedAnswers(t *testing.T) {
	for p := api.Oldest; p <= api.Protocol; p++ {
		_, list := load(t, p)
		for _, x := range list {
			for _, later := range []bool{false, true} {
				x := x
				if later && x.Answer != nil {
					x.Answer = wiretest.Later(t, x.Answer)
				}
				got, err := repeat(t.Context(), client.New(canned{x}, nil), x)
				what := x.By + " " + x.Method + " " + x.Path
				if x.Status >= 400 {
					var e *api.Error
					if !errors.As(err, &e) || e.Status != x.Status || !strings.Contains(string(x.Answer), `"`+e.Code+`"`) {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				if x.Answer == nil {
					continue
				}
				b, _ := json.Marshal(got)
				for _, lost := range wiretest.Lost(t, x.Answer, b, true) {
					if !strings.Contains(lost, "from_later") {
						t.Errorf("%s: %s", what, lost)
					}
				}
			}
		}
	}
}

// repeat makes the call that a request was made by.
func repeat(ctx context.Context, c *client.Client, x exchange) (any, error) {
	path, query, _ := strings.Cut(x.Path, "?")
	switch x.Method + " " + path {
	case "POST /v1/join":
		return c.Join(ctx, api.JoinRequest{})
	case "POST /v1/ask":
		return c.Ask(ctx, api.Ask{})
	case "POST /v1/ask/poll":
		return c.PollAsk(ctx, api.Poll{})
	case "POST /v1/ask/end":
		return nil, c.EndAsk(ctx)
	case "POST /v1/renew":
		return c.Renew(ctx, api.RenewRequest{})
	case "GET /v1/config":
		return c.Config(ctx, api.Version{})
	case "GET /v1/directory":
		return c.Directory(ctx, api.Version{})
	case "GET /v1/lookup":
		kind, key, _ := strings.Cut(query, "=")
		return c.Lookup(ctx, kind, key)
	case "POST /v1/presence":
		peers, err := c.Presence(ctx, nil)
		return api.PresenceResponse{Peers: peers}, err
	case "GET /v1/crl":
		der, _, err := c.CRL(ctx)
		return der, err
	case "POST /v1/crl":
		return nil, c.SendCRL(ctx, nil)
	case "POST /v1/logout":
		return nil, c.Logout(ctx)
	case "POST /v1/relay/join":
		return c.JoinRelay(ctx, api.RelayJoinRequest{})
	case "POST /v1/relay/renew":
		return c.RenewRelay(ctx, api.RelayRenewRequest{})
	case "POST /v1/relay/sync":
		return c.SyncRelay(ctx, api.RelaySync{})
	case "POST /v1/relay/report":
		return c.ReportRelay(ctx, api.RelayReport{})
	case "POST /v1/relay/crl":
		return nil, c.SendRelayCRL(ctx, nil)
	}
	return nil, errors.New("no such call")
}

// What is said today holds every field that was said then: an older peer finds
// what it looks for. Every route is among it.
func TestSaidAsRecorded(t *testing.T) {
	_, then := load(t, api.Protocol)
	_, now := converse(t)
	if len(then) != len(now) {
		t.Fatalf("%d exchanges, recorded %d", len(now), len(then))
	}
	said := map[string]bool{}
	for i, x := range then {
		path, _, _ := strings.Cut(x.Path, "?")
		said[x.Method+" "+path] = true
		for _, pair := range [][2]json.RawMessage{{x.Body, now[i].Body}, {x.Answer, now[i].Answer}} {
			if pair[0] == nil {
				continue
			}
			for _, lost := range wiretest.Lost(t, pair[0], pair[1], false) {
				t.Errorf("%s %s: %s", x.Method, x.Path, lost)
			}
		}
		if x.Status != now[i].Status {
			t.Errorf("%s %s: %d, was %d", x.Method, x.Path, now[i].Status, x.Status)
		}
	}
	for _, rt := range routes {
		if !said[rt.method+" "+rt.path] {
			t.Errorf("%s %s was not recorded", rt.method, rt.path)
		}
	}
}
