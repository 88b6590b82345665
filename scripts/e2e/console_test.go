//go:build e2e

package e2e

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"weft/scripts/e2e/lab"
)

// The site is reachable where the contract says, its one-time link works, and the node
// API is not there. Browser tests cover the rest.
func TestConsole(t *testing.T) {
	t.Parallel()
	m := lab.NewMeshNoNodes(t, bin)
	plain := m.Server.Host.HTTP("")
	public := m.LaptopHome.HTTP("")
	public.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	get := func(c *http.Client, u string) (int, string, http.Header) {
		t.Helper()
		res, err := c.Get(u)
		if err != nil {
			t.Fatalf("%s: %v", u, err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b), res.Header
	}
	for _, s := range []struct {
		c    *http.Client
		base string
	}{{plain, "http://" + m.Server.Console}, {public, m.Server.URL}} {
		if code, _, _ := get(s.c, s.base+"/healthz"); code != 200 {
			t.Errorf("%s/healthz: %d", s.base, code)
		}
		code, body, h := get(s.c, s.base+"/")
		if code != 200 && code != 401 || !strings.Contains(body, "<html") || !strings.Contains(strings.ToLower(body), "sign in") {
			t.Errorf("%s/ is no sign-in page: %d\n%.500s", s.base, code, body)
		}
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src") || strings.Contains(csp, "unsafe-inline") {
			t.Errorf("%s/: Content-Security-Policy %q", s.base, csp)
		}
		for _, path := range []string{"/v1/config", "/v1/join", "/v1/directory", "/metrics", "/debug/pprof/", "/devices"} {
			if code, body, _ := get(s.c, s.base+path); code == 200 && !strings.Contains(strings.ToLower(body), "sign in") {
				t.Errorf("%s%s is open to anybody: %.200s", s.base, path, body)
			}
		}
	}
	// Plain HTTP on the TLS port gets no useful answer.
	if res, err := m.LaptopHome.HTTP("").Get("http://" + strings.TrimPrefix(m.Server.URL, "https://") + "/"); err == nil {
		res.Body.Close()
		if res.StatusCode < 300 {
			t.Errorf("plain HTTP on the TLS port: %s", res.Status)
		}
	}

	// The printed one-time link works at every address of the server.
	link, err := url.Parse(m.Server.ConsoleURL)
	if err != nil {
		t.Fatal(err)
	}
	jar, _ := cookiejar.New(nil)
	c := public
	if link.Scheme == "http" {
		c = plain
	}
	c.Jar = jar
	if code, body, _ := get(c, link.String()); code != 200 || !strings.Contains(strings.ToLower(body), "password") {
		t.Errorf("the first sign-in link: %d\n%.500s", code, body)
	}
	if r := m.Server.Admin("login-link"); r.Code != 0 || !strings.Contains(r.Out, "http") || strings.Contains(r.Out, m.Server.ConsoleURL) {
		t.Errorf("login-link: %v", r)
	}
}
