package ops

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/policy"
	"weft/coord/store"
)

func (s *site) set(text string, match ...string) (PolicyText, error) {
	return Do(s.t.Context(), s.Service, Root(), SetPolicy{Text: text, Match: match})
}

const starting = `{"from":["user:*"],"to":["self"],"ports":["*"]}`

// A policy comes into force only if its tests hold for the people and devices that there
// are, whatever became of them since the last one.
func TestPolicyTests(t *testing.T) {
	s := openSite(t)
	pi := s.camera("pi")
	text := func(test string) string { return `{"rules":[` + starting + `],"tests":[` + test + `]} // as typed` }
	for _, c := range []struct{ test, want string }{
		{`{"src":"admin","accept":["pi:22","PI.weft.internal:22","100.64.0.0:22"]}`, `there is no device "100.64.0.0"`},
		{`{"src":"admin","deny":["pi:22"]}`, "line 1, column 92: test 1: admin reaches pi:22: by rule 1 in line 1: " + starting},
		{`{"src":"pi","accept":["tag:device:22"]}`, "test 1: pi does not reach tag:device:22: no rule allows it"},
		{`{"src":"bob","deny":["pi:22"]}`, `there is no person and no device "bob"`},
	} {
		before := s.index.info().N
		_, err := s.set(text(c.test))
		var e *policy.Error
		if !errors.Is(err, ErrInvalid) || !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.test, err, c.want)
		}
		if _, err := s.CheckPolicy(t.Context(), Root(), SetPolicy{Text: text(c.test)}); !errors.As(err, &e) {
			t.Errorf("%s: checked: %v", c.test, err)
		}
		if s.index.info().N != before || s.index.info().Policy != "" {
			t.Errorf("%s changed something", c.test)
		}
	}
	if _, err := s.set(text(`{"src":"admin","accept":["pi:22","tag:device:22","` + pi.id.String() + `:22"]},{"src":"tag:device","deny":["pi:22","user:admin:22"]}`)); err != nil {
		t.Fatal(err)
	}
	p, err := s.Policy(t.Context(), Root())
	if err != nil || !strings.HasSuffix(p.Text, "// as typed") || p.Number != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	// What is in force stays in force when a device goes that a test names.
	if _, err := s.DeleteDevice(t.Context(), pi.id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.set(p.Text + "\n"); err == nil || !strings.Contains(err.Error(), `there is no device "pi"`) {
		t.Errorf("%v", err)
	}
	if now, err := s.Policy(t.Context(), Root()); err != nil || now != p {
		t.Errorf("%+v, %v", now, err)
	}
}

// The same text again leaves nothing; and what was in force before can be so again.
func TestPolicyHistory(t *testing.T) {
	s := openSite(t)
	first, second := `{"rules":[]}`, `{"rules":[`+starting+`]} // second`
	for i, text := range []string{first, first, second, first, ""} {
		p, err := s.set(text)
		if want := []int{1, 1, 2, 3, 4}[i]; err != nil || p.Number != want || p.Text != text || p.Revision != policyRevision(text) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
	if _, err := s.set("", "other"); !errors.Is(err, ErrChanged) {
		t.Errorf("the same text with another revision: %v", err)
	}
	lines, _ := s.records(0)
	if n := len(slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "policy.") })); n != 4 {
		t.Errorf("%d records", n)
	}
	list, err := s.PolicyHistory(t.Context(), Root())
	if err != nil || len(list) != 4 || list[0].Number != 4 || list[3].User != "root" || list[3].Via != "cli" || list[3].At == nil || list[2].Bytes != len(second) {
		t.Errorf("%+v, %v", list, err)
	}
	revert := func(n int, match ...string) (PolicyText, error) {
		return Do(t.Context(), s.Service, Root(), RevertPolicy{Number: n, Match: match})
	}
	if p, err := revert(2); err != nil || p.Text != second || p.Number != 5 || s.index.info().Policy != second {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := revert(2); err != nil || p.Number != 5 {
		t.Errorf("what is in force already: %+v, %v", p, err)
	}
	if _, err := revert(1, policyRevision(first)); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	if _, err := revert(6); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if p, err := revert(0); err != nil || p.Text != "" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := s.FormerPolicy(t.Context(), Root(), 2); err != nil || p.Text != second || p.Number != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	// One whose tests do not hold any more is not put into force again.
	cam := s.camera("cam")
	if _, err := s.set(`{"tests":[{"src":"admin","deny":["cam:22"]}]}`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.set(""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteDevice(t.Context(), cam.id); err != nil {
		t.Fatal(err)
	}
	if _, err := revert(7); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	lines, _ = s.records(0)
	reverts := slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "policy.revert ") })
	if len(reverts) != 2 || !strings.HasSuffix(reverts[1], `{"number":5,"text":"{\"rules\":[{\"from\":[\"user:*\"],\"to\":[\"self\"],\"ports\":[\"*\"]}]} // second"} -> {"number":6,"text":""}`) {
		t.Errorf("%q", reverts)
	}
}

// A policy of the largest size goes in, is kept, and is in the audit by its hash.
func TestLargestPolicy(t *testing.T) {
	s := openSite(t)
	text := "{}\n// " + strings.Repeat("<é>", policy.MaxText/4-2)
	text += strings.Repeat("x", policy.MaxText-len(text))
	if _, err := s.set(text); err != nil {
		t.Fatal(err)
	}
	if p, err := s.FormerPolicy(t.Context(), Root(), 1); err != nil || p.Text != text {
		t.Errorf("%d bytes, %v", len(p.Text), err)
	}
	lines, _ := s.records(0)
	if last := lines[len(lines)-1]; !strings.Contains(last, `-> {"bytes":262144,"number":1,"sha256":"`) {
		t.Errorf("%.300s", last)
	}
	if _, err := s.set(text + "x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// A hundred editors who have all read the same: one wins, in each round, and each round is
// one step of the history.
func TestPolicyEditors(t *testing.T) {
	s := openSite(t)
	for round := range 3 {
		now, err := s.Policy(t.Context(), Root())
		if err != nil {
			t.Fatal(err)
		}
		won := make(chan string, 100)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				text := fmt.Sprintf("{} // round %d, editor %d", round, i)
				if _, err := s.set(text, now.Revision); err == nil {
					won <- text
				} else if !errors.Is(err, ErrChanged) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		close(won)
		p, err := s.Policy(t.Context(), Root())
		if text := <-won; err != nil || p.Text != text || p.Number != round+1 || len(won) != 0 {
			t.Errorf("%q won, %+v is in force, %v", text, p, err)
		}
	}
}

func TestCheckPolicy(t *testing.T) {
	s := openSite(t)
	laptop, cam := s.laptop("laptop"), s.camera("cam")
	if _, err := s.CreateUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	check := func(text string) PolicyCheck {
		t.Helper()
		before := s.index.info().N
		r, err := s.CheckPolicy(t.Context(), Root(), SetPolicy{Text: text})
		if err != nil || !r.Good || s.index.info().N != before {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	r := check("{\"rules\":[" + starting + ",\n{\"from\":[\"user:bob\",\"user:eve\"],\"to\":[\"tag:device\"],\"ports\":[\"tcp:554\"]}]}")
	// Bob has no device yet, and gains what he would reach with one.
	want := AccessChange{From: Party{Users: []string{"bob"}, UserCount: 1, Devices: []string{}}, To: Party{Users: []string{}, Devices: []string{"cam"}, DeviceCount: 1}, Ports: []string{"tcp:554"}}
	if len(r.Gains) != 1 || len(r.Losses) != 0 || fmt.Sprint(r.Gains[0]) != fmt.Sprint(want) || r.Rules != 2 {
		t.Errorf("%+v", r)
	}
	if len(r.Warnings) != 1 || r.Warnings[0].Line != 2 || !strings.Contains(r.Warnings[0].Text, `no person "eve"`) {
		t.Errorf("%+v", r.Warnings)
	}
	r = check(`{"rules":[]}`)
	if len(r.Losses) != 1 || fmt.Sprint(r.Losses[0].To.Devices) != "[cam laptop]" || fmt.Sprint(r.Losses[0].Ports) != "[*]" {
		t.Errorf("%+v", r)
	}
	if r = check(""); len(r.Gains)+len(r.Losses) != 0 {
		t.Errorf("%+v", r)
	}
	r = check("{\"rules\":[" + starting + "],\"aes\":[\"tag:device\"]}")
	if len(r.Gains)+len(r.Losses)+len(r.AESRemoved) != 0 || len(r.AESAdded) != 1 || fmt.Sprint(r.AESAdded[0].To.Devices) != "[cam]" {
		t.Errorf("a demand for AES: %+v", r)
	}
	if _, err := s.CheckPolicy(t.Context(), Actor{Role: RoleAdmin, Tags: []string{"camera"}, Via: ViaAPI}, SetPolicy{}); !errors.Is(err, ErrForbidden) {
		t.Errorf("for who sees only some of it: %v", err)
	}
	if _, err := s.CheckPolicy(t.Context(), Root(), SetPolicy{Match: []string{"x"}}); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	_, _ = laptop, cam
}

func TestCanReach(t *testing.T) {
	s := openSite(t)
	s.laptop("laptop")
	cam := s.camera("cam")
	auditor := Actor{User: "a", Role: RoleAuditor, Via: ViaAPI}
	can := func(a Actor, from, to string) (Access, error) {
		return s.CanReach(t.Context(), a, AccessQuery{From: from, To: to})
	}
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"admin", "cam:22", true}, {"laptop", "cam:53/udp", true}, {" laptop.weft.internal ", "cam/icmp", true}, {"user:admin", cam.id.String() + ":1", true},
		{"cam", "laptop:22", false}, {"device:cam", "cam:22", false},
	} {
		got, err := can(auditor, c.from, c.to)
		if err != nil || got.Allowed != c.allowed || got.Allowed != (got.Rule == 1) || got.Why == "" {
			t.Errorf("%s %s: %+v, %v", c.from, c.to, got, err)
		}
	}
	for _, c := range []struct {
		a        Actor
		from, to string
		err      error
	}{
		{auditor, "", "cam:22", ErrInvalid}, {auditor, "tag:camera", "cam:22", ErrInvalid}, {auditor, "admin", "cam", ErrInvalid}, {auditor, "admin", "tag:device:22", ErrNotFound},
		{auditor, "bob", "cam:22", ErrNotFound}, {auditor, "user:laptop", "cam:22", ErrNotFound}, {auditor, "device:admin", "cam:22", ErrNotFound}, {auditor, "admin", "attic:22", ErrNotFound},
		{Actor{UserID: "x", User: "x", Role: RoleMember, Via: ViaConsole}, "admin", "cam:22", ErrForbidden}, {Actor{}, "admin", "cam:22", ErrForbidden},
		// Who sees only some tags is not told of the others.
		{Actor{Role: RoleOperator, Tags: []string{"door"}, Via: ViaAPI}, "user:admin", "cam:22", ErrNotFound},
	} {
		if got, err := can(c.a, c.from, c.to); !errors.Is(err, c.err) {
			t.Errorf("%s %s by %s: %+v, %v", c.from, c.to, c.a.Role, got, err)
		}
	}
	// That it is offline, or has to renew its certificate, is told and changes nothing.
	s.clock.Add(400 * 24 * time.Hour)
	got, err := can(Root(), "laptop", "cam:22")
	if err != nil || !got.Allowed || len(got.Notes) != 4 || !strings.Contains(got.Notes[2], "cam is offline: that does not change the answer") || !strings.Contains(got.Notes[3], "the certificate of cam ended on ") {
		t.Errorf("%+v, %v", got, err)
	}
}

// What an earlier version let into force and this one would not keeps the server going.
func TestStoredPolicy(t *testing.T) {
	s := openSite(t)
	text := `{"rules":[],"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`
	err := s.store.Write(t.Context(), func(tx *store.Tx) error {
		n, err := tx.Network()
		if err == nil {
			n.Policy = text
			_, err = tx.SetNetwork(n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	data := s.data
	s.Close()
	again := openSite(t, func(o *Options) { o.Data, o.Create = data, false })
	if !again.index.currentPolicy().Reaches(policy.Subject{Tags: []string{"a"}}, policy.Subject{Tags: []string{"b"}}) {
		t.Error("another policy is in force")
	}
	if _, err := again.set(text + " "); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// BenchmarkCheckPolicy and BenchmarkCanReach are over 200 rules, 700 classes and 10,000
// devices.
func BenchmarkCheckPolicy(b *testing.B) {
	s := openSite(b, func(o *Options) { o.Log = nil })
	fill(s.index, 10_000)
	if _, err := s.set(largePolicy(b, 200)); err != nil {
		b.Fatal(err)
	}
	text := strings.ReplaceAll(largePolicy(b, 200), "tcp:443", "tcp:444")
	for b.Loop() {
		if _, err := s.CheckPolicy(b.Context(), Root(), SetPolicy{Text: text}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCanReach(b *testing.B) {
	s := openSite(b, func(o *Options) { o.Log = nil })
	s.laptop("laptop")
	s.camera("cam")
	fill(s.index, 10_000)
	if _, err := s.set(largePolicy(b, 200)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.CanReach(b.Context(), Root(), AccessQuery{From: "laptop", To: "cam:22"}); err != nil {
			b.Fatal(err)
		}
	}
}

// What is not committed is neither in force nor in the history, nor recorded.
func TestPolicyNotCommitted(t *testing.T) {
	var full atomic.Bool
	s := openSite(t, func(o *Options) {
		o.BeforeCommit = func() error {
			if full.Load() {
				return store.ErrDiskFull
			}
			return nil
		}
	})
	first, err := s.set(`{"rules":[]}`)
	if err != nil {
		t.Fatal(err)
	}
	_, last := s.records(0)
	before := s.index.info()
	full.Store(true)
	if _, err := s.set(`{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`); !errors.Is(err, store.ErrDiskFull) {
		t.Errorf("%v", err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), RevertPolicy{}); !errors.Is(err, store.ErrDiskFull) {
		t.Errorf("%v", err)
	}
	full.Store(false)
	now, err := s.Policy(t.Context(), Root())
	list, err2 := s.PolicyHistory(t.Context(), Root())
	if _, end := s.records(last); err != nil || err2 != nil || now != first || len(list) != 1 || end != last || s.index.info().N != before.N || s.index.info().Policy != first.Text {
		t.Errorf("%+v, %d in the history, %d records, %v %v", now, len(list), end-last, err, err2)
	}
	if s.index.currentPolicy().Reaches(policy.Subject{User: "a"}, policy.Subject{User: "b"}) {
		t.Error("memory has another policy")
	}
	if p, err := s.set(""); err != nil || p.Number != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

// A review is the policy in force beside the network: what stands for nothing, how tests come out,
// who is in the groups, how many carry a tag; and only as much of it as the actor may see.
func TestReviewPolicy(t *testing.T) {
	s := openSite(t)
	pi := s.camera("pi")
	s.member("ben")
	for _, c := range []Command[store.Group]{CreateGroup{Name: "ops"}, EditGroup{Name: "ops", Add: []string{"ben"}}} {
		if _, err := Do(t.Context(), s.Service, Root(), c); err != nil {
			t.Fatal(err)
		}
	}
	text := `{"rules":[` + starting + `,{"from":["group:ops","user:ghost"],"to":["tag:device"],"ports":["tcp:22"]}],"tests":[{"src":"ben","accept":["pi:22"]}]}`
	if _, err := s.set(text); err != nil {
		t.Fatal(err)
	}
	r, err := s.ReviewPolicy(t.Context(), Root())
	if err != nil || r.Text != text || r.Number != 1 || len(r.Policy.Rules) != 2 || len(r.Missing) != 1 || r.Missing["user:ghost"] == "" || r.Tagged["device"] != 1 || !slices.Equal(r.Groups["ops"].Members, []string{"ben"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if len(r.Tests) != 1 || r.Tests[0].Failed != "" {
		t.Errorf("%+v", r.Tests)
	}
	if _, err := s.DeleteDevice(t.Context(), pi.id); err != nil {
		t.Fatal(err)
	}
	if r, err = s.ReviewPolicy(t.Context(), Root()); err != nil || len(r.Tests) != 1 || !strings.Contains(r.Tests[0].Failed, `no device "pi"`) || r.Missing["tag:device"] == "" {
		t.Errorf("%+v, %v", r, err)
	}
	operator := Actor{UserID: "x", User: "x", Role: RoleOperator, Via: ViaConsole}
	if r, err = s.ReviewPolicy(t.Context(), operator); err != nil || r.Groups != nil || len(r.Missing) == 0 {
		t.Errorf("an operator: %+v, %v", r, err)
	}
	operator.Tags = []string{"boat"}
	if r, err = s.ReviewPolicy(t.Context(), operator); err != nil || !r.Partial || r.Missing != nil || r.Tests != nil || r.Tagged != nil {
		t.Errorf("an operator of some tags: %+v, %v", r, err)
	}
	if _, err := s.ReviewPolicy(t.Context(), Actor{UserID: "x", Role: RoleMember, Via: ViaConsole}); !errors.Is(err, ErrForbidden) {
		t.Errorf("a member: %v", err)
	}
}
