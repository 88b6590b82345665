package coord

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"weft/coord/ops"
	webclient "weft/coord/webapi/client"
	"weft/overlay/link"
)

// apiToken makes a service and returns a token of it.
func apiToken(t testing.TB, s *Server, name string, role ops.Role) ops.TokenCreated {
	t.Helper()
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateUser{Name: name, Service: true, Role: role}); err != nil {
		t.Fatal(err)
	}
	made, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateToken{User: name})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func remote(t testing.TB, server, token string) *webclient.Client {
	t.Helper()
	c, err := webclient.Remote(server, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A program that has a token uses the API through the server's port and through the
// console's, knows the server by the token alone, and goes on after a restart. What ends
// a token, or takes something from its service, holds for the next request on a
// connection that is kept.
func TestPrograms(t *testing.T) {
	data := t.TempDir()
	s := startServer(t, func(o *ServerOptions) { o.Data = data })
	token := apiToken(t, s, "deploy", ops.RoleAdmin)
	secure, plain := "https://"+s.Addr().String(), "http://"+s.plain.Addr().String()
	for _, base := range []string{secure, secure + "/", plain} {
		c := remote(t, base, token.Token)
		users, err := c.Users(t.Context())
		if err != nil || len(users) != 2 {
			t.Errorf("%s: %d users, %v", base, len(users), err)
		}
		if _, err := c.Snapshot(t.Context()); !errors.Is(err, ops.ErrForbidden) {
			t.Errorf("%s: a snapshot: %v", base, err)
		}
	}
	// Browsers' way there: HTTP/2 and the site's own certificate. Only the header counts.
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	for header, want := range map[string]int{"Bearer " + token.Token: 200, "": 401} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", secure+"/api/openapi.json", nil)
		req.Header.Set("Authorization", header)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want || res.ProtoMajor != 2 {
			t.Errorf("%s: %s", res.Status, res.Proto)
		}
	}

	var conns sync.Map
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conns.Store(i.Conn.LocalAddr().String(), true) }})
	c := remote(t, secure, token.Token)
	create := func(name string) error { _, err := c.CreateUser(ctx, ops.CreateUser{Name: name}); return err }
	if err := create("one"); err != nil {
		t.Fatal(err)
	}
	role := ops.RoleAuditor
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.EditUser{Name: "deploy", Role: &role}); err != nil {
		t.Fatal(err)
	}
	if err := create("two"); !errors.Is(err, ops.ErrForbidden) {
		t.Errorf("as an auditor: %v", err)
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.RevokeToken{ID: token.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Users(ctx); !errors.Is(err, ops.ErrUnauthorized) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("with a revoked token: %v", err)
	}
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d connections", n)
	}

	again, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateToken{User: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote(t, secure, again.Token).Users(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = startServer(t, func(o *ServerOptions) { o.Data = data })
	if _, err := remote(t, "https://"+s.Addr().String(), again.Token).Users(t.Context()); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	tokens, err := s.Tokens(t.Context(), ops.Root(), "deploy")
	if err != nil || len(tokens) != 2 {
		t.Fatalf("%+v, %v", tokens, err)
	}
	for _, tok := range tokens {
		if tok.Used == nil || len(tok.From) != 1 || tok.From[0] != "127.0.0.1" {
			t.Errorf("%+v", tok)
		}
	}
}

// The token goes to no other server than the one that made it, and each way not to reach
// it is said in words that help.
func TestWrongServer(t *testing.T) {
	s, other := startServer(t), startServer(t)
	token := apiToken(t, s, "deploy", ops.RoleAuditor).Token
	heard := make(chan string, 10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard <- r.Header.Get("Authorization")
		http.NotFound(w, r)
	})
	proxy := httptest.NewTLSServer(handler) // whose certificate nobody here trusts
	defer proxy.Close()
	older := httptest.NewUnstartedServer(handler)
	older.TLS = &tls.Config{NextProtos: []string{link.ProtoAPI}} // as servers before ProtoSite
	older.StartTLS()
	defer older.Close()
	page := httptest.NewServer(handler)
	defer page.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for server, want := range map[string]string{
		"https://" + other.Addr().String(): "not the server that the token is of",
		proxy.URL:                          "certificate that is not trusted",
		older.URL:                          "older than this weft-server",
		page.URL:                           "update it, or check --server",
		"https://" + gone.Addr().String():  "refused",
	} {
		_, err := remote(t, server, token).Users(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), token[10:]) {
			t.Errorf("%s: %v, want %q", server, err, want)
		}
	}
	if len(heard) != 1 || <-heard != "Bearer "+token { // the page on loopback
		t.Errorf("somebody else heard of the token: %d more", len(heard))
	}
	for _, bad := range []string{"http://192.0.2.1:8443", "ftp://127.0.0.1", "127.0.0.1:8443", "https://", "https://a/b", "https://u@a", "https://a?b", "://"} {
		if _, err := webclient.Remote(bad, token); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if _, err := webclient.Remote("https://a", "weft1abc"); err == nil || !strings.Contains(err.Error(), "tokens create") {
		t.Errorf("a device's token: %v", err)
	}
}

// A weft-server from before there was the API is told so, in the form that it reads.
func TestOlderVerb(t *testing.T) {
	data := t.TempDir()
	startServer(t, func(o *ServerOptions) { o.Data = data })
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(data, "admin.sock"))
	}}}
	defer c.CloseIdleConnections()
	res, err := c.Post("http://weft-server/keys/list", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var e struct{ Code, Message, Hint string }
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil || res.StatusCode != http.StatusNotFound || !strings.Contains(e.Message, "newer than this weft-server") || e.Hint == "" {
		t.Errorf("%s %+v, %v", res.Status, e, err)
	}
}
