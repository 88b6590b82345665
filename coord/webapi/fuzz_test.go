package webapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// FuzzAPI sends what the document leads to, and what it does not: whatever comes, the
// server is not at fault, and an answer that is no success is a problem.
func FuzzAPI(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	s := filled(f, ops.Options{})
	list, types := s.document()
	_, token := s.service("fuzz", ops.RoleAdmin)
	clock := newClock() // there are not too many requests
	public := s.public(func() time.Time { clock.Add(time.Second); return clock.Now() })
	ways := []http.RoundTripper{s.as(ops.Root()), transport(func(r *http.Request) (*http.Response, error) {
		r.Header.Set("Authorization", "Bearer "+token)
		return public.RoundTrip(r)
	})}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := generator{rand.New(rand.NewPCG(seed, 1)), types}
		for range 10 {
			d := list[g.IntN(len(list))]
			path, query := d.path, url.Values{}
			header := http.Header{}
			for _, p := range d.Parameters {
				v := fmt.Sprint(g.value(p.Schema, 0))
				switch {
				case p.In == "path":
					path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(v))
				case g.IntN(2) == 0:
				case p.In == "query":
					query.Set(p.Name, v)
				case p.In == "header" && !strings.ContainsAny(v, "\r\n\x00"):
					header.Set(p.Name, v)
				}
			}
			body := ""
			if c, ok := d.RequestBody.Content["application/json"]; ok {
				b, err := json.Marshal(g.value(c.Schema, 0))
				if err != nil {
					t.Fatal(err)
				}
				if g.IntN(8) == 0 && len(b) > 0 {
					b[g.IntN(len(b))] = byte(g.IntN(256))
				}
				body = string(b)
			}
			target := "http://weft-server" + path
			if len(query) > 0 {
				target += "?" + query.Encode()
			}
			r, err := http.NewRequestWithContext(t.Context(), d.method, target, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header
			if d.method == "POST" && g.IntN(4) == 0 {
				r.Header.Set("Idempotency-Key", fmt.Sprint("key-", g.IntN(50)))
			}
			res, err := ways[g.IntN(len(ways))].RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			var p webapi.Problem
			switch {
			case res.StatusCode >= 500, res.StatusCode >= 300 && res.StatusCode < 400:
				t.Fatalf("%s %s %q: %d %s", d.method, target, body, res.StatusCode, b)
			case res.StatusCode >= 400 && (json.Unmarshal(b, &p) != nil || p.Detail == "" || p.Status != res.StatusCode):
				t.Fatalf("%s %s %q: no problem: %d %s", d.method, target, body, res.StatusCode, b)
			}
		}
	})
}

// generator makes values that mostly fit a schema.
type generator struct {
	*rand.Rand
	types map[string]schema
}

var words = []string{
	"", "a", "b", "far", "admin", "device", "tag:device", "www", "@", "A", "CNAME", "PTR", "on", "off", "online", "offline", "default", "ttl", "30",
	"..", ".", "/", "a/b", "%2e", "?", "*", "W/\"1\"", "\"1\"", "\x00", "\xff", "\u202e", "küche", "xn--", "100.64.0.1", "::1", "fe80::1%eth0", "192.0.2.1",
	"https://dns.example/dns-query", "tls://", "weft.internal", "a.weft.internal", "true", "-1", "0", "1", "18446744073709551616", "1e309", "2026-11-29T00:00:00Z", "9999-12-31T23:59:59+23:59",
	`{"rules":[],} // x`, `{"tests":[{"src":"a","accept":["b:22"],"deny":["far:1/udp"]}]}`, "a:22", "user:admin", "[::1]:22", `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`, "null", "{}", strings.Repeat("x", 300), strings.Repeat("ab.", 100),
}

func (g generator) value(s schema, depth int) any {
	if s.Ref != "" {
		s = g.types[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	kind, _ := s.Type.(string)
	if kinds, ok := s.Type.([]any); ok {
		kind, _ = kinds[g.IntN(len(kinds))].(string)
	}
	if g.IntN(20) == 0 || depth > 5 {
		kind = []string{"string", "integer", "number", "boolean", "null"}[g.IntN(5)]
	} else if len(s.Enum) > 0 && g.IntN(4) > 0 {
		return s.Enum[g.IntN(len(s.Enum))]
	}
	switch kind {
	case "object":
		v := map[string]any{}
		for name, p := range s.Properties {
			if g.IntN(3) > 0 {
				v[name] = g.value(p, depth+1)
			}
		}
		if len(s.Properties) == 0 || g.IntN(20) == 0 {
			v[words[g.IntN(len(words))]] = words[g.IntN(len(words))]
		}
		return v
	case "array":
		v := []any{}
		for range g.IntN(4) {
			item := schema{Type: "string"}
			if s.Items != nil {
				item = *s.Items
			}
			v = append(v, g.value(item, depth+1))
		}
		return v
	case "integer":
		return []int64{0, 1, -1, 2, 60, 100, 1000, 5000, 86400, 1 << 40, -1 << 63, 1<<63 - 1}[g.IntN(12)]
	case "number":
		return g.NormFloat64() * 1e18
	case "boolean":
		return g.IntN(2) == 0
	case "null":
		return nil
	}
	return words[g.IntN(len(words))]
}
