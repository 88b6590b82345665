package ops

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
	"weft/coord/webhook"
)

// receiver is an HTTPS receiver in this process.
type receiver struct {
	*httptest.Server
	t     testing.TB
	roots *x509.CertPool

	mu      sync.Mutex // guards the following
	secrets []string   // each request must be signed with all of them; nil: not looked at
	got     []webhook.Event
	answer  func(w http.ResponseWriter, r *http.Request) // nil: 200
	changed chan struct{}                                // closed at the next request
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{t: t, changed: make(chan struct{})}
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	r.roots = x509.NewCertPool()
	r.roots.AddCert(r.Certificate())
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return // broken off
	}
	var e webhook.Event
	if err := json.Unmarshal(b, &e); err != nil {
		r.t.Errorf("%s: %v", b, err)
	}
	r.mu.Lock()
	for _, secret := range r.secrets {
		if err := webhook.Verify(secret, req.Header.Get(webhook.SignatureHeader), b, time.Now()); err != nil {
			r.t.Errorf("%s: %v", e.Op, err)
		}
	}
	if n := strings.Count(req.Header.Get(webhook.SignatureHeader), "v1="); r.secrets != nil && n != len(r.secrets) {
		r.t.Errorf("%d signatures, want %d", n, len(r.secrets))
	}
	if e.ID != req.Header.Get(webhook.IDHeader) || e.Op != req.Header.Get(webhook.EventHeader) || e.Schema != webhook.Schema {
		r.t.Errorf("%v: %s", req.Header, b)
	}
	answer := r.answer
	r.got = append(r.got, e)
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if answer != nil {
		answer(w, req)
	}
}

func (r *receiver) set(answer func(http.ResponseWriter, *http.Request), secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.secrets = answer, secrets
}

// wait waits for n requests in all, and returns them.
func (r *receiver) wait(n int) []webhook.Event {
	r.t.Helper()
	for deadline := time.After(time.Minute); ; {
		r.mu.Lock()
		got, changed := slices.Clone(r.got), r.changed
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("%d requests, want %d", len(got), n)
		}
	}
}

// hookSite is a site whose webhooks reach the receiver.
func hookSite(t testing.TB, r *receiver, change ...func(*Options)) *site {
	s := openSite(t, append(change, func(o *Options) { o.Now = time.Now })...)
	s.hooks.sender.Roots = r.roots
	return s
}

// until waits for a state of a webhook.
func (s *site) until(id string, what string, good func(Webhook) bool) Webhook {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		w := s.hookNow(id)
		if good(w) {
			return w
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("it is not %s: %+v", what, w)
		}
	}
}

// What happens is sent in order, signed, once; the secret is in no row, file, record, log
// or answer, and the same after a restart.
func TestWebhook(t *testing.T) {
	r := newReceiver(t)
	s := hookSite(t, r)
	pi := s.camera("pi")
	stop := s.running()
	made := s.hook(CreateWebhook{URL: r.URL + "/services/path-canary?key=query-canary", Events: []string{"device.*", "refused.*"}, Note: "mine"})
	r.set(nil, made.Secret)
	for _, name := range []string{"one", "two"} {
		if _, err := s.RenameDevice(t.Context(), pi.id, name); err != nil {
			t.Fatal(err)
		}
	}
	s.token(CreateKey{Note: "not for it"})
	got := r.wait(2)
	records, _ := s.audited("device.rename", nil) // the latest first
	for i, e := range got {
		l := records[1-i]
		if e.Op != "device.rename" || e.Target != (webhook.Target{Kind: "device", ID: pi.id.String(), Name: l.Name}) || e.At != l.At || e.Network != s.network.String() ||
			e.Actor.User != "root" || e.Actor.Via != "cli" || string(e.Before) != string(l.Before) || string(e.After) != string(l.After) || e.ID != fmt.Sprintf("a%d-%s", l.Seq, l.Hash[:16]) {
			t.Errorf("%+v, the record is %+v", e, l)
		}
	}
	// A refusal is one by name, and no device.rename.
	if _, err := Do(t.Context(), s.Service, Actor{User: "eve", Role: RoleAuditor, Via: ViaAPI}, RenameDevice{pi.id, "mine"}); !errors.Is(err, ErrForbidden) {
		t.Fatal(err)
	}
	if err := s.flushRefusals(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if e := r.wait(3)[2]; e.Op != "refused.device.rename" || e.Refused != "not allowed" || e.Actor.User != "eve" {
		t.Errorf("%+v", e)
	}
	s.until(made.ID, "all sent", func(w Webhook) bool {
		return w.Delivered == 3 && w.Last != nil && len(w.Recent) == 3 && w.Recent[0].Status == 200
	})

	// Both secrets, for a while; then the new one alone.
	second, err := Do(t.Context(), s.Service, Root(), RotateWebhook{made.ID, time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	r.set(nil, second.Secret, made.Secret)
	test := func() store.Delivered {
		t.Helper()
		d, err := s.TestWebhook(t.Context(), Root(), made.ID)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := test(); d.Error != "" || d.Status != 200 || d.Op != "webhook.test" {
		t.Errorf("%+v", d)
	}
	third, err := Do(t.Context(), s.Service, Root(), RotateWebhook{made.ID, 0})
	if err != nil {
		t.Fatal(err)
	}
	r.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, third.Secret)
	if d := test(); d.Error != "it answered 500" || d.Status != 500 {
		t.Errorf("%+v", d)
	}
	r.set(nil, third.Secret)
	stop()
	s.Close()

	again := hookSite(t, r, func(o *Options) { o.Data = s.data })
	defer again.running()()
	if _, err := again.RenameDevice(t.Context(), pi.id, "three"); err != nil {
		t.Fatal(err)
	}
	all := r.wait(6)
	if len(all) != 6 || all[5].Target.Name != "three" || all[3].Op != "webhook.test" || all[3].Target.ID != made.ID {
		t.Errorf("%d requests, the last %+v", len(all), all[5])
	}
	again.until(made.ID, "stored", func(w Webhook) bool { return w.Delivered == 4 })

	var said bytes.Buffer
	fmt.Fprintln(&said, s.log.String(), again.log.String())
	lines, _ := again.audited("", nil)
	json.NewEncoder(&said).Encode(lines)
	json.NewEncoder(&said).Encode(all)
	for _, canary := range []string{made.Secret, second.Secret, third.Secret, "path-canary", "query-canary"} {
		if strings.Contains(said.String(), canary) {
			t.Errorf("%q is in the log, the audit or an event", canary)
		}
	}
	json.NewEncoder(&said).Encode(again.all())
	files, _ := filepath.Glob(filepath.Join(again.data, "*"))
	more, _ := filepath.Glob(filepath.Join(again.data, "ca", "*"))
	for _, path := range append(files, more...) {
		if b, err := os.ReadFile(path); err == nil {
			said.Write(b)
		}
	}
	for _, secret := range []string{made.Secret, second.Secret, third.Secret} {
		if strings.Contains(said.String(), strings.TrimPrefix(secret, webhook.SecretPrefix)) {
			t.Errorf("%q is in an answer or on the disk", secret)
		}
	}
	if !slices.ContainsFunc(lines, func(l audit.Line) bool {
		return l.Op == "webhook.create" && l.Name == r.URL && strings.Contains(string(l.After), `"note":"mine"`)
	}) {
		t.Error("there is no record of the webhook")
	}
}

// Who may what: allowing targets is the owner's, also behind an existing webhook; who only
// reads sees no more of an URL than its host.
func TestWebhookRoles(t *testing.T) {
	s := openSite(t)
	admin := Actor{User: "ann", Role: RoleAdmin, Via: ViaAPI}
	auditor := Actor{User: "aud", Role: RoleAuditor, Via: ViaAPI}
	owned := s.hook(CreateWebhook{URL: "https://127.0.0.1/secret-path"})
	hers, err := Do(t.Context(), s.Service, admin, CreateWebhook{URL: "https://hook.example/secret-path", Events: []string{"presence.offline"}})
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) *string { return &s }
	allow := &[]string{"127.0.0.1"}
	for _, c := range []struct {
		name string
		a    Actor
		c    EditWebhook
		want error
	}{
		{"a note", admin, EditWebhook{ID: owned.ID, Note: text("x")}, nil},
		{"another path on target", admin, EditWebhook{ID: owned.ID, URL: text("https://127.0.0.1/other")}, ErrForbidden},
		{"allow", admin, EditWebhook{ID: hers.ID, Allow: allow}, ErrForbidden},
		{"loopback", admin, EditWebhook{ID: hers.ID, URL: text("https://127.0.0.1/")}, ErrInvalid},
		{"by nobody", Actor{}, EditWebhook{ID: hers.ID, Note: text("x")}, ErrForbidden},
		{"by an auditor", auditor, EditWebhook{ID: hers.ID, Note: text("x")}, ErrForbidden},
		{"by an admin of cameras", Actor{User: "x", Role: RoleAdmin, Tags: []string{"camera"}, Via: ViaAPI}, EditWebhook{ID: hers.ID, Note: text("x")}, ErrForbidden},
		{"of nobody", admin, EditWebhook{ID: "x", Note: text("x")}, ErrNotFound},
		{"no URL", admin, EditWebhook{ID: hers.ID, URL: text("")}, ErrInvalid},
		{"no TLS", admin, EditWebhook{ID: hers.ID, URL: text("http://hook.example/")}, ErrInvalid},
		{"a password", admin, EditWebhook{ID: hers.ID, URL: text("https://a:b@hook.example/")}, ErrInvalid},
		{"an overlay address", admin, EditWebhook{ID: hers.ID, URL: text("https://100.64.0.1/")}, ErrInvalid},
		{"its IPv6 address", admin, EditWebhook{ID: hers.ID, URL: text("https://[" + s.ipv6.Addr().Next().String() + "]/")}, ErrInvalid},
		{"no events", admin, EditWebhook{ID: hers.ID, Events: &[]string{}}, ErrInvalid},
		{"events of nothing", admin, EditWebhook{ID: hers.ID, Events: &[]string{"devices.*"}}, ErrInvalid},
		{"a tag of no form", admin, EditWebhook{ID: hers.ID, Tags: &[]string{"a b"}}, ErrInvalid},
		{"everything", Root(), EditWebhook{ID: hers.ID, Allow: &[]string{"0.0.0.0/0"}}, ErrInvalid},
		{"by the owner", Root(), EditWebhook{ID: hers.ID, Allow: allow}, nil},
		{"without, by an admin", admin, EditWebhook{ID: owned.ID, Allow: &[]string{}, URL: text("https://hook.example/")}, nil},
	} {
		if _, err := Do(t.Context(), s.Service, c.a, c.c); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	list, err := s.Webhooks(t.Context(), auditor)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, w := range list {
		one, err := s.Webhook(t.Context(), auditor, w.ID)
		if w.URL != "https://hook.example/…" || err != nil || one.URL != w.URL {
			t.Errorf("an auditor sees %s and %s, %v", w.URL, one.URL, err)
		}
	}
	for _, a := range []Actor{{}, {Role: RoleMember, Via: ViaAPI}, {Role: RoleOperator, Via: ViaAPI}, {Role: RoleOwner, Tags: []string{"camera"}, Via: ViaAPI}} {
		if _, err := s.Webhooks(t.Context(), a); !errors.Is(err, ErrForbidden) {
			t.Errorf("%+v lists webhooks: %v", a, err)
		}
		if _, err := s.TestWebhook(t.Context(), a, hers.ID); !errors.Is(err, ErrForbidden) {
			t.Errorf("%+v tests webhooks: %v", a, err)
		}
	}
	for i := len(list); i < maxWebhooks; i++ {
		s.hook(CreateWebhook{})
	}
	if _, err := Do(t.Context(), s.Service, Root(), CreateWebhook{URL: "https://hook.example/"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("one more than there may be: %v", err)
	}
}

// Killed between sending and storing that, an event is sent again with the same id, and
// what follows it is not lost.
func TestWebhookAgain(t *testing.T) {
	r := newReceiver(t)
	var broken atomic.Bool
	s := hookSite(t, r, func(o *Options) {
		o.BeforeCommit = func() error {
			if broken.Load() {
				return errors.New("killed")
			}
			return nil
		}
	})
	pi := s.camera("pi")
	made := s.hook(CreateWebhook{URL: r.URL, Events: []string{"device.rename"}})
	if _, err := s.RenameDevice(t.Context(), pi.id, "one"); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	stop := s.running()
	first := r.wait(1)[0]
	stop() // its last attempt to store the cursor fails, too
	s.Close()
	again := hookSite(t, r, func(o *Options) { o.Data = s.data })
	if _, err := again.RenameDevice(t.Context(), pi.id, "two"); err != nil {
		t.Fatal(err)
	}
	stop = again.running()
	got := r.wait(3)
	if got[1].ID != first.ID || got[2].ID == first.ID || got[2].Target.Name != "two" {
		t.Errorf("%+v", got)
	}
	again.until(made.ID, "stored", func(w Webhook) bool { return w.Delivered == 2 })
	stop()
	again.Close()
	// Once it is stored it is not sent again.
	third := hookSite(t, r, func(o *Options) { o.Data = s.data })
	defer third.running()()
	if _, err := third.RenameDevice(t.Context(), pi.id, "three"); err != nil {
		t.Fatal(err)
	}
	if got := r.wait(4); len(got) != 4 || got[3].Target.Name != "three" {
		t.Errorf("%+v", got)
	}
}

// A webhook that is deleted, or changed, while it is being sent is broken off; what is
// deleted is not sent again, what is changed is.
func TestWebhookGone(t *testing.T) {
	r := newReceiver(t)
	s := hookSite(t, r)
	pi := s.camera("pi")
	defer s.running()()
	ended := make(chan struct{}, 10)
	hang := func(_ http.ResponseWriter, req *http.Request) {
		<-req.Context().Done()
		ended <- struct{}{}
	}
	r.set(hang)
	made := s.hook(CreateWebhook{URL: r.URL, Events: []string{"device.rename"}})
	if _, err := s.RenameDevice(t.Context(), pi.id, "one"); err != nil {
		t.Fatal(err)
	}
	r.wait(1)
	note := "changed"
	if _, err := Do(t.Context(), s.Service, Root(), EditWebhook{ID: made.ID, Note: &note}); err != nil {
		t.Fatal(err)
	}
	<-ended
	if got := r.wait(2); got[1].ID != got[0].ID {
		t.Errorf("%+v", got)
	}
	if w := s.hookNow(made.ID); w.Attempts != 0 || w.LastError != "" {
		t.Errorf("what was broken off counts as a failure: %+v", w)
	}
	if _, err := Do(t.Context(), s.Service, Root(), DeleteWebhook{made.ID}); err != nil {
		t.Fatal(err)
	}
	<-ended
	r.set(nil)
	other := s.hook(CreateWebhook{URL: r.URL, Events: []string{"device.rename"}})
	if _, err := s.RenameDevice(t.Context(), pi.id, "two"); err != nil {
		t.Fatal(err)
	}
	s.until(other.ID, "sent", func(w Webhook) bool { return w.Delivered == 1 })
	if got := r.wait(3); len(got) != 3 || got[2].Target.Name != "two" {
		t.Errorf("%+v", got)
	}
	if _, err := s.Webhook(t.Context(), Root(), made.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// note writes records into the audit as commands do.
func (s *site) note(records ...record) {
	s.t.Helper()
	err := s.store.Write(context.Background(), func(tx *store.Tx) error {
		for _, r := range records {
			r.actor, r.at = Root(), s.now()
			tx.Note(r)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// Many webhooks and a burst of large records: everybody gets what is for him, in order,
// none waits for another that hangs, and only a page of it is in memory at a time.
func TestWebhookBurst(t *testing.T) {
	const burst = 10_000
	r := newReceiver(t)
	s := hookSite(t, r, func(o *Options) { o.Log = nil })
	release := make(chan struct{})
	defer close(release)
	r.set(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/hangs" {
			select {
			case <-release:
			case <-req.Context().Done():
			}
		}
	})
	all := s.hook(CreateWebhook{URL: r.URL + "/all", Events: []string{"*"}})
	for range maxSending - 2 {
		s.hook(CreateWebhook{URL: r.URL + "/hangs", Events: []string{"device.leave"}})
	}
	var rare []WebhookCreated
	for range maxSending {
		rare = append(rare, s.hook(CreateWebhook{URL: r.URL + "/rare", Events: []string{"user.delete"}}))
	}
	first := s.until(all.ID, "made", func(Webhook) bool { return true }).Audit
	value := map[string]string{"text": strings.Repeat("x", 1000)}
	for range burst / 1000 {
		records := make([]record, 1000)
		for i := range records {
			records[i] = record{op: "device.renew", target: target{kind: "device", id: "x"}, after: value}
		}
		s.note(records...)
	}
	s.note(record{op: "device.leave", target: target{kind: "device"}}, record{op: "user.delete", target: target{kind: "user", name: "eve"}})
	page, err := s.hookEvents(s.hookNow(all.ID).Webhook)
	if err != nil || len(page.events) != hookPage || !page.more {
		t.Errorf("%d events at once, more %v, %v", len(page.events), page.more, err)
	}
	if page, err := s.hookEvents(s.hookNow(rare[0].ID).Webhook); err != nil || len(page.events) != 0 || !page.more || page.audit > first+hookScan+100 {
		t.Errorf("%d events in a page without any, more %v, up to %d, %v", len(page.events), page.more, page.audit, err)
	}
	stop := s.running()
	for _, w := range rare {
		s.until(w.ID, "sent", func(w Webhook) bool { return w.Delivered == 1 })
	}
	want := s.until(all.ID, "all sent", func(w Webhook) bool { return w.Delivered >= burst+2 })
	stop()
	if want.Attempts != 0 || want.Missed != 0 {
		t.Errorf("%+v", want)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, last := 0, uint64(0)
	for _, e := range r.got {
		var seq uint64
		if _, err := fmt.Sscanf(e.ID, "a%d-", &seq); err != nil {
			t.Fatal(err)
		}
		if e.Op == "device.renew" {
			if seen++; seq <= last {
				t.Fatalf("%d after %d", seq, last)
			}
			last = seq
		}
	}
	if seen != burst {
		t.Errorf("%d of the burst came, want %d, each once", seen, burst)
	}
}

// What retention removes, and what is older than a week, before it could be sent is
// counted and told; the rest is sent.
func TestWebhookMissed(t *testing.T) {
	s := openSite(t)
	s.hooks.sender.Dial = nil
	made := s.hook(CreateWebhook{Events: []string{"device.*"}})
	s.note(slices.Repeat([]record{{op: "device.renew"}}, 30)...)
	s.clock.Add(time.Hour)
	s.note(record{op: "device.rename"})
	cut := func(before time.Time) {
		t.Helper()
		err := s.store.Write(t.Context(), func(tx *store.Tx) error {
			c, err := tx.AuditCut(s.network, before, 1000)
			if err == nil {
				c, err = c.Sign(s.auth.Network.Key, s.now())
			}
			if err != nil {
				return err
			}
			return tx.TrimAudit(c)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	start := s.hookNow(made.ID).Audit
	cut(s.clock.Now())
	page, err := s.hookEvents(s.hookNow(made.ID).Webhook)
	// 30, and that the webhook was made: what it was for is not known any more.
	if err != nil || page.missed != 31 || len(page.events) != 1 || page.lostAudit != start+31 {
		t.Errorf("%+v, %v", page, err)
	}
	s.clock.Add(hookMaxAge + time.Minute)
	s.note(record{op: "device.join"})
	page, err = s.hookEvents(s.hookNow(made.ID).Webhook)
	if err != nil || page.missed != 32 || len(page.events) != 1 || page.events[0].Op != "device.join" || page.lostAudit != start+32 {
		t.Errorf("%+v, %v", page, err)
	}
	cut(s.clock.Now().Add(time.Hour))
	if page, err = s.hookEvents(s.hookNow(made.ID).Webhook); err != nil || page.missed != 33 || len(page.events) != 0 || page.lostAudit != start+33 || page.audit != start+33 {
		t.Errorf("%+v, %v", page, err)
	}
	// It is stored and told.
	sent, more := s.send(t.Context(), s.hookNow(made.ID).Webhook)
	if now := s.hookNow(made.ID); more || sent.Missed != 33 || now.Missed != 33 || now.MissedAt == nil || now.Audit != start+33 || now.State != WebhookGood {
		t.Errorf("%+v", now)
	}
	if !strings.Contains(s.log.String(), "were never sent") {
		t.Error("the log does not say so")
	}
	if page, err = s.hookEvents(s.hookNow(made.ID).Webhook); err != nil || page.missed != 0 {
		t.Errorf("it is counted again: %+v, %v", page, err)
	}
}

// A restored server sends what the backup's was about to send, with the same ids, and
// nothing that was sent before; a new record with an old number is another event.
func TestWebhookRestore(t *testing.T) {
	r := newReceiver(t)
	s := hookSite(t, r)
	pi := s.camera("pi")
	stop := s.running()
	made := s.hook(CreateWebhook{URL: r.URL, Events: []string{"device.*"}})
	presence := s.hook(CreateWebhook{URL: r.URL, Events: []string{"presence.*"}})
	if _, err := s.RenameDevice(t.Context(), pi.id, "one"); err != nil {
		t.Fatal(err)
	}
	s.until(made.ID, "sent", func(w Webhook) bool { return w.Delivered == 1 })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if known, _, _ := s.rows(); known {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("presence is not known")
		}
	}
	stop()
	err := s.store.Write(t.Context(), func(tx *store.Tx) error {
		return s.addPresence(tx, []store.PresenceEvent{{ID: "p1", At: s.now(), Node: pi.id, Online: true}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RenameDevice(t.Context(), pi.id, "two"); err != nil {
		t.Fatal(err)
	}
	backup := s.backedUp("correct horse battery staple")
	stop = s.running()
	r.wait(3) // and that it came online
	if _, err := s.RenameDevice(t.Context(), pi.id, "three"); err != nil {
		t.Fatal(err)
	}
	sent := r.wait(4)
	stop()
	s.Close()
	r.mu.Lock()
	r.got = nil
	r.mu.Unlock()
	dir := filepath.Join(t.TempDir(), "data")
	if err := Restore(t.Context(), bytes.NewReader(backup), []byte("correct horse battery staple"), dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	again := hookSite(t, r, func(o *Options) { o.Data, o.Create = dir, false })
	r.set(nil, made.Secret)
	defer again.running()()
	if _, err := again.RenameDevice(t.Context(), pi.id, "four"); err != nil {
		t.Fatal(err)
	}
	got := r.wait(2)
	if len(got) != 2 || got[0].Target.Name != "two" || got[1].Target.Name != "four" {
		t.Errorf("%+v", got)
	}
	for _, e := range sent {
		if e.Target.Name == "two" && e.Op == "device.rename" && e.ID != got[0].ID || e.ID == got[1].ID {
			t.Errorf("%+v, before %+v", got, e)
		}
	}
	if w := again.hookNow(presence.ID); w.Presence != 0 {
		t.Errorf("what was told of presence before goes on: %+v", w)
	}
}

// While there are no webhooks nothing is kept for them, and a command has nothing to do
// for them after its commit.
func TestNoWebhooks(t *testing.T) {
	s := openSite(t)
	pi := s.camera("pi")
	defer s.running()()
	s.Presence(pi.id, 1, true, s.now(), s.ipv4.Addr())
	s.hooks.mu.Lock()
	if len(s.hooks.shifted) != 0 || s.hooks.appended || s.hooks.some.Load() || s.hooks.coming.Load() {
		t.Errorf("%+v", s.hooks)
	}
	s.hooks.mu.Unlock()
	if known, events, told := s.rows(); known || events != 0 || told != 0 {
		t.Errorf("%v, %d, %d", known, events, told)
	}
}

// A write that fails leaves what is in memory of webhooks as the database is.
func TestWebhookWriteFails(t *testing.T) {
	var broken atomic.Bool
	s := openSite(t, func(o *Options) {
		o.BeforeCommit = func() error {
			if broken.Load() {
				return errors.New("no")
			}
			return nil
		}
	})
	made := s.hook(CreateWebhook{Events: []string{"device.*"}})
	inMemory := func() (list []string) {
		s.hooks.mu.Lock()
		defer s.hooks.mu.Unlock()
		for id, k := range s.hooks.byID {
			list = append(list, fmt.Sprint(id, k.w.Revision, k.w.Events, k.w.Enabled, k.w.Note))
		}
		return append(list, fmt.Sprint(s.hooks.some.Load(), s.hooks.coming.Load()))
	}
	before := inMemory()
	no, note := false, "x"
	broken.Store(true)
	_, err1 := Do(t.Context(), s.Service, Root(), CreateWebhook{URL: "https://hook.example/"})
	_, err2 := Do(t.Context(), s.Service, Root(), EditWebhook{ID: made.ID, Enabled: &no, Note: &note, Events: &[]string{"*"}})
	_, err3 := Do(t.Context(), s.Service, Root(), RotateWebhook{made.ID, 0})
	_, err4 := Do(t.Context(), s.Service, Root(), DeleteWebhook{made.ID})
	_, err5 := s.TestWebhook(t.Context(), Root(), made.ID)
	if err1 == nil || err2 == nil || err3 == nil || err4 == nil || err5 == nil {
		t.Errorf("%v, %v, %v, %v, %v", err1, err2, err3, err4, err5)
	}
	broken.Store(false)
	if now := inMemory(); !slices.Equal(now, before) {
		t.Errorf("%q, was %q", now, before)
	}
	fresh := newHooks(webhook.Sender{})
	if _, err := Do(t.Context(), s.Service, Root(), EditWebhook{ID: made.ID, Events: &[]string{"*"}}); err != nil {
		t.Fatal(err)
	}
	err := s.store.Read(t.Context(), func(r *store.Reader) error {
		list, err := r.Webhooks(s.network)
		fresh.load(list)
		return err
	})
	if err != nil || len(fresh.byID) != 1 || fresh.byID[made.ID].w.Revision != s.hooks.byID[made.ID].w.Revision || !s.hooks.coming.Load() {
		t.Errorf("the database has %+v, memory %+v, %v", fresh.byID, s.hooks.byID, err)
	}
}
