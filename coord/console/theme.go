package console

import (
	"net/http"
	"net/url"
	"time"
)

const (
	themeCookie = "-theme"
	themeLife   = 365 * 24 * time.Hour
)

// theme is a choice of the light or the dark, kept by the browser it was made in.
type theme struct {
	Value, Text string
	Here        bool
}

func themes(here string) []theme {
	list := []theme{{Value: "auto", Text: "Auto"}, {Value: "light", Text: "Light"}, {Value: "dark", Text: "Dark"}}
	for i, t := range list {
		list[i].Here = t.Value == here || t.Value == "auto" && here == ""
	}
	return list
}

// theme returns what was chosen in a browser: "light", "dark", or "" for what its system
// says.
func (c *Console) theme(r *http.Request) string {
	if ck, err := r.Cookie(c.cookieName(r, themeCookie)); err == nil && (ck.Value == "light" || ck.Value == "dark") {
		return ck.Value
	}
	return ""
}

// setTheme answers with a cookie that the server reads, so that a page is drawn in its
// theme at once and without a script.
func (c *Console) setTheme(v *visit) error {
	switch chosen := v.r.PostForm.Get("theme"); chosen {
	case "light", "dark":
		http.SetCookie(v.w, c.newCookie(v.r, themeCookie, chosen, themeLife))
	case "auto":
		http.SetCookie(v.w, c.newCookie(v.r, themeCookie, "", -time.Second))
	default:
		return errBadForm
	}
	to := localPath(v.r.PostForm.Get("back"))
	if u, err := url.Parse(v.r.Referer()); to == "" && err == nil && u.Host == v.r.Host {
		query := u.Query()
		query.Del("done") // what was done is said once
		to = localPath((&url.URL{Path: u.Path, RawQuery: query.Encode()}).RequestURI())
	}
	if to == "" {
		to = "/devices"
	}
	return v.redirect(to)
}
