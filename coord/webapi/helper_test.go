package webapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"weft/coord/ops"
	"weft/coord/store/storetest"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// site is a server without listeners, and its API.
type site struct {
	*ops.Service
	t    testing.TB
	api  http.Handler
	data string
}

func openSite(t testing.TB, o ops.Options) *site {
	t.Helper()
	o.Data, o.Create, o.URLs, o.Software = t.TempDir(), true, []string{"https://127.0.0.1:8443"}, "test"
	s := &site{t: t, data: o.Data}
	s.open(o)
	return s
}

func (s *site) open(o ops.Options) {
	s.t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	storetest.Schema(s.t, o.Data)
	opened, err := ops.OpenService(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { opened.Close() })
	s.Service, s.api = opened, webapi.New(opened, o.Log)
}

// reopen is a restart.
func (s *site) reopen(o ops.Options) {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Fatal(err)
	}
	o.Data = s.data
	s.open(o)
}

// as is a transport for requests of an actor.
func (s *site) as(who ops.Actor) http.RoundTripper {
	return direct(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.api.ServeHTTP(w, r.WithContext(webapi.WithActor(r.Context(), who)))
	}))
}

// direct is a transport to a handler.
func direct(h http.Handler) http.RoundTripper {
	return transport(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		if r.Body == nil {
			r.Body = http.NoBody
		}
		if r.RemoteAddr == "" {
			r.RemoteAddr = "192.0.2.1:1234"
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result(), nil
	})
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func (s *site) client() *client.Client { return client.New("http://weft-server", s.as(ops.Root())) }

// ask sends a request as an actor and returns status, header and body.
func (s *site) ask(who ops.Actor, method, path, body string, header ...string) (int, http.Header, []byte) {
	s.t.Helper()
	return s.send(s.as(who), method, path, body, header...)
}

// send sends a request through a transport.
func (s *site) send(through http.RoundTripper, method, path, body string, header ...string) (int, http.Header, []byte) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, "http://weft-server"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := through.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, res.Header, b
}

// join has a device join.
func (s *site) join(name string) {
	s.t.Helper()
	s.joinKey(ops.CreateKey{Tags: []string{"device"}}, name)
}

// joinKey has a device join with a key.
func (s *site) joinKey(c ops.CreateKey, name string) {
	s.t.Helper()
	s.joinAs(c, "/v1/join", func(secret, csr []byte) any {
		return api.JoinRequest{Protocol: api.Protocol, Secret: secret, CSR: csr, Hostname: name}
	})
}

// joinRelay has a relay join.
func (s *site) joinRelay(name string) {
	s.t.Helper()
	s.joinAs(ops.CreateKey{Relay: true}, "/v1/relay/join", func(secret, csr []byte) any {
		return api.RelayJoinRequest{Protocol: api.Protocol, Secret: secret, CSR: csr, Name: name, URLs: []string{"https://192.0.2.7:8443"}}
	})
}

func (s *site) joinAs(c ops.CreateKey, path string, request func(secret, csr []byte) any) {
	s.t.Helper()
	made, err := ops.Do(s.t.Context(), s.Service, ops.Root(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	tok, err := cert.ParseToken(made.Token)
	if err != nil {
		s.t.Fatal(err)
	}
	s.knock(path, "192.0.2.1", func(csr []byte) any { return request(tok.Secret, csr) })
}

// knock sends a request of a device that has a new key, from an address, and returns the
// answer.
func (s *site) knock(path, from string, request func(csr []byte) any) []byte {
	s.t.Helper()
	key, err := cert.NewKey()
	if err != nil {
		s.t.Fatal(err)
	}
	csr, err := cert.NewCSR(key)
	if err != nil {
		s.t.Fatal(err)
	}
	shown, err := cert.SelfSigned(key)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(shown.Certificate[0])
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := json.Marshal(request(csr))
	if err != nil {
		s.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.RemoteAddr = from + ":1234"
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	w := httptest.NewRecorder()
	if s.API().ServeHTTP(w, r); w.Code != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

// asked are the codes of all devices that asked to be let in, of every site.
var asked struct {
	sync.Mutex
	codes []string
}

// asks has a device ask to be let in, each from another address, and returns its code.
func (s *site) asks(hostname string) string {
	s.t.Helper()
	asked.Lock()
	defer asked.Unlock()
	var res api.Asked
	b := s.knock("/v1/ask", fmt.Sprintf("10.0.%d.%d", len(asked.codes)/250, len(asked.codes)%250), func(csr []byte) any {
		return api.Ask{Protocol: api.Protocol, CSR: csr, Hostname: hostname}
	})
	if err := json.Unmarshal(b, &res); err != nil || res.Code == "" {
		s.t.Fatalf("%s, %v", b, err)
	}
	asked.codes = append(asked.codes, res.Code)
	return res.Code
}

// codeOf is the code of a device that asks.
func codeOf(t testing.TB, c *client.Client, hostname string) string {
	t.Helper()
	asked.Lock()
	defer asked.Unlock()
	for _, code := range asked.codes {
		if r, err := c.Request(t.Context(), code); err == nil && r.Hostname == hostname {
			return code
		}
	}
	t.Fatalf("%s does not ask", hostname)
	return ""
}

// documented is an operation in the document.
type documented struct {
	method, path string
	ID           string   `json:"operationId"`
	Rows         []string `json:"x-weft-operations"`
	Parameters   []struct {
		Name, In string
		Schema   schema
	}
	RequestBody struct {
		Content map[string]struct{ Schema schema }
	} `json:"requestBody"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       any               `json:"type"` // a word or several
	Enum       []any             `json:"enum"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
}

// document reads what the API says of itself.
func (s *site) document() (list []documented, types map[string]schema) {
	s.t.Helper()
	status, _, b := s.ask(ops.Root(), "GET", webapi.Document, "")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]documented
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(b, &doc); status != 200 || err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		s.t.Fatalf("%d, %v: %.200s", status, err, b)
	}
	for path, methods := range doc.Paths {
		for method, d := range methods {
			d.method, d.path = strings.ToUpper(method), path
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b documented) int { return strings.Compare(a.ID, b.ID) })
	return list, doc.Components.Schemas
}
