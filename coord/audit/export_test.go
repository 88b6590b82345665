package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// header is RFC 5424's HEADER, up to the structured data.
var header = regexp.MustCompile(`^<(\d{1,3})>1 (\S+) ([!-~]{1,255}) ([!-~]{1,48}) - ([!-~]{1,32}) `)

// parseSyslog reads a message by the grammar of RFC 5424 section 6, strictly:
// the priority, MSGID, and the parameters of one element.
func parseSyslog(s string) (pri, op string, params map[string]string, err error) {
	m := header.FindStringSubmatch(s)
	if m == nil {
		return "", "", nil, fmt.Errorf("no header: %q", s)
	}
	rest, ok := strings.CutPrefix(s[len(m[0]):], "["+syslogID)
	if !ok {
		return "", "", nil, fmt.Errorf("no element: %q", s)
	}
	params = map[string]string{}
	for {
		if rest == "]\n" {
			return m[1], m[5], params, nil
		}
		name, after, ok := strings.Cut(rest, `="`)
		if !ok || len(name) < 2 || name[0] != ' ' || strings.ContainsAny(name[1:], "= ]\"") {
			return "", "", nil, fmt.Errorf("no parameter: %q", rest)
		}
		var value []byte
		i := 0
		for ; i < len(after) && after[i] != '"'; i++ {
			if after[i] == ']' {
				return "", "", nil, fmt.Errorf("a bare ] in %q", after)
			}
			if after[i] == '\\' {
				if i++; i == len(after) || !strings.ContainsRune(`"\]`, rune(after[i])) {
					return "", "", nil, fmt.Errorf("a bare backslash in %q", after)
				}
			}
			value = append(value, after[i])
		}
		if i == len(after) {
			return "", "", nil, fmt.Errorf("no end of %q", name)
		}
		params[name[1:]] = string(value)
		rest = after[i+1:]
	}
}

// checkLines checks both lines of a record against what is in it.
func checkLines(t *testing.T, r Record) {
	t.Helper()
	h := Genesis([16]byte{1})
	oneLine := func(b []byte) {
		t.Helper()
		body, found := bytes.CutSuffix(b, []byte("\n"))
		if !found || !utf8.Valid(body) || !printable(body) {
			t.Fatalf("not one printable line: %q", b)
		}
	}
	same := func(text string) string { // what a reader gets of a text
		return strings.Map(func(r rune) rune {
			if unprintable(r) {
				return utf8.RuneError
			}
			return r
		}, strings.ToValidUTF8(text, "\ufffd"))
	}
	b, err := AppendJSON(nil, r, h)
	if err != nil {
		t.Fatal(err)
	}
	oneLine(b)
	var l Line
	if err := json.Unmarshal(b, &l); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if l.Schema != "audit/1" || l.Seq != r.Seq || l.Op != r.Op || l.Count != r.Count || l.Hash != h.String() {
		t.Fatalf("%+v became %+v", r, l)
	}
	if _, err := r.Encode(nil); err == nil { // what can be recorded comes back as it was
		if again, hash, err := l.Record(); err != nil || hash != h || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v came back as %+v, %v", r, again, err)
		}
	}
	if got := strings.ToValidUTF8(r.Name, "\ufffd"); utf8.ValidString(r.Name) && l.Name != got {
		t.Fatalf("%q became %q", r.Name, l.Name)
	}

	s := AppendSyslog(nil, r, h, "weft.example")
	oneLine(s)
	pri, op, params, err := parseSyslog(string(s))
	if err != nil {
		t.Fatal(err)
	}
	want := "110"
	if r.Refused != "" {
		want = "108"
	}
	if pri != want || op != r.Op || params["hash"] != h.String() {
		t.Fatalf("%q: priority %s, op %s", s, pri, op)
	}
	for name, text := range map[string]string{"user": r.User, "user_id": r.UserID, "role": r.Role, "via": r.Via, "from": r.From, "kind": r.Kind, "id": r.ID, "name": r.Name,
		"refused": r.Refused, "before": string(r.Before), "after": string(r.After)} {
		if utf8.ValidString(text) && params[name] != same(text) {
			t.Fatalf("%s: %q became %q", name, text, params[name])
		}
	}
}

// Lines are right for whatever is in a record, cleaned or not.
func TestLines(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		rec := randomRecord(r)
		if !json.Valid(rec.After) {
			rec.After = nil
		}
		checkLines(t, rec)
		rec.Clean()
		checkLines(t, rec)
	}
	for _, s := range hostile {
		rec := rename(1)
		rec.Before = json.RawMessage(`{"html":"<b>&amp;\u003c","é":1.50}`)
		rec.User, rec.Name, rec.Refused = s, s, s
		checkLines(t, rec)
	}
}

func TestLinesExactly(t *testing.T) {
	r := rename(1)
	r.Refused = `no "devices" [a\b]`
	r.After = nil
	b, err := AppendJSON(nil, r, Hash{})
	want := `{"schema":"audit/1","seq":1,"at":"2026-03-01T12:00:01.000Z","user":"alice","user_id":"u1","role":"owner","via":"console","from":"192.0.2.7","op":"device.rename","kind":"device","id":"00000000000000000000000000000001","name":"device-1","before":{"name":"device-1"},"after":null,"refused":"no \"devices\" [a\\b]","count":1,"hash":"` + Hash{}.String() + "\"}\n"
	if err != nil || string(b) != want {
		t.Errorf("%s, %v; want\n%s", b, err, want)
	}
	want = `<108>1 2026-03-01T12:00:01.000Z my_host weft-server - device.rename [weft@32473 seq="1" user="alice" user_id="u1" role="owner" via="console" from="192.0.2.7" kind="device" id="00000000000000000000000000000001" name="device-1" before="{\"name\":\"device-1\"}" refused="no \"devices\" [a\\b\]" count="1" hash="` + Hash{}.String() + "\"]\n"
	if s := AppendSyslog(nil, r, Hash{}, "my host"); string(s) != want {
		t.Errorf("%s; want\n%s", s, want)
	}
	if s := AppendSyslog(nil, Record{}, Hash{}, ""); !header.Match(s) {
		t.Errorf("an empty record: %s", s)
	}
}
