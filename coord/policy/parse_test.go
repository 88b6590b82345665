package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

const everyComment = `// before
/* a policy */ { // here
  "rules" /* a */ : /* b */ [ // c
    /* d */ { "from" : /* e */ [ "*" /* f */ , ] , // "ports": {{{
      "to": ["self", /* [ */], "ports": ["*",], /* } */ }, // g
  ], /* é */
  "tests": [ /* none */ ],
} // at the end`

func TestParse(t *testing.T) {
	rule := func(fields string) string { return `{"rules":[{` + fields + `}]}` }
	for _, c := range []struct{ text, want string }{
		{`{`, "line 1, column 1: it ends too early: this bracket is not closed"},
		{"{\"rules\":\n  [", "line 2, column 3: it ends too early: this bracket is not closed"},
		{`{"rules":[]} {}`, `line 1, column 14: this is not JSON: invalid character '{' after top-level value`},
		{"package x", `line 1, column 1: this is not JSON`},
		{`[]`, "line 1, column 1: a list is not possible here; want an object"},
		{`null`, "line 1, column 1: null is not possible here; want an object"},
		{`{"rules":null}`, "line 1, column 10: null is not possible here; want a list"},
		{"{\"rules\":\n\n3}", "line 3, column 1: a number is not possible here; want a list"},
		{`{"rules":[null]}`, "line 1, column 11: null is not possible here; want an object"},
		{`{"rule":[]}`, `line 1, column 2: unknown field "rule"; want one of: rules, tests`},
		{`{"Rules":[]}`, `line 1, column 2: unknown field "Rules"`},
		{`{"rules tests":[]}`, `line 1, column 2: unknown field "rules tests"`},
		{`{"":[]}`, `line 1, column 2: unknown field ""`},
		{`{"rules":[],"rules":[]}`, `line 1, column 13: the field "rules" occurs twice`},
		{rule(`"from":["*"],"from":["*"],"to":["*"],"ports":["*"]`), `line 1, column 25: the field "from" occurs twice`},
		{rule(`"from":["*"],"to":["*"],"ports":["*"],"deny":true`), `unknown field "deny"; want one of: from, to, ports`},
		{rule(`"from":[],"to":["*"],"ports":["*"]`), "rule 1: from, to and ports must each name something"},
		{rule(`"to":["*"],"ports":["*"]`), "line 1, column 11: rule 1: from, to and ports must each name something"},
		{rule(`"from":["*"],"to":["*"],"ports":[]`), "must each name something"},
		{rule(`"from":"*","to":["*"],"ports":["*"]`), "a text is not possible here; want a list"},
		{rule(`"from":[1],"to":["*"],"ports":["*"]`), "a number is not possible here; want a text"},
		{"{\"rules\": [\n  {\"from\": [\"tag:é\", \"alice\"]}]}", `rule 1`},
		{"{\"rules\": [\n  /* é */ {\"from\": [\"*\", \"alice\"], \"to\": [\"*\"], \"ports\": [\"*\"]}]}", `line 2, column 26: rule 1: from "alice": want *, user:NAME`},
		{rule(`"from":["self"],"to":["*"],"ports":["*"]`), `from "self"`},
		{rule(`"from":["user:*"],"to":["*"],"ports":["*"]`), `goes with to "self" alone`},
		{rule(`"from":["*"],"to":["user:*"],"ports":["*"]`), `to "user:*": want self`},
		{rule(`"from":["tag:a b"],"to":["*"],"ports":["*"]`), `from "tag:a b"`},
		{rule(`"from":["tag:\u001b[31m"],"to":["*"],"ports":["*"]`), `from "tag:\x1b[31m"`},
		{rule(`"from":["tag:\ud800"],"to":["*"],"ports":["*"]`), `from "tag:`},
		{rule(`"from":["*"],"to":["*"],"ports":["tcp:70000"]`), `line 1, column 45: rule 1: ports "tcp:70000": want *`},
		{rule(`"from":["*"],"to":["*"],"ports":["tcp:9-1"]`), `ports "tcp:9-1"`},
		{rule(`"from":["*"],"to":["*"],"ports":["icmp:1"]`), `ports "icmp:1"`},
		{rule(`"from":["*"],"to":["*"],"ports":["sctp"]`), `ports "sctp"`},
		{rule(`"from":["*"],"to":["*"],"ports":["` + strings.Repeat("x", 1000) + `"]`), strings.Repeat("x", 80) + "…"},
		{rule(`"from":["*"],"to":["*"],"ports":[` + strings.Repeat(`"tcp",`, maxWords+1) + `]`), "at most 200"},
		{`{"rules":[` + strings.Repeat(`1,`, maxRules+1) + `]}`, "1001 rules, at most 1000"},
		{`{"tests":[` + strings.Repeat(`1,`, maxTests+1) + `]}`, "1001 tests, at most 1000"},
		{`{"tests":[{"src":"alice"}]}`, "test 1: src, and accept or deny, must each name something"},
		{`{"tests":[{"deny":["x:1"]}]}`, "test 1: src, and accept or deny, must each name something"},
		{`{"tests":[{"src":"a b","deny":["x:1"]}]}`, `test 1: src "a b": want a person`},
		{`{"tests":[{"src":"a","deny":["x"]}]}`, `line 1, column 30: test 1: "x": want DEVICE:PORT`},
		{`{"tests":[{"src":"a","proto":"sctp","deny":["x:1"]}]}`, `proto "sctp": want tcp, udp or icmp`},
		{`{"tests":[{"src":"a","to":["x:1"]}]}`, `unknown field "to"; want one of: src, accept, deny, proto`},
		{strings.Repeat(" ", MaxText+1), "262145 bytes, at most 262144"},
		{strings.Repeat("[", 100_000), "line 1, column 9: brackets are nested deeper than 8"},
		{strings.Repeat(`{"rules":`, 20_000), "nested deeper than 8"},
		{`{"rules": [], /* }`, "line 1, column 15: this comment is not closed"},
		{`{"rules": ["x }`, "line 1, column 12: this text has no closing quote on its line"},
		{"{\"rules\": [\"x\n\"]}", "line 1, column 12: this text has no closing quote on its line"},
		{`{"rules": ["x\`, "no closing quote"},
		{"{\"rules\": []} // \x00", "line 1, column 18: the character U+0000 is not allowed"},
		{"{\"rules\": []} /* \x1b[31m */", "line 1, column 18: the character U+001B is not allowed"},
		{"{\"rules\": []} // a\u202eb", "line 1, column 19: the character U+202E is not allowed"},
		{"{\"rules\": []} // \xff", "line 1, column 18: this is not Unicode"},
		{"{\"rules\": []} // \ufffd", "this is not Unicode"},
		{"\ufeff{\"rules\": []}", "line 1, column 1: the character U+FEFF is not allowed"},
		{"{} // a\u200bb", "line 1, column 8: the character U+200B"},
		{"{} // a\u2028b", "line 1, column 8: the character U+2028"},
		{"{} // a\U000e0041b", "line 1, column 8: the character U+E0041"},
		{"{\"rules\": []} # no", "this is not JSON: invalid character '#' after top-level value"},
		{"{'rules': []}", `this is not JSON: invalid character '\'' at start of value`},
		{`{"rules": [` + strings.Repeat("a", 10_000) + `]}`, "line 1, column 12: this is not JSON"},
	} {
		_, err := Parse(c.text)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
			t.Errorf("%.80s: %v, want %q", c.text, err, c.want)
		}
	}
	for text, rules := range map[string]int{"": 1, "{}": 0, `{"rules":[]}`: 0, everyComment: 1, strings.ReplaceAll(everyComment, "\n", "\r\n"): 1, "{} //": 0, "{} // \u0646\u200c\u0647 👩\u200d🔧": 0, "// x\n{}": 0} {
		if p, err := Parse(text); err != nil || len(p.Rules) != rules {
			t.Errorf("%s: %+v, %v", text, p, err)
		}
	}
	// All that is wrong is told at once, in the order of the text.
	_, err := Parse("{\"tests\": [{}],\n\"rules\": [{\"from\": [\"a\"], \"ports\": [\"x\"], \"to\": [\"b\"]},\n{}, 3]}")
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != 6 || !strings.HasSuffix(err.Error(), "(and 5 more)") {
		t.Errorf("%v", err)
	}
	for i := 1; i < len(e.Problems); i++ {
		if a, b := e.Problems[i-1], e.Problems[i]; a.Line > b.Line || a.Line == b.Line && a.Column > b.Column {
			t.Errorf("%v stands before %v", a, b)
		}
	}
	// Many at once are not.
	_, err = Parse(`{"rules":[` + strings.Repeat(`{},`, 900) + `]}`)
	if !errors.As(err, &e) || len(e.Problems) != maxProblems {
		t.Errorf("%d problems", len(e.Problems))
	}
}

// A policy as large as there may be is read: with as many comments as fit, and with as
// many words.
func TestLargest(t *testing.T) {
	comment := "/*é*/\n//x\n"
	comments := `{"rules":[` + strings.Repeat(comment, (MaxText-20)/len(comment)) + "]}"
	var words []string
	for i := range maxWords {
		words = append(words, fmt.Sprintf(`"tag:%d"`, i))
	}
	rule := `{"from":[` + strings.Join(words, ",") + `],"to":["*"],"ports":["*"]},`
	full := `{"rules":[` + strings.Repeat(rule, (MaxText-20)/len(rule)) + `]}`
	for _, text := range []string{comments, full, "{}" + strings.Repeat(" ", MaxText-2)} {
		if len(text) > MaxText {
			t.Fatal(len(text))
		}
		if _, err := Parse(text); err != nil {
			t.Error(err)
		}
	}
}

// What earlier versions let into force stays in force, and is not let in again.
func TestStored(t *testing.T) {
	for text, rules := range map[string]int{
		"": 1, `{"rules":[]}`: 0, `null`: 0, `{"rules":null}`: 0, everyComment: 1,
		`{"Rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`:                             1,
		`{"rules":[],"rules":[{"From":["*"],"from":["tag:x"],"to":["*"],"ports":["*"]}]}`: 1,
		"{\"rules\":[{\"from\":[\"*\"],\"to\":[\"*\"],\"ports\":[\"*\"]}]}\n\n\t ":        1,
	} {
		p, err := Stored(text)
		if err != nil || len(p.Rules) != rules {
			t.Errorf("%s: %+v, %v", text, p, err)
			continue
		}
		if rules > 0 && p.Reaches(Subject{Tags: []string{"x"}}, Subject{}) != strings.Contains(text, `"to":["*"]`) {
			t.Errorf("%s: %+v", text, p)
		}
	}
	for _, bad := range []string{"{", `{"rule":[]}`, `{"rules":[{"from":["alice"],"to":["*"],"ports":["*"]}]}`} {
		if _, err := Stored(bad); err == nil {
			t.Errorf("accepted: %s", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"rules":[{"from":["user:*"],"to":["self"],"ports":["*"]}]}`)
	f.Add(`{"rules":[{"from":["tag:a","group:b"],"to":["*"],"ports":["tcp:1-2","icmp"]}]}`)
	f.Add(everyComment)
	f.Add(`{"tests":[{"src":"a","accept":["x:1"],"deny":["tag:b:2/udp","x/icmp"],"proto":"udp",}]}`)
	f.Add("{\"rules\": [\r\n{\"from\": [\"\\u002a\"],\"to\":[\"\\\"\"]}]} // é\u2028")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 || len(e.Problems) > maxProblems {
				t.Fatalf("%q: %v", text, err)
			}
			for _, problem := range e.Problems {
				lines := strings.Split(text, "\n")
				if problem.Line > len(lines) || problem.Line > 0 && problem.Column > utf8.RuneCountInString(lines[problem.Line-1])+1 {
					t.Fatalf("%q: %v is not in it", text, problem)
				}
				if len(problem.Text) > 4*300 || !utf8.ValidString(problem.Text) || strings.ContainsFunc(problem.Text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Fatalf("%q: told as %q", text, problem.Text)
				}
			}
			return
		}
		subjects := []Subject{{}, {User: "alice"}, {User: "alice", Tags: []string{"a"}}, {User: "bob", Groups: []string{"b"}}}
		for _, a := range subjects {
			for _, b := range subjects {
				// Who is seen is let in by a rule of the destination, and the
				// other way round nobody is let in who may not see.
				if p.Reaches(a, b) && (!p.Initiates(a) || len(p.RulesFor(b, p.Audience(peopleOf(subjects...)))) == 0) {
					t.Fatalf("%s: %+v -> %+v", text, a, b)
				}
			}
		}
		if _, err := p.Failures(household()); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		// Stripped of what is not plain JSON it is the same, to any reader.
		if text == "" {
			return
		}
		plain, err := hujson.Minimize(append([]byte(text), '\n'))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		d := json.NewDecoder(bytes.NewReader(plain))
		d.DisallowUnknownFields()
		var other Policy
		if err := d.Decode(&other); err != nil || len(other.Rules) != len(p.Rules) || len(other.Tests) != len(p.Tests) {
			t.Fatalf("%q: %v", plain, err)
		}
		for i, r := range other.Rules {
			r.Line = p.Rules[i].Line
			if !reflect.DeepEqual(r, p.Rules[i]) {
				t.Fatalf("%q: %+v, to another reader %+v", text, p.Rules[i], r)
			}
		}
	})
}

// A place in a long line is found without reading the line again, so that a policy
// in one line takes no longer than any other; the place is the same.
func TestPlaces(t *testing.T) {
	text := strings.Repeat("aé漢😀", 400) + "\n\n" + strings.Repeat("é", charBlock) + "\nx"
	r := newReader(text)
	line, start := 1, 0
	for offset, c := range text {
		if l, column := r.at(offset); l != line || column != utf8.RuneCountInString(text[start:offset])+1 {
			t.Fatalf("byte %d: line %d, column %d, want line %d, column %d", offset, l, column, line, utf8.RuneCountInString(text[start:offset])+1)
		}
		if c == '\n' {
			line, start = line+1, offset+1
		}
	}
	if l, column := r.at(len(text) + 5); l != line || column != 2 {
		t.Fatalf("behind the end: line %d, column %d", l, column)
	}
	if l, column := newReader("").at(0); l != 1 || column != 1 {
		t.Fatalf("of nothing: line %d, column %d", l, column)
	}
}
