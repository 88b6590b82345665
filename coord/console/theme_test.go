package console_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"weft/coord/ops"
)

// A theme that somebody chose is in the page from its first byte, on pages signed out too,
// and the choice leads back to where it was made, on this site only.
func TestTheme(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	page := b.get("/devices?q=pi&done=renamed").want(t, 200, `<html lang="en">`, `content="light dark"`, `value="auto" aria-pressed="true"`)
	checkMarkup(t, "/devices", page.body)
	for _, theme := range []string{"dark", "light"} {
		req := b.request("POST", "/theme", form("theme", theme))
		req.Header.Set("Referer", s.server.URL+"/devices?done=renamed&q=pi")
		a := b.do(req).want(t, 303)
		if to := a.Header.Get("Location"); to != "/devices?q=pi" {
			t.Errorf("leads to %q", to)
		}
		if c := a.Response.Cookies(); len(c) != 1 || !strings.HasSuffix(c[0].Name, "-theme") || c[0].MaxAge < 30*24*3600 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode {
			t.Errorf("cookies %v", c)
		}
		b.get("/account").want(t, 200, `<html lang="en" data-theme="`+theme+`">`, `name="color-scheme" content="`+theme+`"`, `value="`+theme+`" aria-pressed="true"`)
	}
	req := b.request("POST", "/theme", form("theme", "dark"))
	req.Header.Set("Referer", "https://evil.example/account")
	if to := b.do(req).want(t, 303).Header.Get("Location"); to != "/devices" {
		t.Errorf("another site leads to %q", to)
	}
	b.post("/theme", "theme", `"><b>`, "back", "/devices").want(t, 400)
	for _, elsewhere := range []string{"", "//evil.example/", "https://evil.example/", `/\evil.example`} {
		if to := b.post("/theme", "theme", "dark", "back", elsewhere).want(t, 303).Header.Get("Location"); to != "/devices" {
			t.Errorf("%q leads to %q", elsewhere, to)
		}
	}
	// A page that answers a form leads back to the form.
	b.post("/account/password", "current", "wrong", "password", "another good one").want(t, 422, `name="back" value="/account"`)
	b.post("/sign-out").want(t, 303)
	b.get("/sign-in").want(t, 200, `data-theme="dark"`)
	// Whatever else is in the cookie is not in the page.
	req = b.request("GET", "/sign-in", nil)
	for _, c := range b.Jar.Cookies(req.URL) {
		if strings.HasSuffix(c.Name, "-theme") {
			b.Jar.SetCookies(req.URL, []*http.Cookie{{Name: c.Name, Value: "dark-x", Path: "/"}})
		}
	}
	b.get("/sign-in").want(t, 200, `<html lang="en">`)
	s.browser().get("/sign-in").want(t, 200, `<html lang="en">`)
}

// The sections are those that a role has a use for: each leads to a page.
func TestSections(t *testing.T) {
	s := newSite(t)
	owner := s.browser().enter()
	for role, want := range map[string][]string{
		"owner":    {"/devices", "/people", "/access", "/activity", "/network", "/settings"},
		"admin":    {"/devices", "/people", "/access", "/activity", "/network", "/settings"},
		"operator": {"/devices", "/access", "/network", "/settings"},
		"auditor":  {"/devices", "/people", "/access", "/activity", "/network", "/settings"},
		"member":   {"/devices", "/network/keys", "/settings"},
	} {
		b := owner
		if role != "owner" {
			if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateUser{Name: role + "-1", Role: ops.Role(role)}); err != nil {
				t.Fatal(err)
			}
			b = s.browser().enterAs(role + "-1")
		}
		body := b.get("/devices").want(t, 200).body
		_, nav, _ := strings.Cut(body, `<nav aria-label="Sections">`)
		nav, _, _ = strings.Cut(nav, "</nav>")
		var got []string
		for _, link := range strings.Split(nav, `<a href="`)[1:] {
			at, _, _ := strings.Cut(link, `"`)
			got = append(got, at)
			page := b.get(at).want(t, 200, `aria-current="page"`).body
			checkMarkup(t, at, page)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", role, got, want)
		}
	}
}
