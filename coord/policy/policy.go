// Package policy decides who may reach whom. It is pure: attributes in,
// decisions out; no clock, no database, no goroutine.
//
// A policy is a list of rules; what no rule allows is denied. A rule lets the
// nodes that From selects reach the nodes that To selects at Ports.
//
//	From   "*", "user:NAME" (nodes of the user that carry no tag), "user:*"
//	       (nodes of any user that carry no tag; only to "self"),
//	       "group:NAME", "tag:NAME"
//	To     "*", "user:NAME", "group:NAME", "tag:NAME", and "self": nodes
//	       owned by the user who initiates, with or without tags
//	Ports  "*", or PROTO, PROTO:PORT, PROTO:FIRST-LAST with PROTO one of
//	       tcp, udp, icmp
//
// A tag never takes ownership away: "self" holds for a tagged node of the same
// owner. But a tagged node acts as its tags, not as its owner: it is not
// selected by "user:" or "self" as an initiator, so the starting policy lets
// it initiate nothing.
//
// Questions are answered from the policy turned round: from the selectors that
// select a subject to the rules that name them (compile.go), and on to the
// subjects that those rules' other side selects (classes.go).
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Bounds of a policy text.
const (
	MaxText  = 256 << 10
	maxRules = 1000
	maxWords = 200 // selectors or ports per rule
)

// Subject is what policy looks at in a node.
type Subject struct {
	User   string
	Groups []string // of the user
	Tags   []string
}

// acts reports whether the node acts as its owner.
func (s Subject) acts() bool { return len(s.Tags) == 0 && s.User != "" }

// Policy is an immutable list of rules.
type Policy struct {
	Rules []Rule `json:"rules"`

	compiled compiled
}

// Rule lets From reach To at Ports.
type Rule struct {
	From  []string `json:"from"`
	To    []string `json:"to"`
	Ports []string `json:"ports"`
}

// Starting returns the policy of a new network: a user reaches that user's
// own devices, and tagged devices initiate nothing.
func Starting() *Policy {
	p := &Policy{Rules: []Rule{{From: []string{"user:*"}, To: []string{"self"}, Ports: []string{"*"}}}}
	if err := p.check(); err != nil {
		panic(err) // a constant: seen by the first test
	}
	return p
}

// Parse reads a policy from JSON; "" is the starting policy. Unknown fields
// and selectors are errors: a misspelt rule must not silently allow or deny.
func Parse(text string) (*Policy, error) {
	if text == "" {
		return Starting(), nil
	}
	if len(text) > MaxText {
		return nil, fmt.Errorf("parse policy: %d bytes, at most %d", len(text), MaxText)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	p := &Policy{}
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("parse policy: %s", words(err, text))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("parse policy: more text behind it")
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("parse policy: %w", err)
	}
	return p, nil
}

// words say what is wrong with the JSON of a policy, and where.
func words(err error, text string) string {
	line := func(offset int64) int { return 1 + strings.Count(text[:min(max(int(offset), 0), len(text))], "\n") }
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("line %d: this is not JSON", line(syntax.Offset))
	case errors.As(err, &kind):
		return fmt.Sprintf("line %d: %s cannot stand here", line(kind.Offset), kind.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early: a bracket is missing"
	}
	return strings.TrimPrefix(err.Error(), "json: ") // of an unknown field
}

func (p *Policy) check() error {
	if len(p.Rules) > maxRules {
		return fmt.Errorf("%d rules, at most %d", len(p.Rules), maxRules)
	}
	ports := make([][]api.PortRange, len(p.Rules))
	for i, r := range p.Rules {
		if len(r.From) == 0 || len(r.To) == 0 || len(r.Ports) == 0 {
			return fmt.Errorf("rule %d: from, to and ports must each name something", i+1)
		}
		if max(len(r.From), len(r.To), len(r.Ports)) > maxWords {
			return fmt.Errorf("rule %d: more than %d entries in one list", i+1, maxWords)
		}
		for _, s := range r.From {
			if !validSelector(s) && s != "user:*" {
				return fmt.Errorf("rule %d: from %q: want *, user:NAME, user:*, group:NAME or tag:NAME", i+1, s)
			}
			if s == "user:*" && !slices.Equal(r.To, []string{"self"}) {
				return fmt.Errorf("rule %d: from \"user:*\" goes with to \"self\" alone", i+1)
			}
		}
		for _, s := range r.To {
			if s != "self" && !validSelector(s) {
				return fmt.Errorf("rule %d: to %q: want self, *, user:NAME, group:NAME or tag:NAME", i+1, s)
			}
		}
		for _, s := range r.Ports {
			pr, err := parsePorts(s)
			if err != nil {
				return fmt.Errorf("rule %d: %w", i+1, err)
			}
			ports[i] = append(ports[i], pr)
		}
	}
	p.compiled = compile(p.Rules, ports)
	return nil
}

func validSelector(s string) bool {
	if s == "*" {
		return true
	}
	kind, name, ok := strings.Cut(s, ":")
	return ok && (kind == "user" || kind == "group" || kind == "tag") && cert.ValidWord(name)
}

func parsePorts(s string) (api.PortRange, error) {
	if s == "*" {
		return api.PortRange{Proto: "*", First: 0, Last: 65535}, nil
	}
	bad := fmt.Errorf("ports %q: want *, or tcp, udp or icmp, with :PORT or :FIRST-LAST for tcp and udp", s)
	proto, ports, some := strings.Cut(s, ":")
	if proto != "tcp" && proto != "udp" && proto != "icmp" || some && proto == "icmp" {
		return api.PortRange{}, bad
	}
	if !some {
		return api.PortRange{Proto: proto, First: 0, Last: 65535}, nil
	}
	a, b, two := strings.Cut(ports, "-")
	if !two {
		b = a
	}
	first, err1 := strconv.ParseUint(a, 10, 16)
	last, err2 := strconv.ParseUint(b, 10, 16)
	if err1 != nil || err2 != nil || first > last {
		return api.PortRange{}, bad
	}
	return api.PortRange{Proto: proto, First: uint16(first), Last: uint16(last)}, nil
}

// Reaches reports whether src may reach dst at any port: then src may also
// see dst in the directory.
func (p *Policy) Reaches(src, dst Subject) bool {
	from := p.compiled.rulesFrom(p.compiled.selectorsOf(src))
	if src.acts() && src.User == dst.User && from.meets(p.compiled.self) {
		return true
	}
	return from.meets(p.compiled.rulesTo(p.compiled.selectorsOf(dst)))
}

// Initiates reports whether src may reach anybody, if only there were the
// right node: then it makes sense for src to hold the directory.
func (p *Policy) Initiates(src Subject) bool {
	from := p.compiled.rulesFrom(p.compiled.selectorsOf(src))
	return len(src.Tags) == 0 && !from.empty() || from.meets(p.compiled.direct)
}

// RulesFor returns the rules as dst enforces them: who may reach it, where.
// The result's size depends on the policy, never on the number of nodes. Rules
// share what they hold with the policy: it must not be changed.
func (p *Policy) RulesFor(dst Subject) []api.Rule {
	rules := []api.Rule{}
	direct := p.compiled.rulesTo(p.compiled.selectorsOf(dst))
	for i, r := range p.compiled.rules {
		self := r.self && dst.User != ""
		from := r.words
		switch {
		case self:
			from = selfFrom(r.words, dst, direct.Has(i))
		case !direct.Has(i):
			continue
		}
		if len(from) > 0 {
			rules = append(rules, api.Rule{From: from, Ports: r.ports})
		}
	}
	return rules
}

// selfFrom returns who of from reaches dst by a rule to "self": its owner; and
// everybody else too if the rule names dst besides.
func selfFrom(from []string, dst Subject, direct bool) (list []string) {
	add := func(s string) {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	own := "user:" + dst.User
	for _, s := range from {
		if direct {
			add(s)
		}
		if s == "*" || s == "user:*" || s == own || strings.HasPrefix(s, "group:") && slices.Contains(dst.Groups, s[len("group:"):]) {
			add(own)
		}
	}
	return list
}
