package console_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/passkey/passkeytest"
)

// invites returns the path and query of an invitation's link.
func (s *site) invites(who ops.Actor, c ops.InviteUser) string {
	s.t.Helper()
	in, err := ops.Do(s.t.Context(), s.net.Service, who, c)
	if err != nil {
		s.t.Fatal(err)
	}
	return in.Path
}

func tokenOf(link string) string {
	_, token, _ := strings.Cut(link, "link=")
	return token
}

// Somebody who opens an invitation chooses a password and is signed in, once. Link previews
// use nothing up; whoever else is signed in in the browser is told so, and stays it.
func TestInvitationPage(t *testing.T) {
	s := newSite(t)
	owner := s.browser().enter()
	link := s.invites(ops.Root(), ops.InviteUser{Name: "ivy", DisplayName: "<b>Ivy"})
	for range 3 {
		a := s.browser().get(link).want(t, 200, "You are invited to this network as", "ivy", "Choose a password for")
		checkMarkup(t, "/welcome", a.body)
		if p := a.Header.Get("Referrer-Policy"); p != "same-origin" {
			t.Errorf("Referrer-Policy %q", p)
		}
		if strings.Contains(a.body, "passkey") {
			t.Error("a passkey is offered where there can be none")
		}
	}
	s.browser().post("/welcome/passkey/options?link="+tokenOf(link)).want(t, 404)
	owner.get(link).want(t, 403, "Somebody else is signed in here", "you are signed in as <b><bdi>admin</bdi></b>", "Sign out")
	owner.post("/welcome", "link", tokenOf(link), "password", "ivys long password").want(t, 403, "Somebody else is signed in here")
	owner.get("/devices").want(t, 200)
	ivy := s.browser()
	ivy.post("/welcome", "link", tokenOf(link), "password", "short").want(t, 422)
	ivy.post("/welcome", "link", tokenOf(link), "password", "ivys long password").want(t, 303)
	ivy.get("/account").want(t, 200, "ivy", "with a link")
	for _, b := range []*browser{s.browser(), ivy, owner} {
		b.get(link).want(t, 410, "This link no longer works", "ask them for a new one")
		b.post("/welcome", "link", tokenOf(link), "password", "another long password").want(t, 410)
	}
	s.browser().post("/sign-in", "name", "ivy", "password", "ivys long password").want(t, 303)

	revoked := s.invites(ops.Root(), ops.InviteUser{Name: "rita"})
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.RevokeInvitation{Name: "rita"}); err != nil {
		t.Fatal(err)
	}
	s.browser().get(revoked).want(t, 410, "was revoked")
	expired := s.invites(ops.Root(), ops.InviteUser{Name: "ella", Life: time.Hour})
	s.advance(time.Hour)
	s.browser().get(expired).want(t, 410, "has expired")

	adam, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateUser{Name: "adam", Role: ops.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	link = s.invites(ops.ConsoleActor(adam, ops.Actor{}.From), ops.InviteUser{Name: "carl"})
	s.browser().get(link).want(t, 200)
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.SuspendUser{Name: "adam"}); err != nil {
		t.Fatal(err)
	}
	s.browser().get(link).want(t, 403, "may no longer invite people")
	s.browser().post("/welcome", "link", tokenOf(link), "password", "carls long password").want(t, 403, "may no longer invite people")
	s.browser().post("/sign-in", "name", "carl", "password", "carls long password").want(t, 422)
}

// In place of a password it can be a passkey, made for this invitation and nothing else.
func TestInvitationWithPasskey(t *testing.T) {
	s := newSite(t, trusted).at("weft.example")
	link, other := s.invites(ops.Root(), ops.InviteUser{Name: "ivy"}), s.invites(ops.Root(), ops.InviteUser{Name: "eve"})
	made := func(b *browser, link string) (*passkeytest.Authenticator, string) {
		t.Helper()
		u, _ := url.Parse(s.server.URL)
		a := passkeytest.New(t, u.Hostname(), s.server.URL)
		return a, string(a.Create([]byte(b.post("/welcome/passkey/options?link="+tokenOf(link)).want(t, 200, `"challenge"`).body)))
	}
	b := s.browser()
	b.get(link).want(t, 200, "Make a passkey and sign in", "passkey.js")
	_, response := made(b, other)
	b.post("/welcome", "link", tokenOf(link), "response", response).want(t, 422, "took too long")
	b.post("/welcome", "link", tokenOf(link), "response", "nonsense").want(t, 422)
	phone, response := made(b, link)
	b.post("/welcome", "link", tokenOf(link), "response", response).want(t, 303)
	b.get("/account").want(t, 200, "ivy", "with a link and a passkey")
	s.browser().show(phone, "").want(t, 303)
	s.browser().post("/welcome", "link", tokenOf(link), "response", response).want(t, 410)
	s.browser().post("/welcome/passkey/options?link="+tokenOf(link)).want(t, 404)
	// A sign-in link of somebody who is here sets a password, and nothing else.
	path, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateLink{User: "ivy"})
	if err != nil {
		t.Fatal(err)
	}
	s.browser().post("/welcome/passkey/options?link="+tokenOf(path)).want(t, 404)
	if strings.Contains(s.browser().get(path).want(t, 200).body, "Make a passkey") {
		t.Error("a sign-in link offers a passkey")
	}
}

// Somebody who was invited may sign in at a provider, and is the one who was invited. Who is
// here already stays who that is, and the invitation is not used up.
func TestInvitationWithProvider(t *testing.T) {
	s := newSite(t)
	s.browser().enter()
	p := s.idp().add("work")
	is := func(sub string) {
		p.set(func(p *idp) { p.claims = map[string]any{"sub": sub, "preferred_username": sub} })
	}
	link, other := s.invites(ops.Root(), ops.InviteUser{Name: "ivy", Role: ops.RoleAuditor}), s.invites(ops.Root(), ops.InviteUser{Name: "eve"})
	s.browser().get(link).want(t, 200, "/sign-in/with/work?link="+tokenOf(link), "or sign in at a provider")
	is("ivy-at-work")
	b := s.browser()
	b.with(p, "work", "?link="+tokenOf(link)).want(t, 303)
	b.get("/account").want(t, 200, "ivy", "another provider")
	s.browser().get(link).want(t, 410)
	s.browser().get("/sign-in/with/work?link="+tokenOf(link)).want(t, 410)
	b = s.browser()
	b.with(p, "work", "").want(t, 303)
	b.get("/people").want(t, 200, "ivy")
	s.browser().with(p, "work", "?link="+tokenOf(other)).want(t, 403, "that invitation is for somebody else")
	b.get("/sign-in/with/work?link="+tokenOf(other)).want(t, 403, "Somebody else is signed in here")
	s.browser().get(other).want(t, 200)
	// A sign-in link is none.
	path, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateLink{User: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	s.browser().get("/sign-in/with/work?link="+tokenOf(path)).want(t, 410)
	// One that ends while somebody is at the provider does not let them in, nor wait.
	is("eve-at-work")
	at := s.browser()
	answer := at.ask(p, "work", "?link="+tokenOf(other))
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.RevokeInvitation{Name: "eve"}); err != nil {
		t.Fatal(err)
	}
	at.get(answer).want(t, 410, "This link no longer works")
	if list, err := s.net.Service.Identities(t.Context(), ops.Root()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}
