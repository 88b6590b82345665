package coord

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The console answers to names that are this server's, on both listeners, and a
// web page under another name learns nothing from it.
func TestNames(t *testing.T) {
	s := startServer(t, func(o *ServerOptions) {
		o.URLs = []string{"https://weft.example:8443", "https://192.0.2.1:8443"}
		o.TrustedProxies = prefixes("127.0.0.7/32")
	})
	get := func(base, client, host, sni, path string) (int, string) {
		t.Helper()
		tr := &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: sni},
			DialContext:     from(client).DialContext,
		}
		defer tr.CloseIdleConnections()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", base+path, nil)
		req.Host = host
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	plain, secure := "http://"+s.plain.Addr().String(), "https://"+s.Addr().String()
	const ok, no = http.StatusOK, http.StatusMisdirectedRequest
	for _, c := range []struct {
		base, host, sni string
		want            int
	}{
		{plain, "127.0.0.1:8080", "", ok},
		{plain, "[::1]:8080", "", ok},
		{plain, "localhost:8080", "", ok},
		{plain, "LOCALHOST.", "", ok},
		{plain, "weft.localhost", "", ok},
		{plain, "weft.example:8443", "", ok},
		{plain, "weft.example", "", ok}, // behind a proxy that keeps the name
		{plain, "192.0.2.77:8443", "", ok},
		{plain, "evil.example:8080", "", no},
		{plain, "127.0.0.1.evil.example", "", no},
		{plain, "localhost.evil.example:8080", "", no},
		{plain, "evil-localhost", "", no},
		{plain, "weft.example.evil.example", "", no},
		{secure, "192.0.2.77:8443", "", ok},
		{secure, "weft.example:8443", "weft.example", ok},
		{secure, "other.example:8443", "other.example", ok}, // the browser believed the certificate
		{secure, "evil.example:8443", "weft.example", no},
		{secure, "evil.example:8443", "", no},
	} {
		for _, path := range []string{"/sign-in", "/static/style.css"} {
			got, body := get(c.base, "127.0.0.1", c.host, c.sni, path)
			if got != c.want || got == no && (!strings.Contains(body, "--url") || strings.Contains(body, "evil")) {
				t.Errorf("%s%s as %q (%q): %d %.80q, want %d", c.base, path, c.host, c.sni, got, body, c.want)
			}
		}
	}
	if got, _ := get(plain, "127.0.0.7", "www.example", "", "/sign-in"); got != ok {
		t.Errorf("through a trusted proxy: %d", got)
	}
	for path, want := range map[string]int{"/healthz": ok, "/weft": http.StatusUpgradeRequired, "/install": http.StatusServiceUnavailable} {
		if got, _ := get(plain, "127.0.0.1", "any.example", "", path); got != want {
			t.Errorf("%s: %d", path, got)
		}
	}
}
