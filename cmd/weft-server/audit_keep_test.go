package main

import (
	"database/sql"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/coord/audit"
	"weft/coord/ca"
	"weft/coord/store"
	"weft/overlay/cert"
)

// addOld makes n records that are age old.
func addOld(t *testing.T, data string, n int, age time.Duration) {
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
	err = st.Write(t.Context(), func(tx *store.Tx) error {
		for range n {
			if err := tx.AppendAudit(auth.ID, &audit.Record{At: time.Now().Add(-age), User: "alice", Via: audit.CLI, Op: "test.old"}); err != nil {
				return err
			}
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

// The verbs that set for how long records are kept and that remove them, and what verify
// says of the rest: of heads from before and after.
func TestAuditKeep(t *testing.T) {
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	says := func(want string, args ...string) string {
		t.Helper()
		code, out, errs := verb(t, append([]string{"audit"}, args...)...)
		if code != 0 || !strings.Contains(out+errs, want) {
			t.Fatalf("audit %v: exit %d, want %q\n%s%s", args, code, want, out, errs)
		}
		return strings.TrimSpace(out)
	}
	says("forever", "retention")
	addOld(t, data, 20, 100*24*time.Hour)
	old := says("", "head")
	addOld(t, data, 30, 10*24*time.Hour)
	later := says("", "head")

	says("kept for 365d; the server removes older ones once a day", "retention", "set", "365d")
	says("365d", "retention", "show")
	says("there are no records from before that time", "trim", "--before", "365d")
	says("removed records 1 to 20", "trim", "--before", "30d")
	out := says("; they fit the head of ", "verify", "--head", later)
	if !strings.Contains(out, "records 21 to ") || !strings.Contains(out, "earlier ones were removed, the last of them on ") {
		t.Error(out)
	}
	says("; they fit the head of ", "verify", "--head", old) // of the last one that went
	says("removed records 21 to 50", "trim", "--before", "2d")
	says("the head is of record 20, which was removed for its age, so it could not be compared", "verify", "--head", old)
	says("; they fit the head of ", "verify", "--head", says("", "head"))
	says("kept for ever", "retention", "set", "forever")
	for op, want := range map[string]int{"audit.configure": 2, "audit.trim": 3, "test.": 0} {
		var list struct{ Records []audit.Line }
		if err := json.Unmarshal([]byte(says("", "list", "--json", "--op", op)), &list); err != nil || len(list.Records) != want {
			t.Errorf("%d records of %s, %v", len(list.Records), op, err)
		}
	}

	// What is not as it was written is not removed.
	addOld(t, data, 5, 3*24*time.Hour)
	db, err := sql.Open("sqlite", filepath.Join(data, "weft.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`UPDATE audit SET user_name = 'bob' WHERE op = 'test.old'`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	tamper(t, data, `UPDATE audit SET at = at - 864000000`) // old enough, if one believed it
	code, _, errs := verb(t, "audit", "trim", "--before", "2d")
	if code != 2 || !strings.Contains(errs, "nothing was removed; first find out what happened (weft-server audit verify)") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// Introductions are shown as claims, whatever is in them.
func TestAuditIntroductions(t *testing.T) {
	data := newData(t)
	t.Setenv("WEFT_DATA", data)
	addDevices(t, data, "gate", "laptop")
	code, _, errs := verb(t, "audit", "introductions")
	if code != 0 || !strings.Contains(errs, "no device reports introductions") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, _, errs := verb(t, "audit", "introductions", "set", "--tag", "tag:camera", "on"); code != 0 || errs != "devices with one of these tags report introductions: camera\n" {
		t.Errorf("exit %d: %s", code, errs)
	}
	_, out, _ := verb(t, "devices", "show", "gate", "--json")
	var gate struct{ ID cert.NodeID }
	if err := json.Unmarshal([]byte(out), &gate); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Options{Path: filepath.Join(data, "weft.db")})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	err = st.Write(t.Context(), func(tx *store.Tx) error {
		n, err := tx.Network()
		if err != nil {
			return err
		}
		_, err = tx.AddIntroductions(n.ID, gate.ID, []store.Introduction{
			{Device: gate.ID, DeviceName: "gate", Peer: cert.NodeID{7}, Name: "evil\x1b[2J\nname", User: "bob\u202e", Inbound: true, Count: 3, First: now, Last: now, Paths: "direct relay", Doubts: "unknown name"},
			{Device: gate.ID, DeviceName: "gate", Inbound: true, Count: 9, First: now.Add(-time.Hour), Last: now},
		}, 10, "full", now)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	for _, args := range []string{"", "--device gate", "--since 2h", "--limit 2", "--device " + gate.ID.String()} {
		code, out, errs = verb(t, strings.Fields("audit introductions list "+args)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if code != 0 || errs != "" || len(lines) != 4 || lines[0] != "claims of devices:" || !strings.Contains(lines[2], "evil?[2J?name") || !strings.Contains(lines[2], "no such device ever was, it has another name or owner") ||
			!strings.Contains(lines[2], "it was called by") || !strings.Contains(lines[3], "others, not told apart") || strings.ContainsAny(out, "\x1b\u202e") {
			t.Errorf("%s: exit %d\n%s%s", args, code, out, errs)
		}
	}
	for _, args := range []string{"--device laptop", "--limit 1"} {
		_, out, _ = verb(t, strings.Fields("audit introductions list --json "+args)...)
		var list struct {
			Schema string
			Claims []store.Introduction `json:"claims_of_devices"`
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil || list.Schema != "audit-introductions/1" || len(list.Claims) != strings.Count(args, "limit") {
			t.Errorf("%s: %s, %v", args, out, err)
		}
	}
	if code, _, errs := verb(t, "audit", "introductions", "set", "--tag", "camera", "off"); code != 0 || errs != "no device reports introductions\n" {
		t.Errorf("exit %d: %s", code, errs)
	}
}
