package console_test

import (
	"encoding/base32"
	"errors"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/console/consoletest"
	"weft/coord/ops"
)

// hidden finds the value of a hidden field.
func (a answer) hidden(t *testing.T, name string) string {
	t.Helper()
	m := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("no field %s in\n%s", name, a.body)
	}
	return html.UnescapeString(m[1])
}

// phone is a program for codes.
type phone struct {
	s      *site
	secret []byte
}

func (p *phone) code() string { return consoletest.Code(p.secret, p.s.Now()) }

// setUpCodes scans what the page shows, and returns recovery codes.
func (b *browser) setUpCodes() (p *phone, recovery []string) {
	b.t.Helper()
	page := b.get("/account/codes/set-up").want(b.t, 200, "Scan this", "<svg")
	text := regexp.MustCompile(`<code>([A-Z2-7]{32,52})</code>`).FindStringSubmatch(page.body)
	if text == nil {
		b.t.Fatal(page.body)
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text[1])
	if err != nil {
		b.t.Fatal(err)
	}
	p = &phone{b.site, secret}
	wrong := b.post("/account/codes", "enrolment", page.hidden(b.t, "enrolment"), "code", "nonsense").want(b.t, 422, "not the code", text[1])
	done := b.post("/account/codes", "enrolment", wrong.hidden(b.t, "enrolment"), "code", p.code()).want(b.t, 200, "Recovery codes")
	return p, regexp.MustCompile(`[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}`).FindAllString(done.body, -1)
}

func TestCodesInTheConsole(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	s.advance(6 * time.Minute)
	again := b.get("/account/codes/set-up").want(t, 303).Header.Get("Location")
	if again != "/sign-in/again?next="+url.QueryEscape("/account/codes/set-up") {
		t.Errorf("leads to %q", again)
	}
	b.get(again).want(t, 200, "Sign in again")
	b.post("/sign-in", "name", "admin", "password", password, "again", "1", "next", "/account/codes/set-up").want(t, 303)
	phone, recovery := b.setUpCodes()
	if len(recovery) != 10 {
		t.Errorf("%q", recovery)
	}
	b.get("/account").want(t, 200, "10 recovery codes left", "with the password and a code")
	if strings.Contains(b.get("/account").body, recovery[0]) {
		t.Error("the recovery codes are shown again")
	}

	// In another browser: the password first, then a code.
	s.advance(time.Minute)
	other := s.browser()
	page := other.post("/sign-in", "name", "admin", "password", password, "next", "/keys").want(t, 200, "And a code")
	if other.cookie().Value != "" {
		t.Error("the password alone began a session")
	}
	proved := page.hidden(t, "proved")
	other.post("/sign-in/code", "proved", proved, "code", "").want(t, 422)
	other.post("/sign-in/code", "proved", proved, "code", "000 000 000").want(t, 422, "not right")
	other.post("/sign-in/code", "proved", proved[:len(proved)-2]+"xx", "code", phone.code()).want(t, 422, "from the beginning")
	code := phone.code()
	if to := other.post("/sign-in/code", "proved", proved, "code", code).want(t, 303).Header.Get("Location"); to != "/keys" {
		t.Errorf("leads to %q", to)
	}
	other.get("/network/keys").want(t, 200)
	// The same again: neither the code nor, later, the first step is good.
	s.browser().post("/sign-in/code", "proved", proved, "code", code).want(t, 422, "used before")
	s.advance(6 * time.Minute)
	s.browser().post("/sign-in/code", "proved", proved, "code", phone.code()).want(t, 422, "took too long")
	// A recovery code.
	third := s.browser()
	page = third.post("/sign-in", "name", "admin", "password", password).want(t, 200)
	third.post("/sign-in/code", "proved", page.hidden(t, "proved"), "code", recovery[3]).want(t, 303)
	third.get("/account").want(t, 200, "9 recovery codes left", "a recovery code")

	// With a link a code is asked for too.
	link := s.net.Link("")
	u, _ := url.Parse(link)
	fourth := s.browser()
	fourth.get(link).want(t, 200, `name="code"`)
	fourth.post("/welcome", "link", u.Query().Get("link"), "password", password, "code", "nonsense").want(t, 422, "not right")
	fourth.post("/welcome", "link", u.Query().Get("link"), "password", password, "code", phone.code()).want(t, 303)
	fresh := fourth.post("/account/codes/recovery").want(t, 200, "Recovery codes")
	if strings.Contains(fresh.body, recovery[4]) {
		t.Error("old recovery codes are shown")
	}
	fourth.post("/account/codes/off").want(t, 303)
	s.browser().signIn()
}

// Codes are guessed slowly, and guessing them keeps neither the owner's browser out nor a
// link.
func TestGuessingCodes(t *testing.T) {
	s := newSite(t, behindProxy)
	owner := s.browser().enter()
	phone, recovery := owner.setUpCodes()
	s.advance(time.Minute)
	proved := s.browser().guess("198.51.100.1", "admin", password).want(t, 200).hidden(t, "proved")
	tried := 0
	for i := range 100 {
		thief := s.browser()
		req := thief.request("POST", "/sign-in/code", form("proved", proved, "code", fmt.Sprintf("wrong%d", i)))
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.0.0.%d", i))
		if thief.do(req).StatusCode == 422 {
			tried++
		}
	}
	if tried != 5 {
		t.Errorf("%d codes tried", tried)
	}
	page := owner.guess("203.0.113.5", "admin", password).want(t, 200)
	owner.post("/sign-in/code", "proved", page.hidden(t, "proved"), "code", phone.code()).want(t, 303)
	u, _ := url.Parse(s.net.Link(""))
	s.browser().post("/welcome", "link", u.Query().Get("link"), "password", password, "code", recovery[0]).want(t, 303)
}

// Whoever has less than the network demands gets to the own account, and nowhere else.
func TestDemandedInTheConsole(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	on := true
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.SetSignIn{Demanded: &on}); err != nil {
		t.Fatal(err)
	}
	if to := b.get("/devices").want(t, 303).Header.Get("Location"); to != "/account" {
		t.Errorf("leads to %q", to)
	}
	b.get("/account").want(t, 200, "Set one up to go on")
	b.post("/network/keys", "kind", "device", "tags", "device", "life", "1h").want(t, 403, "A second factor is needed")
	phone, _ := b.setUpCodes()
	b.get("/devices").want(t, 200)
	b.post("/account/codes/off").want(t, 422, "This network demands")
	s.advance(time.Minute)
	page := s.browser().post("/sign-in", "name", "admin", "password", password).want(t, 200)
	other := s.browser()
	other.post("/sign-in/code", "proved", page.hidden(t, "proved"), "code", phone.code()).want(t, 303)
	other.get("/devices").want(t, 200)
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.ResetFactors{User: "admin"}); err != nil && !errors.Is(err, ops.ErrNotFound) {
		t.Fatal(err)
	}
	other.get("/devices").want(t, 401)
}
