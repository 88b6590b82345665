package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func rename(i int) Record {
	return Record{Seq: uint64(i), At: day.Add(time.Duration(i) * time.Second), User: "alice", UserID: "u1", Role: "owner", Via: Console, From: "192.0.2.7",
		Op: "device.rename", Kind: "device", ID: fmt.Sprintf("%032x", i), Name: fmt.Sprintf("device-%d", i),
		Before: json.RawMessage(fmt.Sprintf(`{"name":"device-%d"}`, i)), After: json.RawMessage(`{"name":"kitchen"}`), Count: 1}
}

func encoded(t testing.TB, r Record) []byte {
	t.Helper()
	b, err := r.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hostile are texts that break lines, quotes, terminals or readers.
var hostile = []string{
	"", "plain", "two\nlines", "carriage\rreturn", "tab\there", "nul\x00byte", "\x1b[31mred\x1b[0m", "quote\"quote", `back\slash`, `a]b`, `]`, `\]`, `"]`, `\"`,
	"[weft@1 x=\"y\"]", "line\u2028separator", "paragraph\u2029", "bidi\u202eexe.txt", "isolate\u2066x\u2069", "zero\u200bwidth", "bom\ufeff", "soft\u00adhyphen",
	"c1\u0085next", "tag\U000e0041", "\xff\xfe", "half \xe2\x80", "\xed\xa0\x80", "ünïcödé 名前 😀", "<script>alert(1)</script>", "&amp;", "<34>1 2026-01-01T00:00:00Z evil - - - -",
	strings.Repeat("x", MaxText), strings.Repeat("x", MaxText+1), strings.Repeat("é", 200), strings.Repeat("😀", 100), strings.Repeat("\n", 300), strings.Repeat(`]"\`, 100),
	strings.Repeat("a", MaxText-1) + "é",
}

// random makes a text of hostile pieces.
func random(r *rand.Rand) string {
	s := ""
	for range r.IntN(4) {
		h := hostile[r.IntN(len(hostile))]
		if r.IntN(3) == 0 && len(h) > 0 {
			h = h[:r.IntN(len(h))]
		}
		s += h
	}
	return s
}

func randomRecord(r *rand.Rand) Record {
	rec := Record{Seq: 1 + r.Uint64N(1<<62), At: time.UnixMilli(r.Int64N(1 << 45)), Count: r.Uint32N(3)}
	for _, s := range rec.texts() {
		*s = random(r)
	}
	rec.Op, rec.Via = "device.rename", ways[r.IntN(len(ways))]
	if r.IntN(2) == 0 {
		rec.Before, _ = json.Marshal(map[string]any{random(r): random(r)})
	}
	switch r.IntN(4) {
	case 0:
		rec.After = json.RawMessage(random(r)) // most of it is no JSON
	case 1:
		rec.After = json.RawMessage(" { \"b\" : 1.50 ,\n\"a\": \"\u202e\" } ")
	case 2:
		rec.After, _ = json.Marshal(strings.Repeat(random(r), 50))
	}
	return rec
}

// Whatever a record holds, once cleaned it can be recorded, and comes back as it was.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		rec := randomRecord(r)
		rec.Clean()
		b := encoded(t, rec)
		if len(b) > MaxEncoding {
			t.Fatalf("%d bytes, at most %d", len(b), MaxEncoding)
		}
		again, err := Decode(b)
		if err != nil || !reflect.DeepEqual(again, rec) {
			t.Fatalf("%+v came back as %+v, %v", rec, again, err)
		}
		cleaned := rec
		cleaned.Clean()
		if !reflect.DeepEqual(cleaned, rec) {
			t.Fatalf("cleaned again %+v is %+v", rec, cleaned)
		}
		for _, s := range rec.texts() {
			if len(*s) > MaxText || !utf8.ValidString(*s) || strings.ContainsFunc(*s, unicode.IsControl) || strings.ContainsFunc(*s, func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) }) {
				t.Fatalf("%q is in a record", *s)
			}
		}
	}
}

// What is fine stays as it is; what is cut says so.
func TestClean(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"ünïcödé 名前 😀", "ünïcödé 名前 😀"},
		{"two\nlines", "two\ufffdlines"},
		{"bidi\u202eexe", "bidi\ufffdexe"},
		{"\xff", "\ufffd"},
		{strings.Repeat("x", MaxText), strings.Repeat("x", MaxText)},
		{strings.Repeat("x", MaxText+1), strings.Repeat("x", MaxText-3) + "…"},
		{strings.Repeat("é", 128), strings.Repeat("é", 126) + "…"},
	} {
		if got := cleanText(c.in); got != c.out {
			t.Errorf("%q became %q", c.in, got)
		}
	}
	for _, c := range []struct{ in, out string }{
		{`{"a":1}`, `{"a":1}`},
		{`{ "b": 2, "a": 1.50 }`, `{"a":1.50,"b":2}`},
		{"", ""}, {"null", "null"}, {`"a b"`, `"a b"`},
		{"\"\u202e\"", `"\u202e"`}, {"\"\U000e0041\"", `"\udb40\udc41"`},
		{"nonsense", `"nonsense"`},
	} {
		if got := cleanValue(json.RawMessage(c.in)); string(got) != c.out {
			t.Errorf("%q became %q", c.in, got)
		}
	}
	long, err := JSON(map[string]string{"policy": strings.Repeat("x", MaxValue)})
	if err != nil || !strings.HasPrefix(string(long), `{"omitted_bytes":16397,"sha256":"`) {
		t.Errorf("a long value became %s, %v", long, err)
	}
	if v, err := JSON(nil); v != nil || err != nil {
		t.Errorf("nothing became %q, %v", v, err)
	}
}

// What is not a record is refused, by the encoder and by the decoder alike.
func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"no number":    func(r *Record) { r.Seq = 0 },
		"huge number":  func(r *Record) { r.Seq = 1 << 63 },
		"no time":      func(r *Record) { r.At = time.Time{} },
		"year 10000":   func(r *Record) { r.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no count":     func(r *Record) { r.Count = 0 },
		"no op":        func(r *Record) { r.Op = "" },
		"op in words":  func(r *Record) { r.Op = "device rename" },
		"long op":      func(r *Record) { r.Op = strings.Repeat("x", MaxOp+1) },
		"no way":       func(r *Record) { r.Via = "" },
		"unknown way":  func(r *Record) { r.Via = "carrier pigeon" },
		"long text":    func(r *Record) { r.Name = strings.Repeat("x", MaxText+1) },
		"line feed":    func(r *Record) { r.Name = "a\nb" },
		"bidi":         func(r *Record) { r.Refused = "\u202e" },
		"no UTF-8":     func(r *Record) { r.From = "\xff" },
		"long value":   func(r *Record) { r.After, _ = json.Marshal(strings.Repeat("x", MaxValue)) },
		"no JSON":      func(r *Record) { r.After = json.RawMessage("{") },
		"two values":   func(r *Record) { r.After = json.RawMessage("1 2") },
		"loose JSON":   func(r *Record) { r.Before = json.RawMessage(`{"a": 1}`) },
		"loose JSON 2": func(r *Record) { r.Before = json.RawMessage(`{"a\"":1 }`) },
		"raw bidi":     func(r *Record) { r.Before = json.RawMessage("\"\u202e\"") },
	} {
		r := rename(1)
		change(&r)
		if b, err := r.Encode(nil); err == nil {
			t.Errorf("%s: encoded as %q", name, b)
		}
	}
	b := encoded(t, rename(1))
	for i := range b {
		if _, err := Decode(b[:i]); err == nil {
			t.Errorf("cut after %d bytes it is a record", i)
		}
	}
	if _, err := Decode(append(bytes.Clone(b), 0)); err == nil {
		t.Error("with something behind it it is a record")
	}
	if _, err := Decode(append([]byte{2}, b[1:]...)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("of another version: %v", err)
	}
}

// The encoding is for ever: hashes of old records depend on it.
func TestEncodingStays(t *testing.T) {
	var network [16]byte
	copy(network[:], "0123456789abcdef")
	r := rename(7)
	h := Genesis(network).Next(encoded(t, r))
	if got, want := h.String(), "16e871c0c228fb9ab3641a40b064b37b1a05c2157a5ef8f496ae8d5f74af6f3b"; got != want {
		t.Errorf("hash %s, was %s", got, want)
	}
}

// FuzzDecode: what is decoded is encoded to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, rename(1)))
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		rec := randomRecord(r)
		rec.Clean()
		f.Add(encoded(f, rec))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := Decode(b)
		if err != nil {
			return
		}
		again, err := rec.Encode(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q became %q, %v", b, again, err)
		}
	})
}

// FuzzClean: nothing that anybody writes keeps a record from being made, or makes
// more than one line of it.
func FuzzClean(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		r := rename(1)
		r.Name, r.Refused, r.Before, r.After = text, value, json.RawMessage(value), json.RawMessage(value+text)
		r.Clean()
		again, err := Decode(encoded(t, r))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
		checkLines(t, r)
	})
}
