package console_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/ops"
)

// What is demanded of who signs in is set by an owner who has just signed in, and nothing is
// changed that somebody else has changed meanwhile.
func TestSignInSettings(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	b.get("/settings/sign-in").want(t, 200, "Not demanded", "7 days", "30 days", "12 hours", "24 hours", "5 minutes", "None. With an OpenID provider")
	match := func() string {
		return regexp.MustCompile(`name="match" value="([^"]+)"`).FindStringSubmatch(b.get("/settings/sign-in").body)[1]
	}
	old := match()
	b.post("/settings/sign-in", "match", "x", "demanded", "on").want(t, 422, "Somebody else changed this meanwhile")
	b.post("/settings/sign-in/passkeys", "match", old, "domain", "a b<").want(t, 422, "want a DNS name", "a b&lt;")
	b.post("/settings/sign-in/passkeys", "match", old, "domain", "example.org").want(t, 303)
	b.post("/settings/sign-in", "match", old, "demanded", "on").want(t, 422, "Somebody else")
	b.get("/settings/sign-in").want(t, 200, "<code>example.org</code>")
	s.advance(ops.FreshFor + time.Minute)
	if to := b.post("/settings/sign-in", "match", match(), "demanded", "on").want(t, 303).Header.Get("Location"); !strings.HasPrefix(to, "/sign-in/again") {
		t.Errorf("leads to %q", to)
	}
	b.signIn()
	b.post("/settings/sign-in", "match", match(), "demanded", "on").want(t, 303)
	now, err := s.net.SignInSettings(ops.Root())
	if err != nil || !now.Demanded {
		t.Error(now, err)
	}
}

// A provider is made, changed and removed; its secret is never on a page again.
func TestProviderPages(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	const secret = "canary-of-the-client"
	fields := []string{"id", "work", "title", "", "issuer", "https://accounts.example.org", "client", "weft", "secret", secret, "scopes", "profile email", "groups", "groups", "called", "", "claim", "", "value", ""}
	bad := append([]string{}, fields...)
	bad[5] = "ftp://<b>"
	if a := b.post("/settings/sign-in/new", bad...).want(t, 422, "want an address such as", "ftp://&lt;b&gt;", `value="weft"`, "type it again", `data-here="/settings/sign-in/new"`); strings.Contains(a.body, secret) {
		t.Error("the secret comes back")
	}
	to := b.post("/settings/sign-in/new", fields...).want(t, 303).Header.Get("Location")
	b.post("/settings/sign-in/new", fields...).want(t, 422, "There is a provider with this id already")
	page := b.get(to).want(t, 200, "https://accounts.example.org", "Empty leaves the one that is there", s.server.URL+"/sign-in/with/work/answer", `value="groups"`)
	s.browser().get("/sign-in").want(t, 200, "/sign-in/with/work")
	match := regexp.MustCompile(`name="match" value="([^"]+)"`).FindStringSubmatch(page.body)[1]
	edit := []string{"id", "work", "match", match, "title", "Work", "issuer", "https://accounts.example.org", "client", "weft", "scopes", "profile", "secret", ""}
	b.post("/settings/sign-in/provider", edit...).want(t, 303)
	b.post("/settings/sign-in/provider", edit...).want(t, 422, "Somebody else changed this meanwhile")
	list, err := s.net.SignInProviders(t.Context())
	if err != nil || len(list) != 1 || list[0].Title != "Work" {
		t.Fatal(list, err)
	}
	if kept, err := s.net.ProviderSecret(list[0]); err != nil || kept != secret {
		t.Errorf("the secret is %q, %v", kept, err)
	}
	for _, at := range []string{to, "/settings/sign-in", "/activity"} {
		if strings.Contains(b.get(at).want(t, 200).body, secret) {
			t.Errorf("the secret is on %s", at)
		}
	}
	b.post("/settings/sign-in/provider/remove", "id", "work", "typed", "wor").want(t, 422, "Nothing was removed")
	s.advance(ops.FreshFor + time.Minute)
	for _, a := range []answer{b.get("/settings/sign-in/new"), b.post("/settings/sign-in/provider/remove", "id", "work", "typed", "work")} {
		if to := a.want(t, 303).Header.Get("Location"); !strings.HasPrefix(to, "/sign-in/again") {
			t.Errorf("leads to %q", to)
		}
	}
	b.signIn()
	b.post("/settings/sign-in/provider/remove", "id", "work", "typed", "work").want(t, 303)
	b.get(to).want(t, 404)
}

// A webhook is made, tested, changed and deleted; its secret is shown to the session that
// made it, and nowhere else.
func TestWebhookPages(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	got := make(chan map[string]any, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var e map[string]any
		json.Unmarshal(body, &e)
		got <- e
	}))
	t.Cleanup(receiver.Close)
	b.get("/settings/webhooks").want(t, 200, "No webhooks.")
	b.post("/settings/webhooks/new", "url", "http://<b>", "events", "device.* <i>", "tags", "", "note", "n<o>te").want(t, 422, "http://&lt;b&gt;", "device.* &lt;i&gt;", "n&lt;o&gt;te", `data-here="/settings/webhooks/new"`)
	b.post("/settings/webhooks/new", "url", receiver.URL, "events", "*").want(t, 422)
	to := b.post("/settings/webhooks/new", "url", receiver.URL+"/hook", "events", "device.*, refused.*", "allow", "127.0.0.1", "note", "chat").want(t, 303).Header.Get("Location")
	at, _, _ := strings.Cut(to, "?")
	page := b.get(to).want(t, 200, "shown to this browser only", "<code>device.*</code>", "Nothing was sent yet")
	shown := regexp.MustCompile(`data-copy="([^"]+)" aria-label="Copy the secret"`).FindStringSubmatch(page.body)
	if shown == nil {
		t.Fatal("no secret in " + page.body)
	}
	other := s.browser().signIn()
	for _, path := range []string{at, "/settings/webhooks", "/activity"} {
		if strings.Contains(other.get(path).want(t, 200).body, shown[1]) {
			t.Errorf("another session has the secret on %s", path)
		}
	}
	for _, path := range []string{"/settings/webhooks", "/activity", "/settings"} {
		if strings.Contains(b.get(path).want(t, 200).body, shown[1]) {
			t.Errorf("the secret is on %s", path)
		}
	}
	res := b.getAs(at, "gzip")
	if res.Body.Close(); res.Header.Get("Content-Encoding") != "" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page of a secret has %v", res.Header)
	}
	b.post(at+"/test").want(t, 200, "The test was taken", `data-here="`+at+`"`)
	if e := <-got; e["op"] != "webhook.test" && e["type"] != "webhook.test" {
		t.Errorf("sent %v", e)
	}
	receiver.Close()
	b.post(at+"/test").want(t, 200, "The test was not taken")

	match := regexp.MustCompile(`name="match" value="([^"]+)"`).FindStringSubmatch(b.get(at).body)[1]
	b.post(at, "match", match, "url", "http://127.0.0.1:1/hook", "events", "user.*", "allow", "127.0.0.1", "note", "mail").want(t, 303)
	b.post(at, "match", match, "url", "http://127.0.0.1:1/hook", "events", "*", "allow", "127.0.0.1").want(t, 422, "Somebody else changed")
	b.get(at).want(t, 200, "<code>user.*</code>", "<h1><bdi>mail</bdi></h1>")
	b.post(at+"/disable").want(t, 303)
	b.get("/settings/webhooks").want(t, 200, "<span>Off</span>")
	b.post(at+"/enable").want(t, 303)
	b.post(at+"/rotate").want(t, 303)
	page = b.get(at).want(t, 200, "signs too; ends")
	if strings.Contains(page.body, shown[1]) {
		t.Error("the old secret is shown")
	}
	s.advance(31 * time.Minute)
	if strings.Contains(b.get(at).want(t, 200).body, "Copy the secret") {
		t.Error("the secret is shown for longer than half an hour")
	}
	b.post(at+"/delete", "typed", "x").want(t, 422, "Nothing was deleted")
	b.post(at+"/delete", "typed", strings.TrimPrefix(at, "/settings/webhooks/")).want(t, 303)
	b.get(at).want(t, 404)

	// An admin allows no addresses, and is told so.
	admin := s.as("adam", ops.RoleAdmin)
	if a := admin.get("/settings/webhooks/new").want(t, 200); strings.Contains(a.body, `name="allow"`) {
		t.Error("an admin is offered what only an owner may")
	}
	admin.post("/settings/webhooks/new", "url", "http://127.0.0.1:1/", "events", "*", "allow", "127.0.0.1").want(t, 422, "Only an owner may allow")
}

// A service gets a token; it is shown to the session that made it, works, and is revoked.
func TestTokenPages(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	b.get("/settings/tokens").want(t, 200, "No token works at the moment", "Make a service")
	b.get("/settings/tokens/new").want(t, 200, "There is no service yet")
	b.post("/settings/tokens/services", "name", "a b<", "role", "member").want(t, 422, "want 1 to 64 letters", "a b&lt;", `data-here="/settings/tokens/new"`)
	b.post("/settings/tokens/services", "name", "robot", "role", "owner").want(t, 422, "An owner is a person")
	to := b.post("/settings/tokens/services", "name", "robot", "role", "operator", "tags", "camera door").want(t, 303).Header.Get("Location")
	b.get(to).want(t, 200, "robot, operator for camera, door", `value="robot" selected`)
	b.post("/settings/tokens/new", "service", "robot", "life", "soon", "note", "n<o>te").want(t, 422, "Choose how long", "n&lt;o&gt;te")
	b.post("/settings/tokens/new", "service", "nobody", "life", "90d").want(t, 422, "Choose the service")
	b.post("/settings/tokens/new", "service", "admin", "life", "90d").want(t, 422, "is a person")
	to = b.post("/settings/tokens/new", "service", "robot", "life", "never", "note", "grafana <b>").want(t, 303).Header.Get("Location")
	page := b.get(to).want(t, 200, "The token of", "operator", "camera", "when revoked", "grafana &lt;b&gt;", "shown to this browser only")
	checkMarkup(t, to, page.body)
	token := regexp.MustCompile(`data-copy="([^"]+)" aria-label="Copy the secret"`).FindStringSubmatch(page.body)[1]
	a, err := s.net.Authenticate(t.Context(), token, ops.Root().From)
	if err != nil || a.User != "robot" {
		t.Fatal(a, err)
	}
	b.get("/settings/tokens").want(t, 200, "just now")
	other := s.browser().signIn()
	for who, b := range map[string]*browser{"the same session": b, "another": other} {
		for _, at := range []string{"/settings/tokens", "/activity"} {
			if strings.Contains(b.get(at).want(t, 200).body, token) {
				t.Errorf("%s has the token on %s", who, at)
			}
		}
	}
	if strings.Contains(other.get(to).want(t, 200).body, token) {
		t.Error("another session has the token")
	}
	made, _ := url.Parse(to)
	b.post("/settings/tokens/"+made.Query().Get("made")+"/revoke").want(t, 303)
	b.get(to).want(t, 200, "1 token expired or revoked")
	if strings.Contains(b.get(to).body, token) {
		t.Error("a token that was revoked is shown")
	}
	if _, err := s.net.Authenticate(t.Context(), token, ops.Root().From); err == nil {
		t.Error("a revoked token works")
	}
	// It outlives the session, so a browser that was left open makes none.
	s.advance(ops.FreshFor + time.Minute)
	for _, a := range []answer{b.get("/settings/tokens/new"), b.post("/settings/tokens/new", "service", "robot", "life", "90d")} {
		if to := a.want(t, 303).Header.Get("Location"); !strings.HasPrefix(to, "/sign-in/again") {
			t.Errorf("leads to %q", to)
		}
	}
}

// Versions are counted for who looks, and set beside the one that is offered.
func TestReleasesPage(t *testing.T) {
	s := newSite(t).in(nil)
	b := s.browser().enter()
	b.get("/settings/releases").want(t, 200, "No devices yet", "0.2.0", "Linux, amd64")
	s.household()
	b.get("/settings/releases").want(t, 200, "7 devices on another version", "0.1.0", "7 devices, 100 %")
	s.net.Member("bob")
	s.joins("bob", "phone")
	bob := s.browser().enterAs("bob")
	bob.get("/settings/releases").want(t, 200, "1 device, 100 %")
	s.in(func(h *console.Health) { h.Release, h.Facts.Release = nil, "" })
	b.get("/settings/releases").want(t, 200, "None", "no line to install weft with")
	b.get("/settings").want(t, 200, "weft.internal", "100.64.0.0/10", s.net.Network().ID.String())
}
