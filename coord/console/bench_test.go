package console_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/console/consoletest"
	"weft/coord/ops"
)

// BenchmarkPages draws pages of a network of 500 people and 5,000 devices in 5,000 classes
// under 200 rules (needed: 150 ms).
func BenchmarkPages(b *testing.B) {
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
	send := func(method, at, body string, cookies []*http.Cookie) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, at, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for _, k := range cookies {
			r.AddCookie(k)
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
	signIn := func(user string) []*http.Cookie {
		u, err := url.Parse(n.Link(user))
		if err != nil {
			b.Fatal(err)
		}
		w := send("POST", "/welcome", url.Values{"link": {u.Query().Get("link")}, "password": {password}}.Encode(), nil)
		if w.Code != 303 {
			b.Fatal(w.Code, w.Body)
		}
		return w.Result().Cookies()
	}
	device := "/devices/" + model.ID.String()
	for _, page := range []struct{ user, at string }{
		{"admin", "/devices"},
		{"admin", device},
		{"admin", device + "/settings"},
		{"admin", device + "/activity"},
		{"admin", "/access"},
		{"admin", "/access/tags"},
		{"admin", "/activity"},
		{"admin", "/people"},
		{"admin", "/people/person?name=u7"},
		{"admin", "/people/groups"},
		{"u7", "/devices"},
		{"admin", "/palette"},
		{"admin", "/palette?q=d1"},
		{"admin", "/palette?q=zzz"},
		{"u7", "/palette?q=d1"},
		{"admin", "/network"},
		{"admin", "/network/dns"},
		{"admin", "/network/dns/try?name=d7"},
		{"admin", "/network/keys"},
		{"admin", "/settings/tokens"},
		{"admin", "/settings/releases"},
	} {
		cookies := signIn(page.user)
		b.Run(page.user+strings.ReplaceAll(page.at, model.ID.String(), "ID"), func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				begin := time.Now()
				if w := send("GET", page.at, "", cookies); w.Code != 200 {
					b.Fatal(w.Code)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		})
	}
}
