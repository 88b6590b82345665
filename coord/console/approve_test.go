package console_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"weft/coord/console/consoletest"
	"weft/coord/ops"
)

// A person opens the page that the laptop names, signs in, is told what the code means,
// says that it is theirs, and has the laptop.
func TestApproveInTheConsole(t *testing.T) {
	s := newSite(t)
	s.net.Member("alice")
	code, state := s.net.Ask("Notebook", "127.0.0.1")
	alice := s.browser()
	// Who is not signed in gets there by way of signing in.
	alice.get("/approve?code="+code).want(t, 401, `value="/approve?code=`+code+`"`)
	alice.enterAs("alice")
	page := alice.get("/approve?code="+strings.ToLower(code)).want(t, 200, code, "Notebook", "linux/amd64", "127.0.0.1", "<bdi>notebook</bdi>", "you, <bdi>alice</bdi>",
		"Did somebody send you this code or this page?", "I started this myself just now, and see this code on that device")
	if strings.Contains(page.body, "not where you are") || strings.Contains(page.body, "name=\"tags\"") {
		t.Errorf("%s", page.body)
	}
	alice.post("/approve", "code", code).want(t, 422, "Nothing was approved", code)
	if state() != "waiting" {
		t.Fatal(state())
	}
	a := alice.post("/approve", "code", code, "sure", "1").want(t, 303)
	alice.get(a.Header.Get("Location")).want(t, 200, "Let in. It is one of your devices now.", "notebook")
	d, err := s.net.FindDevice(t.Context(), "notebook")
	if err != nil || d.User != "alice" || state() != "approved" {
		t.Errorf("%+v, %v", d, err)
	}
	alice.get("/approve?code="+code).want(t, 409, "decided about this device already")
	alice.post("/approve", "code", code, "sure", "1").want(t, 409, "decided about this device already")
	// What a member sees of those who wait is nothing, the owner refuses from the list, and
	// gives tags.
	_, state = s.net.Ask("Stranger", "203.0.113.9")
	if page := alice.get("/approve").want(t, 200, "Type the code"); strings.Contains(page.body, "Stranger") {
		t.Error("a member sees the list")
	}
	owner := s.browser().enter()
	owner.get("/approve").want(t, 200, "Stranger", "203.0.113.9")
	list, err := s.net.Requests(t.Context(), ops.Root())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	alice.post("/approve/deny", "id", list[0].ID).want(t, 403)
	owner.post("/approve/deny", "id", list[0].ID).want(t, 303)
	if state() != "denied" {
		t.Error(state())
	}
	code, _ = s.net.Ask("Camera", "203.0.113.9")
	owner.get("/approve?code="+code).want(t, 200, "The device is not where you are", "name=\"tags\"")
	owner.post("/approve", "code", code, "sure", "1", "tags", "no_tag!").want(t, 422, "A tag has up to 32 letters", code)
	owner.post("/approve", "code", code, "sure", "1", "tags", "Camera").want(t, 303)
	if d, err := s.net.FindDevice(t.Context(), "camera"); err != nil || len(d.Tags) != 1 || d.Tags[0] != "camera" {
		t.Errorf("%+v, %v", d, err)
	}
}

// A device that has to be signed in again says so on its page and in the list. Its owner
// signs in once more, sees that it is a device of theirs already, and approves; nobody else
// can.
func TestSignDeviceInAgain(t *testing.T) {
	s := newSite(t)
	laptop := s.net.Add("notebook", "linux/amd64")
	days := 10
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.SetSignIn{DeviceDays: &days}); err != nil {
		t.Fatal(err)
	}
	owner := s.browser().enter()
	page := "/devices/" + laptop.ID.String()
	owner.get(page).want(t, 200, "<dt>Sign-in</dt><dd>again ")
	if a := owner.get("/devices").want(t, 200, "notebook"); strings.Contains(a.body, "signed in again") {
		t.Error("it is not due yet")
	}
	s.advance(8*24*time.Hour + time.Hour)
	owner = s.browser().signIn()
	owner.get(page).want(t, 200, "<dd>again ", "On the device: <code>weft up</code>")
	owner.get("/devices").want(t, 200, "has to be signed in again ")
	s.advance(10 * time.Minute)
	code := laptop.AskSignIn()
	if to := owner.get("/approve?code="+code).want(t, 303).Header.Get("Location"); !strings.HasPrefix(to, "/sign-in/again?next=%2Fapprove%3Fcode%3D"+code) {
		t.Error(to)
	}
	owner.post("/approve", "code", code, "again", "1", "sure", "1").want(t, 303)
	if !s.due(laptop) {
		t.Error("signed in without another sign-in of its owner")
	}
	owner = s.browser().signIn()
	shown := owner.get("/approve?code="+code).want(t, 200, code, "your device <bdi>notebook</bdi>", "its name, address and keys stay", "127.0.0.1", `name="again"`, "Sign it in again", "Did somebody send you this code or this page?")
	if strings.Contains(shown.body, `name="tags"`) || strings.Contains(shown.body, "Its name will be") {
		t.Errorf("%s", shown.body)
	}
	s.net.Member("alice")
	alice := s.browser().enterAs("alice")
	alice.get("/approve?code="+code).want(t, 403, "a device of somebody else")
	alice.post("/approve", "code", code, "again", "1", "sure", "1").want(t, 403, "a device of somebody else")
	owner.post("/approve", "code", code, "again", "1").want(t, 422, "Nothing was approved")
	a := owner.post("/approve", "code", code, "again", "1", "sure", "1").want(t, 303)
	owner.get(a.Header.Get("Location")).want(t, 200, "Signed in. The device reaches what it did", "notebook")
	owner.get("/activity").want(t, 200, "Signed it in again")
	if s.due(laptop) {
		t.Error("it is due again at once")
	}
}

// due reports whether a device has to be signed in again.
func (s *site) due(d *consoletest.Device) bool {
	s.t.Helper()
	v, err := s.net.Device(context.Background(), ops.Root(), d.ID.String())
	if err != nil {
		s.t.Fatal(err)
	}
	return v.SignIn != nil && v.SignIn.Soon
}

// Guesses are few; what a stranger calls itself is text; a form of another site approves
// nothing.
func TestApproveAttacks(t *testing.T) {
	s := newSite(t)
	owner := s.browser().enter()
	code, state := s.net.Ask(`<img src=x onerror=alert(1)>"'`+"\u202e\x1b[2J", "127.0.0.1")
	page := owner.get("/approve?code="+code).want(t, 200, "&lt;img src=x")
	if strings.ContainsAny(page.body, "\u202e\x1b") {
		t.Error("control characters")
	}
	for _, bad := range []string{`"><script>`, "BCDFG", strings.Repeat("B", 1000), "\x00"} {
		if page := owner.get("/approve?code="+form("", bad).Encode()[1:]).want(t, 422, "A code has ten letters"); strings.Contains(page.body, "<script>") && strings.Contains(page.body, `"><script>`) {
			t.Errorf("%q comes back", bad)
		}
	}
	r := owner.request("POST", "/approve", form("code", code, "sure", "1"))
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	owner.do(r).want(t, 403)
	owner.get("/approve?sure=1&code="+code).want(t, 200)
	if state() != "waiting" {
		t.Fatal(state())
	}
	wrong := 0
	for range 20 {
		if a := owner.get("/approve?code=BCDFG-HJKLM"); a.StatusCode == 404 {
			wrong++
		} else {
			a.want(t, 429, "Too many wrong codes")
		}
	}
	if wrong != 5 {
		t.Errorf("%d wrong codes were tried", wrong)
	}
	owner.post("/approve", "code", code, "sure", "1").want(t, 429, "Too many wrong codes")
	// Somebody else is not kept out, and time helps.
	s.net.Member("alice")
	alice := s.browser().enterAs("alice")
	alice.get("/approve?code="+code).want(t, 200)
	s.advance(5 * time.Minute)
	owner.post("/approve", "code", code, "sure", "1").want(t, 303)
}
