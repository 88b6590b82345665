// Package policy decides who may reach whom. It is pure: attributes in,
// decisions out; no clock, no database, no goroutine.
//
// A policy is written as HuJSON: JSON with comments and commas at the end of lists. It
// is a list of rules; what no rule allows is denied. A rule lets the nodes that From
// selects reach the nodes that To selects at Ports.
//
//	From   "*", "user:NAME" (nodes of the user that carry no tag), "user:*"
//	       (nodes of any user that carry no tag; only to "self"),
//	       "group:NAME", "tag:NAME"
//	To     "*", "user:NAME", "group:NAME", "tag:NAME", and "self": nodes
//	       owned by the user who initiates, with or without tags
//	Ports  "*", or PROTO, PROTO:PORT, PROTO:FIRST-LAST with PROTO one of
//	       tcp, udp, icmp
//	AES    true: the rule lets packets through that are encrypted with
//	       AES-256-GCM, and none of WireGuard
//
// A policy may demand AES of all rules to some devices besides: its AES lists them, as To
// does without "self". What a device lets in is checked there. A device of an earlier
// version, which does not know the demand, lets nothing in by such a rule.
//
// A tag never takes ownership away: "self" holds for a tagged node of the same
// owner. But a tagged node acts as its tags, not as its owner: it is not
// selected by "user:" or "self" as an initiator, so the starting policy lets
// it initiate nothing.
//
// Besides rules, a policy may have tests: who must and who must not reach which ports
// (expect.go). They run before the policy is put into force. And it may have tagOwners: who,
// beside the network's admins, may give a tag to devices (tagowners.go).
//
//	parse.go       reading the text, and its mistakes by line and column
//	parse_text.go  mistakes that are found before the text is read as JSON
//	expect.go      running the tests, and warnings about unknown names
//	explain.go     may one reach another, and by which rule
//	diff.go        who gains and who loses access between two policies
//	ports.go       sets of ports
//	compile.go     an index from selectors to the rules that name them
//	classes.go     which subjects reach which, through that index
//	reach.go       all that one reaches, and all who reach one
//	tagowners.go   who may give which tag
//	people.go      who is in a group, who is suspended, and whose devices are overdue: what
//	               rules say to nodes
package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Bounds of a policy text.
const (
	MaxText  = 256 << 10
	maxRules = 1000
	maxTests = 1000
	maxWords = 200 // selectors, ports or targets in one list
)

// Subject has the attributes of a node that policy depends on.
type Subject struct {
	User   string
	Groups []string // of the user
	Tags   []string
	// Suspended says that the user is, or that the node has to be signed in again: if it acts
	// as that user, it reaches nothing. Who may reach it still does.
	Suspended bool
}

// acts reports whether the node acts as its owner.
func (s Subject) acts() bool { return len(s.Tags) == 0 && s.User != "" }

// silent reports whether the node reaches nothing because it or its owner may not. One with
// tags acts as those, whoever joined it.
func (s Subject) silent() bool { return s.Suspended && s.acts() }

// Policy is an immutable list of rules, and of tests of them.
type Policy struct {
	Rules []Rule   `json:"rules"`
	Tests []Test   `json:"tests,omitempty"`
	AES   []string `json:"aes,omitempty"` // devices that are reached with AES alone
	// TagOwners has, by tag without "tag:", who may give it: "user:NAME", "group:NAME",
	// "role:NAME".
	TagOwners map[string][]string `json:"tagOwners,omitempty"`

	compiled compiled
	names    []place // of users, groups and tags, each once
}

// Rule lets From reach To at Ports.
type Rule struct {
	From  []string `json:"from"`
	To    []string `json:"to"`
	Ports []string `json:"ports"`
	AES   bool     `json:"aes,omitempty"` // nothing passes without AES

	// Line is where the rule begins in the text, from 1; 0 for one without a text.
	Line int `json:"-"`
}

// maxRuleText is how much of a rule is shown, in characters.
const maxRuleText = 300

// String is the rule on one line, cut if it is long.
func (r Rule) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		return "" // it consists of texts
	}
	if text := []rune(string(b)); len(text) > maxRuleText {
		return string(text[:maxRuleText]) + "…"
	}
	return string(b)
}

// StartingText is the policy of a new network as it would be written: a user reaches that
// user's own devices, and tagged devices initiate nothing.
const StartingText = `// Who may reach whom. What no rule allows is denied.
{
  "rules": [
    // Everybody reaches the own devices, with and without tags.
    {"from": ["user:*"], "to": ["self"], "ports": ["*"]},
  ],
}
`

var starting = sync.OnceValue(func() *Policy {
	p, err := parse(StartingText)
	if err != nil {
		panic(err) // a constant: seen by the first test
	}
	for i := range p.Rules {
		p.Rules[i].Line = 0 // it is nobody's text
	}
	return p
})

// Starting returns the policy of StartingText.
func Starting() *Policy { return starting() }

// check checks and compiles rules that came without a text.
func (p *Policy) check() (err error) {
	ports := make([][]api.PortRange, len(p.Rules))
	if len(p.Rules) > maxRules {
		return fmt.Errorf("%d rules, at most %d", len(p.Rules), maxRules)
	}
	for i, r := range p.Rules {
		ports[i] = r.check(func(_ string, _ int, text string) {
			if err == nil {
				err = fmt.Errorf("rule %d: %s", i+1, text)
			}
		})
	}
	if err == nil {
		p.compiled = compile(p.Rules, ports, p.AES)
	}
	return err
}

// check reports what is wrong with a rule: in which list, and at which of its words, -1
// for the list. It returns the ports.
func (r Rule) check(report func(list string, word int, text string)) (ports []api.PortRange) {
	for _, l := range []struct {
		name string
		list []string
	}{{"from", r.From}, {"to", r.To}, {"ports", r.Ports}} {
		switch {
		case len(l.list) == 0:
			report(l.name, -1, "from, to and ports must each name something")
		case len(l.list) > maxWords:
			report(l.name, -1, fmt.Sprintf("more than %d entries in one list", maxWords))
		}
	}
	for i, s := range r.From {
		switch {
		case !validSelector(s) && s != "user:*":
			report("from", i, fmt.Sprintf("from %s: want *, user:NAME, user:*, group:NAME or tag:NAME", quoted(s)))
		case s == "user:*" && !slices.Equal(r.To, []string{"self"}):
			report("from", i, `from "user:*" goes with to "self" alone`)
		}
	}
	for i, s := range r.To {
		if s != "self" && !validSelector(s) {
			report("to", i, fmt.Sprintf("to %s: want self, *, user:NAME, group:NAME or tag:NAME", quoted(s)))
		}
	}
	for i, s := range r.Ports {
		pr, err := parsePorts(s)
		if err != nil {
			report("ports", i, err.Error())
		}
		ports = append(ports, pr)
	}
	return ports
}

// quoted is a word of a policy in an error.
func quoted(s string) string {
	if r := []rune(s); len(r) > 80 {
		s = string(r[:80]) + "…"
	}
	return strconv.Quote(s)
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
	bad := fmt.Errorf("ports %s: want *, or tcp, udp or icmp, with :PORT or :FIRST-LAST for tcp and udp", quoted(s))
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
	from := p.compiled.rulesOf(src)
	if src.acts() && src.User == dst.User && from.meets(p.compiled.self) {
		return true
	}
	return from.meets(p.compiled.rulesTo(p.compiled.selectorsOf(dst)))
}

// Initiates reports whether src may reach anybody, if only there were the
// right node: then it makes sense for src to hold the directory.
func (p *Policy) Initiates(src Subject) bool {
	from := p.compiled.rulesOf(src)
	return len(src.Tags) == 0 && !from.empty() || from.meets(p.compiled.direct)
}

// RulesFor returns the rules as dst enforces them: who may reach it, where. audience is of
// this policy. The result's size depends on the policy and the people that its groups
// stand for, never on the number of nodes. Rules share what they hold with the audience: it
// must not be changed.
func (p *Policy) RulesFor(dst Subject, audience *Audience) []api.Rule {
	rules := []api.Rule{}
	selectors := p.compiled.selectorsOf(dst)
	direct, aes := p.compiled.rulesTo(selectors), p.compiled.demandsAES(selectors)
	for i, r := range p.compiled.rules {
		self := r.self && dst.User != ""
		from := audience.from[i]
		switch {
		case self:
			from = audience.selfFrom(r.words, from, dst, direct.Has(i))
		case !direct.Has(i):
			continue
		}
		if aes || r.aes {
			from = aesOnly(from)
		}
		if len(from) > 0 {
			rules = append(rules, api.Rule{From: from, Ports: r.ports})
		}
	}
	return rules
}

// aesOnly returns selectors that select nobody without AES.
func aesOnly(selectors []string) (list []string) {
	for _, s := range selectors {
		list = append(list, api.AESOnly+s)
	}
	return list
}
