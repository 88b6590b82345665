package console_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"weft/coord/ops"
)

// Whoever signs in gets a session of a new name, in whichever way: what somebody else put
// into the browser before, an invented token or the token of a session of theirs, opens
// nothing of theirs afterwards.
func TestSessionsAreNotFixed(t *testing.T) {
	s := newSite(t, trusted).at("weft.example")
	owner := s.browser().enter()
	key := owner.addPasskey("phone")
	p := s.idp().add("work", admitGroup)
	p.set(func(p *idp) { p.claims = map[string]any{"sub": "subject-1", "groups": "weft-users"} })
	s.net.Member("carl")
	carl := s.browser().enterAs("carl")
	phone, recovery := carl.setUpCodes()
	s.net.Member("mallory")
	mallory := s.browser().enterAs("mallory")
	password2 := func(b *browser, next func(proved string) answer) {
		proved := b.post("/sign-in", "name", "carl", "password", password).want(t, 200).hidden(t, "proved")
		next(proved).want(t, 303)
	}
	for name, signIn := range map[string]func(*browser){
		"password": func(b *browser) { b.signIn() },
		"a code": func(b *browser) {
			password2(b, func(proved string) answer { return b.post("/sign-in/code", "proved", proved, "code", phone.code()) })
		},
		"a recovery code": func(b *browser) {
			password2(b, func(proved string) answer { return b.post("/sign-in/code", "proved", proved, "code", recovery[0]) })
		},
		"a passkey":  func(b *browser) { b.show(key, "").want(t, 303) },
		"a provider": func(b *browser) { b.with(p, "work", "").want(t, 303) },
		"a link":     func(b *browser) { b.enterAs("bob") },
	} {
		if name == "a link" {
			s.net.Member("bob")
		}
		for _, planted := range []string{ops.NewToken(), mallory.cookie().Value} {
			s.advance(time.Minute)
			b := s.browser()
			u, _ := url.Parse(s.server.URL)
			b.Jar.SetCookies(u, []*http.Cookie{{Name: "__Host-weft", Value: planted, Secure: true, Path: "/"}})
			if b.cookie().Value != planted {
				t.Fatal("nothing is planted")
			}
			signIn(b)
			if got := b.cookie().Value; got == planted || got == "" {
				t.Errorf("with %s: signing in keeps the token", name)
			}
			b.get("/account").want(t, 200)
			req := s.browser().request("GET", "/account", nil)
			req.AddCookie(&http.Cookie{Name: "__Host-weft", Value: planted})
			if got := s.browser().do(req).StatusCode; got != 401 {
				t.Errorf("with %s: the token of before: %d", name, got)
			}
			if name == "a recovery code" {
				recovery = recovery[1:]
			}
			mallory = s.browser()
			mallory.post("/sign-in", "name", "mallory", "password", password).want(t, 303)
		}
	}
}
