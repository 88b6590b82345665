// Package policy decides which nodes may reach which. It is pure: it gets attributes and
// returns decisions, and uses no clock, no database and no goroutine.
//
// A policy is written as HuJSON: JSON with comments and commas at the end of lists. It
// is a list of rules; what no rule allows is denied. A rule lets the nodes that From
// selects reach the nodes that To selects at Ports.
//
//	From   "*", "user:NAME" (nodes of the user that carry no tag), "user:*"
//	       (nodes of any user that carry no tag; only to "self"),
//	       "group:NAME", "tag:NAME"
//	To     "*", "user:NAME", "group:NAME", "tag:NAME", and "self": nodes
//	       of the user whose node initiates, with or without tags
//	Ports  "*", or PROTO, PROTO:PORT, PROTO:FIRST-LAST with PROTO one of
//	       tcp, udp, icmp
//	AES    true: the rule lets only packets through that are encrypted
//	       with AES-256-GCM, and none encrypted with WireGuard's cipher
//
// A policy may also demand AES of all rules to some devices: its AES lists them, in the words
// of To, without "self". Each device checks what it lets in. A device of an earlier version,
// which does not know the demand, lets nothing in by such a rule.
//
// A tag never takes ownership away: "self" holds for a tagged node of the same
// owner. But a tagged node acts as its tags, not as its owner: it is not
// selected by "user:" or "self" as an initiator, so the starting policy lets
// it initiate nothing.
//
// Besides rules, a policy may have tests: who must and who must not reach which ports
// (expect.go). They run before the policy is put into force. And it may have tagOwners: which
// people, besides the network's admins, may give a tag to devices (tagowners.go).
//
//	parse.go       reading the text, and its mistakes by line and column
//	parse_text.go  mistakes that are found before the text is read as JSON
//	expect.go      running the tests, and warnings about unknown names
//	explain.go     whether one node may reach another, and by which rule
//	diff.go        how access differs between two policies
//	ports.go       sets of ports
//	compile.go     an index from selectors to the rules that name them
//	classes.go     which subjects reach which, through that index
//	reach.go       all nodes that one node reaches, and all that reach one
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
	// Suspended says that the user is suspended, or that the node has to be signed in again:
	// a node that acts as that user then reaches nothing. Others may still reach it.
	Suspended bool
}

// acts reports whether the node acts as its owner.
func (s Subject) acts() bool { return len(s.Tags) == 0 && s.User != "" }

// silent reports whether the node reaches nothing because it, or its owner, is suspended. A
// node with tags acts as its tags, so its owner does not matter.
func (s Subject) silent() bool { return s.Suspended && s.acts() }

// Policy is an immutable list of rules, and of tests of them.
type Policy struct {
	Rules []Rule   `json:"rules"`
	Tests []Test   `json:"tests,omitempty"`
	AES   []string `json:"aes,omitempty"` // devices to which all access demands AES
	// TagOwners lists, for each tag (without "tag:"), who may give it: "user:NAME",
	// "group:NAME", "role:NAME".
	TagOwners map[string][]string `json:"tagOwners,omitempty"`

	compiled compiled
	names    []place // of users, groups and tags, each once
}

// Rule lets From reach To at Ports.
type Rule struct {
	From  []string `json:"from"`
	To    []string `json:"to"`
	Ports []string `json:"ports"`
	AES   bool     `json:"aes,omitempty"` // lets only packets through that are encrypted with AES

	// Line is the line of the text on which the rule begins, from 1; 0 if there is no text.
	Line int `json:"-"`
}

// maxRuleText bounds the text of a rule where it is shown, in characters.
const maxRuleText = 300

// String returns the rule as one line of JSON, cut to maxRuleText.
func (r Rule) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		return "" // cannot happen: a rule has only texts and a bool
	}
	if text := []rune(string(b)); len(text) > maxRuleText {
		return string(text[:maxRuleText]) + "…"
	}
	return string(b)
}

// StartingText is the text of the policy of a new network: users reach their own devices, and
// tagged devices initiate nothing.
const StartingText = `// Who may reach whom. What no rule allows is denied.
{
  "rules": [
    // Users reach their own devices, with and without tags.
    {"from": ["user:*"], "to": ["self"], "ports": ["*"]},
  ],
}
`

var starting = sync.OnceValue(func() *Policy {
	p, err := parse(StartingText)
	if err != nil {
		panic(err) // the text is a constant: any test finds this
	}
	for i := range p.Rules {
		p.Rules[i].Line = 0 // no person wrote this text
	}
	return p
})

// Starting returns the policy of StartingText.
func Starting() *Policy { return starting() }

// check checks and compiles rules that were not read by Parse.
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

// check calls report for each mistake in a rule, with the list and the index of the word in
// it, -1 for the list as a whole. It returns the ports of the rule.
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

// quoted returns a word of a policy for an error text: in quotes, and cut to 80 characters.
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

// Reaches reports whether src may reach dst at any port. If so, src may also see dst in the
// directory.
func (p *Policy) Reaches(src, dst Subject) bool {
	from := p.compiled.rulesOf(src)
	if src.acts() && src.User == dst.User && from.meets(p.compiled.self) {
		return true
	}
	return from.meets(p.compiled.rulesTo(p.compiled.selectorsOf(dst)))
}

// Initiates reports whether a rule lets src reach some node, whether or not such a node
// exists now. If not, src needs no directory.
func (p *Policy) Initiates(src Subject) bool {
	from := p.compiled.rulesOf(src)
	return len(src.Tags) == 0 && !from.empty() || from.meets(p.compiled.direct)
}

// RulesFor returns the rules as dst enforces them: who may reach it, and at which ports.
// audience is one of this policy. The size of the result depends on the policy and on the
// people in its groups, never on the number of nodes. The rules share memory with the
// audience and must not be changed.
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

// aesOnly marks selectors so that they select only nodes that use AES.
func aesOnly(selectors []string) (list []string) {
	for _, s := range selectors {
		list = append(list, api.AESOnly+s)
	}
	return list
}
