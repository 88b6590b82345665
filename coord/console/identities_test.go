package console_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/ops"
)

// as is a browser of a new user with a role.
func (s *site) as(name string, role ops.Role) *browser {
	s.t.Helper()
	if _, err := ops.Do(s.t.Context(), s.net.Service, ops.Root(), ops.CreateUser{Name: name, Role: role}); err != nil {
		s.t.Fatal(err)
	}
	return s.browser().enterAs(name)
}

// Who waits for approval is approved and denied in the console, by admins who signed in a
// moment ago; nobody's words become anything but text there.
func TestWaitingPage(t *testing.T) {
	s := newSite(t)
	owner := s.browser().enter()
	owner.get("/people/waiting").want(t, 200, "Nobody waits")
	p := s.idp().add("work")
	waits := func(sub, name, mail string) {
		t.Helper()
		p.set(func(p *idp) {
			p.claims = map[string]any{"sub": sub, "preferred_username": name, "email": mail, "email_verified": true}
		})
		a := s.browser().with(p, "work", "").want(t, 403, "You are not approved yet")
		checkMarkup(t, "the page of who waits", a.body)
	}
	for i, text := range payloads {
		if text = strings.ToValidUTF8(text, "?"); len(text) > 200 {
			text = text[:200]
		}
		waits(fmt.Sprint(i, text), text, text)
	}
	page := owner.get("/people/waiting").want(t, 200, "Approve this person", "Deny")
	checkMarkup(t, "/people/waiting", page.body)
	owner.get("/account").want(t, 200, "waiting for approval", "/people/waiting")
	ids := regexp.MustCompile(`/people/waiting/([^/"]+)/approve`).FindAllStringSubmatch(page.body, -1)
	if len(ids) != len(payloads) {
		t.Fatalf("%d of %d wait", len(ids), len(payloads))
	}
	for _, id := range ids {
		owner.post("/people/waiting/"+id[1]+"/deny").want(t, 303)
		owner.post("/people/waiting/"+id[1]+"/deny").want(t, 404)
	}
	owner.get("/people/waiting").want(t, 200, "Nobody waits")

	waits("subject-1", "alice", "alice@example.org")
	page = owner.get("/people/waiting").want(t, 200, "alice@example.org", "subject-1")
	at := "/people/waiting/" + regexp.MustCompile(`/people/waiting/([^/"]+)/approve`).FindStringSubmatch(page.body)[1]
	admin, auditor, operator, member := s.as("adam", ops.RoleAdmin), s.as("audrey", ops.RoleAuditor), s.as("oscar", ops.RoleOperator), s.as("mia", ops.RoleMember)
	for _, b := range []*browser{operator, member} {
		b.get("/people/waiting").want(t, 403)
		b.post(at+"/approve").want(t, 403)
		b.post(at+"/deny").want(t, 403)
		if strings.Contains(b.get("/account").want(t, 200).body, "/people/waiting") {
			t.Error("a page is linked for who may not see it")
		}
	}
	if strings.Contains(auditor.get("/people/waiting").want(t, 200, "alice").body, "/approve") {
		t.Error("an auditor is offered to approve")
	}
	auditor.post(at+"/approve").want(t, 403)
	admin.post(at+"/approve", "user", "admin").want(t, 403) // that would make an owner of him
	admin.post(at+"/approve", "user", "<b>").want(t, 422, "&lt;b&gt;")
	s.advance(ops.FreshFor + time.Minute)
	if to := admin.post(at+"/approve").want(t, 303).Header.Get("Location"); !strings.HasPrefix(to, "/sign-in/again?next=") {
		t.Errorf("leads to %q", to)
	}
	owner.post("/sign-in", "name", "admin", "password", password).want(t, 303)
	owner.post(at+"/approve").want(t, 303)
	owner.post(at+"/approve").want(t, 422, "was approved before")
	owner.get("/people/waiting").want(t, 200, "Nobody waits", "Remove and sign out", "alice")
	b := s.browser()
	b.with(p, "work", "").want(t, 303)
	b.get("/devices").want(t, 200)
	owner.post(at+"/deny").want(t, 303)
	b.get("/devices").want(t, 401)
}
