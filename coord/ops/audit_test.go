package ops

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
	"weft/overlay/api"
)

// record appends records to the site's audit, as of now.
func (s *site) record(records ...*audit.Record) {
	s.t.Helper()
	err := s.store.Write(s.t.Context(), func(tx *store.Tx) error {
		for _, r := range records {
			r.At, r.Via, r.User = s.clock.Now(), cmp.Or(r.Via, audit.CLI), "root"
		}
		if err := tx.AppendAudit(s.network, records...); err != nil {
			return err
		}
		h, err := tx.AuditEnd(s.network)
		if err == nil {
			h, err = h.Sign(s.auth.Network.Key, s.clock.Now())
		}
		if err != nil {
			return err
		}
		return tx.SetAuditHead(h)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// audited returns what is left of the audit of op, and that it is right.
func (s *site) audited(op string, outside *audit.Head) (lines []audit.Line, report AuditReport) {
	s.t.Helper()
	lines, err := s.Audit(s.t.Context(), Root(), store.AuditFilter{Op: op})
	if err != nil {
		s.t.Fatal(err)
	}
	report, err = s.VerifyAudit(s.t.Context(), Root(), outside)
	if err != nil {
		s.t.Fatal(err)
	}
	return lines, report
}

func (s *site) auditHead() *audit.Head {
	s.t.Helper()
	h, err := s.AuditHead(s.t.Context(), Root())
	if err != nil {
		s.t.Fatal(err)
	}
	return &h
}

// A device's records are found by whatever names it, pages are bounded, and the
// socket says the same as the service.
func TestAuditRead(t *testing.T) {
	s := openSite(t)
	first := s.auditHead()
	pi := s.camera("kitchen-pi")
	var records []*audit.Record
	for i := range maxAuditPage + 5 {
		r := &audit.Record{Op: "key.create", Kind: "key", ID: "k1"}
		if i%100 == 0 {
			r = &audit.Record{Op: "test.touch", Kind: "device", ID: pi.id.String(), Name: "as it was called then"}
		}
		records = append(records, r)
	}
	s.record(records...)
	for _, name := range []string{"kitchen-pi", pi.id.String()} {
		if list, err := s.Audit(t.Context(), Root(), store.AuditFilter{Target: name, Op: "test."}); err != nil || len(list) != 11 {
			t.Errorf("%s: %d records, %v", name, len(list), err)
		}
	}
	if list, err := s.Audit(t.Context(), Root(), store.AuditFilter{Target: "as it was called then"}); err != nil || len(list) != 11 {
		t.Errorf("by its former name: %d records, %v", len(list), err)
	}
	page, err := s.Audit(t.Context(), Root(), store.AuditFilter{Limit: 1 << 30})
	if err != nil || len(page) != maxAuditPage {
		t.Errorf("%d records at once, %v", len(page), err)
	}
	for _, outside := range []*audit.Head{nil, first, s.auditHead()} {
		if _, r := s.audited("", outside); r.Fault != nil || r.Last < maxAuditPage || r.Compared != (outside != nil) {
			t.Errorf("%+v", r)
		}
	}
	for _, a := range []Actor{{}, {Role: RoleOperator, Via: ViaAPI}, {Role: RoleMember, Via: ViaConsole}, {Role: RoleOwner, Tags: []string{"camera"}, Via: ViaAPI}, System()} {
		_, err1 := s.Audit(t.Context(), a, store.AuditFilter{})
		_, err2 := s.VerifyAudit(t.Context(), a, nil)
		_, err3 := s.AuditHead(t.Context(), a)
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, ErrForbidden) {
				t.Errorf("%+v reads the audit: %v", a, err)
			}
		}
	}
	if _, err := s.VerifyAudit(t.Context(), Actor{Role: RoleAuditor, Via: ViaConsole}, nil); err != nil {
		t.Errorf("an auditor: %v", err)
	}
	other := openSite(t)
	var refused *api.Error
	if _, err := s.VerifyAudit(t.Context(), Root(), other.auditHead()); !errors.Is(err, ErrInvalid) || errors.As(err, &refused) {
		t.Errorf("another network's head: %v", err)
	}
	forged := *first
	forged.Seq++
	if _, err := s.VerifyAudit(t.Context(), Root(), &forged); !errors.Is(err, ErrInvalid) {
		t.Errorf("a forged head: %v", err)
	}
}

// The audit comes out of a backup as it went in and goes on: with the record that
// it was restored. A head that was kept before fits, one of after the backup does
// not any more.
func TestRestoreAudit(t *testing.T) {
	s := openSite(t)
	s.record(&audit.Record{Op: "test.one"}, &audit.Record{Op: "test.two"})
	before := s.auditHead()
	var b bytes.Buffer
	m, err := Backup(context.Background(), snapshotOf(s.Service), s.data, []byte(recordedKey), &b)
	if err != nil {
		t.Fatal(err)
	}
	if m.Audit == nil || m.Audit.String() != before.String() || m.Made.IsZero() {
		t.Errorf("manifest %+v, head %s", m, before)
	}
	s.record(&audit.Record{Op: "test.lost"}, &audit.Record{Op: "test.lost"})
	after := s.auditHead()
	s.Close()
	dir := filepath.Join(t.TempDir(), "data")
	restored := s.clock.Now().Add(time.Hour)
	if err := Restore(t.Context(), &b, []byte(recordedKey), dir, restored); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "manifest*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	again := openSite(t, func(o *Options) { o.Data, o.Create = dir, false })
	lines, report := again.audited("network.restore", before)
	if report.Fault != nil || !report.Compared || len(lines) != 1 || lines[0].Seq != before.Seq+1 || lines[0].ID != s.network.String() ||
		!strings.Contains(string(lines[0].After), fmt.Sprintf(`"last":%d,`, before.Seq)) || lines[0].At != restored.UTC().Format("2006-01-02T15:04:05.000Z") {
		t.Errorf("%+v, %+v", lines, report)
	}
	again.record(&audit.Record{Op: "test.three"})
	if _, report := again.audited("", before); report.Fault != nil {
		t.Error(report.Fault)
	}
	if _, report := again.audited("", after); report.Fault == nil || report.Fault.Kind != audit.Rewritten || report.Fault.Seq != after.Seq || !strings.Contains(report.Fault.Why, "an older backup was restored") {
		t.Errorf("a head of after the backup: %v", report.Fault)
	}
}

// Names that the audit can be asked for: of all that exists, and of all that a record has,
// also long after it was deleted.
func TestAuditNames(t *testing.T) {
	s := openSite(t)
	cam, gone := s.camera("cam"), s.camera("gone")
	s.delete(gone)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bob", "eve"} {
		must(s.CreateUser(t.Context(), name))
	}
	must(Do(t.Context(), s.Service, Root(), DeleteUser{Name: "eve"}))
	k, _, err := s.CreateKey(t.Context(), CreateKey{})
	must(nil, err)
	for name, w := range map[string]store.AuditFilter{
		"nothing":          {},
		"a user":           {User: "bob"}, // without records
		"the owner":        {User: firstUser},
		"a device":         {Target: "cam"},
		"the same by id":   {Target: cam.id.String()},
		"a deleted device": {Target: "gone"},
		"a deleted user":   {Target: "eve"},
		"a key":            {Target: k.ID},
	} {
		if err := s.AuditNames(t.Context(), Root(), w); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, w := range map[string]store.AuditFilter{"no user": {User: "nosuch"}, "nothing of that name": {Target: "nosuch"}, "one of them": {User: "nosuch", Target: "cam"}} {
		if err := s.AuditNames(t.Context(), Root(), w); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.AuditNames(t.Context(), Actor{UserID: "x", Role: RoleMember}, store.AuditFilter{User: "nosuch"}); !errors.Is(err, ErrForbidden) {
		t.Errorf("whoever may not read the audit learns who there is: %v", err)
	}
}

// The way in is said by no column: pages of it are filled by looking further, and their cursor
// goes on where that ended.
func TestAuditVia(t *testing.T) {
	s := openSite(t)
	for i := range 40 {
		via := audit.API
		if i%4 == 0 {
			via = audit.CLI
		}
		s.record(&audit.Record{Op: "test.via", Via: via})
	}
	for _, oldest := range []bool{false, true} {
		var seqs []uint64
		w := store.AuditFilter{Op: "test.via", Via: audit.CLI, Limit: 3, Oldest: oldest}
		for {
			page, err := s.AuditPage(t.Context(), Root(), w)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range page.Records {
				if l.Via != audit.CLI {
					t.Errorf("%+v", l)
				}
				seqs = append(seqs, l.Seq)
			}
			if w.Cursor = page.Next; w.Cursor == 0 {
				break
			}
		}
		slices.Sort(seqs)
		if len(slices.Compact(seqs)) != 10 {
			t.Errorf("%d records, want 10: %v", len(seqs), seqs)
		}
	}
	if page, err := s.AuditPage(t.Context(), Root(), store.AuditFilter{Op: "test.via", Via: audit.CLI, Refused: true, Limit: 3}); err != nil || len(page.Records) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
}
