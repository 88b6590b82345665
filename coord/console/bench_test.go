package console_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/console/consoletest"
	"weft/coord/ops"
	"weft/overlay/cert"
)

// benchSite is a network of 500 people and 5,000 devices in 5,000 classes under 200 rules.
type benchSite struct {
	*consoletest.Network
	console *console.Console
	model   *consoletest.Device
}

func newBenchSite(b *testing.B) *benchSite {
	n := consoletest.New(b, consoletest.Options{})
	n.Member("u7")
	model := n.Add("model", "linux/arm64", "device")
	n.Restart(func(db *sql.DB) {
		if _, err := db.Exec(`WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<499)
			INSERT INTO users (network_id, user_id, name, owner, created_at) SELECT network_id, 'i'||i, 'u'||i, 0, 1 FROM networks, c WHERE i<>7`); err != nil {
			b.Fatal(err)
		}
		if _, err := db.Exec(`WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<4999),
			d AS (SELECT i, (SELECT user_id FROM users WHERE name='u'||(i%500)) u, CASE WHEN i<500 THEN '' ELSE 't'||(i/50) END t FROM c)
			INSERT INTO nodes (network_id, node_id, spki, name, hostname, user_id, tags, class, ipv4, key_id, ephemeral, os, software, created_at, certificate, expires_at, n, config_n)
			SELECT network_id, CAST(printf('%016d', i) AS BLOB), spki, 'd'||i, hostname, u, t, u||'/'||t, ipv4+1+i, key_id, 0, os, software, created_at, certificate, expires_at, n, config_n FROM nodes, d`); err != nil {
			b.Fatal(err)
		}
	})
	for i := range 20 {
		name := fmt.Sprint("g", i)
		if _, err := ops.Do(b.Context(), n.Service, ops.Root(), ops.CreateGroup{Name: name}); err != nil {
			b.Fatal(err)
		}
		e := ops.EditGroup{Name: name}
		for j := range 25 {
			e.Add = append(e.Add, fmt.Sprint("u", i*25+j))
		}
		if _, err := ops.Do(b.Context(), n.Service, ops.Root(), e); err != nil {
			b.Fatal(err)
		}
	}
	rules := []string{`{"from":["user:*"],"to":["self"],"ports":["*"]}`, `{"from":["user:u7","user:admin"],"to":["*"],"ports":["tcp:22"]}`}
	for i := len(rules); i < 200; i++ {
		rules = append(rules, fmt.Sprintf(`{"from":["user:u%d","user:u7","tag:t%d"],"to":["tag:t%d","tag:device"],"ports":["tcp:%d"]}`, i, i%100, i%90, i))
	}
	if _, err := ops.Do(b.Context(), n.Service, ops.Root(), ops.SetPolicy{Text: `{"rules":[` + strings.Join(rules, ",") + `]}`}); err != nil {
		b.Fatal(err)
	}
	c := console.New(console.Config{Service: n.Service})
	b.Cleanup(c.Close)
	return &benchSite{n, c, model}
}

func (s *benchSite) send(method, at, body string, cookies []*http.Cookie) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, at, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, k := range cookies {
		r.AddCookie(k)
	}
	w := httptest.NewRecorder()
	s.console.ServeHTTP(w, r)
	return w
}

func (s *benchSite) signIn(b *testing.B, user string) []*http.Cookie {
	u, err := url.Parse(s.Link(user))
	if err != nil {
		b.Fatal(err)
	}
	w := s.send("POST", "/welcome", url.Values{"link": {u.Query().Get("link")}, "password": {password}}.Encode(), nil)
	if w.Code != 303 {
		b.Fatal(w.Code, w.Body)
	}
	return w.Result().Cookies()
}

// pages measures pages of the site, and signing in with a password (needed: 150 ms, 400 ms).
func (s *benchSite) pages(b *testing.B) {
	run := func(name string, f func() int, want int) {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				begin := time.Now()
				if code := f(); code != want {
					b.Fatal(code)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		})
	}
	device := "/devices/" + s.model.ID.String()
	for _, page := range []struct{ user, at string }{
		{"admin", "/devices"},
		{"admin", device},
		{"admin", device + "/settings"},
		{"admin", device + "/activity"},
		{"admin", "/people"},
		{"admin", "/people/person?name=u7"},
		{"admin", "/people/groups"},
		{"admin", "/access"},
		{"admin", "/access/tags"},
		{"admin", "/activity"},
		{"admin", "/network"},
		{"admin", "/network/dns"},
		{"admin", "/network/dns/try?name=d7"},
		{"admin", "/network/keys"},
		{"admin", "/settings/tokens"},
		{"admin", "/settings/releases"},
		{"admin", "/palette"},
		{"admin", "/palette?q=d1"},
		{"admin", "/palette?q=zzz"},
		{"admin", "/devices?q=linux"},
		{"admin", "/devices?q=is:online"},
		{"admin", "/devices?sort=seen"},
		{"admin", "/devices?sort=-status&q=zzz"},
		{"u7", "/devices"},
		{"u7", "/palette?q=d1"},
	} {
		cookies := s.signIn(b, page.user)
		run(page.user+strings.ReplaceAll(page.at, s.model.ID.String(), "ID"), func() int { return s.send("GET", page.at, "", cookies).Code }, 200)
	}
	s.signIn(b, "u8") // sets the password
	run("sign-in", func() int {
		return s.send("POST", "/sign-in", url.Values{"name": {"u8"}, "password": {password}}.Encode(), nil).Code
	}, 303)
}

// BenchmarkPages draws pages of a network of 500 people and 5,000 devices.
func BenchmarkPages(b *testing.B) { newBenchSite(b).pages(b) }

// BenchmarkPagesWatched does it while 50 consoles are open on the list of devices, which each
// fetches anew as the page does, and 20 devices a second come or go. On a machine that does
// other things too, 20 rounds have one that says more about these (-benchtime 60x).
func BenchmarkPagesWatched(b *testing.B) {
	s := newBenchSite(b)
	server := httptest.NewServer(s.console)
	b.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	get := func(at string, cookies []*http.Cookie) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL+at, nil)
		if err != nil {
			return nil, err
		}
		r.Host = "example.com"               // as httptest has it: the cookies are of that
		r.Header.Set("Weft-Passive", "list") // the rows alone, as the page has them fetched
		r.Header.Set("HX-Request", "true")
		for _, k := range cookies {
			r.AddCookie(k)
		}
		return http.DefaultClient.Do(r)
	}
	var fetched atomic.Int64
	watch := func(cookies []*http.Cookie) error {
		stream, err := get("/events?want=devices", cookies)
		if err != nil {
			return err
		}
		defer stream.Body.Close()
		if stream.StatusCode != 200 {
			return errors.New(stream.Status)
		}
		fetch := make(chan struct{}, 1)
		wg.Go(func() { // as the page: when it hears of it, at most every second
			for range fetch {
				if list, err := get("/devices", cookies); err == nil {
					if _, err := io.Copy(io.Discard, list.Body); err == nil && list.StatusCode == 200 {
						fetched.Add(1)
					}
					list.Body.Close()
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		})
		defer close(fetch)
		lines := bufio.NewScanner(stream.Body)
		for lines.Scan() {
			if lines.Text() == "event: devices" {
				select {
				case fetch <- struct{}{}:
				default:
				}
			}
		}
		return ctx.Err()
	}
	for i := range 50 {
		user := fmt.Sprint("watcher", i%10)
		if i < 10 {
			if _, err := ops.Do(b.Context(), s.Service, ops.Root(), ops.CreateUser{Name: user, Role: ops.RoleAdmin}); err != nil {
				b.Fatal(err)
			}
			s.signIn(b, user)
		}
		w := s.send("POST", "/sign-in", url.Values{"name": {user}, "password": {password}}.Encode(), nil)
		if w.Code != 303 {
			b.Fatal(w.Code)
		}
		wg.Go(func() {
			if err := watch(w.Result().Cookies()); ctx.Err() == nil {
				b.Errorf("a stream ended: %v", err)
			}
		})
	}
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := uint64(1); ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var id cert.NodeID
			copy(id[:], fmt.Sprintf("%016d", i/2%5000))
			s.Presence(id, i/2, i%2 == 0, time.Now(), netip.MustParseAddr("192.0.2.1"))
		}
	})
	begin := time.Now()
	s.pages(b)
	b.Logf("%.0f lists a second were fetched meanwhile", float64(fetched.Load())/time.Since(begin).Seconds())
}
