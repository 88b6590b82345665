package ops

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
	"weft/overlay/api"
)

// age appends n records as of now and lets some time pass.
func (s *site) age(n int, d time.Duration) {
	s.t.Helper()
	var list []*audit.Record
	for range n {
		list = append(list, &audit.Record{Op: "test.old"})
	}
	s.record(list...)
	s.clock.Add(d)
}

// minutes has upkeep look n times at what is old, every five minutes.
func (s *site) minutes(n int) {
	s.t.Helper()
	for range n {
		s.clock.Add(5 * time.Minute)
		if err := s.keepAudit(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Old records, and introductions, go once a day, behind a checkpoint, and that is a record
// too. Heads that were kept fit as far as that can be said.
func TestRetention(t *testing.T) {
	s := openSite(t)
	day := 24 * time.Hour
	s.configure(EditAudit{Report: []string{"device"}})
	pi := s.camera("pi")
	if !s.report(pi, api.Introduction{Inbound: true, Count: 1, First: s.clock.Now().Unix(), Last: s.clock.Now().Unix()}) {
		t.Fatal("it was not taken")
	}
	s.age(5, 40*day)
	early := s.auditHead()
	s.age(5, 20*day)
	s.minutes(20)
	if _, report := s.audited("", early); report.First != 1 || report.Removed != nil {
		t.Errorf("kept for ever: %+v", report)
	}
	keep := int64(30 * 24 * 3600)
	if set := s.configure(EditAudit{KeepSeconds: &keep}); set.KeepSeconds != keep {
		t.Errorf("%+v", set)
	}
	s.minutes(24 * 12)
	lines, report := s.audited("audit.trim", early)
	if len(lines) != 1 || lines[0].Via != "system" || report.Fault != nil || report.First <= 5 || !report.Compared || report.Removed == nil {
		t.Errorf("%+v, %+v", lines, report)
	}
	if got := s.claimed(IntroductionQuery{}); len(got) > 0 {
		t.Errorf("left of the introductions: %q", got)
	}
	// Nothing more goes on that day nor on the next, as nothing is old enough.
	s.minutes(36 * 12)
	if lines, again := s.audited("audit.trim", nil); len(lines) != 1 || again.First != report.First {
		t.Errorf("%+v, %+v", lines, again)
	}
	s.age(1, 31*day)
	s.minutes(2 * 12)
	if lines, last := s.audited("audit.trim", early); len(lines) != 1 || last.Fault != nil || last.Compared || last.First <= report.First {
		t.Errorf("a head of what went: %+v, %+v", lines, last)
	}
	// A restored backup goes on with it: setting, checkpoint, chain.
	head := s.auditHead()
	b := s.backedUp(recordedKey)
	s.Close()
	dir := filepath.Join(t.TempDir(), "data")
	if err := Restore(t.Context(), bytes.NewReader(b), []byte(recordedKey), dir, s.clock.Now()); err != nil {
		t.Fatal(err)
	}
	again := openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
	if set, err := again.AuditSettings(Root()); err != nil || set.KeepSeconds != keep || len(set.Introductions) != 1 {
		t.Errorf("%+v, %v", set, err)
	}
	if _, report := again.audited("", head); report.Fault != nil || !report.Compared || report.Removed == nil {
		t.Errorf("%+v", report)
	}
	if config, err := again.configOf(mustNode(t, again, pi.id)); err != nil || !config.Introductions {
		t.Errorf("%+v, %v", config, err)
	}
}

// What may not be removed, and by whom.
func TestTrimRefused(t *testing.T) {
	s := openSite(t)
	s.age(3, 48*time.Hour)
	for _, before := range []time.Time{s.clock.Now(), s.clock.Now().Add(-23 * time.Hour), s.clock.Now().Add(time.Hour)} {
		if _, err := s.TrimAudit(t.Context(), Root(), TrimAudit{Before: before}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", before, err)
		}
	}
	for _, a := range []Actor{{}, {Role: RoleAdmin, Via: ViaAPI}, {Role: RoleAuditor, Via: ViaConsole}, {Role: RoleMember, Via: ViaConsole}, {Role: RoleOwner, Tags: []string{"x"}, Via: ViaAPI}, {Via: ViaNode}} {
		if _, err := s.TrimAudit(t.Context(), a, TrimAudit{Before: s.clock.Now().Add(-25 * time.Hour)}); !errors.Is(err, ErrForbidden) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	for _, keep := range []int64{-1, 1, 86399, 1 << 40} {
		if _, err := Do(t.Context(), s.Service, Root(), EditAudit{KeepSeconds: &keep}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d: %v", keep, err)
		}
	}
	if _, report := s.audited("", nil); report.First != 1 {
		t.Errorf("%+v", report)
	}
	if gone, err := s.TrimAudit(t.Context(), Root(), TrimAudit{Before: s.clock.Now().Add(-25 * time.Hour)}); err != nil || gone != (AuditTrimmed{First: 1, Last: 3}) {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, report := s.audited("", nil); report.First != 4 || report.Fault != nil {
		t.Errorf("%+v", report)
	}
}

// A clock that jumps ahead makes nothing go while it is so for less than an hour.
func TestKeepDue(t *testing.T) {
	at := newClock().Now()
	for _, c := range []struct {
		name string
		ran  []time.Duration // when upkeep ran, from the start
		due  []int           // at which of them something is to go
	}{
		{"after an hour, then once a day", every(5*time.Minute, 49*time.Hour), []int{12, 300, 588}},
		{"ahead by ten years, and back", []time.Duration{0, time.Minute, 87600 * time.Hour, 87600*time.Hour + time.Minute, 5 * time.Minute}, nil},
		{"asleep at night", []time.Duration{0, 9 * time.Minute, 9 * time.Hour, 9*time.Hour + 9*time.Minute}, nil},
	} {
		var k keeping
		var due []int
		for i, d := range c.ran {
			if k.due(at.Add(d)) {
				due = append(due, i)
			}
		}
		if len(due) != len(c.due) || len(due) > 0 && (due[0] != c.due[0] || due[len(due)-1] != c.due[len(due)-1]) {
			t.Errorf("%s: due at %v, want %v", c.name, due, c.due)
		}
	}
	// Set back by years after it was due: it is due again after a day at the latest.
	k := keeping{last: at, steady: at.Add(-48 * time.Hour), next: at.Add(87600 * time.Hour)}
	if !k.due(at.Add(time.Minute)) {
		t.Error("a clock that was ahead keeps it from ever being due")
	}
}

func every(step, until time.Duration) (list []time.Duration) {
	for d := time.Duration(0); d <= until; d += step {
		list = append(list, d)
	}
	return list
}

// Trims race with lists, exports, verifying, and with what is recorded meanwhile: each
// reader sees one whole state.
func TestTrimRace(t *testing.T) {
	s := openSite(t)
	for range 30 {
		s.age(400, 24*time.Hour)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var readers, trims sync.WaitGroup
	for i := range 3 {
		readers.Go(func() {
			for ctx.Err() == nil {
				w := store.AuditFilter{Oldest: i == 1, Refused: i == 2, Limit: 200}
				last := uint64(0)
				for {
					page, err := s.AuditPage(context.Background(), Root(), w)
					if err != nil {
						t.Error(err)
						return
					}
					for _, l := range page.Records {
						if l.Seq == last || w.Oldest && l.Seq < last {
							t.Errorf("record %d after %d", l.Seq, last)
						}
						last = l.Seq
					}
					if w.Cursor = page.Next; w.Cursor == 0 || ctx.Err() != nil {
						break
					}
				}
				report, err := s.VerifyAudit(context.Background(), Root(), nil)
				if err != nil || report.Fault != nil {
					t.Errorf("%+v, %v", report, err)
					return
				}
			}
		})
	}
	readers.Go(func() {
		for ctx.Err() == nil {
			s.record(&audit.Record{Op: "test.new"})
		}
	})
	for range 3 {
		trims.Go(func() {
			for d := 29; d > 2; d-- {
				if _, err := s.TrimAudit(context.Background(), Root(), TrimAudit{Before: s.clock.Now().Add(-time.Duration(d) * 24 * time.Hour)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	trims.Wait()
	cancel()
	readers.Wait()
	if _, report := s.audited("", nil); report.Fault != nil || report.First < 27*400 {
		t.Errorf("%+v", report)
	}
}

// Of more sessions than one person may have the one that was not seen for longest ends,
// and that is a record; so are those that end because of something else.
func TestEndedSessionsAreRecorded(t *testing.T) {
	s := openSite(t)
	alice := s.member("alice")
	err := s.store.Write(t.Context(), func(tx *store.Tx) error {
		return tx.SetPassword(s.network, alice.UserID, "$argon2id$old", [32]byte{})
	})
	if err != nil {
		t.Fatal(err)
	}
	in := func(token string) {
		t.Helper()
		if _, err := Do(t.Context(), s.Service, alice, SignIn{Checked: "$argon2id$old", Session: NewSession{Hash: HashToken(token), Agent: token}}); err != nil {
			t.Fatal(err)
		}
		s.clock.Add(time.Second)
	}
	const most = 100
	for i := range most {
		in(string(rune('A' + i)))
	}
	if lines, _ := s.audited("session.end", nil); len(lines) > 0 {
		t.Fatalf("%d ended early", len(lines))
	}
	in("one too many")
	lines, _ := s.audited("session.end", nil)
	if len(lines) != 1 || lines[0].Name != "alice" || string(lines[0].Before) != `{"address":"192.0.2.51","agent":"A","since":"2026-03-01T12:00:00Z","with":"password"}` {
		t.Errorf("%+v", lines)
	}
	list, err := s.Sessions(t.Context(), alice)
	if err != nil || len(list) != most || list[0].Agent != "one too many" {
		t.Errorf("%d sessions, %v", len(list), err)
	}
	if err := s.DeleteUser(t.Context(), alice.UserID); err != nil {
		t.Fatal(err)
	}
	if lines, report := s.audited("session.end", nil); len(lines) != 1+most || report.Fault != nil {
		t.Errorf("%d recorded with the user, %+v", len(lines), report)
	}
}
