package coord

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"testing"
)

// A program of a release has no page of all parts, also for who is signed in; one that was
// built from the source has.
func TestStyleOfRelease(t *testing.T) {
	for version, want := range map[string]int{
		"1.2.3": 404, "0.0.20261130103814": 404, "": 404, "development": 404,
		"dev": 200, "dev-0123456789ab+": 200,
	} {
		s := startServer(t, func(o *ServerOptions) { o.Software = version })
		w, err := s.Welcome(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link, err := url.Parse(w.ConsoleURL)
		if err != nil {
			t.Fatal(err)
		}
		jar, _ := cookiejar.New(nil)
		browser, base := &http.Client{Jar: jar}, "http://"+s.plain.Addr().String()
		get := func(res *http.Response, err error) int {
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.StatusCode
		}
		if got := get(browser.PostForm(base+"/welcome", url.Values{"link": {link.Query().Get("link")}, "password": {"correct horse battery"}})); got != 200 {
			t.Fatal(got)
		}
		if got := get(browser.Get(base + "/style")); got != want {
			t.Errorf("version %q: %d, want %d", version, got, want)
		}
		browser.CloseIdleConnections()
	}
}
