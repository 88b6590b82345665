package webapi_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/policy"
	"weft/coord/store"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
	"weft/overlay/api"
)

// calls do each operation of the document through the client. They are done in the
// order of their names on a site with two devices, a, b, a relay, far, and a service, svc.
var calls = map[string]func(t *testing.T, c *client.Client) error{
	"canReach": func(t *testing.T, c *client.Client) error {
		a, err := c.CanReach(t.Context(), ops.AccessQuery{From: "admin", To: "a:22"})
		if !a.Allowed || a.Rule != 1 || a.From != "user:admin" {
			t.Errorf("%+v", a)
		}
		return err
	},
	"checkPolicy": func(t *testing.T, c *client.Client) error {
		r, err := c.CheckPolicy(t.Context(), `{"rules":[]}`, nil)
		if !r.Good || len(r.Losses) != 1 || len(r.Gains) != 0 {
			t.Errorf("%+v", r)
		}
		return err
	},
	"getReach": func(t *testing.T, c *client.Client) error {
		r, err := c.Reach(t.Context(), ops.ReachQuery{From: "admin", Limit: 1})
		if err != nil || r.From != "user:admin" || r.Total != 1 || r.Groups[0].DeviceCount < 2 || r.Groups[0].By[0].Rule != 1 || r.Next != "" {
			t.Errorf("%+v", r)
		}
		return err
	},
	"getFormerPolicy": func(t *testing.T, c *client.Client) error { _, err := c.FormerPolicy(t.Context(), 0); return err },
	"listPolicies":    func(t *testing.T, c *client.Client) error { _, err := c.PolicyHistory(t.Context()); return err },
	"revertPolicy": func(t *testing.T, c *client.Client) error {
		p, err := c.RevertPolicy(t.Context(), 0, nil)
		if p.Text != "" || p.Number != 2 {
			t.Errorf("%+v", p)
		}
		return err
	},
	"createKey": func(t *testing.T, c *client.Client) error {
		_, err := c.CreateKey(t.Context(), ops.CreateKey{})
		return err
	},
	"createLoginLink": func(t *testing.T, c *client.Client) error { _, err := c.LoginLink(t.Context(), ""); return err },
	"createSnapshot": func(t *testing.T, c *client.Client) error {
		path, err := c.Snapshot(t.Context())
		if err == nil {
			err = os.Remove(path)
		}
		return err
	},
	"createUser": func(t *testing.T, c *client.Client) error {
		_, err := c.CreateUser(t.Context(), ops.CreateUser{Name: "eve"})
		return err
	},
	"createInvitation": func(t *testing.T, c *client.Client) error {
		in, err := c.InviteUser(t.Context(), ops.InviteUser{Name: "ivy", Role: ops.RoleAuditor, Life: time.Hour})
		if err == nil && (in.User.Name != "ivy" || in.User.Role != "auditor" || !strings.Contains(in.URL, "/welcome?link=") || in.Expires.IsZero()) {
			t.Errorf("%+v", in)
		}
		return err
	},
	"deleteInvitation": func(t *testing.T, c *client.Client) error {
		_, err := c.RevokeInvitation(t.Context(), "guest")
		return err
	},
	"createGroup": func(t *testing.T, c *client.Client) error { _, err := c.CreateGroup(t.Context(), "family"); return err },
	"getGroup":    func(t *testing.T, c *client.Client) error { _, err := c.Group(t.Context(), "staff"); return err },
	"editGroup": func(t *testing.T, c *client.Client) error {
		g, err := c.EditGroup(t.Context(), ops.EditGroup{Name: "staff", Add: []string{"paused"}})
		if err == nil && !slices.Equal(g.Members, []string{"paused"}) {
			t.Errorf("%+v", g)
		}
		return err
	},
	"listGroups": func(t *testing.T, c *client.Client) error {
		list, err := c.Groups(t.Context())
		if !slices.ContainsFunc(list, func(g webapi.Group) bool { return g.Name == "staff" }) {
			t.Errorf("%+v", list)
		}
		return err
	},
	"deleteGroup": func(t *testing.T, c *client.Client) error { _, err := c.DeleteGroup(t.Context(), "goes"); return err },
	"suspendUser": func(t *testing.T, c *client.Client) error {
		u, err := c.SuspendUser(t.Context(), "paused")
		if err == nil && u.Suspended == nil {
			t.Errorf("%+v", u)
		}
		return err
	},
	"resumeUser": func(t *testing.T, c *client.Client) error {
		u, err := c.ResumeUser(t.Context(), "paused")
		if err == nil && u.Suspended != nil {
			t.Errorf("%+v", u)
		}
		return err
	},
	"deleteUser": func(t *testing.T, c *client.Client) error {
		_, err := c.DeleteUser(t.Context(), ops.DeleteUser{Name: "eve"})
		return err
	},
	"editUser": func(t *testing.T, c *client.Client) error {
		role := ops.RoleAuditor
		u, err := c.EditUser(t.Context(), "svc", ops.EditUser{Role: &role})
		if u.Role != "auditor" {
			t.Errorf("%+v", u)
		}
		return err
	},
	"getUser": func(t *testing.T, c *client.Client) error {
		u, err := c.User(t.Context(), "svc")
		if u.Kind != store.Service {
			t.Errorf("%+v", u)
		}
		return err
	},
	"listUsers": func(t *testing.T, c *client.Client) error {
		users, err := c.Users(t.Context())
		if len(users) != 5 || !users[0].Owner || users[0].Devices == 0 {
			t.Errorf("%+v", users)
		}
		return err
	},
	"createToken": func(t *testing.T, c *client.Client) error {
		made, err := c.CreateToken(t.Context(), ops.CreateToken{User: "svc", Life: time.Hour})
		if !strings.HasPrefix(made.Token, "weftapi1") {
			t.Error("no token")
		}
		return err
	},
	"listTokens": func(t *testing.T, c *client.Client) error {
		list, err := c.Tokens(t.Context(), "svc")
		if len(list) != 1 {
			t.Errorf("%+v", list)
		}
		return err
	},
	"revokeToken": func(t *testing.T, c *client.Client) error {
		list, err := c.Tokens(t.Context(), "")
		if err != nil {
			return err
		}
		tok, err := c.RevokeToken(t.Context(), list[0].ID)
		if tok.Revoked == nil {
			t.Errorf("%+v", tok)
		}
		return err
	},
	"deleteDevice": func(t *testing.T, c *client.Client) error { _, err := c.DeleteDevice(t.Context(), "gone"); return err },
	"deleteRelay":  func(t *testing.T, c *client.Client) error { _, err := c.DeleteRelay(t.Context(), "far"); return err },
	"editDNS": func(t *testing.T, c *client.Client) error {
		_, err := c.EditDNS(t.Context(), ops.DNSEdit{AddRecord: &ops.NewRecord{DNSRecord: api.DNSRecord{Name: "www", Type: "A", Value: "192.0.2.1"}}}, nil)
		return err
	},
	"editDevice": func(t *testing.T, c *client.Client) error {
		name, on, tags, user := "c", true, []string{"tag:door"}, "admin"
		d, err := c.EditDevice(t.Context(), "a", ops.EditDevice{Name: &name, Tags: &tags, User: &user, DeviceDNS: ops.DeviceDNS{Wildcard: &on}})
		if d.Name != name || !d.Wildcard || d.User != user || !slices.Equal(d.Tags, []string{"door"}) {
			t.Errorf("%+v", d)
		}
		return err
	},
	"editAuditSettings": func(t *testing.T, c *client.Client) error {
		keep := int64(90 * 24 * 3600)
		a, err := c.EditAudit(t.Context(), ops.EditAudit{KeepSeconds: &keep, Report: []string{"tag:camera"}})
		if a.KeepSeconds != keep || !slices.Equal(a.Introductions, []string{"camera"}) {
			t.Errorf("%+v", a)
		}
		return err
	},
	"getAuditSettings": func(t *testing.T, c *client.Client) error {
		a, err := c.AuditSettings(t.Context())
		if a.KeepSeconds == 0 {
			t.Errorf("%+v", a)
		}
		return err
	},
	"trimAudit": func(t *testing.T, c *client.Client) error {
		_, err := c.TrimAudit(t.Context(), time.Now().AddDate(0, 0, -2))
		return err
	},
	"listIntroductions": func(t *testing.T, c *client.Client) error {
		_, err := c.Introductions(t.Context(), ops.IntroductionQuery{Limit: 10})
		return err
	},
	"getAuditHead":   func(t *testing.T, c *client.Client) error { _, err := c.AuditHead(t.Context()); return err },
	"getDNS":         func(t *testing.T, c *client.Client) error { _, err := c.DNS(t.Context()); return err },
	"getDevice":      func(t *testing.T, c *client.Client) error { _, err := c.Device(t.Context(), "c"); return err },
	"getKey":         func(t *testing.T, c *client.Client) error { _, err := c.Key(t.Context(), firstKey(t, c)); return err },
	"getSignIn":      func(t *testing.T, c *client.Client) error { _, err := c.SignIn(t.Context()); return err },
	"getPolicy":      func(t *testing.T, c *client.Client) error { _, err := c.Policy(t.Context()); return err },
	"getFIPS":        func(t *testing.T, c *client.Client) error { _, err := c.FIPS(t.Context()); return err },
	"getRevocations": func(t *testing.T, c *client.Client) error { _, err := c.Revocations(t.Context()); return err },
	"listAudit": func(t *testing.T, c *client.Client) error {
		_, err := c.Audit(t.Context(), store.AuditFilter{Limit: 10})
		return err
	},
	"listDevices": func(t *testing.T, c *client.Client) error {
		list, err := c.Devices(t.Context(), ops.DeviceQuery{Text: "C.weft", State: "offline", Filter: "is:offline -tag:nothing", Sort: "-seen"})
		if len(list) != 1 || list[0].Name != "c" {
			t.Errorf("%+v", list)
		}
		return err
	},
	"listKeys":   func(t *testing.T, c *client.Client) error { _, err := c.Keys(t.Context()); return err },
	"listRelays": func(t *testing.T, c *client.Client) error { _, err := c.Relays(t.Context()); return err },
	"previewName": func(t *testing.T, c *client.Client) error {
		_, err := c.PreviewName(t.Context(), ops.PreviewQuery{Name: "www", Type: "A", From: "c"})
		return err
	},
	"replaceDevice": func(t *testing.T, c *client.Client) error {
		d, err := c.ReplaceDevice(t.Context(), "c", "b")
		if d.Name != "c" {
			t.Errorf("%+v", d)
		}
		return err
	},
	"resetSecondFactor": func(t *testing.T, c *client.Client) error {
		u, err := c.ResetSecondFactor(t.Context(), "admin")
		if u.Name != "admin" {
			t.Errorf("%+v", u)
		}
		return err
	},
	"setSignIn": func(t *testing.T, c *client.Client) error {
		on := true
		days := 30
		s, err := c.SetSignIn(t.Context(), ops.SetSignIn{Demanded: &on, DeviceDays: &days})
		if !s.Demanded || s.DeviceDays != 30 || s.DeviceFrom == nil {
			t.Errorf("%+v", s)
		}
		return err
	},
	"listProviders": func(t *testing.T, c *client.Client) error {
		list, err := c.Providers(t.Context())
		if b, _ := json.Marshal(list); len(list) == 0 || strings.Contains(string(b), "canary") {
			t.Errorf("%s", b)
		}
		return err
	},
	"getProvider": func(t *testing.T, c *client.Client) error {
		p, err := c.Provider(t.Context(), "stays")
		if p.ClientID != "weft" || p.Revision == "" {
			t.Errorf("%+v", p)
		}
		return err
	},
	"createProvider": func(t *testing.T, c *client.Client) error {
		issuer, id := "https://login.example.net", "x"
		p, err := c.CreateProvider(t.Context(), ops.SetProvider{ID: "new", Issuer: &issuer, ClientID: &id})
		if p.ID != "new" || p.Title != "new" {
			t.Errorf("%+v", p)
		}
		return err
	},
	"editProvider": func(t *testing.T, c *client.Client) error {
		title := "Work"
		p, err := c.EditProvider(t.Context(), ops.SetProvider{ID: "stays", Title: &title})
		if p.Title != "Work" || p.ClientID != "weft" {
			t.Errorf("%+v", p)
		}
		return err
	},
	"deleteProvider": func(t *testing.T, c *client.Client) error {
		_, err := c.DeleteProvider(t.Context(), "goes")
		return err
	},
	"listIdentities": func(t *testing.T, c *client.Client) error { _, err := c.Identities(t.Context()); return err },
	"listRequests": func(t *testing.T, c *client.Client) error {
		list, err := c.Requests(t.Context())
		if len(list) != 1 || list[0].Hostname != "later" { // the others were decided
			t.Errorf("%+v", list)
		}
		return err
	},
	"getRequest": func(t *testing.T, c *client.Client) error {
		r, err := c.Request(t.Context(), codeOf(t, c, "later"))
		if r.Hostname != "later" || r.State != api.AskWaiting {
			t.Errorf("%+v", r)
		}
		return err
	},
	"approveRequest": func(t *testing.T, c *client.Client) error {
		d, err := c.ApproveRequest(t.Context(), codeOf(t, c, "asker"), ops.ApproveRequest{Tags: []string{"camera"}})
		if d.Name != "asker" || d.User != "admin" || !slices.Equal(d.Tags, []string{"camera"}) {
			t.Errorf("%+v", d)
		}
		return err
	},
	"denyRequest": func(t *testing.T, c *client.Client) error {
		r, err := c.DenyRequest(t.Context(), codeOf(t, c, "stranger"))
		if r.Hostname != "stranger" || r.State != api.AskDenied || r.By != "root" {
			t.Errorf("%+v", r)
		}
		return err
	},
	"approveIdentity": func(t *testing.T, c *client.Client) error {
		i, err := c.ApproveIdentity(t.Context(), identity(t, c, "stays"), "admin")
		if i.User != "admin" {
			t.Errorf("%+v", i)
		}
		return err
	},
	"denyIdentity": func(t *testing.T, c *client.Client) error {
		_, err := c.DenyIdentity(t.Context(), identity(t, c, "goes"))
		return err
	},
	"revokeKey": func(t *testing.T, c *client.Client) error {
		k, err := c.RevokeKey(t.Context(), firstKey(t, c))
		if k.Revoked == nil {
			t.Errorf("%+v", k)
		}
		return err
	},
	"setPolicy": func(t *testing.T, c *client.Client) error {
		p, err := c.SetPolicy(t.Context(), `{"rules":[]}`, nil)
		if p.Text != `{"rules":[]}` {
			t.Errorf("%+v", p)
		}
		return err
	},
	"createWebhook": func(t *testing.T, c *client.Client) error {
		made, err := c.CreateWebhook(t.Context(), ops.CreateWebhook{URL: "https://192.0.2.1/hook?key=x", Tags: []string{"device"}})
		if err == nil && (!strings.HasPrefix(made.Secret, "whsec_") || made.State != ops.WebhookGood) {
			t.Errorf("%+v", made)
		}
		return err
	},
	"deleteWebhook": func(t *testing.T, c *client.Client) error {
		list, err := c.Webhooks(t.Context())
		for _, w := range list {
			if w.Note == "gone" {
				_, err = c.DeleteWebhook(t.Context(), w.ID)
			}
		}
		return err
	},
	"editWebhook": func(t *testing.T, c *client.Client) error {
		w, note := firstHook(t, c), "one"
		_, err := c.EditWebhook(t.Context(), w.ID, ops.EditWebhook{Note: &note, Match: []string{w.Revision}})
		return err
	},
	"getWebhook": func(t *testing.T, c *client.Client) error {
		w, err := c.Webhook(t.Context(), firstHook(t, c).ID)
		if w.Note != "one" {
			t.Errorf("%+v", w)
		}
		return err
	},
	"listWebhooks": func(t *testing.T, c *client.Client) error { _, err := c.Webhooks(t.Context()); return err },
	"rotateWebhook": func(t *testing.T, c *client.Client) error {
		made, err := c.RotateWebhook(t.Context(), firstHook(t, c).ID, time.Hour)
		if !strings.HasPrefix(made.Secret, "whsec_") || made.OldUntil == nil {
			t.Errorf("%+v", made)
		}
		return err
	},
	"testWebhook": func(t *testing.T, c *client.Client) error {
		d, err := c.TestWebhook(t.Context(), firstHook(t, c).ID)
		if !strings.Contains(d.Error, "connection refused") {
			t.Errorf("%+v", d)
		}
		return err
	},
	"verifyAudit": func(t *testing.T, c *client.Client) error {
		h, err := c.AuditHead(t.Context())
		if err != nil {
			return err
		}
		r, err := c.VerifyAudit(t.Context(), &h)
		if r.Fault != nil || !r.Compared || r.Last != h.Seq {
			t.Errorf("%+v", r)
		}
		return err
	},
}

func identity(t *testing.T, c *client.Client, subject string) string {
	t.Helper()
	list, err := c.Identities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Subject == subject {
			return i.ID
		}
	}
	t.Fatalf("nobody is %s in %+v", subject, list)
	return ""
}

func firstKey(t *testing.T, c *client.Client) string {
	t.Helper()
	keys, err := c.Keys(t.Context())
	if err != nil || len(keys) == 0 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	return keys[0].ID
}

func firstHook(t *testing.T, c *client.Client) ops.Webhook {
	t.Helper()
	list, err := c.Webhooks(t.Context())
	if err != nil || len(list) == 0 {
		t.Fatalf("%d webhooks, %v", len(list), err)
	}
	return list[0]
}

// clientSecret is of the providers of a filled site.
const clientSecret = "canary-8ZlWq0uYyqg2m3d9VtXcR5nKbH7pLsJe1fTa"

// filled is a site for calls.
func filled(t testing.TB, o ops.Options) *site {
	s := openSite(t, o)
	for _, name := range []string{"a", "b", "gone"} {
		s.join(name)
	}
	s.joinRelay("far")
	for _, name := range []string{"asker", "stranger", "later"} {
		s.asks(name)
	}
	for _, id := range []string{"stays", "goes"} {
		issuer, client, secret := "https://accounts.example.org", "weft", clientSecret
		if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.SetProvider{ID: id, New: true, Issuer: &issuer, ClientID: &client, Secret: &secret}); err != nil {
			t.Fatal(err)
		}
		if _, err := ops.Do(t.Context(), s.Service, ops.Actor{Via: ops.ViaConsole}, ops.SignInWithProvider{Who: ops.Foreigner{Provider: "stays", Issuer: issuer, Subject: id}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateUser{Name: "svc", Service: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.InviteUser{Name: "guest"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateUser{Name: "paused"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.SuspendUser{Name: "paused"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"staff", "goes"} {
		s.group(name)
	}
	for _, w := range []ops.CreateWebhook{{URL: "https://127.0.0.1:1/", Allow: []string{"127.0.0.1"}}, {URL: "https://192.0.2.1/", Note: "gone"}} {
		if _, err := ops.Do(t.Context(), s.Service, ops.Root(), w); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.SetPolicy{Text: policy.StartingText}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEveryOperation calls every documented operation through the client. Each names
// its rows of the authorization matrix; what writes leaves a record of one of them,
// and what reads leaves none.
func TestEveryOperation(t *testing.T) {
	s := filled(t, ops.Options{})
	c := s.client()
	matrix := map[string]*ops.Operation{}
	for _, o := range ops.Operations {
		matrix[o.Name] = o
	}
	list, _ := s.document()
	for _, d := range list {
		call := calls[d.ID]
		if call == nil {
			t.Errorf("%s is not called here", d.ID)
			continue
		}
		writes := false
		for _, row := range d.Rows {
			if matrix[row] == nil {
				t.Errorf("%s: %q has no row in ops.Operations", d.ID, row)
				continue
			}
			writes = writes || matrix[row].Writes
		}
		if len(d.Rows) == 0 {
			t.Errorf("%s names no row of ops.Operations", d.ID)
		}
		if d.ID == "listKeys" && (len(d.Parameters) != 2 || d.Parameters[0].Name != "cursor" || d.Parameters[1].Name != "limit") {
			t.Errorf("the parameters of %s are documented as %+v", d.ID, d.Parameters)
		}
		before := lastRecord(t, c)
		if err := call(t, c); err != nil {
			t.Errorf("%s: %v", d.ID, err)
		}
		after, err := c.Audit(t.Context(), store.AuditFilter{Cursor: before, Limit: 100, Oldest: true})
		if err != nil {
			t.Fatal(err)
		}
		if writes != (len(after) > 0) {
			t.Errorf("%s left %d audit records", d.ID, len(after))
		}
		for _, r := range after {
			if !slices.Contains(d.Rows, r.Op) || r.User != "root" || r.Via != "cli" {
				t.Errorf("%s is recorded as %s by %s via %s", d.ID, r.Op, r.User, r.Via)
			}
		}
	}
	if len(list) != len(calls) {
		t.Errorf("%d operations are documented, %d called", len(list), len(calls))
	}
}

func lastRecord(t *testing.T, c *client.Client) uint64 {
	t.Helper()
	page, err := c.Audit(t.Context(), store.AuditFilter{Limit: 1})
	if err != nil || len(page) != 1 {
		t.Fatalf("%d records, %v", len(page), err)
	}
	return page[0].Seq
}

// TestNobody: without an actor, or as one without a role, nothing is to be had; and a
// copy of the database is for who has the directory.
func TestNobody(t *testing.T) {
	s := filled(t, ops.Options{})
	list, _ := s.document()
	hook, err := s.client().CreateWebhook(t.Context(), ops.CreateWebhook{URL: "https://192.0.2.1/secret?of=slack"})
	if err != nil {
		t.Fatal(err)
	}
	before := lastRecord(t, s.client())
	key := firstKey(t, s.client())
	for _, d := range list {
		path := strings.NewReplacer("devices/{id}", "devices/a", "relays/{id}", "relays/far", "keys/{id}", "keys/"+key, "users/{id}", "users/svc", "webhooks/{id}", "webhooks/"+hook.ID, "history/{id}", "history/0").Replace(d.path)
		if d.ID == "previewName" {
			path += "?name=www"
		}
		if d.ID == "getReach" {
			path += "?to=b"
		}
		if d.ID == "canReach" {
			path += "?from=a&to=b:22"
		}
		body := ""
		if len(d.RequestBody.Content) > 0 {
			body = cmp.Or(map[string]string{"replaceDevice": `{"by":"b"}`, "setPolicy": `{"text":""}`, "checkPolicy": `{"text":""}`, "revertPolicy": `{"number":0}`, "createToken": `{"user":"svc"}`, "createGroup": `{"name":"x"}`, "createInvitation": `{"name":"x"}`, "createWebhook": `{"url":"https://192.0.2.1/"}`, "trimAudit": `{"before":"2026-01-01T00:00:00Z"}`}[d.ID], "{}")
		}
		w := httptest.NewRecorder()
		s.api.ServeHTTP(w, httptest.NewRequest(d.method, path, strings.NewReader(body)))
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%s without an actor: %d %s", d.ID, w.Code, w.Body)
		}
		for _, who := range []ops.Actor{{}, {User: "x", Via: ops.ViaAPI}} {
			status, _, b := s.ask(who, d.method, path, body)
			if status != http.StatusForbidden && status != http.StatusNotFound {
				t.Errorf("%s as %q: %d %s", d.ID, who.Role, status, b)
			}
			if strings.Contains(string(b), "slack") {
				t.Errorf("%s as %q shows what may be a secret of the receiver's: %s", d.ID, who.Role, b)
			}
		}
	}
	if after := lastRecord(t, s.client()); after != before {
		t.Errorf("%d records came of it", after-before)
	}
	as := func(who ops.Actor) *client.Client { return client.New("http://weft-server", s.as(who)) }
	if _, err := as(ops.Actor{Role: ops.RoleOwner, Via: ops.ViaAPI}).Snapshot(t.Context()); !errors.Is(err, ops.ErrForbidden) {
		t.Errorf("a copy of the database from elsewhere: %v", err)
	}
}

// TestRefused: what two readers may understand differently, and what the document does
// not have, changes nothing.
func TestRefused(t *testing.T) {
	s := filled(t, ops.Options{})
	long := strings.Repeat("x", 1<<20)
	_, token := s.service("boss", ops.RoleAdmin)
	before := lastRecord(t, s.client())
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/api/v1/keys", `{"note":"` + strings.Repeat("x", 10<<20) + `"}`, 413, "longer than 1048576 bytes"},
		{"POST", "/api/v1/tokens", `{"user":"boss","endless":true,"life_seconds":"x"}`, 422, ""},
		{"POST", "/api/v1/users", `{"name":"a b"}`, 422, "user name"},
		{"POST", "/api/v1/users", `{"name":"x","role":"king"}`, 422, ""},
		{"GET", "/api/v1/users?cursor=x", "", 422, "cursor"},
		{"GET", "/api/v1/tokens?cursor=1", "", 422, "cursor"},
		{"GET", "/api/v1/relays?cursor=.", "", 422, "cursor"},
		{"POST", "/api/v1/keys", `{"note":"` + long + `"}`, 413, "longer than 1048576 bytes"},
		{"POST", "/api/v1/keys", strings.Repeat(`{"note":`, 5000), 400, "nested too deep"},
		{"POST", "/api/v1/keys", `{"note":"a","note":"b"}`, 400, "a key twice"},
		{"POST", "/api/v1/keys", `{"note":"a","NOTE":"b"}`, 400, "a key twice"},
		{"POST", "/api/v1/keys", `{"Note":"a"}`, 422, "unexpected property"},
		{"POST", "/api/v1/keys", `{"note":"a\u0000"}`, 400, "NUL"},
		{"POST", "/api/v1/keys", "{\"note\":\"\xff\"}", 400, "not UTF-8"},
		{"POST", "/api/v1/keys", `{"note":"\ud800"}`, 400, "not Unicode"},
		{"POST", "/api/v1/keys", `{"nonsense":1}`, 422, "body.nonsense: unexpected property"},
		{"POST", "/api/v1/keys", `{} {}`, 400, "more than one JSON value"},
		{"POST", "/api/v1/keys", `{`, 400, "not JSON"},
		{"POST", "/api/v1/keys", ``, 400, "body"},
		{"POST", "/api/v1/keys", `null`, 422, ""},
		{"POST", "/api/v1/keys", `{"life_seconds":1e300}`, 422, ""},
		{"POST", "/api/v1/keys", `{"life_seconds":9223372036854775807}`, 422, "366 days"},
		{"POST", "/api/v1/keys", `{"life_seconds":0}`, 422, "366 days"},
		{"GET", "/api/v1/devices?limit=0", "", 422, "query.limit"},
		{"GET", "/api/v1/devices?limit=5001", "", 422, "query.limit"},
		{"GET", "/api/v1/devices?head=1", "", 422, "query.head: unknown query parameter"},
		{"GET", "/api/v1/dns/preview", "", 422, "want a name"},
		{"GET", "/api/v1/devices?nonsense=1", "", 422, "unknown query parameter"},
		{"GET", "/api/v1/devices?state=online&state=offline", "", 400, "a parameter twice"},
		{"GET", "/api/v1/devices?text=%ff", "", 400, "not Unicode"},
		{"GET", "/api/v1/devices?text=%zz", "", 400, "the query"},
		{"GET", "/api/v1/devices?text=" + strings.Repeat("x", 9000), "", 414, "too long"},
		{"GET", "/api/v1/devices/a%00", "", 400, "NUL"},
		{"GET", "/api/v1/devices/%ff", "", 400, "not Unicode"},
		{"GET", "/api/v1/keys?cursor=x", "", 422, "cursor"},
		{"GET", "/api/v1/audit?cursor=x", "", 422, "cursor"},
		{"GET", "/api/v1/nonsense", "", 404, "no such operation"},
		{"TRACE", "/api/v1/devices", "", 404, "no such operation"},
		{"GET", "/", "", 404, "no such operation"},
	} {
		// From the socket, and from elsewhere.
		for _, through := range []http.RoundTripper{s.as(ops.Root()), s.with(token, "127.0.0.1")} {
			status, h, b := s.send(through, c.method, c.path, c.body)
			var p webapi.Problem
			err := json.Unmarshal(b, &p)
			if status != c.status || err != nil || p.Status != status || !strings.Contains(p.Detail, c.says) || h.Get("Content-Type") != "application/problem+json" || p.Title == "" || p.Code == "" || strings.Contains(string(b), long[:100]) {
				t.Errorf("%s %.60s %.60s: %d, want %d %q: %.300s", c.method, c.path, c.body, status, c.status, c.says, b)
			}
		}
	}
	// Nobody reads what a stranger sends.
	read := &counted{}
	r := httptest.NewRequest("POST", "/api/v1/keys", io.NopCloser(read))
	r.ContentLength = 500 << 10
	if res, err := s.public(time.Now).RoundTrip(r); err != nil || res.StatusCode != http.StatusUnauthorized || read.n > 0 {
		t.Errorf("%d bytes of a stranger were read: %v, %v", read.n, res, err)
	}
	if status, _, b := s.ask(ops.Root(), "POST", "/api/v1/keys", "note=1", "Content-Type", "application/x-www-form-urlencoded"); status != http.StatusUnsupportedMediaType {
		t.Errorf("a form: %d %s", status, b)
	}
	if after := lastRecord(t, s.client()); after != before {
		t.Errorf("%d records came of it", after-before)
	}
}

// counted is endless, and counts what is read of it.
type counted struct{ n int }

func (c *counted) Read(b []byte) (int, error) {
	c.n += len(b)
	return len(b), nil
}

// TestProblems: the words of the operations arrive as they are, and programs can go by
// the error.
func TestProblems(t *testing.T) {
	full := atomic.Bool{}
	s := filled(t, ops.Options{BeforeCommit: func() error {
		if full.Load() {
			return store.ErrDiskFull
		}
		return nil
	}})
	c := s.client()
	rename := func(name, to string) error {
		_, err := c.EditDevice(t.Context(), name, ops.EditDevice{Name: &to})
		return err
	}
	for _, p := range []struct {
		err  error
		kind error
		want string
	}{
		{rename("nobody", "x"), ops.ErrNotFound, `device "nobody": not found`},
		{rename("..", "x"), ops.ErrNotFound, `device "..": not found`},
		{rename("a/b?c#d e", "x"), ops.ErrNotFound, `device "a/b?c#d e": not found`},
		{rename("", "x"), ops.ErrNotFound, `device "": not found`},
		{rename("a", "b"), ops.ErrTaken, `name "b"`},
		{rename("a", "127"), ops.ErrInvalid, `name "127": want 1 to 56 letters`},
	} {
		if !errors.Is(p.err, p.kind) || !strings.Contains(p.err.Error(), p.want) {
			t.Errorf("%v, want %q", p.err, p.want)
		}
	}
	full.Store(true)
	var p *webapi.Problem
	if err := rename("a", "x"); !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Hint, "make room") {
		t.Errorf("%v", err)
	}
	full.Store(false)
	if err := rename("a", "x"); err != nil {
		t.Errorf("with room again: %v", err)
	}
	// What is not meant for others stays here; whoever has the directory is told.
	s.Close()
	for _, who := range []ops.Actor{ops.Root(), {Role: ops.RoleOwner, Via: ops.ViaAPI}} {
		if status, _, b := s.ask(who, "GET", "/api/v1/devices/a", ""); status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", who.Via, status, b)
		}
	}
}

// TestMatch: of a hundred who have seen the same and change it, one does.
func TestMatch(t *testing.T) {
	s := filled(t, ops.Options{})
	c := s.client()
	race := func(what string, change func(int) error) {
		t.Helper()
		var won, lost atomic.Int32
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				switch err := change(i); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, ops.ErrChanged):
					lost.Add(1)
				default:
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || lost.Load() != 99 {
			t.Errorf("%s: %d won, %d lost", what, won.Load(), lost.Load())
		}
	}
	for round := range 3 {
		p, err := c.Policy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		race("policy", func(i int) error {
			_, err := c.SetPolicy(t.Context(), fmt.Sprintf(`{"rules":[{"from":["tag:round%d-%d"],"to":["*"],"ports":["*"]}]}`, round, i), []string{p.Revision})
			return err
		})
	}
	d, err := c.Device(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	race("device", func(i int) error {
		name := fmt.Sprint("name-", i)
		_, err := c.EditDevice(t.Context(), d.ID.String(), ops.EditDevice{Name: &name, Match: []string{"0", d.Revision}})
		return err
	})
	for round := range 3 {
		i, err := c.DNS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		race("names", func(n int) error {
			_, err := c.EditDNS(t.Context(), ops.DNSEdit{AddRecord: &ops.NewRecord{DNSRecord: api.DNSRecord{Name: fmt.Sprintf("www-%d-%d", round, n), Type: "A", Value: "192.0.2.1"}}}, []string{i.Revision})
			return err
		})
		u, err := c.User(t.Context(), "svc")
		if err != nil {
			t.Fatal(err)
		}
		race("user", func(n int) error {
			_, err := c.EditUser(t.Context(), "svc", ops.EditUser{Tags: &[]string{fmt.Sprintf("round%d-%d", round, n)}, Match: []string{u.Revision}})
			return err
		})
	}
	on := true
	now, err := c.Device(t.Context(), d.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.EditDevice(t.Context(), d.ID.String(), ops.EditDevice{DeviceDNS: ops.DeviceDNS{Wildcard: &on}, Match: []string{now.Revision}}); err != nil {
		t.Errorf("nobody was in between: %v", err)
	}
	if _, err := c.EditDevice(t.Context(), d.ID.String(), ops.EditDevice{DeviceDNS: ops.DeviceDNS{Wildcard: &on}, Match: []string{now.Revision}}); !errors.Is(err, ops.ErrChanged) {
		t.Errorf("somebody was in between: %v", err)
	}
	for header, want := range map[string]int{`*`: 200, `"` + now.Revision + `"`: 412, `W/"x"`: 412, `x`: 422, `"0", "1"`: 412} {
		if status, _, b := s.ask(ops.Root(), "PATCH", "/api/v1/devices/"+d.ID.String(), `{"wildcard":true}`, "If-Match", header); status != want {
			t.Errorf("If-Match %s: %d %s, want %d", header, status, b, want)
		}
	}
	_, h, _ := s.ask(ops.Root(), "GET", "/api/v1/devices/"+d.ID.String(), "")
	if got, err := c.Device(t.Context(), d.ID.String()); err != nil || h.Get("ETag") != `"`+got.Revision+`"` {
		t.Errorf("ETag %s, %v", h.Get("ETag"), err)
	}
}

// TestPages: going from page to page lists everything once and in order.
func TestPages(t *testing.T) {
	s := openSite(t, ops.Options{})
	for i := range 7 {
		s.join(fmt.Sprint("device-", i))
	}
	c := s.client()
	devices, err := c.Devices(t.Context(), ops.DeviceQuery{})
	if err != nil || len(devices) != 7 {
		t.Fatalf("%d devices, %v", len(devices), err)
	}
	keys, err := c.Keys(t.Context())
	if err != nil || len(keys) != 7 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	records, err := c.Audit(t.Context(), store.AuditFilter{Limit: 1000})
	if err != nil || len(records) != 14 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i := range 5 {
		name := fmt.Sprint("svc-", i)
		s.joinRelay(fmt.Sprint("far-", i))
		if _, err := c.CreateUser(t.Context(), ops.CreateUser{Name: name, Service: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.CreateToken(t.Context(), ops.CreateToken{User: name}); err != nil {
			t.Fatal(err)
		}
	}
	for limit := 1; limit < 8; limit++ {
		for path, list := range map[string]struct {
			in   string // where the things of the answer are
			want int
		}{"users": {"users", 6}, "tokens": {"tokens", 5}, "relays": {"relays", 6}, "keys": {"keys", 12}} {
			seen := map[string]bool{}
			for cursor := ""; ; {
				_, _, b := s.ask(ops.Root(), "GET", fmt.Sprintf("/api/v1/%s?limit=%d&cursor=%s", path, limit, cursor), "")
				var page map[string]json.RawMessage
				var part []struct{ ID string }
				if err := errors.Join(json.Unmarshal(b, &page), json.Unmarshal(page[list.in], &part), json.Unmarshal(page["next"], &cursor)); err != nil || len(part) > limit {
					t.Fatalf("%s: %s, %v", path, b, err)
				}
				for _, one := range part {
					if seen[one.ID] {
						t.Errorf("%s in pages of %d: %s twice", path, limit, one.ID)
					}
					seen[one.ID] = true
				}
				if cursor == "" {
					break
				}
			}
			if len(seen) != list.want {
				t.Errorf("%s: %d in pages of %d, want %d", path, len(seen), limit, list.want)
			}
		}
	}
	if keys, err = c.Keys(t.Context()); err != nil {
		t.Fatal(err)
	}
	if records, err = c.Audit(t.Context(), store.AuditFilter{Limit: 1000}); err != nil {
		t.Fatal(err)
	}
	for _, q := range []ops.DeviceQuery{{Filter: "colour:red"}, {Sort: "colour"}} {
		if _, err := c.DevicePage(t.Context(), q); !errors.Is(err, ops.ErrInvalid) || !strings.Contains(err.Error(), "colour") {
			t.Errorf("%+v: %v", q, err)
		}
	}
	for limit := 1; limit < 15; limit++ { // the second half in another order, which comes to the same
		q := ops.DeviceQuery{Limit: 1 + limit%7}
		if limit > 7 {
			q.Sort = "relay"
		}
		limit := q.Limit
		for i := 0; ; {
			page, err := c.DevicePage(t.Context(), q)
			if err != nil || page.Total != 7 || len(page.Devices) > limit {
				t.Fatalf("%+v, %v", page, err)
			}
			for _, d := range page.Devices {
				if d.ID != devices[i].ID {
					t.Errorf("device %d is %s, want %s", i, d.Name, devices[i].Name)
				}
				i++
			}
			if q.After = page.Next; q.After == "" {
				if i != 7 {
					t.Errorf("%d devices in pages of %d", i, limit)
				}
				break
			}
		}
		for i, cursor := 0, ""; ; {
			page, err := c.KeyPage(t.Context(), cursor, limit)
			if err != nil || len(page.Keys) > limit {
				t.Fatalf("%+v, %v", page, err)
			}
			for _, k := range page.Keys {
				if k.ID != keys[i].ID {
					t.Errorf("key %d is %s, want %s", i, k.ID, keys[i].ID)
				}
				i++
			}
			if cursor = page.Next; cursor == "" {
				if i != len(keys) {
					t.Errorf("%d keys in pages of %d", i, limit)
				}
				break
			}
		}
		w := store.AuditFilter{Limit: limit}
		for i := 0; ; {
			page, err := c.Audit(t.Context(), w)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				if r.Seq != records[i].Seq {
					t.Errorf("record %d is %d, want %d", i, r.Seq, records[i].Seq)
				}
				w.Cursor = r.Seq
				i++
			}
			if len(page) < limit {
				if i != len(records) {
					t.Errorf("%d records in pages of %d", i, limit)
				}
				break
			}
		}
	}
}

// TestOtherServer: one that runs and speaks something else is said to be of another
// version.
func TestOtherServer(t *testing.T) {
	c := client.New("http://weft-server", transport(func(r *http.Request) (*http.Response, error) {
		return &http.Response{Status: "404 Not Found", StatusCode: 404, Body: http.NoBody, Header: http.Header{"Content-Type": {"application/json"}}, Request: r}, nil
	}))
	if _, err := c.DNS(t.Context()); err == nil || errors.Is(err, ops.ErrNotFound) || !strings.Contains(err.Error(), "systemctl restart weft-server") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cancel()
	c = client.New("http://weft-server", transport(func(r *http.Request) (*http.Response, error) { return nil, r.Context().Err() }))
	if _, err := c.DNS(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// BenchmarkListDevices lists 5,000 devices in one answer; needed: 50 ms. cpu-ms/op is what
// the process spends on that on all cores, with the garbage collector.
func BenchmarkListDevices(b *testing.B) {
	s := openSite(b, ops.Options{})
	for i := range 5000 {
		s.join(fmt.Sprint("device-", i))
	}
	ctx := webapi.WithActor(b.Context(), ops.Root())
	spent := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var size int
	before := spent()
	for b.Loop() {
		r := httptest.NewRequestWithContext(ctx, "GET", "/api/v1/devices?limit=5000", nil)
		w := httptest.NewRecorder()
		s.api.ServeHTTP(w, r)
		if w.Code != 200 || w.Body.Len() < 5000*500 {
			b.Fatalf("%d with %d bytes", w.Code, w.Body.Len())
		}
		size = w.Body.Len()
	}
	b.ReportMetric((spent()-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(size)/1e6, "MB")
}

// BenchmarkDevices lists 5,000 devices through the client.
func BenchmarkDevices(b *testing.B) {
	s := openSite(b, ops.Options{})
	for i := range 5000 {
		s.join(fmt.Sprint("device-", i))
	}
	c := s.client()
	for b.Loop() {
		list, err := c.Devices(b.Context(), ops.DeviceQuery{})
		if err != nil || len(list) != 5000 {
			b.Fatalf("%d devices, %v", len(list), err)
		}
	}
}
