package webapi_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// with is a transport for requests to the API as it is on the public site, with a token,
// from an address.
func (s *site) with(token string, from string) http.RoundTripper {
	public := s.public(time.Now)
	return transport(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+token)
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(from), 1234).String()
		return public.RoundTrip(r)
	})
}

// public is the API as it is on the public site.
func (s *site) public(now func() time.Time) http.RoundTripper {
	api := webapi.OnSite(s.api, s.Service, webapi.Site{
		Addr: func(r *http.Request) netip.Addr { return netip.MustParseAddrPort(r.RemoteAddr).Addr() },
		Now:  now,
	})
	return direct(api)
}

// service makes a service, and a token of it.
func (s *site) service(name string, role ops.Role, tags ...string) (store.User, string) {
	s.t.Helper()
	u := must(s.t)(ops.Do(s.t.Context(), s.Service, ops.Root(), ops.CreateUser{Name: name, Service: true, Role: role, Tags: tags}))
	return u, s.token(name).Token
}

func (s *site) token(user string) ops.TokenCreated {
	s.t.Helper()
	made, err := ops.Do(s.t.Context(), s.Service, ops.Root(), ops.CreateToken{User: user})
	if err != nil {
		s.t.Fatal(err)
	}
	return made
}

// hook makes a webhook that nobody answers, in the place of the one before.
func (s *site) hook() string {
	s.t.Helper()
	list, err := s.Webhooks(s.t.Context(), ops.Root())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, w := range list {
		if _, err := ops.Do(s.t.Context(), s.Service, ops.Root(), ops.DeleteWebhook{ID: w.ID}); err != nil {
			s.t.Fatal(err)
		}
	}
	w, err := ops.Do(s.t.Context(), s.Service, ops.Root(), ops.CreateWebhook{URL: "https://127.0.0.1:1/", Allow: []string{"127.0.0.1"}})
	if err != nil {
		s.t.Fatal(err)
	}
	return w.ID
}

// provider makes a place where people sign in, and returns its id.
func (s *site) provider(id string) string {
	s.t.Helper()
	issuer, client := "https://accounts.example.org", "weft"
	if _, err := ops.Do(s.t.Context(), s.Service, ops.Root(), ops.SetProvider{ID: id, New: true, Issuer: &issuer, ClientID: &client}); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// group makes a group of people, and returns its name.
func (s *site) group(name string) string {
	s.t.Helper()
	if _, err := ops.Do(s.t.Context(), s.Service, ops.Root(), ops.CreateGroup{Name: name}); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// waiting is somebody who waits for approval.
func (s *site) waiting(subject string) string {
	s.t.Helper()
	if _, err := ops.Do(s.t.Context(), s.Service, ops.Actor{Via: ops.ViaConsole}, ops.SignInWithProvider{Who: ops.Foreigner{Provider: "stays", Issuer: "https://accounts.example.org", Subject: subject}}); err != nil {
		s.t.Fatal(err)
	}
	list, err := s.Identities(s.t.Context(), ops.Root())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, i := range list {
		if i.Subject == subject {
			return i.ID
		}
	}
	s.t.Fatalf("%s does not wait", subject)
	return ""
}

// listed is the id of a device that asks.
func (s *site) listed(hostname string) string {
	s.t.Helper()
	list, err := s.Requests(s.t.Context(), ops.Root())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range list {
		if r.Hostname == hostname {
			return r.ID
		}
	}
	s.t.Fatalf("%s does not ask", hostname)
	return ""
}

func must(t testing.TB) func(store.User, error) store.User {
	return func(u store.User, err error) store.User {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
}

// TestAuthorization: who may do what to what, by what the public API answers. Devices and
// keys are the asker's own, without a tag, with the tags camera and hall, or with camera
// alone, or another user's, with the tag camera or door; users and tokens are the asker's own or another one's; "-" is
// the network's. "assign:" gives a device other tags or another owner: away takes from it the tag that
// makes it visible. The last three askers are narrowed to the tag camera. A dot is what
// there is not: a service owns no network, and its owner has no tokens.
func TestAuthorization(t *testing.T) {
	const table = `
                          owner admin operator auditor member  operator auditor member
listDevices     -         ok    ok    ok       ok      ok      ok       ok      ok
getDevice       own       ok    ok    ok       ok      ok      404      404     404
getDevice       owncam    ok    ok    ok       ok      ok      ok       ok      ok
getDevice       camera    ok    ok    ok       ok      404     ok       ok      404
getDevice       door      ok    ok    ok       ok      404     404      404     404
editDevice      own       ok    ok    ok       403     ok      404      404     404
editDevice      owncam    ok    ok    ok       403     ok      ok       403     ok
editDevice      camera    ok    ok    ok       403     404     ok       403     404
editDevice      door      ok    ok    ok       403     404     404      404     404
editDevice      assign:own ok    ok    ok       403     403     404      404     404
editDevice      assign:owncam ok    ok    ok       403     403     403      403     403
editDevice      assign:owncam1 ok    ok    ok       403     403     ok       403     403
editDevice      assign:camera ok    ok    ok       403     404     ok       403     404
editDevice      assign:door ok    ok    ok       403     404     404      404     404
editDevice      assign:away ok    ok    ok       403     404     403      403     404
replaceDevice   own       ok    ok    ok       403     ok      404      404     404
replaceDevice   owncam    ok    ok    ok       403     ok      ok       403     ok
replaceDevice   camera    ok    ok    ok       403     404     ok       403     404
replaceDevice   door      ok    ok    ok       403     404     404      404     404
deleteDevice    own       ok    ok    ok       403     ok      404      404     404
deleteDevice    owncam    ok    ok    ok       403     ok      ok       403     ok
deleteDevice    camera    ok    ok    ok       403     404     ok       403     404
deleteDevice    door      ok    ok    ok       403     404     404      404     404
listKeys        -         ok    ok    ok       ok      ok      ok       ok      ok
getKey          own       ok    ok    ok       ok      ok      404      404     404
getKey          owncam    ok    ok    ok       ok      ok      ok       ok      ok
getKey          camera    ok    ok    ok       ok      404     ok       ok      404
getKey          door      ok    ok    ok       ok      404     404      404     404
createKey       own       ok    ok    ok       403     ok      403      403     403
createKey       owncam    ok    ok    ok       403     403     403      403     403
createKey       owncam1   ok    ok    ok       403     403     ok       403     403
createKey       camera    ok    ok    ok       403     404     ok       403     404
createKey       door      ok    ok    ok       403     404     403      403     403
revokeKey       own       ok    ok    ok       403     ok      404      404     404
revokeKey       owncam    ok    ok    ok       403     ok      ok       403     ok
revokeKey       camera    ok    ok    ok       403     404     ok       403     404
revokeKey       door      ok    ok    ok       403     404     404      404     404
listRequests    -         ok    ok    ok       ok      ok      ok       ok      ok
getRequest      -         ok    ok    ok       ok      ok      ok       ok      ok
approveRequest  own       ok    ok    ok       403     ok      403      403     403
approveRequest  owncam    ok    ok    ok       403     403     403      403     403
approveRequest  owncam1   ok    ok    ok       403     403     ok       403     403
approveRequest  camera    ok    ok    ok       403     404     ok       403     404
approveRequest  door      ok    ok    ok       403     404     403      403     403
denyRequest     -         ok    ok    ok       403     ok      ok       403     ok
denyRequest     listed    ok    ok    ok       403     403     403      403     403
listUsers       -         ok    ok    ok       ok      ok      ok       ok      ok
getUser         self      ok    ok    ok       ok      ok      ok       ok      ok
getUser         another   ok    ok    404      ok      404     404      404     404
createUser      -         ok    ok    403      403     403     403      403     403
editUser        self      422   ok    403      403     403     403      403     403
editUser        another   ok    ok    404      403     404     404      404     404
editUser        named     ok    ok    ok       ok      ok      ok       ok      ok
editUser        renamed   ok    ok    404      404     404     404      404     404
suspendUser     self      422   422   403      403     403     403      403     403
suspendUser     another   ok    ok    404      403     404     404      404     404
resumeUser      another   ok    ok    404      403     404     404      404     404
createInvitation -         ok    ok    403      403     403     403      403     403
createInvitation another   409   409   403      403     403     403      403     403
deleteInvitation another   ok    ok    404      403     404     404      404     404
deleteUser      another   ok    ok    404      403     404     404      404     404
listGroups      -         ok    ok    403      ok      403     403      403     403
getGroup        -         ok    ok    403      ok      403     403      403     403
createGroup     -         ok    ok    403      403     403     403      403     403
editGroup       -         ok    ok    403      403     403     403      403     403
deleteGroup     -         ok    ok    403      403     403     403      403     403
listTokens      -         ok    ok    ok       ok      ok      ok       ok      ok
createToken     self      422   ok    403      403     403     403      403     403
createToken     another   ok    ok    404      403     404     404      404     404
revokeToken     self      .     ok    ok       403     ok      ok       403     ok
revokeToken     another   ok    ok    404      403     404     404      404     404
createLoginLink person    ok    403   403      403     403     403      403     403
resetSecondFactor person  ok    403   403      403     403     403      403     403
getSignIn       -         ok    ok    ok       ok      ok      ok       ok      ok
setSignIn       -         ok    403   403      403     403     403      403     403
listProviders   -         ok    ok    403      ok      403     403      ok      403
getProvider     -         ok    ok    403      ok      403     403      ok      403
createProvider  -         ok    403   403      403     403     403      403     403
editProvider    -         ok    403   403      403     403     403      403     403
deleteProvider  -         ok    403   403      403     403     403      403     403
listIdentities  -         ok    ok    403      ok      403     403      403     403
approveIdentity -         ok    ok    403      403     403     403      403     403
denyIdentity    -         ok    ok    403      403     403     403      403     403
listWebhooks    -         ok    ok    403      ok      403     403      403     403
getWebhook      -         ok    ok    403      ok      403     403      403     403
createWebhook   -         ok    ok    403      403     403     403      403     403
createWebhook   allowed   ok    403   403      403     403     403      403     403
editWebhook     -         ok    ok    403      403     403     403      403     403
editWebhook     allowed   ok    403   403      403     403     403      403     403
testWebhook     -         ok    ok    403      403     403     403      403     403
rotateWebhook   -         ok    ok    403      403     403     403      403     403
deleteWebhook   -         ok    ok    403      403     403     403      403     403
getDNS          -         ok    ok    ok       ok      403     ok       ok      403
previewName     -         ok    ok    ok       ok      403     ok       ok      403
editDNS         -         ok    ok    403      403     403     403      403     403
listRelays      -         ok    ok    ok       ok      403     ok       ok      403
deleteRelay     -         ok    ok    403      403     403     403      403     403
getPolicy       -         ok    ok    ok       ok      403     ok       ok      403
checkPolicy     -         ok    ok    ok       ok      403     403      403     403
setPolicy       -         ok    ok    403      403     403     403      403     403
canReach        -         ok    ok    ok       ok      403     404      404     403
getReach        own       ok    ok    ok       ok      ok      404      404     404
getReach        owncam    ok    ok    ok       ok      ok      ok       ok      ok
getReach        camera    ok    ok    ok       ok      404     ok       ok      404
getReach        to:owncam ok    ok    ok       ok      ok      ok       ok      ok
getReach        to:camera ok    ok    ok       ok      404     ok       ok      404
getReach        self      ok    ok    ok       ok      ok      ok       ok      ok
getReach        person    ok    ok    ok       ok      404     404      404     404
listPolicies    -         ok    ok    ok       ok      403     ok       ok      403
getFormerPolicy -         ok    ok    ok       ok      403     ok       ok      403
revertPolicy    -         ok    ok    403      403     403     403      403     403
getFIPS         -         ok    ok    ok       ok      ok      ok       ok      ok
getRevocations  -         ok    ok    ok       ok      ok      ok       ok      ok
listAudit       -         ok    ok    403      ok      403     403      403     403
getAuditHead    -         ok    ok    403      ok      403     403      403     403
verifyAudit     -         ok    ok    403      ok      403     403      403     403
getAuditSettings  -       ok    ok    403      ok      403     403      403     403
editAuditSettings -       ok    403   403      403     403     403      403     403
trimAudit       -         ok    403   403      403     403     403      403     403
listIntroductions -       ok    ok    403      ok      403     403      403     403
createSnapshot  -         403   403   403      403     403     403      403     403`

	s := openSite(t, ops.Options{})
	n := 0
	fresh := func(word string) string { n++; return fmt.Sprint(word, "-", n) }
	type asker struct {
		name, user, id string
		http.RoundTripper
	}
	owner, err := s.Login(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	// The owner is a person, and so has no token.
	askers := []asker{{"owner", owner.Name, owner.ID, s.as(ops.Actor{UserID: owner.ID, User: owner.Name, Role: ops.RoleOwner, Via: ops.ViaAPI})}}
	for _, c := range []struct {
		name string
		role ops.Role
		tags []string
	}{
		{"admin", ops.RoleAdmin, nil}, {"operator", ops.RoleOperator, nil}, {"auditor", ops.RoleAuditor, nil}, {"member", ops.RoleMember, nil},
		{"narrow-operator", ops.RoleOperator, []string{"camera"}}, {"narrow-auditor", ops.RoleAuditor, []string{"camera"}}, {"narrow-member", ops.RoleMember, []string{"camera"}},
	} {
		u, token := s.service("a-"+c.name, c.role, c.tags...)
		askers = append(askers, asker{c.name, u.Name, u.ID, s.with(token, "127.0.0.1")})
	}
	person := must(t)(ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateUser{Name: "person"}))
	key := func(who asker, what string) ops.CreateKey {
		switch what {
		case "own":
			return ops.CreateKey{UserID: who.id}
		case "owncam":
			return ops.CreateKey{UserID: who.id, Tags: []string{"camera", "hall"}}
		}
		if what == "owncam1" {
			return ops.CreateKey{UserID: who.id, Tags: []string{"camera"}}
		}
		return ops.CreateKey{UserID: person.ID, Tags: []string{what}}
	}
	makeKey := func(who asker, what string) string {
		k, err := ops.Do(t.Context(), s.Service, ops.Root(), key(who, what))
		if err != nil {
			t.Fatal(err)
		}
		return k.ID
	}
	device := func(who asker, what string) string {
		name := fresh("d")
		s.joinKey(key(who, what), name)
		return name
	}
	user := func(who asker, what string) string {
		switch what {
		case "self":
			return who.user
		case "person":
			return person.Name
		}
		u, _ := s.service(fresh("u"), ops.RoleMember)
		return u.Name
	}
	body := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	// requests make the path and the body of an operation.
	provider := s.provider("stays")
	requests := map[string]func(who asker, what string) (path, sent string){
		"getDevice": func(who asker, what string) (string, string) { return device(who, what), "" },
		"editDevice": func(who asker, what string) (string, string) {
			kind, assigns := strings.CutPrefix(what, "assign:")
			switch {
			case !assigns:
				return device(who, what), body(`{"name":%q}`, fresh("n"))
			case kind == "owncam1":
				return device(who, kind), `{"user":"person"}`
			case kind == "camera":
				return device(who, kind), body(`{"user":%q}`, who.user)
			case kind == "away":
				return device(who, "camera"), `{"tags":["door"]}`
			}
			return device(who, kind), `{"tags":["camera"]}`
		},
		"deleteDevice": func(who asker, what string) (string, string) { return device(who, what), "" },
		"replaceDevice": func(who asker, what string) (string, string) {
			return device(who, what), body(`{"by":%q}`, device(who, what))
		},
		"getKey":    func(who asker, what string) (string, string) { return makeKey(who, what), "" },
		"revokeKey": func(who asker, what string) (string, string) { return makeKey(who, what), "" },
		"createKey": func(who asker, what string) (string, string) {
			k := key(who, what)
			name := person.Name
			if k.UserID == who.id {
				name = who.user
			}
			return "", body(`{"user":%q,"tags":[%s]}`, name, strings.Join(quotedAll(k.Tags), ","))
		},
		"getRequest": func(asker, string) (string, string) { return s.asks(fresh("r")), "" },
		"approveRequest": func(who asker, what string) (string, string) {
			k := key(who, what)
			name := person.Name
			if k.UserID == who.id {
				name = who.user
			}
			return s.asks(fresh("r")), body(`{"user":%q,"tags":[%s]}`, name, strings.Join(quotedAll(k.Tags), ","))
		},
		"denyRequest": func(_ asker, what string) (string, string) {
			name := fresh("r")
			code := s.asks(name)
			if what == "listed" {
				return s.listed(name), ""
			}
			return code, ""
		},
		"getUser":    func(who asker, what string) (string, string) { return user(who, what), "" },
		"createUser": func(asker, string) (string, string) { return "", body(`{"name":%q}`, fresh("u")) },
		"createInvitation": func(who asker, what string) (string, string) {
			if what == "another" {
				return "", body(`{"name":%q}`, user(who, what))
			}
			return "", body(`{"name":%q}`, fresh("i"))
		},
		"deleteInvitation": func(who asker, what string) (string, string) { return user(who, what), "" },
		"editUser": func(who asker, what string) (string, string) {
			switch what {
			case "named":
				return user(who, "self"), `{"display_name":"Björk"}`
			case "renamed":
				return user(who, "another"), `{"display_name":"Björk"}`
			}
			role := "auditor"
			if what == "self" && who.name == "admin" {
				role = "admin" // or it could do nothing below
			}
			return user(who, what), body(`{"role":%q}`, role)
		},
		"getGroup":    func(asker, string) (string, string) { return s.group(fresh("g")), "" },
		"createGroup": func(asker, string) (string, string) { return "", body(`{"name":%q}`, fresh("g")) },
		"editGroup":   func(asker, string) (string, string) { return s.group(fresh("g")), `{"add":["person"]}` },
		"deleteGroup": func(asker, string) (string, string) { return s.group(fresh("g")), "" },
		"suspendUser": func(who asker, what string) (string, string) { return user(who, what), "" },
		"resumeUser":  func(who asker, what string) (string, string) { return user(who, what), "" },
		"deleteUser":  func(who asker, what string) (string, string) { return user(who, what), "" },
		"createToken": func(who asker, what string) (string, string) { return "", body(`{"user":%q}`, user(who, what)) },
		"revokeToken": func(who asker, what string) (string, string) { return s.token(user(who, what)).ID, "" },
		"createLoginLink": func(who asker, what string) (string, string) {
			return "", body(`{"user":%q}`, user(who, what))
		},
		"resetSecondFactor": func(who asker, what string) (string, string) { return user(who, what), "" },
		"setSignIn":         func(asker, string) (string, string) { return "", "{}" },
		"getProvider":       func(asker, string) (string, string) { return provider, "" },
		"createProvider": func(asker, string) (string, string) {
			return "", body(`{"id":%q,"issuer":"https://x.example","client_id":"y"}`, fresh("p"))
		},
		"editProvider":    func(asker, string) (string, string) { return provider, "{}" },
		"deleteProvider":  func(asker, string) (string, string) { return s.provider(fresh("p")), "" },
		"approveIdentity": func(asker, string) (string, string) { return s.waiting(fresh("w")), "{}" },
		"denyIdentity":    func(asker, string) (string, string) { return s.waiting(fresh("w")), "" },
		"getWebhook":      func(asker, string) (string, string) { return s.hook(), "" },
		"deleteWebhook":   func(asker, string) (string, string) { return s.hook(), "" },
		"testWebhook":     func(asker, string) (string, string) { return s.hook(), "" },
		"rotateWebhook":   func(asker, string) (string, string) { return s.hook(), "{}" },
		"createWebhook": func(_ asker, what string) (string, string) {
			if what == "allowed" {
				return "", `{"url":"https://192.0.2.1/","allow_targets":["127.0.0.0/8"]}`
			}
			return "", `{"url":"https://192.0.2.1/"}`
		},
		"editWebhook": func(_ asker, what string) (string, string) {
			if what == "allowed" {
				return s.hook(), `{"allow_targets":["127.0.0.0/8"]}`
			}
			return s.hook(), `{"note":"night shift"}`
		},
		"canReach": func(who asker, _ string) (string, string) {
			return "?from=person&to=" + device(who, "camera") + ":22", ""
		},
		"getReach": func(who asker, what string) (string, string) {
			switch kind, to := strings.CutPrefix(what, "to:"); {
			case to:
				return "?to=" + device(who, kind), ""
			case what == "self":
				return "", ""
			case what == "person":
				return "?from=user:person", ""
			}
			return "?from=device:" + device(who, what), ""
		},
		"getFormerPolicy":   func(asker, string) (string, string) { return "0", "" },
		"revertPolicy":      func(asker, string) (string, string) { return "", `{"number":0}` },
		"editAuditSettings": func(asker, string) (string, string) { return "", `{"keep_seconds":0}` },
		"trimAudit":         func(asker, string) (string, string) { return "", `{"before":"2020-01-01T00:00:00Z"}` },
		"previewName":       func(asker, string) (string, string) { return "?name=www", "" },
		"editDNS": func(asker, string) (string, string) {
			return "", body(`{"add_record":{"name":%q,"type":"A","value":"192.0.2.1"}}`, fresh("www"))
		},
		"deleteRelay": func(asker, string) (string, string) {
			name := fresh("far")
			s.joinRelay(name)
			return name, ""
		},
		"checkPolicy": func(asker, string) (string, string) { return "", `{"text":"{\"rules\":[]}"}` },
		"setPolicy":   func(asker, string) (string, string) { return "", `{"text":""}` },
	}
	documents := map[string]documented{}
	list, _ := s.document()
	for _, d := range list {
		documents[d.ID] = d
	}
	seen := map[string]bool{}
	lines := strings.Split(strings.Trim(table, "\n"), "\n")[1:]
	for _, line := range lines {
		f := strings.Fields(line)
		id, what, cells := f[0], f[1], f[2:]
		d, ok := documents[id]
		if !ok || len(cells) != len(askers) {
			t.Fatalf("%q: there is no such operation, or it has %d cells", line, len(cells))
		}
		seen[id] = true
		for i, who := range askers {
			if cells[i] == "." {
				continue
			}
			path, sent := "", ""
			if f := requests[id]; f != nil {
				path, sent = f(who, what)
			}
			url := d.path + path
			if strings.Contains(d.path, "{id}") {
				url = strings.Replace(d.path, "{id}", path, 1)
			}
			status, _, b := s.send(who.RoundTripper, d.method, url, sent)
			got := fmt.Sprint(status)
			if status < 300 {
				got = "ok"
			}
			if got != cells[i] {
				t.Errorf("%s of %s by %s: %s, want %s: %s", id, what, who.name, got, cells[i], b)
			}
		}
	}
	for _, d := range list {
		if !seen[d.ID] {
			t.Errorf("%s is not in the table: say who may do it", d.ID)
		}
	}
	// A list has what may be seen by itself, and nothing else.
	for _, who := range askers {
		for _, l := range []struct{ list, one string }{{"listDevices", "getDevice"}, {"listKeys", "getKey"}} {
			var want, not []string
			for _, line := range lines {
				f := strings.Fields(line)
				if f[0] != l.one {
					continue
				}
				path, _ := requests[l.one](who, f[1])
				if f[2+slices.IndexFunc(askers, func(a asker) bool { return a.name == who.name })] == "ok" {
					want = append(want, path)
				} else {
					not = append(not, path)
				}
			}
			_, _, b := s.send(who.RoundTripper, "GET", documents[l.list].path+"?limit=5000", "")
			for _, word := range want {
				if !strings.Contains(string(b), `"`+word+`"`) {
					t.Errorf("%s by %s lacks %s", l.list, who.name, word)
				}
			}
			for _, word := range not {
				if strings.Contains(string(b), `"`+word+`"`) {
					t.Errorf("%s by %s has %s", l.list, who.name, word)
				}
			}
		}
	}
}

func quotedAll(words []string) (out []string) {
	for _, w := range words {
		out = append(out, fmt.Sprintf("%q", w))
	}
	return out
}
