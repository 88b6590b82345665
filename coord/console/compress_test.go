package console_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"weft/coord/console"
)

// unpacked returns an answer's body, and how many bytes of it came over the wire.
func unpacked(t *testing.T, res *http.Response) (text string, wire int) {
	t.Helper()
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("Content-Encoding") != "gzip" {
		return string(raw), len(raw)
	}
	r, err := gzip.NewReader(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain), len(raw)
}

func (b *browser) getAs(path, encodings string) *http.Response {
	b.t.Helper()
	req := b.request("GET", path, nil)
	req.Header.Set("Accept-Encoding", encodings) // the transport's own is off then
	res, err := b.Client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	return res
}

// Long pages and static files are compressed for clients that take gzip, and the same for
// others. Pages with secrets are not.
func TestCompressed(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprint("unit-", i))
	}
	s.net.AddMany(names, "linux/arm", "device")
	css := "/static/style.css"
	unpacked(t, b.getAs("/devices", "gzip")) // has the style sheet in it
	for _, path := range []string{"/devices", css} {
		for encodings, want := range map[string]bool{"gzip": true, "br, GZIP ; q=0.5": true, "gzip;q=0, identity": false, "br": false, "x-gzip2": false, "gzip;q=x": false} {
			res := b.getAs(path, encodings)
			if !strings.Contains(strings.Join(res.Header.Values("Vary"), ","), "Accept-Encoding") {
				t.Errorf("%s varies by %q", path, res.Header.Values("Vary"))
			}
			packed := res.Header.Get("Content-Encoding") == "gzip"
			text, wire := unpacked(t, res)
			if packed != want {
				t.Errorf("%s for %q: compressed is %v", path, encodings, packed)
			}
			if plain, _ := unpacked(t, b.getAs(path, "identity")); text != plain {
				t.Errorf("%s for %q: another text", path, encodings)
			}
			if packed && wire > len(text)/3 {
				t.Errorf("%s: %d of %d bytes", path, wire, len(text))
			}
			if fmt.Sprint(wire) != res.Header.Get("Content-Length") {
				t.Errorf("%s: %d bytes, and the header says %s", path, wire, res.Header.Get("Content-Length"))
			}
		}
	}
	for _, path := range []string{"/account", "/network/keys", "/add/device"} {
		if e := b.getAs(path, "gzip").Header.Get("Content-Encoding"); e != "" {
			t.Errorf("%s is %s", path, e)
		}
	}
}

// The first page that is compressed has the style sheet in it, and what is written in a page
// is what its policy allows by its hash. A cookie says that the browser was given this sheet:
// pages after it only have its address.
func TestStyleInPages(t *testing.T) {
	s := newSite(t)
	style, script := console.Inline()
	if strings.Contains(style+script, "</") || strings.Contains(style, "url(") {
		t.Error("the style sheet or the script cannot be part of a page")
	}
	source := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'self' 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	check := func(b *browser, path, encodings string, inline bool, more ...string) *http.Response {
		t.Helper()
		req := b.request("GET", path, nil)
		req.Header.Set("Accept-Encoding", encodings)
		for i := 0; i < len(more); i += 2 {
			req.Header.Set(more[i], more[i+1])
		}
		res, err := b.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := unpacked(t, res)
		policy := res.Header.Get("Content-Security-Policy")
		if strings.Contains(policy, "style-src "+source(style)) != inline || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s for %q: inline is %v, and the policy is %s", path, encodings, inline, policy)
		}
		if inline != (strings.Count(text, "<style>"+style+"</style>") == 1) || inline == strings.Contains(text, `rel="stylesheet"`) && strings.Contains(text, "<html") {
			t.Errorf("%s for %q: %.3000s", path, encodings, text)
		}
		signedIn := strings.Contains(text, `id="live"`)
		if signedIn != strings.Contains(text, "<script>"+script+"</script>") || signedIn != strings.Contains(policy, "script-src "+source(script)) {
			t.Errorf("%s: no script, or another policy: %s", path, policy)
		}
		return res
	}
	b := s.browser()
	check(b, "/sign-in", "gzip", false)
	b.enter()
	for _, path := range []string{"/account", "/network/keys", "/add/device", "/nothing-there"} { // not compressed
		check(b, path, "gzip", false)
	}
	check(b, "/devices", "br", false)
	check(b, "/devices", "gzip", false, "HX-Request", "true")
	c := check(b, "/devices", "gzip", true).Cookies()
	if len(c) != 1 || !strings.HasSuffix(c[0].Name, "-style") || c[0].MaxAge < 300*24*3600 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode {
		t.Fatalf("cookies %v", c)
	}
	for _, path := range []string{"/devices", "/activity"} {
		if c := check(b, path, "gzip", false).Cookies(); len(c) != 0 {
			t.Errorf("cookies once more: %v", c)
		}
	}
	// Of another release, or anything else.
	b.Jar.SetCookies(b.request("GET", "/", nil).URL, []*http.Cookie{{Name: c[0].Name, Value: "000000000000", Path: "/"}})
	check(b, "/devices", "gzip", true)
}

// Whoever signs in after a form was refused comes back to the page with the form, and to
// no other site.
func TestFormAfterSession(t *testing.T) {
	s := newSite(t)
	d := s.net.Add("one", "linux/arm64", "device")
	page := "/devices/" + d.ID.String()
	for referrer, want := range map[string]string{
		s.server.URL + page + "?tab=x": page + "?tab=x",
		"https://evil.example/bad":     "",
		"":                             "",
	} {
		req := s.browser().request("POST", page+"/rename", url.Values{"name": {"two"}})
		req.Header.Set("Referer", referrer)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := unpacked(t, res)
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s", res.Status)
		}
		if got := strings.Contains(text, `name="next" value="`+page+"?tab=x"); got != (want != "") || strings.Contains(text, "evil") {
			t.Errorf("from %q: %s", referrer, text)
		}
	}
}
