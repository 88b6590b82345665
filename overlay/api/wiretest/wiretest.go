// Package wiretest helps tests to compare today's program with recordings of other
// versions. The protocol's rule is that fields are added and never removed or changed,
// and that unknown ones are ignored.
//
// Not for embedders: it is for the tests of weft.
package wiretest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Lost returns the differences that break the rule: fields of recorded that today lacks
// or has with another type, and, with values set, those with another value. Added fields
// are allowed.
func Lost(t testing.TB, recorded, today []byte, values bool) []string {
	t.Helper()
	lost := diff(nil, "", parse(t, recorded), parse(t, today), values)
	slices.Sort(lost)
	return lost
}

// parse keeps numbers as they are written, because not all fit a float.
func parse(t testing.TB, doc []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %.100q", err, doc)
	}
	return v
}

func diff(out []string, path string, a, b any, values bool) []string {
	switch a := a.(type) {
	case map[string]any:
		m, ok := b.(map[string]any)
		if !ok {
			return append(out, fmt.Sprintf("%s: object became %T", path, b))
		}
		for k, v := range a {
			if w, ok := m[k]; ok {
				out = diff(out, path+"."+k, v, w, values)
			} else {
				out = append(out, path+"."+k+": gone")
			}
		}
	case []any:
		l, ok := b.([]any)
		switch {
		case !ok:
			return append(out, fmt.Sprintf("%s: array became %T", path, b))
		case values && len(a) != len(l):
			return append(out, fmt.Sprintf("%s: %d elements became %d", path, len(a), len(l)))
		case len(a) > 0 && len(l) == 0:
			return append(out, path+": became empty")
		}
		for i := range a {
			at := fmt.Sprintf("%s[%d]", path, i)
			if values {
				out = diff(out, at, a[i], l[i], true)
				continue
			}
			// The order of a list does not matter: one matching element is enough.
			var least []string
			for j := range l {
				if d := diff(nil, at, a[i], l[j], false); j == 0 || len(d) < len(least) {
					least = d
				}
			}
			out = append(out, least...)
		}
	default:
		if fmt.Sprintf("%T", a) != fmt.Sprintf("%T", b) && (values || a != nil && b != nil) || values && a != b {
			return append(out, fmt.Sprintf("%s: %v became %v", path, a, b))
		}
	}
	return out
}

// Later returns doc as a later version could send it: with fields of every kind
// that this one does not know, in every object.
func Later(t testing.TB, doc []byte) []byte {
	t.Helper()
	b, err := json.Marshal(later(parse(t, doc)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func later(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = later(v[k])
		}
		v["from_later"], v["from_later_list"] = map[string]any{"a": 1.5, "b": nil}, []any{"x", true}
	case []any:
		for i := range v {
			v[i] = later(v[i])
		}
	}
	return v
}

// Golden compares doc with the recorded file: nothing in the file may be lost. With
// update set it writes a file that does not exist yet. It never changes an existing one,
// because a recording is a promise.
func Golden(t testing.TB, file string, doc []byte, update bool) {
	t.Helper()
	want, err := os.ReadFile(file)
	if os.IsNotExist(err) && update {
		b, err := json.MarshalIndent(parse(t, doc), "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%v (record it with -update)", err)
	}
	for _, lost := range Lost(t, want, doc, true) {
		t.Errorf("%s: %s", file, lost)
	}
}

// GoldenBytes compares named byte strings with the recorded file, where they are in hex.
// They must be equal.
func GoldenBytes(t testing.TB, file string, today map[string][]byte, update bool) {
	t.Helper()
	doc := map[string]string{}
	for name, b := range today {
		doc[name] = hex.EncodeToString(b)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	Golden(t, file, b, update)
}
