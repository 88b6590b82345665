package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"

	"weft/overlay/api"
)

const (
	maxDepth    = 8  // of nested brackets; a policy needs 4
	maxProblems = 20 // reported at once
)

// Remark is a mistake in a policy, or a warning about it.
type Remark struct {
	Line   int    `json:"line"`   // from 1; 0 for the policy as a whole
	Column int    `json:"column"` // from 1, in characters
	Text   string `json:"text"`
}

// String returns the place and the text.
func (p Remark) String() string {
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, p.Text)
}

// Error lists the mistakes of a policy: at least one, in the order of the text.
type Error struct{ Problems []Remark }

// Error returns the first mistake, and the number of the others.
func (e *Error) Error() string {
	text := "policy: " + e.Problems[0].String()
	if n := len(e.Problems) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// place is a word and its first place in the text.
type place struct {
	word         string
	line, column int
}

// Parse reads the text of a policy; "" is the starting policy. Unknown words are errors, and
// so is text that two programs may understand differently: a misspelt rule must not silently
// allow or deny. Every error is an *Error.
func Parse(text string) (*Policy, error) {
	if text == "" {
		return Starting(), nil
	}
	return parse(text)
}

func parse(text string) (*Policy, error) {
	if len(text) > MaxText {
		return nil, &Error{[]Remark{{Text: fmt.Sprintf("%d bytes, at most %d", len(text), MaxText)}}}
	}
	r := newReader(text)
	if r.scan(); len(r.problems) > 0 {
		return nil, &Error{r.problems}
	}
	// The library needs a line end after the last comment too.
	v, err := hujson.Parse(append([]byte(text), '\n'))
	if err != nil {
		r.syntax(err)
		return nil, &Error{r.problems}
	}
	p := r.policy(v)
	if len(r.problems) > 0 {
		sort.SliceStable(r.problems, func(i, j int) bool {
			a, b := r.problems[i], r.problems[j]
			return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
		})
		return nil, &Error{r.problems[:min(len(r.problems), maxProblems)]}
	}
	return p, nil
}

// Stored reads the text of a policy that is in force. Earlier versions accepted texts that
// Parse refuses, such as one that has a key twice; there the last value counted, as it does
// here.
func Stored(text string) (*Policy, error) {
	p, err := Parse(text)
	if err == nil {
		return p, nil
	}
	p = &Policy{}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	earlier := struct {
		Rules []Rule `json:"rules"`
	}{}
	if d.Decode(&earlier) != nil {
		return nil, err
	}
	p.Rules = earlier.Rules
	if p.check() != nil {
		return nil, err
	}
	return p, nil
}

// reader reads one policy.
type reader struct {
	text     string
	ends     []int // of lines
	chars    []int // characters before every charBlock bytes, so that a place in a long line is found as fast as in a short one
	problems []Remark
	seen     map[string]bool // the words in Policy.names
}

func newReader(text string) *reader {
	r := &reader{text: text}
	chars := 0
	for i := range len(text) {
		if i%charBlock == 0 {
			r.chars = append(r.chars, chars)
		}
		if text[i] == '\n' {
			r.ends = append(r.ends, i)
		}
		if utf8.RuneStart(text[i]) {
			chars++
		}
	}
	return r
}

// at returns the line and column of an offset.
func (r *reader) at(offset int) (line, column int) {
	offset = min(max(offset, 0), len(r.text))
	line = sort.SearchInts(r.ends, offset)
	start := 0
	if line > 0 {
		start = r.ends[line-1] + 1
	}
	return line + 1, r.charsBefore(offset) - r.charsBefore(start) + 1
}

// charBlock is the distance of two entries of reader.chars, in bytes.
const charBlock = 512

// charsBefore counts the characters before an offset. In text that is not UTF-8 the count is
// only approximate.
func (r *reader) charsBefore(offset int) (n int) {
	begin := 0
	if block := min(offset/charBlock, len(r.chars)-1); block >= 0 {
		begin, n = block*charBlock, r.chars[block]
	}
	for ; begin < offset; begin++ {
		if utf8.RuneStart(r.text[begin]) {
			n++
		}
	}
	return n
}

func (r *reader) wrong(offset int, format string, args ...any) {
	line, column := r.at(offset)
	r.problems = append(r.problems, Remark{line, column, fmt.Sprintf(format, args...)})
}

// kinds names the kinds of JSON values for error texts.
var kinds = map[hujson.Kind]string{'{': "an object", '[': "a list", '"': "a text", 'n': "null", 't': "true", 'f': "false", '0': "a number"}

// is reports whether a value is of a kind; if not, it records a mistake.
func (r *reader) is(v hujson.Value, kind hujson.Kind) bool {
	if v.Value.Kind() == kind {
		return true
	}
	r.wrong(v.StartOffset, "%s is not possible here; want %s", kinds[v.Value.Kind()], kinds[kind])
	return false
}

// fields calls f for each field of an object. A field that occurs twice, or is not in want,
// is a mistake.
func (r *reader) fields(v hujson.Value, want string, f func(name string, v hujson.Value)) {
	if !r.is(v, '{') {
		return
	}
	had := map[string]bool{}
	for _, m := range v.Value.(*hujson.Object).Members {
		name := m.Name.Value.(hujson.Literal).String()
		switch {
		case had[name]:
			r.wrong(m.Name.StartOffset, "the field %s occurs twice", quoted(name))
		case !strings.Contains(" "+want+" ", " "+name+" ") || strings.Contains(name, " "):
			r.wrong(m.Name.StartOffset, "unknown field %s; want one of: %s", quoted(name), strings.ReplaceAll(want, " ", ", "))
		default:
			f(name, m.Value)
		}
		had[name] = true
	}
}

// list calls f for each entry of a list. More than most entries are a mistake.
func (r *reader) list(v hujson.Value, most int, what string, f func(v hujson.Value)) {
	if !r.is(v, '[') {
		return
	}
	entries := v.Value.(*hujson.Array).Elements
	if len(entries) > most {
		r.wrong(v.StartOffset, "%d %s, at most %d", len(entries), what, most)
		return
	}
	for _, e := range entries {
		f(e)
	}
}

// words reads a list of texts and their offsets. The first offset is that of the list itself.
func (r *reader) words(v hujson.Value) (words []string, offsets []int) {
	offsets = []int{v.StartOffset}
	r.list(v, maxWords, "entries in one list", func(v hujson.Value) {
		if r.is(v, '"') {
			words, offsets = append(words, v.Value.(hujson.Literal).String()), append(offsets, v.StartOffset)
		}
	})
	return words, offsets
}

// bool reads true or false.
func (r *reader) bool(v hujson.Value) bool {
	switch v.Value.Kind() {
	case 't', 'f':
		return v.Value.Kind() == 't'
	}
	r.wrong(v.StartOffset, "%s is not possible here; want true or false", kinds[v.Value.Kind()])
	return false
}

func (r *reader) policy(v hujson.Value) *Policy {
	p := &Policy{}
	r.seen = map[string]bool{}
	var ports [][]api.PortRange
	r.fields(v, "rules tests aes tagOwners", func(name string, v hujson.Value) {
		switch name {
		case "rules":
			r.list(v, maxRules, "rules", func(v hujson.Value) { ports = append(ports, r.rule(p, v)) })
		case "tests":
			r.list(v, maxTests, "tests", func(v hujson.Value) { r.test(p, v) })
		case "aes":
			words, offsets := r.words(v)
			for i, word := range words {
				if !validSelector(word) {
					r.wrong(offsets[i+1], "aes %s: want *, user:NAME, group:NAME or tag:NAME", quoted(word))
				}
				r.name(p, word, offsets[i+1])
			}
			p.AES = words
		case "tagOwners":
			r.tagOwners(p, v)
		}
	})
	if len(r.problems) == 0 {
		p.compiled = compile(p.Rules, ports, p.AES)
	}
	return p
}

func (r *reader) rule(p *Policy, v hujson.Value) (ports []api.PortRange) {
	var rule Rule
	rule.Line, _ = r.at(v.StartOffset)
	before := len(r.problems)
	at := map[string][]int{"": {v.StartOffset}}
	r.fields(v, "from to ports aes", func(name string, v hujson.Value) {
		if name == "aes" {
			rule.AES = r.bool(v)
			return
		}
		words, offsets := r.words(v)
		at[name] = offsets
		switch name {
		case "from":
			rule.From = words
		case "to":
			rule.To = words
		case "ports":
			rule.Ports = words
		}
	})
	p.Rules = append(p.Rules, rule)
	if len(r.problems) > before {
		return nil // checking an incomplete rule would report the same mistake again
	}
	ports = rule.check(func(list string, word int, text string) {
		offsets := at[list]
		if offsets == nil {
			offsets, word = at[""], -1
		}
		if word < 0 && len(r.problems) > before && strings.Contains(r.problems[len(r.problems)-1].Text, text) {
			return // the same mistake was noted for another list
		}
		r.wrong(offsets[word+1], "rule %d: %s", len(p.Rules), text)
	})
	if len(r.problems) > before {
		return nil
	}
	for i, word := range rule.From {
		r.name(p, word, at["from"][i+1])
	}
	for i, word := range rule.To {
		r.name(p, word, at["to"][i+1])
	}
	return ports
}

// name records the first place of a name.
func (r *reader) name(p *Policy, word string, offset int) {
	if r.seen[word] || !validSelector(word) || word == "*" {
		return
	}
	r.seen[word] = true
	line, column := r.at(offset)
	p.names = append(p.names, place{word, line, column})
}

func (r *reader) test(p *Policy, v hujson.Value) {
	var t Test
	t.line, t.column = r.at(v.StartOffset)
	before := len(r.problems)
	fail := func(offset int, err error) { r.wrong(offset, "test %d: %v", len(p.Tests)+1, err) }
	offset := map[string][]int{}
	r.fields(v, "src accept deny proto", func(name string, v hujson.Value) {
		switch name {
		case "src":
			if r.is(v, '"') {
				t.Src = v.Value.(hujson.Literal).String()
				if !validWho(t.Src) {
					fail(v.StartOffset, fmt.Errorf("src %s: want a person, a device, tag:NAME or group:NAME", quoted(t.Src)))
				}
			}
		case "proto":
			if r.is(v, '"') {
				t.Proto = v.Value.(hujson.Literal).String()
				if !validProto(t.Proto) {
					fail(v.StartOffset, fmt.Errorf("proto %s: want tcp, udp or icmp", quoted(t.Proto)))
				}
			}
		case "accept":
			t.Accept, offset["accept"] = r.words(v)
		case "deny":
			t.Deny, offset["deny"] = r.words(v)
		}
	})
	if len(r.problems) == before && (t.Src == "" || len(t.Accept)+len(t.Deny) == 0) {
		fail(v.StartOffset, errors.New("src, and accept or deny, must each name something"))
	}
	expect := func(words []string, offsets []int, accept bool) {
		for i, word := range words {
			at := offsets[i+1]
			target, err := ParseTarget(word, t.Proto)
			if err != nil {
				fail(at, err)
				continue
			}
			e := expectation{target: target, accept: accept}
			e.line, e.column = r.at(at)
			t.expect = append(t.expect, e)
		}
	}
	expect(t.Accept, offset["accept"], true)
	expect(t.Deny, offset["deny"], false)
	sort.Slice(t.expect, func(i, j int) bool {
		a, b := t.expect[i], t.expect[j]
		return a.line < b.line || a.line == b.line && a.column < b.column
	})
	p.Tests = append(p.Tests, t)
}
