package console_test

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"

	"weft/coord/console"
	"weft/coord/ops"
)

// payloads: what a device, a browser or a person may send
// as a name.
var payloads = []string{
	`<script>alert(1)</script>`, `"><script>alert(1)</script>`, `'><script>alert(1)</script>`, `</script><script>alert(1)</script>`,
	`<img src=x onerror=alert(1)>`, `"><img src=x onerror=alert(1)>`, `<svg onload=alert(1)>`, `<svg/onload=alert(1)>`, `<svg><script>alert(1)</script></svg>`,
	`<body onload=alert(1)>`, `<iframe src=javascript:alert(1)>`, `<iframe srcdoc="<script>alert(1)</script>">`, `<object data=javascript:alert(1)>`,
	`<embed src=//evil.example>`, `<link rel=stylesheet href=//evil.example>`, `<style>@import '//evil.example'</style>`, `<base href=//evil.example/>`,
	`<meta http-equiv=refresh content="0;url=//evil.example">`, `<form action=//evil.example><input name=password>`, `<a href=javascript:alert(1)>x</a>`,
	`javascript:alert(1)`, `JaVaScRiPt:alert(1)`, `java&#x09;script:alert(1)`, `data:text/html,<script>alert(1)</script>`, `vbscript:x`,
	`" onmouseover="alert(1)`, `' onmouseover='alert(1)`, `" autofocus onfocus="alert(1)`, "` onmouseover=`alert(1)", `x onclick=alert(1)`,
	`" hx-get="//evil.example" hx-trigger="load`, `" hx-on:click="alert(1)`, `<div hx-get=/devices hx-trigger=load>`, `<hx-partial hx-target=body>x</hx-partial>`,
	`" style="position:fixed;inset:0`, `expression(alert(1))`, `{{.}}`, `{{define "layout"}}x{{end}}`, `${alert(1)}`, `#{7*7}`, `%3Cscript%3Ealert(1)%3C/script%3E`,
	`&lt;script&gt;alert(1)&lt;/script&gt;`, `<!--<script>alert(1)</script>-->`, `--><script>alert(1)</script>`, `]]><script>alert(1)</script>`,
	`<noscript><p title="</noscript><img src=x onerror=alert(1)>">`, `<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>`, `<template><script>alert(1)</script></template>`,
	"\u202egnp.exe", "a\u202eb\u202cc", "\u2066x\u2069", "\u200fabc", "admin\u200b", "\ufeffadmin", "a\u2028b\u2029c", "tag\U000e0041\U000e0042",
	"\x00null", "\x1b[31mred\x1b[0m", "line\r\nSet-Cookie: x=y", "\xff\xfe bad utf-8", "\xed\xa0\x80", "z" + strings.Repeat("\u0335", 200), strings.Repeat("a", 5000), strings.Repeat("😀", 300),
	`=cmd|' /C calc'!A0`, `+SUM(1)`, `-1+1`, `@SUM(1)`, "a\"\nProxyCommand x", `$(reboot)`, "`reboot`", `; rm -rf /`, `../../etc/passwd`, `a'b"c`, ``, ` `,
}

// TestHostileStrings puts every payload everywhere and reads what came out as
// a browser does.
func TestHostileStrings(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	var names []string
	for i := range payloads {
		names = append(names, fmt.Sprint("d", i))
	}
	fleet := s.net.AddMany(names, "linux/arm64", "device")
	all, err := s.net.Keys(t.Context(), ops.Root(), 1)
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, len(payloads))
	for i := range payloads {
		made, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateKey{Note: "x"})
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = made.ID
	}
	// The service takes little of this, so it goes straight into the database: what a
	// device, an older server or a restored backup left there.
	s.console.Close()
	s.net.Restart(func(db *sql.DB) {
		set := func(query string, args ...any) {
			t.Helper()
			if _, err := db.Exec(query, args...); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		for i, p := range payloads {
			id, named, tag := fleet[i].ID[:], cmp.Or(p, "(none)"), strings.ReplaceAll(p, ",", "")
			user := fmt.Sprint("u", i)
			set(`INSERT INTO users (network_id, user_id, name, owner, created_at) SELECT network_id, $1, $2, 0, 1 FROM networks`, user, named)
			set(`UPDATE nodes SET user_id=$1, name=$2, hostname=$3, os=$2, software=$2, tags=$4 WHERE node_id=$5`, user, p, p+"x", "ok,"+tag, id)
			set(`UPDATE keys SET user_id=$1, note=$2, tags=$3 WHERE key_id=$4`, user, p, tag, keys[i])
			set(`INSERT INTO aliases (network_id, name, node_id, until) SELECT network_id, $1, $2, $3 FROM networks`, named, id, s.Now().Add(time.Hour).Unix())
			set(`INSERT INTO dns_records (network_id, record_id, name, type, value, ttl, created_at) SELECT network_id, $1, $2, $3, $3, 0, 1 FROM networks`, fmt.Sprint("r", i), named, p)
			set(`INSERT INTO policies (network_id, number, text, user_id, user_name, via) SELECT network_id, $1, $2, $2, $2, $2 FROM networks`, i+1, p)
			hash := ops.HashToken(p)
			set(`INSERT INTO identities (network_id, identity_id, issuer, subject, provider_id, user_id, admitted, name, mail, created_at, seen_at) SELECT network_id, $1, $1, $2, $2, CASE WHEN $3 % 2 = 0 THEN $4 END, 0, $2, $2, 1, 1 FROM networks`, fmt.Sprint("i", i), p, i, user)
			set(`INSERT INTO oidc_providers (network_id, provider_id, title, issuer, client_id, scopes, groups_claim, name_claim, admit_claim, admit_value, created_at) SELECT network_id, $1, $2, 'http://127.0.0.1:1', 'x', '', '', '', '', '', 1 FROM networks`, named, p)
			set(`INSERT INTO relays (network_id, relay_id, name, urls, stun, key_id, software, created_at) SELECT network_id, $1, $2, json_array($3), json_array($3), $3, $3, 1 FROM networks`, fmt.Sprint("relay", i), named, p)
			set(`INSERT INTO users (network_id, user_id, name, owner, kind, role, tags, created_at) SELECT network_id, $1, $2, 0, 'service', 'member', $3, 1 FROM networks`, fmt.Sprint("s", i), "service "+named, tag)
			set(`INSERT INTO tokens (network_id, token_id, token_hash, user_id, made_by, description, created_at, used_from) SELECT network_id, $1, randomblob(32), $2, $3, $4, 1, $5 FROM networks`, fmt.Sprint("t", i), fmt.Sprint("s", i), user, p, tag)
			set(`INSERT INTO webhooks (network_id, webhook_id, revision, url, note, events, tags, allow, enabled, salt, created_at, audit_seq, presence_n, last_error, recent) SELECT network_id, $1, 1, 'https://h.example/' || $2, $2, $3, $3, '', 1, randomblob(16), 1, 0, 0, $2, json_array(json_object('event', $2, 'op', $2, 'error', $2, 'at', '2026-01-01T00:00:00Z')) FROM networks`, fmt.Sprint("w", i), p, "ok,"+tag)
			set(`INSERT INTO passkeys (network_id, credential_id, passkey_id, user_id, name, rp_id, public_key, counter, flags, transports, aaguid, created_at, cloned_at) SELECT network_id, randomblob(32), $1, user_id, $2, $2, x'00', 0, 0, '', x'', 1, 1 FROM users WHERE owner=1`, fmt.Sprint("p", i), p)
			set(`INSERT INTO sessions (network_id, token_hash, user_id, created_at, seen_at, agent, addr) SELECT network_id, $1, user_id, $2, $2, $3, $3 FROM users WHERE owner=1`, hash[:], s.Now().Unix(), p)
		}
		set(`UPDATE nodes SET wildcard=1 WHERE name LIKE '%<%'`)
		routes := []map[string]any{}
		for _, p := range payloads {
			routes = append(routes, map[string]any{"suffix": p, "nameservers": []map[string]any{{"address": p, "bootstrap": []string{p}}}})
		}
		settings, err := json.Marshal(map[string]any{"routes": routes, "nameservers": routes[0]["nameservers"], "search": payloads, "portal_url": payloads[0], "rebinding_allowed": payloads[1:2]})
		if err != nil {
			t.Fatal(err)
		}
		urls, err := json.Marshal(payloads[:10])
		if err != nil {
			t.Fatal(err)
		}
		set(`UPDATE networks SET dns=$1, urls=$2`, string(settings), string(urls))
	})
	s.use(console.New(console.Config{Service: s.net.Service, Now: s.Now}))
	for i, d := range fleet {
		s.net.Presence(d.ID, uint64(i), i%2 == 0, s.Now(), netip.MustParseAddr("192.0.2.1"))
	}

	pages := []string{"/devices", "/devices?from=50", "/devices?reach=%3Cb%3E", "/account", "/people/waiting", "/add", "/add?for=laptop", "/add/device", "/access/tags", "/network/dns", "/network/keys", "/network", "/network/dns/routes", "/network/dns/try", "/settings", "/settings/sign-in", "/settings/webhooks", "/settings/tokens", "/settings/tokens/new", "/settings/releases", "/network/keys/" + all[0].ID + "/join"}
	for i, p := range payloads {
		pages = append(pages, "/network/relays/"+fmt.Sprint("relay", i), "/settings/webhooks/"+fmt.Sprint("w", i), "/settings/tokens?made="+url.QueryEscape(p),
			"/settings/sign-in/provider?id="+url.QueryEscape(cmp.Or(p, "(none)")), "/settings/tokens/new?service="+url.QueryEscape(p), "/devices/"+fleet[i].ID.String(), "/devices/"+fleet[i].ID.String()+"/settings?note="+url.QueryEscape(p), "/devices/"+fleet[i].ID.String()+"/activity", "/network/keys/"+keys[i]+"/join",
			"/network/dns/try?name="+url.QueryEscape(p)+"&type="+url.QueryEscape(p)+"&from="+url.QueryEscape(p), "/devices?q="+url.QueryEscape("nothing "+p), "/devices?done="+url.QueryEscape(p))
	}
	for _, at := range pages {
		a := b.get(at).want(t, 200)
		checkMarkup(t, at, a.body)
	}
	anonymous := s.browser()
	for i, p := range payloads {
		if i%3 == 0 { // each costs one argon2id
			s.advance(time.Minute)
			a := anonymous.post("/sign-in", "name", p, "password", "x", "next", p)
			checkMarkup(t, "/sign-in", a.body)
		}
		checkMarkup(t, "/welcome", anonymous.get("/welcome?link="+url.QueryEscape(p)).want(t, 410).body)
		checkMarkup(t, "/sign-in", anonymous.get("/sign-in?next="+url.QueryEscape(p)).want(t, 200).body)
		checkMarkup(t, "404", b.get("/"+url.PathEscape(p)+"/x").body)
		id := fleet[i].ID.String()
		checkMarkup(t, "/access", b.get("/access?from="+url.QueryEscape(p)+"&to="+url.QueryEscape(p)+"&number="+url.QueryEscape(p)).want(t, 200).body)
		for _, at := range []string{"/access?q=", "/access?at=", "/access/policy?line=", "/access/tests?failed=", "/access/history?number="} {
			checkMarkup(t, at, b.get(at+url.QueryEscape(p)).want(t, 200).body)
		}
		checkMarkup(t, "history", b.get(fmt.Sprint("/access/history?number=", i+1)).want(t, 200).body)
		for _, to := range []string{"/access", "/access/check"} {
			for _, text := range []string{p + " $", "{} // " + p + "\n$", `{"rules":[{"from":["` + p + `"],"to":["*"],"ports":["*"]}]}`, `{"tests":[{"src":"` + p + `","deny":["` + p + `"]}]}`} {
				checkMarkup(t, to, b.post(to, "text", text, "match", p).body)
				part := b.request("POST", "/access/check", form("text", text))
				part.Header.Set("HX-Request", "true")
				checkMarkup(t, "a part of "+to, b.do(part).want(t, 200).body)
			}
		}
		checkMarkup(t, "revert", b.post("/access/revert", "number", p, "match", p).want(t, 400).body)
		if a := b.post("/devices/"+id+"/rename", "name", p); a.StatusCode == 422 {
			checkMarkup(t, "rename", a.body)
		}
		assigned := b.post("/devices/"+id+"/assign", "tags", p, "owner", p, "match", "x"+p)
		if checkMarkup(t, "assign", assigned.body); assigned.StatusCode != 409 && assigned.StatusCode != 422 {
			t.Errorf("%q as tags and owner: status %d", p, assigned.StatusCode)
		}
		checkMarkup(t, "undo", b.post("/devices/"+id+"/undo", "note", p).want(t, 422).body)
		checkMarkup(t, "new webhook", b.post("/settings/webhooks/new", "url", p, "events", p+" $", "tags", p, "note", p, "allow", p).body)
		checkMarkup(t, "webhook", b.post("/settings/webhooks/"+fmt.Sprint("w", i), "url", p, "events", p, "tags", p, "note", p, "allow", p, "match", p).body)
		checkMarkup(t, "new service", b.post("/settings/tokens/services", "name", p+" $", "role", p, "tags", p).body)
		checkMarkup(t, "new token", b.post("/settings/tokens/new", "service", p, "note", p, "life", p).body)                                                                                                // 422, or 303 to sign in again
		checkMarkup(t, "passkey domain", b.post("/settings/sign-in/passkeys", "domain", p, "match", p).body)                                                                                                // 422, or 303 to sign in again
		checkMarkup(t, "new provider", b.post("/settings/sign-in/new", "id", p+"$", "title", p, "issuer", p, "client", p, "secret", p, "scopes", p, "groups", p, "called", p, "claim", p, "value", p).body) // 422, or 303 to sign in again
		checkMarkup(t, "relay", b.post("/network/relays/"+fmt.Sprint("relay", i)+"/remove", "typed", p+"$").body)
		checkMarkup(t, "new key", b.post("/network/keys", "kind", "device", "tags", p+" $", "note", p, "life", "1h").want(t, 422).body)
	}
}

// checkMarkup fails for anything in a page that only a payload can have put
// there.
func checkMarkup(t *testing.T, at, body string) {
	t.Helper()
	if !utf8.ValidString(body) {
		t.Errorf("%s: not UTF-8", at)
	}
	for _, r := range body {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029') {
			t.Errorf("%s: contains %U", at, r)
			return
		}
	}
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "iframe", "object", "embed", "base", "template", "hx-partial", "img", "math", "frame", "noscript":
			t.Errorf("%s: <%s>", at, n.Data)
		}
		for _, a := range n.Attr {
			v := strings.ToLower(strings.TrimSpace(a.Val))
			switch {
			case strings.HasPrefix(a.Key, "on"), strings.HasPrefix(a.Key, "hx-on"), a.Key == "style", a.Key == "srcdoc", a.Key == "http-equiv":
				t.Errorf("%s: <%s %s=%q>", at, n.Data, a.Key, a.Val)
			case a.Key == "src" || a.Key == "href" || a.Key == "action" || a.Key == "hx-get" || a.Key == "hx-post" || a.Key == "hx-sse:connect" || a.Key == "formaction":
				if !strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "#") || strings.HasPrefix(v, "//") {
					t.Errorf("%s: <%s %s=%q>", at, n.Data, a.Key, a.Val)
				}
			}
			if n.Data == "script" && a.Key == "src" && !strings.HasPrefix(a.Val, "/static/") {
				t.Errorf("%s: script from %q", at, a.Val)
			}
			if a.Key == "data-copy" && strings.ContainsAny(a.Val, "`$;\n") {
				t.Errorf("%s: command to copy %q", at, a.Val)
			}
		}
		style, script := console.Inline()
		if c := n.FirstChild; (n.Data == "script" || n.Data == "style") && c != nil && c.Data != map[string]string{"script": script, "style": style}[n.Data] {
			t.Errorf("%s: inline %s %q", at, n.Data, c.Data)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"kitchen-pi":                       "kitchen-pi",
		"Küche 厨房 😀":                       "Küche 厨房 😀",
		"a\u202eb":                         `a\u202eb`,
		"a\u200bb":                         `a\u200bb`,
		"a\x00\x1b\r\n":                    `a\u0000\u001b\u000d\u000a`,
		"\xff":                             "�",
		"�":                                "�",
		"a\u00a0b":                         `a\u00a0b`,
		"e\u0301":                          "e\u0301",
		"z" + strings.Repeat("\u0335", 50): "z" + strings.Repeat("\u0335", 3),
		strings.Repeat("a", 121):           strings.Repeat("a", 120) + "…",
	} {
		if got := console.Clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, p := range payloads {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := console.Clean(in)
		if !utf8.ValidString(out) || utf8.RuneCountInString(out) > 120*10+1 {
			t.Errorf("clean(%q) = %q", in, out)
		}
		for _, r := range out {
			if r != ' ' && !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) {
				t.Errorf("clean(%q) holds %U", in, r)
			}
		}
	})
}

func FuzzLocalPath(f *testing.F) {
	for _, p := range []string{"/", "/devices?q=a", "//evil.example", "/\\evil", "https://evil", "javascript:x", "/\t/evil", "/%2f/evil", "/@evil", "/devices#x"} {
		f.Add(p)
	}
	base, _ := url.Parse("https://console.example/sign-in")
	f.Fuzz(func(t *testing.T, in string) {
		out := console.LocalPath(in)
		if out == "" {
			return
		}
		u, err := url.Parse(out)
		if err != nil {
			t.Fatalf("localPath(%q) = %q: %v", in, out, err)
		}
		if to := base.ResolveReference(u); to.Host != base.Host || to.Scheme != base.Scheme || out[0] != '/' || len(out) > 1 && (out[1] == '/' || out[1] == '\\') {
			t.Errorf("localPath(%q) leads to %s", in, to)
		}
	})
}
