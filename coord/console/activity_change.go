package console

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// fieldChange is a field that changed. Before and After are "" where it did not exist.
type fieldChange struct {
	Field         string
	Before, After string
	Both          bool // whether the thing existed before and after
}

// changesOf returns the fields in which two values differ; if there is only one value, all
// its fields.
func changesOf(before, after json.RawMessage) []fieldChange {
	was, is := fieldsOf(before), fieldsOf(after)
	var names []string
	for name := range was {
		names = append(names, name)
	}
	for name := range is {
		if _, ok := was[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []fieldChange
	const most = 60
	for _, name := range names {
		b, wasThere := was[name]
		a, isThere := is[name]
		if wasThere && isThere && bytes.Equal(b, a) {
			continue
		}
		if len(out) == most {
			return append(out, fieldChange{Field: "…"})
		}
		out = append(out, fieldChange{Field: clean(name), Before: valueText(b), After: valueText(a), Both: len(was) > 0 && len(is) > 0})
	}
	return out
}

// fieldsOf returns the fields of a JSON object; another value is one field called "value".
func fieldsOf(v json.RawMessage) (fields map[string]json.RawMessage) {
	if len(v) == 0 || string(v) == "null" {
		return nil
	}
	if json.Unmarshal(v, &fields) == nil {
		return fields
	}
	return map[string]json.RawMessage{"value": v}
}

// valueText is a JSON value for people: a text stands without quotes, with its lines.
func valueText(v json.RawMessage) string {
	if len(v) == 0 {
		return ""
	}
	var text string
	if json.Unmarshal(v, &text) != nil {
		text = string(v)
	} else if text == "" {
		return "(empty)"
	}
	const mostLines = 200
	var out []string
	for line := range strings.Lines(text) {
		if len(out) == mostLines {
			out = append(out, "…")
			break
		}
		out = append(out, cleanLine(strings.TrimRight(line, "\r\n")))
	}
	return strings.Join(out, "\n")
}

// cleanLine is clean for a line that may be longer, and indented.
func cleanLine(s string) string {
	const most, part = 2000, 100
	var out strings.Builder
	s = strings.ReplaceAll(s, "\t", "    ")
	start, n := 0, 0
	for i := range s {
		if n++; n <= part {
			continue
		}
		out.WriteString(clean(s[start:i]))
		if start, n = i, 1; out.Len() > most {
			return out.String() + "…"
		}
	}
	out.WriteString(clean(s[start:]))
	return out.String()
}
