package console

import (
	"net/http"
	"net/url"
	"strings"
)

// signInAgain asks somebody who is signed in to do that once more: it is the page of
// signing in, and ends and begins a session as that does.
func (c *Console) signInAgain(v *visit) error {
	return c.signInForm(v, http.StatusOK, signInView{Name: clean(v.actor.User), Next: localPath(v.r.URL.Query().Get("next")), Again: true})
}

// againPath is where somebody signs in again, and comes back from to the page of the
// request, or to the page that it was made on.
func againPath(r *http.Request) string {
	next := ""
	if r.Method == http.MethodGet && r.Header.Get("HX-Request") != "true" {
		next = localPath(r.URL.RequestURI())
	} else if u, err := url.Parse(r.Referer()); err == nil && strings.EqualFold(u.Host, r.Host) {
		next = localPath(u.RequestURI())
	}
	if next == "" || strings.HasPrefix(next, "/sign-in") {
		next = "/account"
	}
	return "/sign-in/again?next=" + url.QueryEscape(next)
}
