package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Test lists what Src must reach (Accept) and must not reach (Deny), in the form that
// ParseTarget reads. Proto is the protocol of entries that name none, "" for tcp.
//
// Src is a person ("alice", "user:alice"), who stands for their devices without tags; a
// device; or "tag:NAME" or "group:NAME". A tag stands for each device that carries it.
type Test struct {
	Src    string   `json:"src"`
	Accept []string `json:"accept,omitempty"`
	Deny   []string `json:"deny,omitempty"`
	Proto  string   `json:"proto,omitempty"`

	line, column int
	expect       []expectation
}

type expectation struct {
	target       Target
	accept       bool
	line, column int
}

// World looks up the present people and devices of a network. Callers pass its errors on.
type World interface {
	// User finds a person's devices without tags.
	User(name string) (Subject, bool, error)
	// Device finds a device by name, address or id.
	Device(word string) (Subject, bool, error)
	// Group reports whether a group of people exists; it may be empty.
	Group(name string) (bool, error)
	// Tagged returns the devices that carry a tag, without duplicates of equal ones.
	Tagged(tag string) ([]Subject, error)
}

// maxPairs bounds the pairs of devices that the tests of a policy compare.
const maxPairs = 1_000_000

// errPairs refuses tests that compare more than maxPairs.
var errPairs = fmt.Errorf("the tests compare more than %d pairs of devices: name devices instead of tags", maxPairs)

// Failures runs the tests of a policy and returns those that fail, with their place in the
// text.
func (p *Policy) Failures(w World) (failed []Remark, err error) {
	err = p.try(w, func(test int, e *expectation, text string) bool {
		if text != "" {
			at := place{line: p.Tests[test].line, column: p.Tests[test].column}
			if e != nil {
				at = place{line: e.line, column: e.column}
			}
			failed = append(failed, Remark{at.line, at.column, fmt.Sprintf("test %d: %s", test+1, text)})
		}
		return len(failed) < maxProblems
	})
	if err != nil {
		return nil, err
	}
	return failed, nil
}

// Result says for one target of a test whether the policy does what the test demands.
type Result struct {
	Test   int    // from 1
	Line   int    // of the target in the text, from 1
	Src    string // as in the test
	Target string // in the form of ParseTarget
	Accept bool   // the target must be reached; else it must not
	Failed string // why the test fails, "" if it passes
}

// Results runs the tests of a policy and returns the results of all, in the order of the
// tests.
func (p *Policy) Results(w World) (list []Result, err error) {
	err = p.try(w, func(test int, e *expectation, text string) bool {
		t := &p.Tests[test]
		all := t.expect
		if e != nil {
			all = []expectation{*e}
		}
		for _, e := range all {
			list = append(list, Result{test + 1, e.line, t.Src, e.target.String(), e.accept, text})
		}
		return true
	})
	return list, err
}

// try runs the tests and calls f with each expectation and the reason why it fails, "" if it
// holds. If the source of a test does not exist, f is called once for that test, without an
// expectation. try ends when f returns false.
func (p *Policy) try(w World, f func(test int, e *expectation, text string) bool) error {
	pairs := 0
	found := map[string]who{}
	// The rules for a subject or a port are found once, not for each pair: up to a million
	// pairs are compared while other writes wait.
	open := map[[2]any]Set{}
	opening := func(proto string, port uint16) Set {
		key := [2]any{proto, port}
		s, ok := open[key]
		if !ok {
			s = p.compiled.opening(proto, port)
			open[key] = s
		}
		return s
	}
	find := func(word string, device bool) (who, error) {
		key := fmt.Sprint(device, word)
		if s, ok := found[key]; ok {
			return s, nil
		}
		s, err := lookUp(w, word, device)
		if err != nil {
			return s, err
		}
		for _, subject := range s.subjects {
			selectors := p.compiled.selectorsOf(subject)
			if device {
				s.rules = append(s.rules, p.compiled.rulesTo(selectors))
			} else {
				s.rules = append(s.rules, p.compiled.rulesOf(subject))
			}
		}
		found[key] = s
		return s, nil
	}
	for n, t := range p.Tests {
		src, err := find(t.Src, false)
		if err != nil {
			return err
		}
		if src.missing != "" {
			if !f(n, nil, src.missing) {
				return nil
			}
			continue
		}
		for _, e := range t.expect {
			dst, err := find(e.target.Who, true)
			if err != nil {
				return err
			}
			text := dst.missing
			if text == "" {
				if pairs += len(src.subjects) * len(dst.subjects); pairs > maxPairs {
					return &Error{[]Remark{{t.line, t.column, errPairs.Error()}}}
				}
				text = p.fails(src, dst, t.Src, e, opening(e.target.Proto, e.target.Port))
			}
			if !f(n, &e, text) {
				return nil
			}
		}
	}
	return nil
}

// fails returns why an expectation fails, "" if it holds. open are the rules that open its
// port.
func (p *Policy) fails(src, dst who, name string, e expectation, open Set) string {
	for i, a := range src.subjects {
		for j, b := range dst.subjects {
			own := a.acts() && a.User == b.User
			if p.compiled.lets(src.rules[i], dst.rules[j], open, own) == e.accept {
				continue
			}
			d := p.Explain(a, b, e.target.Proto, e.target.Port)
			from, to := name+src.kind(a), e.target.String()+dst.kind(b)
			if e.accept {
				return fmt.Sprintf("%s does not reach %s: %s", from, to, d.Why())
			}
			return fmt.Sprintf("%s reaches %s: %s", from, to, d.Why())
		}
	}
	return ""
}

// who is the devices that a word of a test stands for.
type who struct {
	subjects []Subject
	rules    []Set  // for each subject: the rules that name it in From (a source) or in To (a target)
	missing  string // why there are none, "" if there are some
}

// kind describes one of several subjects so that it can be told from the others; "" if there
// is only one.
func (w who) kind(s Subject) string {
	if len(w.subjects) < 2 {
		return ""
	}
	text := " (of " + s.User
	if len(s.Tags) > 0 {
		text += ", tags " + strings.Join(s.Tags, ", ")
	}
	return text + ")"
}

// lookUp finds the devices that a word stands for. A word without a kind is a device or a
// person.
func lookUp(w World, word string, device bool) (who, error) {
	kind, name, _ := strings.Cut(word, ":")
	if !named(word) {
		kind, name = "", word
	}
	switch kind {
	case "tag":
		list, err := w.Tagged(name)
		if len(list) == 0 { // no device carries it yet: test with one that would
			list = []Subject{{Tags: []string{name}}}
		}
		return who{subjects: list}, err
	case "group":
		return who{subjects: []Subject{{Groups: []string{name}}}}, nil
	case "user":
		s, ok, err := w.User(name)
		if !ok {
			return who{missing: fmt.Sprintf("there is no person %s", quoted(name))}, err
		}
		return who{subjects: []Subject{s}}, err
	}
	d, isDevice, err := w.Device(name)
	if err != nil {
		return who{}, err
	}
	if kind == "device" || device {
		if !isDevice {
			return who{missing: fmt.Sprintf("there is no device %s", quoted(name))}, nil
		}
		return who{subjects: []Subject{d}}, nil
	}
	u, isUser, err := w.User(name)
	switch {
	case err != nil:
		return who{}, err
	case isUser && isDevice:
		return who{missing: fmt.Sprintf("%s is a person and a device: say user:%s or device:%s", name, name, name)}, nil
	case isUser:
		return who{subjects: []Subject{u}}, nil
	case isDevice:
		return who{subjects: []Subject{d}}, nil
	}
	return who{missing: fmt.Sprintf("there is no person and no device %s", quoted(name))}, nil
}

// Naming returns the places where rules and tests name a user.
func (p *Policy) Naming(user string) (list []Remark) {
	for _, n := range p.names {
		if n.word == "user:"+user {
			list = append(list, Remark{n.line, n.column, fmt.Sprintf("a rule names %s", user)})
		}
	}
	for i, t := range p.Tests {
		if t.Src == user || t.Src == "user:"+user {
			list = append(list, Remark{t.line, t.column, fmt.Sprintf("test %d names %s: it fails when the policy is changed next", i+1, user)})
		}
	}
	return list[:min(len(list), maxWarnings)]
}

// Unknown returns a warning for each name in the rules that does not exist in the network, at
// its first place. Such a rule is not a mistake: the name may be added later.
func (p *Policy) Unknown(w World) (list []Remark, err error) {
	for _, n := range p.names {
		text, e := missing(w, n.word)
		if err = errors.Join(err, e); text != "" && len(list) < maxWarnings {
			list = append(list, Remark{n.line, n.column, text})
		}
	}
	return list, err
}

// Missing returns the warnings of Unknown by the selector, such as "user:eve".
func (p *Policy) Missing(w World) (map[string]string, error) {
	words := map[string]string{}
	for _, n := range p.names {
		text, err := missing(w, n.word)
		if err != nil {
			return nil, err
		}
		if text != "" {
			words[n.word] = text
		}
	}
	return words, nil
}

// missing returns the warning that a selector of a rule selects nothing, "" if it selects
// something.
func missing(w World, word string) (text string, err error) {
	kind, name, _ := strings.Cut(word, ":")
	there := true
	switch kind {
	case "user":
		_, there, err = w.User(name)
		text = fmt.Sprintf("there is no person %s: until there is, this selects nobody", quoted(name))
	case "group":
		there, err = w.Group(name)
		text = fmt.Sprintf("there is no group %s: until there is, this selects nobody", quoted(name))
	case "tag":
		var found []Subject
		found, err = w.Tagged(name)
		there = len(found) > 0
		text = fmt.Sprintf("no device carries the tag %s: until one does, this selects nothing", quoted(name))
	}
	if there {
		text = ""
	}
	return text, err
}

// maxWarnings bounds the warnings that Unknown returns.
const maxWarnings = 100
