package policy

import (
	"fmt"
	"strconv"
	"strings"

	"weft/overlay/cert"
)

// Target is a destination: one port of the devices that Who names.
type Target struct {
	Who   string // a device's name, address or id; or tag:NAME, user:NAME
	Proto string // tcp, udp, icmp
	Port  uint16 // 0 for icmp
}

// String returns the target in the form that ParseTarget reads.
func (t Target) String() string {
	who := t.Who
	if strings.Contains(who, ":") && !named(who) {
		who = "[" + who + "]"
	}
	switch t.Proto {
	case "tcp":
		return fmt.Sprintf("%s:%d", who, t.Port)
	case "icmp":
		return who + "/icmp"
	}
	return fmt.Sprintf("%s:%d/%s", who, t.Port, t.Proto)
}

// ParseTarget reads WHO:PORT, WHO:PORT/udp or WHO/icmp; an IPv6 address as WHO is in
// brackets. proto, if not "", is the protocol of a word that names none.
func ParseTarget(s, proto string) (Target, error) {
	bad := fmt.Errorf("%s: want DEVICE:PORT, such as kitchen-pi:22, kitchen-pi:53/udp or kitchen-pi/icmp", quoted(s))
	t := Target{Proto: proto}
	if proto == "" {
		t.Proto = "tcp"
	}
	rest, said, some := s, "", false
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		rest, said, some = s[:i], s[i+1:], true
	}
	if some {
		t.Proto = said
	}
	if !validProto(t.Proto) {
		return Target{}, bad
	}
	t.Who = rest
	if i := strings.LastIndexByte(rest, ':'); t.Proto != "icmp" {
		if i < 0 {
			return Target{}, bad
		}
		n, err := strconv.ParseUint(rest[i+1:], 10, 16)
		if err != nil || n == 0 {
			return Target{}, bad
		}
		t.Who, t.Port = rest[:i], uint16(n)
	}
	if inner, ok := strings.CutPrefix(t.Who, "["); ok {
		if t.Who, ok = strings.CutSuffix(inner, "]"); !ok {
			return Target{}, bad
		}
	} else if strings.Contains(t.Who, ":") && !named(t.Who) {
		return Target{}, bad
	}
	if !validWho(t.Who) || strings.HasPrefix(t.Who, "group:") {
		return Target{}, bad
	}
	return t, nil
}

func validProto(s string) bool { return s == "tcp" || s == "udp" || s == "icmp" }

// named reports whether a word begins with its kind, such as "user:".
func named(s string) bool {
	return strings.HasPrefix(s, "user:") || strings.HasPrefix(s, "tag:") || strings.HasPrefix(s, "group:") || strings.HasPrefix(s, "device:")
}

// validWho reports whether a word may name people or devices in tests and queries.
func validWho(s string) bool {
	if kind, name, ok := strings.Cut(s, ":"); ok && named(s) && kind != "device" {
		return cert.ValidWord(name)
	}
	return s != "" && len(s) <= 253 && !strings.ContainsAny(s, " \t\r\n*/\"")
}

// Decision says whether one node may reach another, and why.
type Decision struct {
	Allowed bool   `json:"allowed"`
	Rule    int    `json:"rule"` // the rule that allows it, from 1; 0 if none does
	Line    int    `json:"line"` // of that rule, from 1; 0 if there is no rule or no text
	Text    string `json:"text"` // of that rule
	AES     bool   `json:"aes"`  // it is allowed with AES only, so both nodes must be able to use AES
	// Open lists the ports of dst that all rules together open to src, in the words of a
	// rule; "" for none.
	Open string `json:"open"`
}

// Why returns the reason in words.
func (d Decision) Why() string {
	if d.AES {
		return d.why() + "; with AES alone"
	}
	return d.why()
}

func (d Decision) why() string {
	switch {
	case d.Rule > 0 && d.Line > 0:
		return fmt.Sprintf("by rule %d in line %d: %s", d.Rule, d.Line, d.Text)
	case d.Rule > 0:
		return fmt.Sprintf("by rule %d: %s", d.Rule, d.Text)
	case d.Open != "":
		return "no rule allows it; what the rules let through is " + cut(d.Open)
	}
	return "no rule allows it"
}

func cut(s string) string {
	if len(s) > maxRuleText { // ports: ASCII
		return s[:maxRuleText] + "…"
	}
	return s
}

// Explain decides whether src may reach a port of dst. If several rules allow it, the
// decision names the first. For icmp, port is ignored.
func (p *Policy) Explain(src, dst Subject, proto string, port uint16) Decision {
	var d Decision
	var open ports
	aes, plain := p.compiled.demandsAES(p.compiled.selectorsOf(dst)), false
	for i := range p.compiled.between(src, dst).All() {
		var here ports
		for _, r := range p.compiled.rules[i].ports {
			here.add(r)
			open.add(r)
		}
		if !here.has(proto, port) {
			continue
		}
		plain = plain || !aes && !p.compiled.rules[i].aes
		if !d.Allowed {
			d.Allowed, d.Rule, d.Line, d.Text = true, i+1, p.Rules[i].Line, p.Rules[i].String()
		}
	}
	d.AES = d.Allowed && !plain
	d.Open = open.String()
	return d
}

// opening returns the rules that open a port, for any source and destination.
func (c *compiled) opening(proto string, port uint16) Set {
	s := newSet(len(c.rules))
	for i := range c.rules {
		for _, r := range c.rules[i].ports {
			if (r.Proto == "*" || r.Proto == proto) && (proto == "icmp" || r.First <= port && port <= r.Last) {
				s.add(i)
				break
			}
		}
	}
	return s
}

// lets is Explain without the reason: it reports whether one rule names the source in From
// (from), the destination in To (to), and opens the port (open). own says that both have the
// same owner.
func (c *compiled) lets(from, to, open Set, own bool) bool {
	for i, word := range to {
		if own {
			word |= c.self[i]
		}
		if word&from[i]&open[i] != 0 {
			return true
		}
	}
	return false
}

// between returns the rules that let src reach dst at some port.
func (c *compiled) between(src, dst Subject) Set {
	from, to := c.rulesOf(src), c.rulesTo(c.selectorsOf(dst))
	own := src.acts() && src.User == dst.User
	for i := range from {
		if own {
			to[i] |= c.self[i]
		}
		from[i] &= to[i]
	}
	return from
}
