package console_test

import (
	"database/sql"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/console/consoletest"
	"weft/coord/ops"
	"weft/coord/store"
)

// follow goes where an answer leads.
func (b *browser) follow(a answer) answer {
	b.t.Helper()
	a.want(b.t, 303)
	return b.get(a.Header.Get("Location"))
}

// form is the hidden field of the form that posts to an address.
func (a answer) field(t *testing.T, action, name string) string {
	t.Helper()
	m := regexp.MustCompile(`action="` + regexp.QuoteMeta(action) + `"[^>]*>\s*<input type="hidden" name="` + name + `" value="([^"]*)"`).FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("no field %s of %s in\n%s", name, action, a.body)
	}
	return m[1]
}

// lacks fails for what a page must not have.
func (a answer) lacks(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			t.Errorf("%s has %q", a.Request.URL, text)
		}
	}
}

// A rename, other tags and another owner can be undone for a moment, by who made them and
// in the session in which they were made, unless somebody has changed the device since.
func TestUndo(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	b := s.browser().enter()
	pi, nas := s.net.Add("pi", "linux/arm64", "sensor"), s.net.Add("nas", "linux/amd64", "device")
	at := "/devices/" + pi.ID.String()
	rename := func(name string) answer { t.Helper(); return b.follow(b.post(at+"/rename", "name", name)) }
	undo := func(page answer) string { t.Helper(); return page.field(t, at+"/undo", "note") }
	is := func(name, user string, tags ...string) {
		t.Helper()
		if d := pi.Show(); d.Name != name || d.User != user || fmt.Sprint(d.Tags) != fmt.Sprint(tags) {
			t.Errorf("it is %s of %s with %v", d.Name, d.User, d.Tags)
		}
	}

	page := rename("larder").want(t, 200, "Renamed to larder.")
	note := undo(page)
	b.follow(b.post(at+"/undo", "note", note)).want(t, 200, "Undone: it is called pi again.").lacks(t, at+"/undo")
	is("pi", "admin", "sensor")
	b.post(at+"/undo", "note", note).want(t, 409, "Not undone: somebody has changed this device since")

	match := b.get(at + "/settings").match(t)
	page = b.follow(b.post(at+"/assign", "tags", "camera door", "owner", "bob", "match", match)).want(t, 200, "Its older certificates are revoked")
	is("pi", "bob", "camera", "door")
	b.follow(b.post(at+"/undo", "note", undo(page))).want(t, 200, "Undone: its tags are sensor again, it belongs to admin again.")
	is("pi", "admin", "sensor")
	records, err := s.net.Audit(t.Context(), ops.Root(), store.AuditFilter{Target: pi.ID.String(), Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var acts []string
	for _, r := range records {
		acts = append(acts, r.Op)
	}
	if got := strings.Join(acts, " "); got != "device.assign device.assign device.rename device.rename device.join" {
		t.Errorf("recorded: %s", got)
	}

	// What changes nothing is not offered to be undone.
	match = b.get(at + "/settings").match(t)
	b.follow(b.post(at+"/assign", "tags", "sensor", "owner", "admin", "match", match)).lacks(t, at+"/undo")
	b.follow(b.post(at+"/rename", "name", "pi")).lacks(t, at+"/undo")

	// Somebody else has changed it since.
	note = undo(rename("hall"))
	pi.Rename("door")
	b.post(at+"/undo", "note", note).want(t, 409, "Not undone", `value="door"`)
	// Of another device, in another session, of somebody's own making.
	note = undo(rename("hall"))
	b.post("/devices/"+nas.ID.String()+"/undo", "note", note).want(t, 422, "too late")
	other := s.browser().signIn()
	other.post(at+"/undo", "note", note).want(t, 422, "It is too late to undo that.")
	for _, forged := range []string{"", "x", note + "x", note[:len(note)-2], strings.Repeat("A", 200)} {
		b.post(at+"/undo", "note", forged).want(t, 422, "It is too late")
	}
	b.get(at+"/settings?done=renamed&note="+url.QueryEscape("<b>all is well</b>")).want(t, 200, "Renamed. The new name").lacks(t, "all is well", "/undo")
	b.get(at+"/settings?note="+note).lacks(t, "Renamed to")
	is("hall", "admin", "sensor")

	// The page offers it for ten seconds; it is taken for a minute.
	location := b.post(at+"/rename", "name", "attic").want(t, 303).Header.Get("Location")
	note = undo(b.get(location))
	s.advance(11 * time.Second)
	b.get(location).want(t, 200, "Renamed to attic.").lacks(t, at+"/undo")
	b.follow(b.post(at+"/undo", "note", note)).want(t, 200, "it is called hall again")
	location = b.post(at+"/rename", "name", "attic").want(t, 303).Header.Get("Location")
	note = undo(b.get(location))
	s.advance(61 * time.Second)
	b.get(location).want(t, 200, "Renamed. The new name").lacks(t, "to attic")
	b.post(at+"/undo", "note", note).want(t, 422, "too late")
	is("attic", "admin", "sensor")

	// The old name is another device's by now: that says so, and changes nothing.
	note = undo(rename("cellar"))
	old := "attic"
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.EditDNS{DNSEdit: ops.DNSEdit{RemoveAlias: &old}}); err != nil {
		t.Fatal(err)
	}
	nas.Rename("attic")
	if a := b.post(at+"/undo", "note", note); a.StatusCode != 409 && a.StatusCode != 422 || !strings.Contains(a.body, "Not undone: ") {
		t.Errorf("status %d", a.StatusCode)
	}
	is("cellar", "admin", "sensor")

	// Deleting says what was deleted, and cannot be undone.
	b.follow(b.post(at+"/delete", "name", "cellar")).want(t, 200, "Deleted cellar. Its certificates are revoked.").lacks(t, "/undo")
	b.post(at+"/undo", "note", note).want(t, 404)
}

// A form that was drawn before the last change says what has changed, keeps what was typed,
// and does it when it is sent once more.
func TestFormsInTwoTabs(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	pi := s.net.Add("pi", "linux/arm64", "sensor")
	at := "/devices/" + pi.ID.String()
	match := b.get(at + "/settings").match(t)
	pi.Rename("hall")
	before := s.net.State()
	now := "It is called hall now, belongs to admin and has the tags sensor."
	renamed := b.post(at+"/rename", "name", "larder", "match", match).want(t, 409, "Somebody else has changed this device", now, `value="larder"`)
	tagged := b.post(at+"/assign", "tags", "camera", "owner", "admin", "match", match).want(t, 409, now, `value="camera"`)
	b.post(at+"/dns", "lan-names", "on", "wildcard", "on", "match", match).want(t, 409, now)
	if s.net.State() != before {
		t.Error("a refused form changed something")
	}
	b.post(at+"/rename", "name", "larder", "match", renamed.field(t, at+"/rename", "match")).want(t, 303)
	b.post(at+"/assign", "tags", "camera", "owner", "admin", "match", tagged.match(t)).want(t, 409)
	b.post(at+"/dns", "lan-names", "on", "match", b.get(at+"/settings").field(t, at+"/dns", "match")).want(t, 303)
	if d := pi.Show(); d.Name != "larder" || d.LANNames.String() != "on" {
		t.Errorf("%+v", d)
	}
	if done, err := url.Parse(b.post(at+"/rename", "name", "loft").want(t, 303).Header.Get("Location")); err != nil || done.Path != at+"/settings" {
		t.Errorf("a form without a revision leads to %v, %v", done, err)
	}
}

// The tabs of a device are for who may see it; each shows what its reader may do.
func TestDeviceTabs(t *testing.T) {
	s := newSite(t)
	s.net.Member("bob")
	mine, others := s.joins("bob", "desk"), s.net.Add("safe", "linux/arm64", "safe")
	roles := map[ops.Role]*browser{}
	for _, r := range []ops.Role{ops.RoleAdmin, ops.RoleOperator, ops.RoleAuditor} {
		roles[r] = s.as("the-"+string(r), r)
	}
	roles[ops.RoleOwner], roles[ops.RoleMember] = s.browser().enter(), s.browser().enterAs("bob")
	at := "/devices/" + mine.ID.String()
	for role, want := range map[ops.Role]struct{ activity, change, owner bool }{
		ops.RoleOwner:    {true, true, true},
		ops.RoleAdmin:    {true, true, true},
		ops.RoleOperator: {false, true, true},
		ops.RoleAuditor:  {true, false, false},
		ops.RoleMember:   {false, true, false},
	} {
		b := roles[role]
		page := b.get(at).want(t, 200, `href="`+at+`" aria-current="page"`, `href="`+at+`/settings"`, "Who reaches it", "From a terminal")
		if got := strings.Contains(page.body, `href="`+at+`/activity"`); got != want.activity {
			t.Errorf("%s: the tab Activity is there: %v", role, got)
		}
		if got := strings.Contains(page.body, "settings#typed"); got != want.change {
			t.Errorf("%s: the menu is there: %v", role, got)
		}
		if want.activity {
			b.get(at+"/activity").want(t, 200, "<b>Joined</b>", `href="/activity?device=`+mine.ID.String()+`"`)
		} else {
			b.get(at+"/activity").want(t, 403)
		}
		settings := b.get(at+"/settings").want(t, 200)
		for part, there := range map[string]bool{`action="` + at + `/rename"`: want.change, `action="` + at + `/delete"`: want.change, `name="owner"`: want.owner, "change nothing": !want.change} {
			if strings.Contains(settings.body, part) != there {
				t.Errorf("%s: %s is there: %v", role, part, !there)
			}
		}
	}
	bob, before := roles[ops.RoleMember], s.net.State()
	for _, tab := range []string{"", "/activity", "/settings"} {
		bob.get("/devices/"+others.ID.String()+tab).want(t, 404)
		s.browser().get(at+tab).want(t, 401)
	}
	bob.post("/devices/"+others.ID.String()+"/undo", "note", "x").want(t, 404)
	roles[ops.RoleAuditor].post(at+"/rename", "name", "x").want(t, 403)
	roles[ops.RoleAuditor].post(at+"/undo", "note", "x").want(t, 422)
	if s.net.State() != before {
		t.Error("something changed")
	}
}

// The records about a device come in pages, with their changes.
func TestDeviceActivity(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	pi := s.net.Add("pi", "linux/arm64", "sensor")
	for i := range 110 {
		if i%15 == 14 {
			s.advance(25 * time.Hour) // not more often than a device can be renamed
		}
		pi.Rename([]string{"hall", "door"}[i%2])
	}
	at := "/devices/" + pi.ID.String() + "/activity"
	b.signIn()
	page := b.get(at).want(t, 200, "<b>Renamed</b>", "before: </span>hall</del>", "after: </span>door</ins>", `rel="next"`)
	if n := strings.Count(page.body, `<summary><span class="when"`); n != 100 {
		t.Errorf("%d records on the first page", n)
	}
	next := regexp.MustCompile(`href="(` + at + `\?before=\d+)" rel="next"`).FindStringSubmatch(page.body)
	if next == nil {
		t.Fatal(page.body)
	}
	// It follows changes with the same part of the list.
	page = b.get(next[1]).want(t, 200, "<b>Joined</b>", `href="`+at+`">Latest`, `hx-get="`+next[1]+`"`)
	if n := strings.Count(page.body, `<summary><span class="when"`); n != 11 {
		t.Errorf("%d records on the second page", n)
	}
	for _, odd := range []string{"x", "-1", "0", "1", "99999999999999999999", "%3Cb%3E"} {
		b.get(at+"?before="+odd).want(t, 200)
	}
}

// An offline device says since when, from where, and what may be the reason.
func TestDeviceOffline(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	pi, cam := s.net.Add("pi", "linux/arm64", "device"), s.net.Add("cam", "linux/arm64", "device")
	at, home := "/devices/"+pi.ID.String(), netip.MustParseAddr("192.0.2.7")
	s.advance(time.Minute)
	b.get(at).want(t, 200, "Never connected", "was never connected since").lacks(t, `id="latency"`, "Last address", "direct path to it")
	for i, d := range []*consoletest.Device{pi, cam} {
		s.net.Presence(d.ID, uint64(i+1), true, s.Now(), home)
	}
	s.advance(time.Hour)
	for i, d := range []*consoletest.Device{pi, cam} {
		s.net.Presence(d.ID, uint64(i+1), false, s.Now(), home)
	}
	s.advance(2 * time.Hour)
	b.get(at).want(t, 200, "2 h ago", "<code>192.0.2.7</code>", "1 other device at its address went offline at about the same time", "Check the power and the Internet connection of that place", "What others see")
	s.net.Presence(cam.ID, 9, true, s.Now(), home)
	b.get(at).want(t, 200, "1 other device at its address is online")
	s.net.Presence(cam.ID, 9, false, s.Now(), home)
	b.get(at).want(t, 200, "The reason is not known.", "weft doctor")
	s.net.Change(func(db *sql.DB) {
		if _, err := db.Exec(`UPDATE nodes SET software='0.0.1', expires_at=$1 WHERE node_id=$2`, s.Now().Add(-time.Hour).Unix(), pi.ID[:]); err != nil {
			t.Fatal(err)
		}
	})
	b.get(at).want(t, 200, "Its certificate ended 1 h ago.", "It ran weft 0.0.1", "the server runs 0.1.0", "Certificate ended")
}

// A line of round trips is drawn from what the page sends along; nonsense in it is left out.
func TestLatencyLine(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	pi := s.net.Add("pi", "linux/arm64", "device")
	pi.Connect()
	at := "/devices/" + pi.ID.String()
	b.get(at).want(t, 200, `id="latency"`, "nothing measured yet", "relay <bdi>server</bdi>", "bytes sent")
	ask := func(samples string) answer {
		t.Helper()
		r := b.request("POST", at+"/test", form("samples", samples))
		r.Header.Set("HX-Request", "true")
		a := b.do(r).want(t, 200)
		a.lacks(t, "<html")
		return a
	}
	list := func(a answer) []string { t.Helper(); return strings.Fields(a.field(t, at+"/test", "samples")) }
	one := ask("")
	if len(list(one)) != 1 {
		t.Errorf("%q", list(one))
	}
	one.want(t, 200, `aria-label="Round trip to pi: `, "<circle")
	two := ask("12000 - 9000").want(t, 200, "<polyline")
	if got := list(two); len(got) != 4 || got[0] != "12000" || got[1] != "-" {
		t.Errorf("%q", got)
	}
	if got := list(ask(strings.Repeat("1000 ", 500))); len(got) != 60 {
		t.Errorf("%d samples", len(got))
	}
	for _, odd := range []string{"-5", "x", "<b>", "1e9", "99999999999999999999", `"><script>alert(1)</script>`, "NaN", "120000000", strings.Repeat("9", 5000)} {
		a := ask(odd)
		if got := list(a); len(got) != 1 {
			t.Errorf("%.40q: %q", odd, got)
		}
		checkMarkup(t, odd, a.body)
	}
	pi.Disconnect()
	if got := list(ask("1000").want(t, 200, "no connection to a relay")); len(got) != 2 || got[1] != "-" {
		t.Errorf("offline: %q", got)
	}
}
