package console_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/console"
	"weft/coord/ops"
	"weft/coord/passkey/passkeytest"
	"weft/coord/store"
)

// at has the site at a name, with a certificate that its browsers trust.
func (s *site) at(host string) *site {
	tlsServer := httptest.NewTLSServer(s)
	s.t.Cleanup(tlsServer.Close)
	addr := tlsServer.Listener.Addr().String()
	s.server = &httptest.Server{URL: "https://" + host}
	s.transport = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // whether it is trusted is Config.TrustedSite here
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}
	return s
}

func trusted(c *console.Config) { c.TrustedSite = func(*http.Request) bool { return true } }

// addPasskey makes a passkey on the account page.
func (b *browser) addPasskey(name string) *passkeytest.Authenticator {
	b.t.Helper()
	u, _ := url.Parse(b.server.URL)
	a := passkeytest.New(b.t, u.Hostname(), b.server.URL)
	options := b.post("/account/passkeys/options").want(b.t, 200, `"challenge"`, u.Hostname())
	b.post("/account/passkeys", "response", string(a.Create([]byte(options.body))), "name", name).want(b.t, 303)
	return a
}

// show has a passkey sign what the page asks for, and sends that.
func (b *browser) show(a *passkeytest.Authenticator, next string) answer {
	b.t.Helper()
	options := b.post("/sign-in/passkey/options").want(b.t, 200, `"userVerification":"required"`)
	return b.post("/sign-in/passkey", "response", string(a.Get([]byte(options.body))), "next", next)
}

func TestPasskeys(t *testing.T) {
	s := newSite(t, trusted).at("weft.example")
	owner := s.browser().enter()
	owner.get("/account").want(t, 200, "Add a passkey", "passkey.js")
	if strings.Contains(s.browser().get("/sign-in").body, "passkey") {
		t.Error("a passkey is asked for before there is one")
	}
	phone := owner.addPasskey("the phone <b>")
	owner.get("/account").want(t, 200, "the phone &lt;b&gt;", "never", "with a link and a passkey")

	// It signs in without a name, in a browser that nobody knows.
	b := s.browser()
	b.get("/sign-in").want(t, 200, "Sign in with a passkey")
	if to := b.show(phone, "/keys").want(t, 303).Header.Get("Location"); to != "/keys" {
		t.Errorf("leads to %q", to)
	}
	if c := b.cookie(); c.Name != "__Host-weft" {
		t.Errorf("cookie %v", c)
	}
	b.get("/account").want(t, 200, "with a passkey")
	for _, next := range []string{"//evil.example", "https://evil.example/", "/\\evil.example"} {
		if to := s.browser().show(phone, next).want(t, 303).Header.Get("Location"); to != "/devices" {
			t.Errorf("next %q leads to %q", next, to)
		}
	}

	// Once: what was signed for one sign-in makes no other, and not for long.
	options := s.browser().post("/sign-in/passkey/options").body
	response := string(phone.Get([]byte(options)))
	s.browser().post("/sign-in/passkey", "response", response).want(t, 303)
	s.browser().post("/sign-in/passkey", "response", response).want(t, 422, "used before")
	options = s.browser().post("/sign-in/passkey/options").body
	s.advance(6 * time.Minute)
	s.browser().post("/sign-in/passkey", "response", string(phone.Get([]byte(options)))).want(t, 422, "took too long")
	// A challenge that is for making one, or is not ours, is none.
	owner.post("/sign-in", "name", "admin", "password", password).want(t, 303)
	making := owner.post("/account/passkeys/options").want(t, 200).body
	s.browser().post("/sign-in/passkey", "response", string(phone.Get([]byte(making)))).want(t, 422, "took too long")
	s.browser().post("/sign-in/passkey", "response", string(phone.Get([]byte(`{"challenge":"AAAA"}`)))).want(t, 422)
	s.browser().post("/sign-in/passkey", "response", "nonsense").want(t, 422)
	// One that was made in another session, or by another, is not taken.
	stranger := passkeytest.New(t, "weft.example", s.server.URL)
	second := s.browser()
	second.show(phone, "").want(t, 303)
	second.post("/account/passkeys", "response", string(stranger.Create([]byte(making)))).want(t, 422, "took too long")
	owner.post("/account/passkeys", "response", string(phone.Create([]byte(making)))).want(t, 422, "here already")
	// Others prove nothing.
	for name, change := range map[string]func(*passkeytest.Authenticator){
		"origin": func(a *passkeytest.Authenticator) { a.Origin = "https://evil.example" },
		"domain": func(a *passkeytest.Authenticator) { a.Domain = "evil.example" },
		"user":   func(a *passkeytest.Authenticator) { a.Flags = passkeytest.UserPresent },
		"whose":  func(a *passkeytest.Authenticator) { a.Claim("somebody") },
	} {
		a := phone.Copy()
		change(a)
		if got := s.browser().show(a, ""); got.StatusCode != 422 || strings.Contains(got.Header.Get("Set-Cookie"), "weft=") {
			t.Errorf("another %s: %d", name, got.StatusCode)
		}
	}

	// Removed, it is worth nothing.
	id := regexp.MustCompile(`/account/passkeys/([^/"]+)/remove`).FindStringSubmatch(owner.get("/account").body)
	owner.post("/account/passkeys/"+id[1]+"/remove").want(t, 303)
	owner.post("/account/passkeys/"+id[1]+"/remove").want(t, 404)
	s.browser().show(phone, "").want(t, 422, "not known here")
}

// Where passkeys cannot work it is said why, and nothing is offered.
func TestNoPasskeys(t *testing.T) {
	for host, c := range map[string]struct {
		trusted bool
		domain  string
		why     string
	}{
		"192.0.2.1":            {true, "", "opened by an address"},
		"[2001:db8::1]:8443":   {true, "", "opened by an address"},
		"localhost":            {true, "", "opened by an address"},
		"weft.example":         {false, "", "made its own"},
		"other.example":        {true, "weft.example", "are for weft.example"},
		"evilweft.example":     {true, "weft.example", "are for weft.example"},
		"console.weft.example": {true, "weft.example", ""},
	} {
		t.Run(host, func(t *testing.T) {
			s := newSite(t, func(cfg *console.Config) { cfg.TrustedSite = func(*http.Request) bool { return c.trusted } }).at(host)
			if c.domain != "" {
				if _, err := ops.Do(t.Context(), s.net.Service, ops.System(), ops.SetSignIn{PasskeyDomain: &c.domain}); err != nil {
					t.Fatal(err)
				}
			}
			b := s.browser().enter()
			page := b.get("/account")
			if c.why == "" {
				page.want(t, 200, "Add a passkey")
				b.post("/account/passkeys/options").want(t, 200, `"id":"weft.example"`)
				return
			}
			page.want(t, 200, c.why)
			b.post("/account/passkeys/options").want(t, 404)
			s.browser().post("/sign-in/passkey/options").want(t, 404)
			if strings.Contains(page.body, "Add a passkey") {
				t.Error("offered nevertheless")
			}
		})
	}
	// Without TLS.
	s := newSite(t, trusted)
	s.server.URL = strings.Replace(s.server.URL, "127.0.0.1", "localhost", 1)
	s.browser().enter().get("/account").want(t, 200, "opened by an address")
}

// A passkey whose counter goes back may have been copied: that is recorded, and shown to
// its owner, who is not kept out.
func TestClonedPasskey(t *testing.T) {
	s := newSite(t, trusted).at("weft.example")
	owner := s.browser().enter()
	phone := owner.addPasskey("phone")
	clone := phone.Copy()
	for range 3 {
		phone.Counter++
		s.browser().show(phone, "").want(t, 303)
	}
	if strings.Contains(owner.get("/account").body, "may have a copy") {
		t.Error("warned too early")
	}
	clone.Counter = 2
	s.browser().show(clone, "").want(t, 303)
	owner.get("/account").want(t, 200, "may have a copy")
	list, err := s.net.Audit(t.Context(), ops.Root(), store.AuditFilter{Op: "passkey.cloned"})
	if err != nil || len(list) != 1 || !strings.Contains(string(list[0].After), `"counted":3,"counts":2`) {
		t.Errorf("%+v, %v", list, err)
	}
	if !strings.Contains(s.log.String(), "there may be a copy") {
		t.Error("not in the log")
	}
}

// Where more than a password is demanded, whoever has a passkey has to show it: the
// password does not lead to another one.
func TestDemandedPasskey(t *testing.T) {
	s := newSite(t, trusted).at("weft.example")
	owner := s.browser().enter()
	phone := owner.addPasskey("phone")
	weak := s.browser()
	weak.post("/sign-in", "name", "admin", "password", password).want(t, 303)
	on := true
	if _, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.SetSignIn{Demanded: &on}); err != nil {
		t.Fatal(err)
	}
	// A session of before.
	weak.get("/network/keys").want(t, 303)
	weak.get("/account").want(t, 200, "Sign in with yours")
	thief := passkeytest.New(t, "weft.example", s.server.URL)
	options := weak.post("/account/passkeys/options").want(t, 200).body
	weak.post("/account/passkeys", "response", string(thief.Create([]byte(options)))).want(t, 403)
	page := weak.get("/account/codes/set-up")
	if page.StatusCode == 200 {
		weak.post("/account/codes", "enrolment", page.hidden(t, "enrolment"), "code", "000000").want(t, 403)
	}
	s.browser().post("/sign-in", "name", "admin", "password", password).want(t, 422, "demands your passkey")
	u, _ := url.Parse(s.net.Link(""))
	s.browser().post("/welcome", "link", u.Query().Get("link"), "password", password).want(t, 422, "demands your passkey")
	b := s.browser()
	b.show(phone, "").want(t, 303)
	b.get("/network/keys").want(t, 200)
	id := regexp.MustCompile(`/account/passkeys/([^/"]+)/remove`).FindStringSubmatch(b.get("/account").body)
	b.post("/account/passkeys/"+id[1]+"/remove").want(t, 422, "Add another one first")
	// Another domain makes it worthless, which is said; so the owner is not kept out by
	// one that cannot be used.
	other := "example.org"
	if _, err := ops.Do(t.Context(), s.net.Service, ops.System(), ops.SetSignIn{PasskeyDomain: &other}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.log.String(), "passkeys=1") {
		t.Error("nobody is told that passkeys are orphaned")
	}
	late := s.browser()
	late.post("/sign-in", "name", "admin", "password", password).want(t, 303)
	late.get("/account").want(t, 200, "Does not work", "Set one up to go on")
	for _, bad := range []string{"", "localhost", "192.0.2.1:80", "-x.example", "<b>.example", strings.Repeat("a.", 200) + "example"} {
		if _, err := ops.Do(t.Context(), s.net.Service, ops.System(), ops.SetSignIn{PasskeyDomain: &bad}); err == nil {
			t.Errorf("%q is a domain of passkeys", bad)
		}
	}
}

// Nothing of what a passkey signs is in the audit or the log.
func TestPasskeysStayOut(t *testing.T) {
	s := newSite(t, trusted).at("weft.example")
	owner := s.browser().enter()
	phone := owner.addPasskey("phone")
	b := s.browser()
	options := b.post("/sign-in/passkey/options").body
	response := string(phone.Get([]byte(options)))
	b.post("/sign-in/passkey", "response", response).want(t, 303)
	list, err := s.net.Audit(t.Context(), ops.Root(), store.AuditFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	everything := s.log.String() + fmt.Sprint(texts(list))
	challenge := regexp.MustCompile(`"challenge":"([^"]+)"`).FindStringSubmatch(options)[1]
	signature := regexp.MustCompile(`"signature":"([^"]+)"`).FindStringSubmatch(response)[1]
	for _, secret := range []string{challenge[:40], signature, b.cookie().Value, owner.cookie().Value} {
		if strings.Contains(everything, secret) {
			t.Errorf("%q is in the audit or the log", secret)
		}
	}
}

func texts(list []audit.Line) (all []string) {
	for _, l := range list {
		all = append(all, fmt.Sprintf("%s %s %s -> %s %s", l.Op, l.Name, l.Before, l.After, l.Refused))
	}
	return all
}
