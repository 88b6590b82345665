package console_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/console/consoletest"
	"weft/coord/ops"
)

// An owner invites somebody in the console, gives them another role and groups, suspends and
// resumes them, and deletes them with what becomes of the devices.
func TestPeople(t *testing.T) {
	s := newSite(t)
	owner := s.browser().enter()
	owner.get("/people").want(t, 200, "You are alone here", `href="/people/invite"`, `<span>People</span>`, "just now")
	owner.get("/people/groups").want(t, 200, "No groups yet")
	owner.get("/people/invite").want(t, 200, "Owner: everything", "1 week")
	owner.post("/people/invite", "name", "a b<", "role", "member", "life", "7d").want(t, 422, "User name", "a b&lt;", `data-here="/people/invite"`)
	owner.post("/people/invite", "name", "ivy", "role", "boss", "life", "7d").want(t, 422, "want owner, admin")
	owner.post("/people/invite", "name", "ivy", "role", "admin", "tags", "camera", "life", "7d").want(t, 422, "cannot be limited to tags")
	to := owner.post("/people/invite", "name", "ivy", "display", "Ivy <b>", "role", "operator", "tags", "camera, door", "life", "24h").want(t, 303).Header.Get("Location")
	page := owner.get(to).want(t, 200, "Ivy &lt;b&gt;", "Send this link", "works on this machine only", "in 24 h", "End the invitation", "operator", `value="camera door"`)
	checkMarkup(t, "/people/person", page.body)
	link := regexp.MustCompile(`data-copy="(` + regexp.QuoteMeta(s.server.URL) + `/welcome\?link=[^"]+)"`).FindStringSubmatch(page.body)
	if link == nil {
		t.Fatal("no link in " + page.body)
	}
	path := strings.TrimPrefix(link[1], s.server.URL)
	owner.get("/people").want(t, 200, "<span>Invited</span>", ", ends ")

	// Another session sees that somebody is invited, and not the link; nor does the audit have it.
	other := s.browser()
	other.post("/sign-in", "name", "admin", "password", password).want(t, 303)
	for _, at := range []string{to, "/people", "/activity"} {
		if strings.Contains(other.get(at).want(t, 200).body, tokenOf(path)) {
			t.Errorf("%s has the link", at)
		}
	}
	other.get(to).want(t, 200, "it is not shown any more")
	owner.post("/people/person/invite", "name", "ivy").want(t, 303)
	s.browser().get(path).want(t, 410)
	owner.post("/people/person/revoke", "name", "ivy").want(t, 303)
	owner.get(to).want(t, 200, "Nobody has signed in as")
	owner.post("/people/person/invite", "name", "ivy").want(t, 303)
	page = owner.get(to).want(t, 200, "Send this link")
	path = strings.TrimPrefix(regexp.MustCompile(`data-copy="([^"]+/welcome[^"]+)"`).FindStringSubmatch(page.body)[1], s.server.URL)
	ivy := s.browser()
	ivy.post("/welcome", "link", tokenOf(path), "password", "ivys long password").want(t, 303)
	if strings.Contains(owner.get(to).want(t, 200).body, "Invitation") {
		t.Error("an invitation is shown that was used")
	}
	owner.post("/people/person/invite", "name", "ivy").want(t, 422, "can sign in already")

	match := regexp.MustCompile(`name="match" value="([^"]+)"`).FindStringSubmatch(owner.get(to).body)[1]
	owner.post("/people/person/edit", "name", "ivy", "match", match, "role", "admin", "tags", "", "display", "Ivy").want(t, 303)
	owner.post("/people/person/edit", "name", "ivy", "match", match, "role", "member", "tags", "", "display", "Ivy").want(t, 422, "Somebody else changed this meanwhile")
	owner.get(to).want(t, 200, `<span>Admin</span>`, "<h1><bdi>Ivy</bdi></h1>")
	owner.post("/people/groups", "name", "a:b").want(t, 422, "want 1 to 64 letters", "a:b")
	owner.post("/people/groups", "name", "family").want(t, 303)
	owner.post("/people/person/groups", "name", "ivy", "group", "family").want(t, 303)
	owner.get(to).want(t, 200, `value="family" checked`, `name="was" value="family"`)
	// All that is chosen, or nothing; and what others change meanwhile stays.
	owner.post("/people/groups", "name", "crew").want(t, 303)
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.EditGroup{Name: "crew", Add: []string{"ivy"}}); err != nil {
		t.Fatal(err)
	}
	owner.post("/people/person/groups", "name", "ivy", "was", "family", "group", "deleted").want(t, 422, "Somebody deleted a group meanwhile", `value="family" checked`)
	owner.post("/people/person/groups", "name", "ivy", "was", "family", "group", "family").want(t, 303)
	owner.get(to).want(t, 200, `value="crew" checked`, `value="family" checked`)
	owner.post("/people/groups/delete", "name", "crew").want(t, 303)
	owner.get("/people/groups").want(t, 200, ">ivy</bdi>", "Delete this group")
	owner.get("/people?q=famil").want(t, 200, ">ivy</bdi>")
	owner.get("/people?q=%3Cnobody").want(t, 200, "Nobody matches", "&lt;nobody")
	owner.post("/people/person/groups", "name", "ivy", "was", "family").want(t, 303)
	owner.get("/people/groups").want(t, 200, "Nobody")
	owner.post("/people/groups/delete", "name", "family").want(t, 303)

	owner.post("/people/person/suspend", "name", "admin").want(t, 422, "You cannot suspend yourself")
	owner.post("/people/person/suspend", "name", "ivy").want(t, 303)
	ivy.get("/devices").want(t, 401)
	owner.get("/people").want(t, 200, "<span>Suspended</span>")
	owner.get(to).want(t, 200, "Resume")
	owner.post("/people/person/resume", "name", "ivy").want(t, 303)
	ivy.post("/sign-in", "name", "ivy", "password", "ivys long password").want(t, 303)

	s.joins("ivy", "laptop")
	owner.get(to).want(t, 200, "What becomes of its 1 device")
	owner.post("/people/person/delete", "name", "ivy", "typed", "iv", "devices", "delete").want(t, 422, "Nothing was deleted")
	owner.post("/people/person/delete", "name", "ivy", "typed", "ivy").want(t, 422, "Say what becomes of them")
	owner.post("/people/person/delete", "name", "ivy", "typed", "ivy", "devices", "give").want(t, 422, "Name who gets the devices")
	owner.post("/people/person/delete", "name", "ivy", "typed", "ivy", "devices", "give", "to", "nobody").want(t, 422, "There is no user called nobody")
	s.advance(ops.FreshFor + time.Minute)
	if to := owner.post("/people/person/delete", "name", "ivy", "typed", "ivy", "devices", "give", "to", "admin").want(t, 303).Header.Get("Location"); !strings.HasPrefix(to, "/sign-in/again?next=") {
		t.Errorf("leads to %q", to)
	}
	owner.post("/sign-in", "name", "admin", "password", password).want(t, 303)
	owner.post("/people/person/delete", "name", "ivy", "typed", "ivy", "devices", "give", "to", "admin").want(t, 303)
	owner.get(to).want(t, 404)
	ivy.get("/devices").want(t, 401)
	owner.get("/devices").want(t, 200, "laptop")
}

// The link of an invitation is for somebody who is elsewhere: it is at the name by which the
// inviter has the console, or else at the server's public address, and says so where there is
// neither.
func TestInvitationAddress(t *testing.T) {
	for _, c := range []struct {
		at, public, want string
		onlyHere         bool
	}{
		{"weft.example", "https://203.0.113.7:8443", "https://weft.example", false},
		{"127.0.0.1:8080", "https://203.0.113.7:8443", "https://203.0.113.7:8443", false},
		{"localhost:8080", "https://vpn.example:8443", "https://vpn.example:8443", false},
		{"192.0.2.9:8443", "https://vpn.example:8443", "https://vpn.example:8443", false},
		{"192.0.2.9:8443", "https://localhost:8443", "https://192.0.2.9:8443", false},
		{"[2001:db8::9]:8443", "https://[::1]:8443", "https://[2001:db8::9]:8443", false},
		{"[::1]:8443", "https://[2001:db8::7]:8443", "https://[2001:db8::7]:8443", false},
		{"127.0.0.1:8080", "https://weft.localhost", "https://127.0.0.1:8080", true},
	} {
		s := newSiteWith(t, consoletest.Options{URLs: []string{c.public}}).at(c.at)
		owner := s.browser().enter()
		to := owner.post("/people/invite", "name", "ivy", "role", "member", "life", "7d").want(t, 303).Header.Get("Location")
		page := owner.get(to).want(t, 200, `data-copy="`+c.want+"/welcome?link=").body
		if said := strings.Contains(page, "works on this machine only"); said != c.onlyHere || strings.Contains(page, "QR code of the invitation") == c.onlyHere {
			t.Errorf("at %s, with %s: said %v", c.at, c.public, said)
		}
	}
}

// Who sees people, and who changes whom.
func TestWhoSeesPeople(t *testing.T) {
	s := newSite(t)
	s.browser().enter()
	admin, auditor, operator, member := s.as("adam", ops.RoleAdmin), s.as("audrey", ops.RoleAuditor), s.as("oscar", ops.RoleOperator), s.as("mia", ops.RoleMember)
	for _, b := range []*browser{operator, member} {
		for _, at := range []string{"/people", "/people/invite", "/people/groups", "/people/person?name=adam", "/people/waiting"} {
			b.get(at).want(t, 403)
		}
		if strings.Contains(b.get("/devices").want(t, 200).body, `href="/people"`) {
			t.Error("a page is linked for who may not see it")
		}
	}
	auditor.get("/people/invite").want(t, 403)
	for at, texts := range map[string][]string{"/people": {"mia", "adam"}, "/people/person?name=mia": {"Member"}, "/people/groups": {"No groups yet"}} {
		if body := auditor.get(at).want(t, 200, texts...).body; strings.Contains(body, `<form method="post"`) || strings.Contains(body, `method="post" action="/people`) || strings.Contains(body, "/people/invite") {
			t.Errorf("an auditor is offered to change something on %s", at)
		}
	}
	for _, b := range []*browser{auditor, operator, member} {
		for _, verb := range []string{"edit", "suspend", "delete", "invite", "revoke", "resume"} {
			if a := b.post("/people/person/"+verb, "name", "adam", "typed", "adam", "role", "member"); a.StatusCode != 403 && a.StatusCode != 404 {
				t.Errorf("%s: %d", verb, a.StatusCode)
			}
		}
		b.post("/people/invite", "name", "x", "role", "member", "life", "7d").want(t, 403)
		b.post("/people/groups", "name", "x").want(t, 403)
	}
	// An admin does nothing to owners, and makes none.
	if body := admin.get("/people/person?name=admin").want(t, 200).body; strings.Contains(body, `action="/people`) {
		t.Error("an admin is offered to change an owner")
	}
	admin.post("/people/person/suspend", "name", "admin").want(t, 422, "Your own role allows less than owner")
	admin.post("/people/invite", "name", "x", "role", "owner", "life", "7d").want(t, 422, "Your own role allows less than owner")
	if strings.Contains(admin.get("/people/invite").want(t, 200).body, "Owner: everything") {
		t.Error("an admin is offered to invite an owner")
	}
	admin.get("/people/person?name=mia").want(t, 200, "Suspend <bdi>mia</bdi>")
	admin.get("/people/person?name=..").want(t, 404)
}
