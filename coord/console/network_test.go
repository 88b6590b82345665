package console_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/doctor"
	"weft/coord/ops"
	"weft/overlay/release"
)

// health has a console be in a server, as change leaves it.
func (s *site) health(change func(*console.Health)) func(*console.Config) {
	return func(cfg *console.Config) {
		cfg.Health = func(context.Context) console.Health {
			h := console.Health{
				Facts: doctor.Facts{
					Version: "test", Running: true, Inside: true, Data: "/data", Free: 10_000_000_000, Releases: "/data/releases", Release: "0.2.0", Backup: s.Now().Add(-time.Hour),
					Ports: []doctor.Port{{Flag: "--listen", Addr: "[::]:8443"}}, Sites: []doctor.Site{{URL: "https://h:8443", Own: true, Expires: s.Now().AddDate(1, 0, 0)}},
				},
				Database: 5_000_000, Release: &release.Manifest{Version: "0.2.0", Time: s.Now(), Files: []release.File{{Program: "weft", OS: "linux", Arch: "amd64", Kind: "binary"}}},
			}
			if change != nil {
				change(&h)
			}
			return h
		}
	}
}

// in has the server serve a console that knows how it is.
func (s *site) in(change func(*console.Health)) *site {
	cfg := console.Config{Service: s.net.Service, Now: s.Now, Heartbeat: 20 * time.Millisecond}
	s.health(change)(&cfg)
	s.use(console.New(cfg))
	return s
}

// The overview says what the relays do, what is wrong with the server, how old the last
// backup is, and what to do.
func TestNetworkPage(t *testing.T) {
	s := newSite(t).in(nil)
	b := s.browser().enter()
	s.household()
	page := b.get("/network").want(t, 200, "in the server", "Everything that was checked is in order", "checks passed", "Recent", "1 h ago", "5.0 MB", "10 GB", "Known to all devices, 7", `aria-current="page">Overview`)
	checkMarkup(t, "/network", page.body)

	s.in(func(h *console.Health) {
		h.Facts.Free, h.Facts.Backup, h.Facts.Sites[0].Expires = 100_000_000, s.Now().AddDate(0, 0, -9), s.Now().Add(time.Hour)
		h.Facts.Data = "/data/<script>alert(1)</script>"
	})
	page = b.get("/network").want(t, 200, "100 MB", "The certificate of https://h:8443 ends in 1 hours", "Next: <code>", "9 days ago", "What changed since then would be lost", `data-copy="weft-server backup --key-file FILE"`)
	if checkMarkup(t, "/network", page.body); strings.Contains(page.body, "in order") {
		t.Error("everything is in order")
	}
	s.in(func(h *console.Health) { h.Facts.Backup = time.Time{} })
	b.get("/network").want(t, 200, "Never", "every device has to join again")

	// A relay that runs alone.
	far := s.net.AddRelay("far")
	b.get("/network").want(t, 200, ">far</bdi>", "not since the server started", "not reported", "0.0.9", "not the server’s", "The relay far has not been heard of")
	far.Sync(1000)
	s.advance(time.Minute)
	b.get("/network").want(t, 200, ">far</bdi>", "0 bytes/s")
	at := "/network/relays/" + far.ID
	checkMarkup(t, at, b.get(at).want(t, 200, "https://far.example:8443", "mean of the last five minutes", "Remove this relay", "key <code>").body)
	builtin := b.get("/network/relays/"+s.net.RelayID()).want(t, 200, "The relay in the server")
	if strings.Contains(builtin.body, "Remove this relay") {
		t.Error("the server's own relay can be removed")
	}
	b.post(at+"/remove", "typed", "fa").want(t, 422, "That is not the name", `data-here="`+at+`"`)
	b.post(at+"/remove").want(t, 422)
	b.post("/network/relays/"+s.net.RelayID()+"/remove", "typed", "server").want(t, 404)
	b.post(at+"/remove", "typed", "far").want(t, 303)
	b.get(at).want(t, 404)

	// Addresses that not all devices know yet.
	b.get("/keys").want(t, 308)
	b.get("/network?done=norelay").want(t, 200, "Devices move to another relay")
}

// What is below a section is there for who may see it, and changed by who may change it.
func TestWhoSeesNetworkAndSettings(t *testing.T) {
	s := newSite(t).in(nil)
	owner := s.browser().enter()
	far := s.net.AddRelay("far")
	hook, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateWebhook{URL: "https://hook.example/secret-path"})
	if err != nil {
		t.Fatal(err)
	}
	s.idp().add("work")
	pages := []string{"/network", "/network/relays/" + far.ID, "/network/dns", "/network/dns/routes", "/network/dns/try", "/network/keys", "/settings", "/settings/sign-in", "/settings/sign-in/provider?id=work", "/settings/sign-in/new",
		"/settings/webhooks", "/settings/webhooks/new", "/settings/webhooks/" + hook.ID, "/settings/tokens", "/settings/tokens/new", "/settings/releases"}
	all := strings.Repeat("1", len(pages))
	for role, sees := range map[ops.Role]string{
		ops.RoleOwner:    all,
		ops.RoleAdmin:    "1111111110111111",
		ops.RoleOperator: "1111111100000001",
		ops.RoleAuditor:  "1111111110101101",
		ops.RoleMember:   "0000011100000001",
	} {
		b := owner
		if role != ops.RoleOwner {
			b = s.as("a-"+string(role), role)
		}
		var links string
		for i, at := range pages {
			want := map[byte]int{'1': 200, '0': 404}[sees[i]]
			a := b.get(at)
			if a.StatusCode != want {
				t.Errorf("%s: %s: %d, want %d", role, at, a.StatusCode, want)
				continue
			}
			if want == 200 {
				links += a.body
				checkMarkup(t, at, a.body)
			}
			reads := role == ops.RoleAuditor || role == ops.RoleMember && at != "/network/keys"
			if reads && (strings.Contains(a.body, `action="/network`) && at != "/network/dns/try" || strings.Contains(a.body, `action="/settings`)) {
				t.Errorf("%s is offered to change something on %s", role, at)
			}
		}
		for i, at := range pages {
			if sees[i] == '0' && strings.Contains(links, `href="`+at+`"`) {
				t.Errorf("%s: %s is linked", role, at)
			}
		}
		if role == ops.RoleOwner {
			continue
		}
		if sees := strings.Contains(links, "secret-path"); sees != (role == ops.RoleAdmin) {
			t.Errorf("%s sees the path of a webhook: %v", role, sees)
		}
		before := s.net.State()
		changes := map[string]bool{ // whether an admin may
			"/network/relays/" + far.ID + "/remove": true, "/network/dns/nameservers": true, "/settings/sign-in": false, "/settings/sign-in/passkeys": false, "/settings/sign-in/new": false, "/settings/sign-in/provider": false, "/settings/sign-in/provider/remove": false,
			"/settings/webhooks/new": true, "/settings/webhooks/" + hook.ID: true, "/settings/webhooks/" + hook.ID + "/test": true, "/settings/webhooks/" + hook.ID + "/rotate": true, "/settings/webhooks/" + hook.ID + "/delete": true, "/settings/webhooks/" + hook.ID + "/disable": true,
			"/settings/tokens/new": true, "/settings/tokens/services": true,
		}
		for at, admin := range changes {
			if admin && role == ops.RoleAdmin {
				continue
			}
			if a := b.post(at, "id", "work", "typed", "work", "url", "https://x.example", "events", "*", "name", "x", "role", "member", "life", "90d", "service", "x", "demanded", "on", "domain", "example.org"); a.StatusCode != 403 && a.StatusCode != 404 {
				t.Errorf("%s: POST %s: %d", role, at, a.StatusCode)
			}
		}
		if s.net.State() != before {
			t.Errorf("%s changed something", role)
		}
	}
}

// Addresses of before lead on, with what was asked.
func TestMoved(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	for from, to := range map[string]string{
		"/dns": "/network/dns", "/dns?name=a&type=A": "/network/dns/try?name=a&type=A", "/keys": "/network/keys", "/keys/new": "/network/keys/new", "/keys/abc/join?x=y": "/network/keys/abc/join?x=y", "/keys/..%2f..%2fevil": "/network/keys/..%2f..%2fevil",
	} {
		if got := b.get(from).want(t, 308).Header.Get("Location"); got != to {
			t.Errorf("%s leads to %q, want %q", from, got, to)
		}
	}
	a := b.post("/keys", "kind", "device", "tags", "device", "life", "1h").want(t, 303)
	if to := a.Header.Get("Location"); !strings.HasPrefix(to, "/network/keys/") {
		t.Errorf("a form of before leads to %q", to)
	}
}
