package console_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"weft/coord/console/consoletest"
	"weft/coord/ops"
)

// match is the revision in the form for tags and the owner.
func (a answer) match(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`/assign">\s*<input type="hidden" name="match" value="(\d+)"`).FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("no form in\n%s", a.body)
	}
	return m[1]
}

func (s *site) setPolicy(text string) {
	s.t.Helper()
	if _, err := ops.Do(s.t.Context(), s.net.Service, ops.Root(), ops.SetPolicy{Text: text}); err != nil {
		s.t.Fatal(err)
	}
}

// joins has a device of a person join, and returns the address of its page.
func (s *site) joins(user, name string) *consoletest.Device {
	s.t.Helper()
	k, err := ops.Do(s.t.Context(), s.net.Service, ops.Root(), ops.CreateKey{User: user, Note: "of " + user, Reusable: true})
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := s.net.Join(k.Token, name, "linux/arm64")
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// The page of a device says who reaches it, and changes its tags and its owner unless
// something has changed since it was opened.
func TestDevicePageAssigns(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	pi := s.net.Add("pi", "linux/arm64", "sensor")
	at := "/devices/" + pi.ID.String()
	s.setPolicy(`{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]},{"from":["user:bob"],"to":["tag:camera"],"ports":["tcp:22"]}]}`)
	b := s.browser().enter()
	page := b.get(at).want(t, 200, "Who reaches it", "<bdi>admin</bdi>", "everything", "by rule 1")
	if strings.Contains(page.body, "<bdi>bob</bdi>") {
		t.Error("bob reaches it")
	}
	page = b.get(at+"/settings").want(t, 200, "Tags and owner", `name="tags" value="sensor"`, `name="owner" value="admin"`)
	match := page.match(t)
	b.post(at+"/assign", "tags", "sensor, camera", "owner", "nobody", "match", match).want(t, 422, "There is no person of this name.", `value="sensor camera"`)
	b.post(at+"/assign", "tags", "a/b", "owner", "admin", "match", match).want(t, 422, "want letters, digits", `value="a/b"`)
	b.post(at+"/assign", "tags", "sensor", "owner", "", "match", match).want(t, 422, "Name the owner.")
	b.post(at+"/assign", "tags", "sensor", "owner", "admin").want(t, 400)
	b.post(at+"/assign", "tags", "sensor tag:camera", "owner", "bob", "match", match).want(t, 303)
	b.get(at+"/settings?done=assigned").want(t, 200, "Its older certificates are revoked", `value="camera sensor"`, `name="owner" value="bob"`)
	b.get(at).want(t, 200, "<bdi>bob</bdi>", "rules 1, 2")
	b.post(at+"/assign", "tags", "", "owner", "admin", "match", match).want(t, 409, "Somebody else has changed this device")
	if d := pi.Show(); d.User != "bob" || fmt.Sprint(d.Tags) != "[camera sensor]" {
		t.Errorf("it has %s and %v", d.User, d.Tags)
	}
	// Its owner, who is a member, may not give the tags, and not give it away.
	bob := s.browser().enterAs("bob")
	bob.get(at).want(t, 200, "Who reaches it")
	page = bob.get(at+"/settings").want(t, 200, `name="tags"`)
	if strings.Contains(page.body, `name="owner"`) {
		t.Error("a member gives devices away")
	}
	match = page.match(t)
	bob.post(at+"/assign", "tags", "camera", "match", match).want(t, 403, "Only owners and admins may give or remove the tag sensor")
	bob.post(at+"/assign", "tags", "camera sensor", "owner", "admin", "match", match).want(t, 403, "As member you cannot give a device to somebody else.")
	bob.post("/network/keys", "kind", "device", "tags", "sensor", "life", "1h").want(t, 422, "Only owners and admins may give or remove the tag sensor")
	s.setPolicy(`{"rules":[],"tagOwners":{"tag:sensor":["user:bob"]}}`)
	bob.post(at+"/assign", "tags", "camera", "match", match).want(t, 303)
	bob.post("/network/keys", "kind", "device", "tags", "sensor", "life", "1h").want(t, 303)
	b.get("/access/tags").want(t, 200, "Who may give it", "<bdi>sensor</bdi>", "owners, admins, ", "<bdi>bob</bdi>")
	b.post("/access/check", "text", `{"rules":[],"tagOwners":{"tag:sensor":["group:ops"],"tag:<b>":[]}}`).want(t, 422, "want tag:NAME")
	b.post("/access/check", "text", `{"rules":[],"tagOwners":{"tag:sensor":["group:ops"]}}`).want(t, 200, "<code>group:ops</code>, before <code>user:bob</code>", "there is no group")
}

// A member finds the own devices, what they reach, and the own keys and sessions. Others
// do not have that on the page of all devices.
func TestMembersView(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	s.net.Add("cam", "linux/arm64", "camera")
	s.net.Add("strongbox", "linux/arm64", "strongbox")
	s.joins("bob", "desk")
	s.setPolicy(`{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]},{"from":["user:bob"],"to":["tag:camera"],"ports":["tcp:554"]}]}`)
	bob := s.browser().enterAs("bob")
	page := bob.get("/devices").want(t, 200, "What you reach", "<bdi>desk</bdi>", "<bdi>cam</bdi>", "tcp:554", "by rule 2", "of bob", "1 session")
	if strings.Contains(page.body, "strongbox") {
		t.Error("bob sees what he does not reach")
	}
	if strings.Contains(s.browser().enter().get("/devices").want(t, 200).body, "What you reach") {
		t.Error("the owner has a member's view")
	}
}

// Long answers come in parts.
func TestReachInParts(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	var rules []string
	for i := range 45 {
		s.net.Add(fmt.Sprintf("d%02d", i), "linux/arm64", fmt.Sprintf("t%02d", i))
		rules = append(rules, fmt.Sprintf(`{"from":["user:bob"],"to":["tag:t%02d"],"ports":["tcp:%d"]}`, i, i+1))
	}
	s.setPolicy(`{"rules":[` + strings.Join(rules, ",") + `]}`)
	bob := s.browser().enterAs("bob")
	seen, next := 0, "/devices"
	for parts := 0; next != ""; parts++ {
		if parts == 4 {
			t.Fatal("it does not end")
		}
		page := bob.get(next).want(t, 200, "What you reach")
		seen += strings.Count(page.body, ">by rule ")
		next = ""
		if m := regexp.MustCompile(`href="(/devices\?reach=\d+)#reach"`).FindStringSubmatch(page.body); m != nil {
			next = m[1]
		}
	}
	if seen != 45 {
		t.Errorf("%d of 45", seen)
	}
}
