package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/ca"
	"weft/coord/store"
)

// addRecords makes n records of the network in data, a minute from each other, the
// last one a minute ago. The last says what a stranger called himself.
func addRecords(t *testing.T, data string, n int) {
	t.Helper()
	auth, err := ca.Open(filepath.Join(data, "ca"), false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Options{Path: filepath.Join(data, "weft.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var records []*audit.Record
	for i := range n {
		records = append(records, &audit.Record{At: time.Now().Add(-time.Duration(n-i) * time.Minute), User: "alice", UserID: "u1", Via: audit.Console, From: "192.0.2.7",
			Op: "test.rename", Kind: "device", ID: fmt.Sprint("id", i), Name: fmt.Sprint("name", i%4),
			Before: json.RawMessage(`{"name":"a"}`), After: json.RawMessage(`{"name":"b"}`)})
	}
	last := records[n-1]
	last.Op, last.User, last.UserID, last.Before, last.After = "test.signin", "mal\nlory\x1b[31m\u202e", "", nil, nil
	last.Refused, last.Count = "wrong password", 7
	err = st.Write(t.Context(), func(tx *store.Tx) error {
		if err := tx.AppendAudit(auth.ID, records...); err != nil {
			return err
		}
		h, err := tx.AuditEnd(auth.ID)
		if err == nil {
			h, err = h.Sign(auth.Network.Key, time.Now())
		}
		if err != nil {
			return err
		}
		return tx.SetAuditHead(h)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tamper changes the database of data behind the server's back.
func tamper(t *testing.T, data, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(data, "weft.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), query); err != nil {
		t.Fatal(err)
	}
}

// The table shows what differs, however much does not.
func TestAuditChange(t *testing.T) {
	rest := `"events":["device.*","presence.offline","presence.online","webhook.*"],"zone":""`
	for _, c := range []struct{ before, after, want string }{
		{`{"a":1,"enabled":true,` + rest + `}`, `{"a":1,"enabled":false,` + rest + `}`, `{"enabled":true} -> {"enabled":false}`},
		{`{"name":"a"}`, `{"name":"b"}`, `{"name":"a"} -> {"name":"b"}`},
		{`{"name":"a"}`, `{"name":"a","tags":[]}`, `{} -> {"tags":[]}`},
		{`null`, `{"name":"b"}`, `{"name":"b"}`},
		{`{"name":"a"}`, `null`, `{"name":"a"}`},
		{``, ``, ``},
		{`"on"`, `{"on":true}`, `"on" -> {"on":true}`},
		{`3`, `4`, `3 -> 4`},
	} {
		if got := auditChange(audit.Line{Before: json.RawMessage(c.before), After: json.RawMessage(c.after)}); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.before, c.after, got, c.want)
		}
	}
}

func TestAudit(t *testing.T) {
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	ok := func(args ...string) string {
		t.Helper()
		code, out, errs := verb(t, append([]string{"audit"}, args...)...)
		if code != 0 || errs != "" {
			t.Fatalf("audit %v: exit %d\n%s%s", args, code, out, errs)
		}
		return out
	}
	empty := strings.TrimSpace(ok("head"))
	ok("verify")
	ok("verify", "--head", empty)
	const n = 2*auditPage + 10
	addRecords(t, data, n)

	// list: the latest first, in lines of text
	out := ok("list", "--op", "test.", "--limit", "3")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "NO ") || !strings.Contains(lines[1], "mal\ufffdlory\ufffd[31m\ufffd") || !strings.Contains(lines[1], "refused: wrong password (7 times)") ||
		!strings.Contains(lines[2], `{"name":"a"} -> {"name":"b"}`) || !strings.Contains(lines[2], "device name") {
		t.Errorf("list:\n%s", out)
	}
	count := func(args ...string) int {
		t.Helper()
		var list struct {
			Schema  string
			Records []audit.Line
		}
		if err := json.Unmarshal([]byte(ok(append([]string{"list", "--json", "--op", "test."}, args...)...)), &list); err != nil || list.Schema != "audit-list/1" {
			t.Fatal(list.Schema, err)
		}
		return len(list.Records)
	}
	for _, c := range []struct {
		args string
		want int
	}{
		{"", 100}, {"--limit 0", n}, {"--limit 1500", 1500}, {"--limit 1000", 1000}, {"--since 30m30s --limit 0", 30}, {"--until 30m30s --limit 0", n - 30}, {"--since 2d --until 1h", 100},
		{"--user alice --limit 0", n - 1}, {"--user u1 --limit 0", n - 1}, {"--user admin", 0}, {"--device id5", 1}, {"--device name1 --limit 0", (n + 2) / 4}, {"--op test.signin", 1}, {"--since 2001-02-03 --until 2001-02-03T12:00:00Z", 0},
	} {
		if got := count(strings.Fields(c.args)...); got != c.want {
			t.Errorf("list %s: %d records, want %d", c.args, got, c.want)
		}
	}

	// export: all of it, the earliest first
	for format, begins := range map[string]string{"ndjson": `{"schema":"audit/1","seq":`, "rfc5424": "<1"} {
		out := strings.Split(strings.TrimSuffix(ok("export", "--format", format, "--op", "test."), "\n"), "\n")
		if len(out) != n || !strings.HasPrefix(out[0], begins) || !strings.Contains(out[0], "test.rename") || !strings.Contains(out[n-1], "test.signin") {
			t.Errorf("export of %d lines: %s … %s", len(out), out[0], out[len(out)-1])
		}
	}
	if out := ok("export", "--json", "--op", "test.", "--limit", "2"); strings.Count(out, "\n") != 2 {
		t.Errorf("export: %s", out)
	}

	// verify: as it is, with heads that were kept, and after somebody was at it
	head := ok("head")
	kept := filepath.Join(t.TempDir(), "head")
	os.WriteFile(kept, []byte(head), 0o600)
	for _, h := range []string{empty, strings.TrimSpace(head), kept} {
		if out := ok("verify", "--head", h); !strings.Contains(out, "as they were written, and signed for; they fit the head of ") {
			t.Errorf("verify: %s", out)
		}
	}
	var report struct {
		Schema      string
		First, Last int
		Fault       *audit.Fault
	}
	if err := json.Unmarshal([]byte(ok("verify", "--json")), &report); err != nil || report.Schema != "audit-verify/1" || report.First != 1 || report.Last < n || report.Fault != nil {
		t.Errorf("%+v, %v", report, err)
	}
	tamper(t, data, `UPDATE audit SET user_name = 'bob' WHERE seq = 17`)
	for _, args := range [][]string{{"verify"}, {"verify", "--head", kept}} {
		code, out, errs := verb(t, append([]string{"audit"}, args...)...)
		if want := "weft-server: audit record 17: its column user_name was changed: the record says \"alice\"\n"; code != 1 || out != "" || errs != want {
			t.Errorf("%v of a changed audit: exit %d\n%s%s", args, code, out, errs)
		}
	}
	code, out, _ := verb(t, "audit", "verify", "--json")
	if err := json.Unmarshal([]byte(out), &report); code != 1 || err != nil || report.Fault == nil || report.Fault.Seq != 17 || report.Fault.Kind != audit.Changed {
		t.Errorf("exit %d: %s", code, out)
	}

	// A head of another network is a mistake of who asks.
	t.Setenv("WEFT_DATA", newData(t))
	if code, out, errs := verb(t, "audit", "verify", "--head", kept); code != 2 || out != "" || !strings.Contains(errs, "that head belongs to network ") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
