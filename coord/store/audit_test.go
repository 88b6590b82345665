package store

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/overlay/cert"
)

// audited is a store with the CA of its network.
type audited struct {
	*Store
	ca *cert.CA
	id cert.NetworkID
}

func openAudited(t testing.TB, path string, ca *cert.CA, o Options) audited {
	t.Helper()
	if ca == nil {
		var err error
		if ca, err = cert.NewCA("test", day); err != nil {
			t.Fatal(err)
		}
	}
	s := audited{nil, ca, cert.PinOf(ca.Cert).NetworkID()}
	if o.Seal == nil {
		o.Seal = func(tx *Tx, _ []any) error { return s.seal(tx) }
	}
	s.Store = open(t, path, o)
	return s
}

// create makes the network's row.
func (s audited) create(t testing.TB) audited {
	t.Helper()
	err := s.Write(t.Context(), func(tx *Tx) error {
		return tx.CreateNetwork(Network{ID: s.id, Created: day, N: 1, CRL: []byte{0}, IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00::/48")})
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s audited) cas() []*x509.Certificate { return []*x509.Certificate{s.ca.Cert} }

// did is the i-th thing that happened.
func did(i int) *audit.Record {
	return &audit.Record{At: day.Add(time.Duration(i) * time.Second), User: "alice", UserID: "u1", Role: "owner", Via: audit.Console, From: "192.0.2.7",
		Op: "device.rename", Kind: "device", ID: fmt.Sprintf("%032x", i%1000), Name: fmt.Sprintf("device-%d", i%1000),
		Before: json.RawMessage(fmt.Sprintf(`{"name":"device-%d","tags":["camera"]}`, i%1000)),
		After:  json.RawMessage(fmt.Sprintf(`{"name":"kitchen-%d","tags":["camera"]}`, i%1000))}
}

// append appends records in one write and signs.
func (s audited) append(ctx context.Context, records ...*audit.Record) error {
	return s.Write(ctx, func(tx *Tx) error {
		s.sign(tx)
		return tx.AppendAudit(s.id, records...)
	})
}

// sign has the batch signed for at its end.
func (s audited) sign(tx *Tx) { tx.Note("sign") }

func (s audited) seal(tx *Tx) error {
	head, err := tx.AuditEnd(s.id)
	if err == nil {
		head, err = head.Sign(s.ca.Key, day)
	}
	if err != nil {
		return err
	}
	return tx.SetAuditHead(head)
}

func (s audited) fill(t testing.TB, n int) {
	t.Helper()
	for i := 0; i < n; i += 10_000 {
		records := make([]*audit.Record, min(10_000, n-i))
		for j := range records {
			records[j] = did(i + j)
		}
		if err := s.append(t.Context(), records...); err != nil {
			t.Fatal(err)
		}
	}
}

func (s audited) verify(t testing.TB, outside *audit.Head) (report audit.Report, err error) {
	t.Helper()
	err = s.Read(t.Context(), func(r *Reader) error {
		report, err = r.VerifyAudit(s.id, s.cas(), outside)
		return err
	})
	return report, err
}

// head reads the stored head.
func (s audited) head(t testing.TB) *audit.Head {
	t.Helper()
	var h audit.Head
	if err := s.Read(t.Context(), func(r *Reader) (err error) { h, err = r.AuditHead(s.id); return err }); err != nil {
		t.Fatal(err)
	}
	return &h
}

// wants checks what VerifyAudit says: "" for nothing.
func (s audited) wants(t testing.TB, outside *audit.Head, kind audit.Kind, seq uint64) {
	t.Helper()
	_, err := s.verify(t, outside)
	var f *audit.Fault
	switch {
	case kind == "" && err != nil:
		t.Errorf("a good audit: %v", err)
	case kind != "" && (!errors.As(err, &f) || f.Kind != kind || f.Seq != seq):
		t.Errorf("%v, want %s at %d", err, kind, seq)
	}
}

// list returns the numbers of the records that the filter wants.
func (s audited) list(t testing.TB, w AuditFilter) string {
	t.Helper()
	var seqs []string
	err := s.Read(t.Context(), func(r *Reader) error {
		return r.EachAudit(s.id, w, func(rec audit.Record, h audit.Hash) error {
			seqs = append(seqs, fmt.Sprint(rec.Seq))
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	return strings.Join(seqs, " ")
}

// Records go on from each other, whatever shares a transaction; a write that
// fails leaves none; a batch is signed for once.
func TestAuditAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weft.db")
	signatures := 0
	var s audited
	s = openAudited(t, path, nil, Options{Seal: func(tx *Tx, _ []any) error { signatures++; return s.seal(tx) }}).create(t)
	s.wants(t, nil, "", 0)
	hold, holding := make(chan struct{}), make(chan struct{})
	go s.Write(context.Background(), func(*Tx) error { close(holding); <-hold; return nil })
	<-holding // the next ones queue up behind it
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			a, b := did(2*i), did(2*i+1)
			err := s.Write(context.Background(), func(tx *Tx) error {
				s.sign(tx)
				if err := errors.Join(tx.AppendAudit(s.id, a), tx.AppendAudit(s.id, b)); err != nil {
					return err
				}
				if b.Seq != a.Seq+1 {
					t.Errorf("record %d follows %d", b.Seq, a.Seq)
				}
				switch i % 10 {
				case 3:
					return boom
				case 7:
					panic("bug")
				}
				return nil
			})
			if (err != nil) != (i%10 == 3 || i%10 == 7) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	for len(s.ops) < 50 {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wg.Wait()
	if signatures > 2 {
		t.Errorf("%d signatures for 50 writes", signatures)
	}
	s.wants(t, nil, "", 0)
	if h := s.head(t); h.Seq != 80 {
		t.Errorf("%d records, want 80", h.Seq)
	}
	if err := s.append(t.Context()); err != nil { // none, signed anew
		t.Error(err)
	}
	outside := s.head(t)

	// Without a signature nothing is stored.
	err := s.Write(t.Context(), func(tx *Tx) error { return tx.AppendAudit(s.id, did(1)) })
	if err == nil || !strings.Contains(err.Error(), "no head was signed for record 81") {
		t.Errorf("unsigned: %v", err)
	}
	// Nor with one of something else.
	for name, h := range map[string]audit.Head{"older": *outside, "other": {Network: s.id, Seq: 81}} {
		err = s.Write(t.Context(), func(tx *Tx) error {
			return errors.Join(tx.AppendAudit(s.id, did(1)), tx.SetAuditHead(h))
		})
		if err == nil || !strings.Contains(err.Error(), "the end of the audit, record 81") {
			t.Errorf("%s head: %v", name, err)
		}
	}
	// A commit that fails leaves nothing, in memory either.
	s.Close()
	full := errors.New("full")
	fail := full
	again := openAudited(t, path, s.ca, Options{BeforeCommit: func() error { return fail }})
	if err := again.append(t.Context(), did(1)); !errors.Is(err, full) {
		t.Error(err)
	}
	fail = nil
	again.wants(t, outside, "", 0)
	if err := again.append(t.Context(), did(1)); err != nil {
		t.Error(err)
	}
	again.wants(t, outside, "", 0)
	if h := again.head(t); h.Seq != 81 {
		t.Errorf("%d records, want 81", h.Seq)
	}
}

// Whatever strangers call themselves is recorded.
func TestAuditHostile(t *testing.T) {
	s := openAudited(t, filepath.Join(t.TempDir(), "weft.db"), nil, Options{}).create(t)
	r := &audit.Record{Op: "session.create", Via: audit.Console, User: "a\nb\x00\u202e'\xff" + strings.Repeat("x", 300), From: strings.Repeat("é", 200),
		Name: "'; DROP TABLE audit; --", Refused: "wrong password\r\n", Before: json.RawMessage("{ \"a\" : 1 }"), After: json.RawMessage("no json")}
	if err := s.append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.wants(t, nil, "", 0)
	err := s.Read(t.Context(), func(r *Reader) error {
		return r.EachAudit(s.id, AuditFilter{}, func(rec audit.Record, _ audit.Hash) error {
			if !strings.HasPrefix(rec.User, "a\ufffdb\ufffd\ufffd'\ufffdx") || !strings.HasSuffix(rec.User, "x…") || string(rec.Before) != `{"a":1}` || string(rec.After) != `"no json"` || rec.Count != 1 {
				t.Errorf("%+v", rec)
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEachAudit(t *testing.T) {
	s := openAudited(t, filepath.Join(t.TempDir(), "weft.db"), nil, Options{}).create(t)
	var records []*audit.Record
	for i := range 12 { // at day + i seconds
		r := did(i)
		r.ID, r.Name = fmt.Sprint("id", i%3), fmt.Sprint("name", i%4)
		if i%2 == 1 {
			r.User, r.UserID = "bob", "u2"
		}
		if i >= 6 {
			r.Op = "key.create"
		}
		records = append(records, r)
	}
	if err := s.append(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		w    AuditFilter
		want string
	}{
		{AuditFilter{}, "12 11 10 9 8 7 6 5 4 3 2 1"},
		{AuditFilter{Limit: 3}, "12 11 10"},
		{AuditFilter{Limit: 3, Cursor: 10}, "9 8 7"},
		{AuditFilter{Limit: 3, Cursor: 1}, ""},
		{AuditFilter{Oldest: true, Limit: 3}, "1 2 3"},
		{AuditFilter{Oldest: true, Limit: 3, Cursor: 3}, "4 5 6"},
		{AuditFilter{Oldest: true, Cursor: 12}, ""},
		{AuditFilter{Since: day.Add(9 * time.Second)}, "12 11 10"},
		{AuditFilter{Until: day.Add(3 * time.Second)}, "3 2 1"},
		{AuditFilter{Since: day.Add(2 * time.Second), Until: day.Add(4 * time.Second), Oldest: true}, "3 4"},
		{AuditFilter{Op: "key."}, "12 11 10 9 8 7"},
		{AuditFilter{Op: "key.create", Limit: 1}, "12"},
		{AuditFilter{Op: "KEY"}, ""},
		{AuditFilter{Op: "%"}, ""},
		{AuditFilter{User: "bob"}, "12 10 8 6 4 2"},
		{AuditFilter{User: "u1"}, "11 9 7 5 3 1"},
		{AuditFilter{User: "bo"}, ""},
		{AuditFilter{Target: "id0"}, "10 7 4 1"},
		{AuditFilter{Target: "name3"}, "12 8 4"},
		{AuditFilter{Target: "name3", User: "u2", Op: "key", Since: day.Add(8 * time.Second)}, "12"},
		{AuditFilter{Target: "id0", Oldest: true, Limit: 2, Cursor: 1}, "4 7"},
	} {
		if got := s.list(t, c.w); got != c.want {
			t.Errorf("%+v: %s, want %s", c.w, got, c.want)
		}
	}
	if got := s.list(t, AuditFilter{}); strings.Count(got, " ") != 11 {
		t.Error(got)
	}
	for _, w := range []AuditFilter{{Target: "x"}, {Target: "x", Oldest: true}} {
		query, args := w.query(s.id)
		plan := ""
		err := s.Read(t.Context(), func(r *Reader) error {
			return r.each("EXPLAIN QUERY PLAN "+query, args, func(scan func(...any) error) error {
				var a, b, c int
				var step string
				err := scan(&a, &b, &c, &step)
				plan += step + "\n"
				return err
			})
		})
		if err != nil || !strings.Contains(plan, "audit_target_id") || !strings.Contains(plan, "audit_target_name") || !strings.Contains(plan, "AND seq=?)") {
			t.Errorf("what was done to one device is looked for in all rows: %s%v", plan, err)
		}
	}
	stop := errors.New("stop")
	err := s.Read(t.Context(), func(r *Reader) error {
		return r.EachAudit(s.id, AuditFilter{}, func(audit.Record, audit.Hash) error { return stop })
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
}

// Whoever can write to the file is found out, and by what.
func TestAuditTampered(t *testing.T) {
	const n = 12
	for name, c := range map[string]struct {
		sql  string // a chain that is not to be compared with a head kept outside, unless it says so
		kind audit.Kind
		seq  uint64
	}{
		"untouched":          {`SELECT 1`, "", 0},
		"record":             {`UPDATE audit SET record = substr(record, 1, 40) || X'41' || substr(record, 42) WHERE seq = 5`, audit.Changed, 5},
		"record of text":     {`UPDATE audit SET record = 'x' WHERE seq = 5`, audit.Changed, 5},
		"hash":               {`UPDATE audit SET hash = zeroblob(32) WHERE seq = 5`, audit.Changed, 5},
		"column at":          {`UPDATE audit SET at = at + 1 WHERE seq = 5`, audit.Changed, 5},
		"column op":          {`UPDATE audit SET op = 'x' WHERE seq = 5`, audit.Changed, 5},
		"column user_id":     {`UPDATE audit SET user_id = 'u2' WHERE seq = 5`, audit.Changed, 5},
		"column user_name":   {`UPDATE audit SET user_name = '' WHERE seq = 5`, audit.Changed, 5},
		"column target_id":   {`UPDATE audit SET target_id = '' WHERE seq = 5`, audit.Changed, 5},
		"column target_name": {`UPDATE audit SET target_name = 'x' WHERE seq = 5`, audit.Changed, 5},
		"type of seq":        {`UPDATE audit SET seq = CAST('12' AS BLOB) WHERE seq = 12`, audit.Changed, 12},
		"type of at":         {`UPDATE audit SET at = CAST(CAST(at AS TEXT) AS BLOB) WHERE seq = 5`, audit.Changed, 5},
		"type of op":         {`UPDATE audit SET op = CAST(op AS BLOB) WHERE seq = 5`, audit.Changed, 5},
		"type of user_id":    {`UPDATE audit SET user_id = CAST(user_id AS BLOB) WHERE seq = 5`, audit.Changed, 5},
		"type of target_id":  {`UPDATE audit SET target_id = CAST(target_id AS BLOB) WHERE seq = 5`, audit.Changed, 5},
		"type of record":     {`UPDATE audit SET record = CAST(record AS TEXT) WHERE seq = 5`, audit.Changed, 5},
		"row deleted":        {`DELETE FROM audit WHERE seq = 5`, audit.Missing, 5},
		"two deleted":        {`DELETE FROM audit WHERE seq IN (5, 9)`, audit.Missing, 5},
		"first deleted":      {`DELETE FROM audit WHERE seq = 1`, audit.Missing, 1},
		"end cut":            {`DELETE FROM audit WHERE seq > 8`, audit.Cut, 9},
		"all cut":            {`DELETE FROM audit`, audit.Cut, 1},
		"swapped":            {`UPDATE audit SET seq = 1000 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 7; UPDATE audit SET seq = 7 WHERE seq = 1000`, audit.Reordered, 3},
		"moved up":           {`UPDATE audit SET seq = -seq; UPDATE audit SET seq = 1 - seq`, audit.Missing, 1},
		"copied":             {`DELETE FROM audit WHERE seq = 6; INSERT INTO audit SELECT network_id, 6, at, op, user_id, user_name, target_id, target_name, hash, record FROM audit WHERE seq = 5`, audit.Duplicated, 6},
		"appended":           {`INSERT INTO audit SELECT network_id, 13, at, op, user_id, user_name, target_id, target_name, hash, record FROM audit WHERE seq = 5`, audit.Duplicated, 13},
		"head deleted":       {`DELETE FROM audit_heads`, audit.Unsigned, n},
		"head set back":      {`UPDATE audit_heads SET seq = 8, hash = (SELECT hash FROM audit WHERE seq = 8)`, audit.Unsigned, 8},
		"head and end cut":   {`UPDATE audit_heads SET seq = 8, hash = (SELECT hash FROM audit WHERE seq = 8); DELETE FROM audit WHERE seq > 8`, audit.Unsigned, 8},
		"head dated":         {`UPDATE audit_heads SET signed_at = signed_at + 1`, audit.Unsigned, n},
		"checkpoint forged":  {`INSERT INTO audit_checkpoints SELECT network_id, 4, hash, 1, X'00' FROM audit WHERE seq = 4; DELETE FROM audit WHERE seq <= 4`, audit.Unsigned, 4},
		"head as checkpoint": {`INSERT INTO audit_checkpoints SELECT * FROM audit_heads; DELETE FROM audit`, audit.Unsigned, n},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "weft.db")
			s := openAudited(t, path, nil, Options{}).create(t)
			s.fill(t, n)
			s.Close()
			script(t, path, "PRAGMA ignore_check_constraints = 1; "+c.sql)
			openAudited(t, path, s.ca, Options{}).wants(t, nil, c.kind, c.seq)
		})
	}
}

// A chain that was made anew, with the network's own key, is found out by a head
// that was kept outside only, and goes on from what is stored otherwise.
func TestAuditRewritten(t *testing.T) {
	dir := t.TempDir()
	s := openAudited(t, filepath.Join(dir, "a.db"), nil, Options{}).create(t)
	s.fill(t, 10)
	kept := s.head(t)
	s.fill(t, 10)
	rewritten := openAudited(t, filepath.Join(dir, "b.db"), s.ca, Options{}).create(t)
	for i := range 20 {
		r := did(i % 10)
		if i == 4 {
			r.User = "mallory"
		}
		if err := rewritten.append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	s.wants(t, kept, "", 0)
	rewritten.wants(t, nil, "", 0)
	rewritten.wants(t, kept, audit.Rewritten, 10)
	other := openAudited(t, filepath.Join(dir, "c.db"), nil, Options{}).create(t)
	other.fill(t, 20)
	if _, err := other.verify(t, kept); !errors.Is(err, audit.ErrUnsigned) {
		t.Errorf("another network's head: %v", err)
	}
	other.Close()
	// Nor do another network's records pass for this one's.
	s.Close()
	script(t, filepath.Join(dir, "a.db"), fmt.Sprintf(`ATTACH '%s' AS other; DELETE FROM main.audit;
		INSERT INTO main.audit SELECT n.network_id, seq, at, op, user_id, user_name, target_id, target_name, hash, record FROM other.audit, main.networks n`, filepath.Join(dir, "c.db")))
	openAudited(t, filepath.Join(dir, "a.db"), s.ca, Options{}).wants(t, nil, audit.Changed, 1)
}

// What is appended after rows were taken away leaves the gap to be seen, and the
// next signature does not cover it up.
func TestAuditGoesOnFromHead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weft.db")
	s := openAudited(t, path, nil, Options{}).create(t)
	s.fill(t, 10)
	s.Close()
	script(t, path, `DELETE FROM audit WHERE seq > 7`)
	s = openAudited(t, path, s.ca, Options{})
	s.fill(t, 3)
	s.wants(t, nil, audit.Missing, 8)
	s.Close()
	script(t, path, `DELETE FROM audit_heads`)
	s = openAudited(t, path, s.ca, Options{})
	if err := s.append(t.Context(), did(1)); !errors.Is(err, ErrAudit) {
		t.Errorf("appended without the head: %v", err)
	}
}

// trim removes what is before that time, limit records at once, and returns how
// often it did.
func (s audited) trim(t testing.TB, before time.Time, limit int) (times int) {
	t.Helper()
	for {
		err := s.Write(t.Context(), func(tx *Tx) error {
			c, err := tx.AuditCut(s.id, before, limit)
			if err == nil {
				c, err = c.Sign(s.ca.Key, day)
			}
			if err != nil {
				return err
			}
			return tx.TrimAudit(c)
		})
		if errors.Is(err, ErrNotFound) {
			return times
		}
		if err != nil {
			t.Fatal(err)
		}
		times++
	}
}

func TestAuditTrim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weft.db")
	s := openAudited(t, path, nil, Options{}).create(t)
	s.fill(t, 10)
	back := did(-100) // the clock went back
	if err := s.append(t.Context(), back, did(11), did(12)); err != nil {
		t.Fatal(err)
	}
	kept := s.head(t)
	if n := s.trim(t, day, 100); n != 0 {
		t.Errorf("trimmed %d times what is not old", n)
	}
	if n := s.trim(t, day.Add(5*time.Second), 2); n != 3 {
		t.Errorf("trimmed %d times, want 3", n)
	}
	s.wants(t, kept, "", 0)
	if got := s.list(t, AuditFilter{Oldest: true}); got != "6 7 8 9 10 11 12 13" {
		t.Errorf("left: %s", got)
	}
	if report, err := s.verify(t, kept); err != nil || report.First != 6 || report.Last != 13 || !report.Compared {
		t.Error(report, err)
	}
	if err := s.append(t.Context(), did(13)); err != nil {
		t.Fatal(err)
	}
	s.wants(t, kept, "", 0)

	// A checkpoint that says something else is refused.
	err := s.Write(t.Context(), func(tx *Tx) error { return tx.TrimAudit(audit.Checkpoint{Network: s.id, Seq: 8}) })
	if !errors.Is(err, ErrAudit) {
		t.Errorf("another hash: %v", err)
	}
	err = s.Write(t.Context(), func(tx *Tx) error { return tx.TrimAudit(audit.Checkpoint{Network: s.id, Seq: 3}) })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("what is gone already: %v", err)
	}

	// Everything may go, and it goes on from there.
	if n := s.trim(t, day.Add(time.Hour), 100); n != 1 {
		t.Errorf("trimmed %d times, want 1", n)
	}
	s.wants(t, kept, "", 0)
	if report, err := s.verify(t, kept); err != nil || report.First != 15 || report.Last != 14 || report.Compared {
		t.Error(report, err)
	}
	if err := s.append(t.Context(), did(20), did(21), did(22)); err != nil {
		t.Fatal(err)
	}
	s.wants(t, kept, "", 0)

	// What was tampered with does not go.
	s.Close()
	script(t, path, `UPDATE audit SET record = X'00' WHERE seq = 16`)
	s = openAudited(t, path, s.ca, Options{})
	err = s.Read(t.Context(), func(r *Reader) error { _, err := r.AuditCut(s.id, day.Add(time.Hour), 100); return err })
	var f *audit.Fault
	if !errors.As(err, &f) || f.Seq != 16 {
		t.Errorf("tampered: %v", err)
	}
}

// Verifying a million records, rows read from the file included: by the clock, and by
// the processor's time, which says the same on a machine that others use.
func BenchmarkAuditVerify(b *testing.B) {
	const n = 1_000_000
	s := openAudited(b, b.TempDir()+"/weft.db", nil, Options{}).create(b)
	s.fill(b, n)
	spent := func() time.Duration {
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	for b.Loop() {
		if report, err := s.verify(b, nil); err != nil || report.Last != n {
			b.Fatal(report, err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/(spent()-before).Seconds(), "records/cpu-s")
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// Appending 100 records in a transaction, with one signature.
func BenchmarkAuditAppend(b *testing.B) {
	s := openAudited(b, b.TempDir()+"/weft.db", nil, Options{}).create(b)
	for b.Loop() {
		s.fill(b, 100)
	}
	b.ReportMetric(100*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
