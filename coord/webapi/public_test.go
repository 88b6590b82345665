package webapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
)

// clock is one that tests move.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock() *clock {
	c := &clock{}
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	c.at.Store(&at)
	return c
}

func (c *clock) Now() time.Time { return *c.at.Load() }

func (c *clock) Add(d time.Duration) {
	at := c.Now().Add(d)
	c.at.Store(&at)
}

// problemOf reads a problem.
func problemOf(t *testing.T, b []byte) (p webapi.Problem) {
	t.Helper()
	if err := json.Unmarshal(b, &p); err != nil || p.Detail == "" {
		t.Errorf("no problem: %s", b)
	}
	return p
}

// TestBearer: a token in the header Authorization is the only way in, as long as it is
// one; a web page has none, and reads nothing.
func TestBearer(t *testing.T) {
	clock := newClock()
	s := filled(t, ops.Options{Now: clock.Now})
	_, good := s.service("ok", ops.RoleAuditor)
	revoked, short := s.token("ok"), s.token("ok")
	s.service("gone", ops.RoleAdmin)
	gone := s.token("gone")
	for _, c := range []ops.Command[store.Token]{ops.RevokeToken{ID: revoked.ID}} {
		if _, err := ops.Do(t.Context(), s.Service, ops.Root(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.DeleteUser{Name: "gone"}); err != nil {
		t.Fatal(err)
	}
	api := s.public(clock.Now)
	ask := func(want int, method, path string, header ...string) webapi.Problem {
		t.Helper()
		status, h, b := s.send(api, method, path, "", header...)
		if status != want {
			t.Errorf("%s %s %.40q: %d %s", method, path, header, status, b)
		}
		for name := range h {
			if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" {
				t.Errorf("%s: %s", path, name)
			}
		}
		if (h.Get("Www-Authenticate") != "") != (status == http.StatusUnauthorized) || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %v", method, path, h)
		}
		if status >= 400 {
			return problemOf(t, b)
		}
		return webapi.Problem{}
	}
	const path = "/api/v1/devices"
	ask(200, "GET", path, "Authorization", "Bearer "+good)
	ask(200, "GET", webapi.Document, "Authorization", "bearer "+good)
	for _, header := range [][]string{
		nil, {"Authorization", ""}, {"Authorization", "Bearer"}, {"Authorization", "Bearer "}, {"Authorization", good}, {"Authorization", "Basic " + good},
		{"Authorization", "Bearer x"}, {"Authorization", "Bearer " + good + "x"}, {"Authorization", "Bearer " + good + " " + good}, {"Authorization", "Bearer " + strings.Repeat("x", 10_000)},
		{"Cookie", "__Host-weft=" + good}, {"X-Api-Key", good}, {"Authorization", "Bearer " + gone.Token},
	} {
		if p := ask(401, "GET", path, header...); !strings.Contains(p.Hint, "weft-server tokens create") || p.Code != "unauthorized" {
			t.Errorf("%+v", p)
		}
		ask(401, "GET", webapi.Document, header...)
	}
	ask(401, "GET", path+"?access_token="+good)
	ask(401, "OPTIONS", path, "Origin", "https://evil.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization")
	ask(200, "GET", path, "Authorization", "Bearer "+good, "Origin", "https://evil.example")
	if p := ask(401, "GET", path, "Authorization", "Bearer "+revoked.Token); !strings.Contains(p.Detail, "revoked") {
		t.Errorf("%+v", p)
	}
	clock.Add(ops.DefaultTokenLife)
	if p := ask(401, "GET", path, "Authorization", "Bearer "+short.Token); !strings.Contains(p.Detail, "expired") {
		t.Errorf("%+v", p)
	}
}

// TestTokenLife: 90 days unless something else is asked for, at most a year, or none;
// only services have tokens, and not endlessly many.
func TestTokenLife(t *testing.T) {
	s := filled(t, ops.Options{})
	c := s.client()
	now := time.Now()
	for _, n := range []struct {
		ops.CreateToken
		want time.Duration
	}{
		{ops.CreateToken{}, ops.DefaultTokenLife}, {ops.CreateToken{Life: time.Hour}, time.Hour}, {ops.CreateToken{Life: 366 * 24 * time.Hour}, 366 * 24 * time.Hour}, {ops.CreateToken{Endless: true}, 0},
		{ops.CreateToken{Life: 367 * 24 * time.Hour}, -1}, {ops.CreateToken{Life: time.Second}, -1}, {ops.CreateToken{Life: -time.Hour}, -1},
	} {
		n.User = "svc"
		made, err := c.CreateToken(t.Context(), n.CreateToken)
		switch {
		case n.want < 0:
			if !errors.Is(err, ops.ErrInvalid) {
				t.Errorf("%s: %v", n.Life, err)
			}
		case err != nil:
			t.Errorf("%s: %v", n.Life, err)
		case n.want == 0:
			if made.Expires != nil {
				t.Errorf("endless: %v", made.Expires)
			}
		case made.Expires == nil || made.Expires.Sub(now.Add(n.want)).Abs() > time.Hour/2:
			t.Errorf("%s: %v", n.Life, made.Expires)
		}
	}
	if _, err := c.CreateToken(t.Context(), ops.CreateToken{User: "admin"}); !errors.Is(err, ops.ErrInvalid) || !strings.Contains(err.Error(), "person") {
		t.Errorf("a person: %v", err)
	}
	for i := range 60 {
		if _, err := c.CreateToken(t.Context(), ops.CreateToken{User: "svc"}); err != nil {
			if i < 40 || !errors.Is(err, ops.ErrInvalid) {
				t.Errorf("token %d: %v", i, err)
			}
			return
		}
	}
	t.Error("there is no end of tokens")
}

// TestLimits: a token, and an address, may ask so often; who has waited as long as he
// was told gets an answer.
func TestLimits(t *testing.T) {
	clock := newClock()
	s := openSite(t, ops.Options{Now: clock.Now})
	_, one := s.service("one", ops.RoleAuditor)
	_, two := s.service("two", ops.RoleAuditor)
	api := s.public(clock.Now)
	ask := func(token, from string) (int, http.Header, []byte) {
		return s.send(transport(func(r *http.Request) (*http.Response, error) {
			r.RemoteAddr = from
			return api.RoundTrip(r)
		}), "GET", "/api/v1/network/revocations", "", "Authorization", "Bearer "+token)
	}
	// until counts the answers before the first refusal.
	until := func(token, from string) (n int, h http.Header, b []byte) {
		for status := 0; ; n++ {
			if status, h, b = ask(token, from); status == http.StatusTooManyRequests {
				return n, h, b
			}
			if n > 5000 {
				t.Fatal("there is no limit")
			}
		}
	}
	if _, h, _ := ask(one, "192.0.2.1:1"); h.Get("RateLimit-Policy") != `"token";q=600;w=60` || h.Get("RateLimit") != `"token";r=599;t=1` {
		t.Errorf("%v", h)
	}
	n, h, b := until(one, "192.0.2.1:2")
	if n != 599 || h.Get("Retry-After") != "1" || h.Get("RateLimit") != `"token";r=0;t=1` || problemOf(t, b).Code != "too_often" {
		t.Errorf("%d, %v %s", n, h, b)
	}
	if status, _, _ := ask(two, "192.0.2.1:2"); status != 200 {
		t.Errorf("another token: %d", status)
	}
	clock.Add(time.Second)
	if status, _, b := ask(one, "192.0.2.1:2"); status != 200 {
		t.Errorf("after the time that was said: %d %s", status, b)
	}
	clock.Add(time.Hour)
	// Two tokens of one address share what the address has.
	n, _, _ = until(one, "192.0.2.1:2")
	m, h, _ := until(two, "192.0.2.1:3")
	if n+m > 1200 || n != 600 || !strings.Contains(h.Get("RateLimit-Policy"), "address") {
		t.Errorf("%d and %d, %v", n, m, h)
	}
	clock.Add(time.Hour)
	// Of IPv6 a /64 is one address, and what is no token counts too.
	if n, h, _ := until("weftapi1guess", "[2001:db8::1]:1"); n != 1200 || !strings.Contains(h.Get("RateLimit-Policy"), "address") {
		t.Errorf("%d guesses, %v", n, h)
	}
	if status, _, _ := ask(one, "[2001:db8::2]:1"); status != http.StatusTooManyRequests {
		t.Errorf("from the same /64: %d", status)
	}
	if status, _, _ := ask(one, "[2001:db8:0:1::1]:1"); status != 200 {
		t.Errorf("from another one: %d", status)
	}
	// A client waits as it is told.
	waited := 0
	c := client.New("http://weft-server", transport(func(r *http.Request) (*http.Response, error) {
		if waited++; waited < 3 {
			h := http.Header{"Retry-After": {"0"}, "Content-Type": {"application/problem+json"}}
			return &http.Response{StatusCode: 429, Header: h, Body: io.NopCloser(strings.NewReader(`{"detail":"x"}`)), Request: r}, nil
		}
		return s.as(ops.Root()).RoundTrip(r)
	}))
	if _, err := c.DNS(t.Context()); err != nil || waited != 3 {
		t.Errorf("%d requests, %v", waited, err)
	}
}

// TestUseRecorded: the audit has the first use of a token and each new address, not each
// request, and what was refused by the minute; the list says when one was used last.
func TestUseRecorded(t *testing.T) {
	clock := newClock()
	s := openSite(t, ops.Options{Now: clock.Now})
	_, token := s.service("svc", ops.RoleAuditor)
	addrs := []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"}
	for i := range 20 {
		for _, from := range addrs {
			if _, _, b := s.send(s.with(token, from), "GET", "/api/v1/devices", ""); bytes.Contains(b, []byte("problem")) {
				t.Fatalf("%d: %s", i, b)
			}
		}
	}
	s.send(s.with("weftapi1x", "192.0.2.9"), "GET", "/api/v1/devices", "")
	s.send(s.with("weftapi1y", "192.0.2.9"), "GET", "/api/v1/devices", "")
	list, err := s.Tokens(t.Context(), ops.Root(), "svc")
	if err != nil || len(list) != 1 || list[0].Used == nil || !slices.Equal(list[0].From, []string{"2001:db8::", "192.0.2.2", "192.0.2.1"}) {
		t.Errorf("%+v, %v", list, err)
	}
	flush := func() {
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		stop() // it writes what is left
		wg.Wait()
	}
	flush()
	records, err := s.Audit(t.Context(), ops.Root(), store.AuditFilter{Op: "token.use", Oldest: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprintf("%s %s %s %s %d %s", r.User, r.Via, r.From, r.After, r.Count, r.Refused))
	}
	want := []string{" api 192.0.2.9  2 no such token", `svc api 192.0.2.1 {"first":true} 1 `, `svc api 192.0.2.2 {"first":false} 1 `, `svc api 2001:db8:: {"first":false} 1 `}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// What one was not let read is counted like what one was not let do.
	_, member := s.service("member", ops.RoleMember)
	for range 3 {
		s.send(s.with(member, "192.0.2.1"), "GET", "/api/v1/audit", "")
	}
	s.send(s.with(member, "192.0.2.1"), "POST", "/api/v1/users", `{"name":"x"}`)
	flush()
	for op, want := range map[string]uint32{"audit.read": 3, "user.create": 1} {
		if got, err := s.Audit(t.Context(), ops.Root(), store.AuditFilter{Op: op, Limit: 1}); err != nil || len(got) != 1 || got[0].Count != want || got[0].User != "member" || got[0].Refused == "" {
			t.Errorf("%s refused: %+v, %v", op, got, err)
		}
	}
	// What was done says who did it, and by which way.
	admin, adminToken := s.service("boss", ops.RoleAdmin)
	if status, _, b := s.send(s.with(adminToken, "192.0.2.3"), "POST", "/api/v1/users", `{"name":"eve"}`); status != 201 {
		t.Fatalf("%d %s", status, b)
	}
	last, err := s.Audit(t.Context(), ops.Root(), store.AuditFilter{Op: "user.create", Limit: 1})
	if err != nil || last[0].User != "boss" || last[0].UserID != admin.ID || last[0].Role != "admin" || last[0].Via != "api" || last[0].From != "192.0.2.3" {
		t.Errorf("%+v, %v", last, err)
	}
}

// once sends each POST three times with one key: again, and with another body.
type once struct {
	t     *testing.T
	to    http.RoundTripper
	id    func(*http.Request) string
	asked map[string]bool
}

func (o *once) RoundTrip(r *http.Request) (*http.Response, error) {
	id := o.id(r)
	if id == "" {
		return o.to.RoundTrip(r)
	}
	o.asked[id] = true
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	send := func() (*http.Response, []byte) {
		again := r.Clone(r.Context())
		again.Header.Set("Idempotency-Key", "key-of-"+id)
		again.Body = io.NopCloser(strings.NewReader(string(sent)))
		res, err := o.to.RoundTrip(again)
		if err != nil {
			o.t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			o.t.Fatal(err)
		}
		res.Body = io.NopCloser(bytes.NewReader(b))
		return res, b
	}
	first, b := send()
	again, b2 := send()
	if p := (webapi.Problem{}); again.StatusCode == http.StatusConflict {
		if err := json.Unmarshal(b2, &p); err != nil || p.Code != "done_before" || !strings.Contains(p.Detail, "the request made ") {
			o.t.Errorf("%s again: %s", id, b2)
		}
		if !bytes.Contains(b, []byte("weft1")) && !bytes.Contains(b, []byte("weftapi1")) && !bytes.Contains(b, []byte("link=")) && !bytes.Contains(b, []byte("whsec_")) {
			o.t.Errorf("%s again: there was no secret in %s", id, b)
		}
	} else if again.StatusCode != first.StatusCode || !bytes.Equal(b, b2) || again.Header.Get("ETag") != first.Header.Get("ETag") {
		o.t.Errorf("%s: %d %s, again: %d %s", id, first.StatusCode, b, again.StatusCode, b2)
	}
	if len(sent) > 0 {
		sent = []byte(map[string]string{"createKey": `{"note":"other"}`, "createLoginLink": `{"user":"svc"}`, "createToken": `{"user":"svc","description":"x"}`, "createUser": `{"name":"mallory"}`, "createGroup": `{"name":"mallory"}`, "createInvitation": `{"name":"mallory"}`, "replaceDevice": `{"by":"c"}`,
			"createProvider": `{"id":"other"}`, "approveRequest": `{"user":"svc"}`, "approveIdentity": `{"user":"svc"}`,
			"createWebhook": `{"url":"https://192.0.2.2/"}`, "rotateWebhook": `{"keep_seconds":1}`, "revertPolicy": `{"number":1}`}[id])
		if other, b := send(); other.StatusCode != http.StatusUnprocessableEntity || !bytes.Contains(b, []byte("another request")) {
			o.t.Errorf("%s with another body: %d %s", id, other.StatusCode, b)
		}
	}
	return first, nil
}

// repeated may be asked again: an attempt, and what does nothing the second time.
var repeated = map[string]bool{"testWebhook": true, "trimAudit": true}

// TestOnce: whatever a POST changes is done once for a key, and every one says that it
// is.
func TestOnce(t *testing.T) {
	s := filled(t, ops.Options{})
	list, _ := s.document()
	writes := map[string]bool{}
	for _, o := range ops.Operations {
		writes[o.Name] = o.Writes
	}
	o := &once{t: t, to: s.as(ops.Root()), asked: map[string]bool{}}
	o.id = func(r *http.Request) string {
		for _, d := range list {
			if pattern, _, ok := strings.Cut(d.path, "{id}"); r.Method == "POST" && d.method == "POST" && writes[d.Rows[0]] && !repeated[d.ID] &&
				(!ok && d.path == r.URL.Path || ok && strings.HasPrefix(r.URL.Path, pattern) && strings.HasSuffix(r.URL.Path, d.path[strings.LastIndex(d.path, "/"):])) {
				return d.ID
			}
		}
		return ""
	}
	c := client.New("http://weft-server", o)
	for _, d := range list {
		says := slices.ContainsFunc(d.Parameters, func(p struct {
			Name, In string
			Schema   schema
		}) bool {
			return p.Name == "Idempotency-Key" && p.In == "header"
		})
		want := d.method == "POST" && writes[d.Rows[0]] && !repeated[d.ID]
		if says != want {
			t.Errorf("%s: documents the key: %v, want %v", d.ID, says, want)
		}
		before := lastRecord(t, s.client())
		if err := calls[d.ID](t, c); err != nil {
			t.Errorf("%s: %v", d.ID, err)
		}
		if !want {
			continue
		}
		if !o.asked[d.ID] {
			t.Errorf("%s was not asked with a key", d.ID)
		}
		records := uint64(1)
		if d.ID == "approveRequest" {
			records = 2 // who let it in, and that it joined
		}
		if d.ID == "createInvitation" {
			records = 2 // the user, and the invitation
		}
		if n := lastRecord(t, s.client()) - before; n != records {
			t.Errorf("%s left %d records", d.ID, n)
		}
	}
}

// TestOnceFor: a key is its user's, is good for a day and the last thousand, survives a
// restart, and of many at once one does it.
func TestOnceFor(t *testing.T) {
	clock := newClock()
	s := openSite(t, ops.Options{Now: clock.Now})
	_, a := s.service("a", ops.RoleAdmin)
	_, b := s.service("b", ops.RoleAdmin)
	create := func(token, key, name string) int {
		t.Helper()
		status, _, _ := s.send(s.with(token, "127.0.0.1"), "POST", "/api/v1/users", `{"name":"`+name+`"}`, "Idempotency-Key", key)
		return status
	}
	expect := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	expect("first", create(a, "k", "x"), 201)
	expect("again", create(a, "k", "x"), 201)
	expect("something else", create(a, "k", "y"), 422)
	expect("another user", create(b, "k", "y"), 201)
	makeToken := func() int {
		status, _, _ := s.send(s.with(a, "127.0.0.1"), "POST", "/api/v1/tokens", `{"user":"later"}`, "Idempotency-Key", "k2")
		return status
	}
	expect("what failed", makeToken(), 404)
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateUser{Name: "later", Service: true}); err != nil {
		t.Fatal(err)
	}
	expect("what failed, when it can be done", makeToken(), 201)
	for _, key := range []string{"two words", strings.Repeat("x", 101), "küche"} {
		expect(key, create(a, key, "z"), 400)
	}
	s.reopen(ops.Options{Now: clock.Now})
	expect("after a restart", create(a, "k", "x"), 201)
	clock.Add(23 * time.Hour)
	expect("after 23 hours", create(a, "k", "x"), 201)
	clock.Add(time.Hour)
	expect("after a day", create(a, "k", "w"), 201)
	// Who may not any more is not told again either.
	role := ops.RoleAuditor
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.EditUser{Name: "a", Role: &role}); err != nil {
		t.Fatal(err)
	}
	expect("as an auditor", create(a, "k", "w"), 403)

	var made, told atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			switch status, _, answer := s.send(s.with(b, "127.0.0.1"), "POST", "/api/v1/keys", `{}`, "Idempotency-Key", "race"); status {
			case 201:
				made.Add(1)
			case 409:
				told.Add(1)
			default:
				t.Errorf("%d %s", status, answer)
			}
		})
	}
	wg.Wait()
	keys, err := s.Keys(t.Context(), ops.Root(), 0)
	if err != nil || len(keys) != 1 || made.Load() != 1 || told.Load() != 49 {
		t.Errorf("%d keys, %d made, %d told, %v", len(keys), made.Load(), told.Load(), err)
	}
}

// TestPreconditions: everything that can be edited has a revision, takes If-Match, and
// is not changed for who has seen another one.
func TestPreconditions(t *testing.T) {
	s := filled(t, ops.Options{})
	list, _ := s.document()
	for _, d := range list {
		if d.method != "PATCH" && d.method != "PUT" {
			continue
		}
		if !slices.ContainsFunc(d.Parameters, func(p struct {
			Name, In string
			Schema   schema
		}) bool {
			return p.Name == "If-Match"
		}) {
			t.Errorf("%s does not take If-Match", d.ID)
		}
		tag := ""
		to := s.as(ops.Root())
		c := client.New("http://weft-server", transport(func(r *http.Request) (*http.Response, error) {
			if r.Method != d.method {
				return to.RoundTrip(r)
			}
			sent, _ := io.ReadAll(r.Body)
			_, h, _ := s.send(to, "GET", r.URL.Path, "")
			if tag = h.Get("ETag"); tag == "" {
				t.Errorf("%s: what it changes has no ETag", d.ID)
			}
			for header, want := range map[string]int{`"stale"`: 412, `W/` + tag: 412} {
				if status, _, b := s.send(to, r.Method, r.URL.Path, string(sent), "If-Match", header); status != want {
					t.Errorf("%s if %s: %d %s", d.ID, header, status, b)
				}
			}
			r.Body = io.NopCloser(bytes.NewReader(sent))
			r.Header.Set("If-Match", tag)
			res, err := to.RoundTrip(r)
			if now := res.Header.Get("ETag"); now == tag || now == "" {
				t.Errorf("%s: ETag %s, was %s", d.ID, now, tag)
			}
			return res, err
		}))
		if err := calls[d.ID](t, c); err != nil || tag == "" {
			t.Errorf("%s: %v", d.ID, err)
		}
	}
}

// TestCanary: no secret that was ever shown is in the log, in an answer about it, in the
// audit, or in a file of the server.
func TestCanary(t *testing.T) {
	var log lockedBuffer
	s := filled(t, ops.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	secrets := map[string]string{"secret of a provider": clientSecret, "second secret of a provider": "second-" + clientSecret}
	var said strings.Builder
	shown := regexp.MustCompile(`weft1[0-9A-Za-z]{40,}|weftapi1[0-9A-Za-z]{40,}|link=([0-9A-Za-z_-]{40,})`)
	for _, id := range slices.Sorted(maps.Keys(calls)) {
		calls[id](t, client.New("http://weft-server", transport(func(r *http.Request) (*http.Response, error) {
			res, err := s.as(ops.Root()).RoundTrip(r)
			b, _ := io.ReadAll(res.Body)
			res.Body = io.NopCloser(bytes.NewReader(b))
			if r.Method == "POST" && slices.Contains([]string{"/api/v1/keys", "/api/v1/tokens", "/api/v1/login-links"}, r.URL.Path) {
				secrets[r.URL.Path] = strings.TrimPrefix(shown.FindString(string(b)), "link=")
			} else {
				said.Write(b)
			}
			return res, err
		})))
	}
	_, admin := s.service("boss", ops.RoleAdmin)
	s.service("job", ops.RoleMember)
	secrets["token of the API"] = admin
	through := s.with(admin, "192.0.2.1")
	for id, body := range map[string]string{"keys": `{"reusable":true}`, "tokens": `{"user":"job"}`} {
		for range 2 { // the second time it is told what was done
			_, _, b := s.send(through, "POST", "/api/v1/"+id, body, "Idempotency-Key", id)
			if word := shown.FindString(string(b)); word != "" {
				secrets[id] = word
			}
		}
	}
	for range 2 {
		status, _, b := s.ask(ops.Root(), "POST", "/api/v1/oidc-providers", `{"id":"third","issuer":"https://login.example.com","client_id":"x","client_secret":"`+secrets["second secret of a provider"]+`"}`, "Idempotency-Key", "third")
		if status != http.StatusCreated {
			t.Errorf("%d %s", status, b)
		}
		said.Write(b)
	}
	for what, word := range secrets {
		if len(word) < 40 || len(secrets) != 8 {
			t.Fatalf("%s is %d long, there are %d", what, len(word), len(secrets))
		}
	}
	for _, wrong := range []string{admin + "x", admin[:len(admin)-1]} {
		_, _, b := s.send(s.with(wrong, "192.0.2.1"), "GET", "/api/v1/devices", "")
		said.Write(b)
	}
	for _, word := range secrets { // in the wrong place
		_, _, b := s.send(through, "POST", "/api/v1/keys", `{"note":["`+word+`"]}`)
		_, _, b2 := s.send(through, "POST", "/api/v1/tokens", `{"user":"job","life_seconds":"`+word+`"}`)
		_, _, b3 := s.ask(ops.Root(), "PATCH", "/api/v1/oidc-providers/third", `{"client_secret":["`+word+`"]}`)
		said.Write(slices.Concat(b, b2, b3))
	}
	s.Close()
	files := 0
	filepath.WalkDir(s.data, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, _ := os.ReadFile(path)
			files++
			for what, word := range secrets {
				if bytes.Contains(b, []byte(word)) {
					t.Errorf("%s holds the %s", path, what)
				}
			}
		}
		return nil
	})
	if files < 3 || log.Len() == 0 || said.Len() == 0 {
		t.Errorf("%d files, %d bytes of log, %d said", files, log.Len(), said.Len())
	}
	for what, word := range secrets {
		if strings.Contains(log.String(), word) {
			t.Errorf("the log holds the %s", what)
		}
		if strings.Contains(said.String(), word) {
			t.Errorf("an answer holds the %s", what)
		}
	}
}

// lockedBuffer is a buffer for many goroutines.
type lockedBuffer struct {
	mu sync.Mutex // guards the following
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) Len() int { return len(l.String()) }
