package policy

import (
	"fmt"
	"slices"
	"strings"

	"weft/overlay/api"
)

// ports is a set of ports.
type ports struct {
	tcp, udp []span // sorted; no two touch
	icmp     bool
	other    bool // protocols without ports
}

// span is a range of ports, both ends included.
type span struct{ first, last int }

var anyPort = []span{{0, 65535}}

// add adds the ports that a rule opens.
func (p *ports) add(r api.PortRange) {
	s := span{int(r.First), int(r.Last)}
	switch r.Proto {
	case "tcp":
		p.tcp = merged(append(p.tcp, s))
	case "udp":
		p.udp = merged(append(p.udp, s))
	case "icmp":
		p.icmp = true
	case "*":
		*p = ports{anyPort, anyPort, true, true}
	}
}

// merged sorts spans and joins those that touch.
func merged(spans []span) (out []span) {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return a.first - b.first })
	for _, s := range spans {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// without returns the ports that are in p and not in o.
func (p ports) without(o ports) ports {
	return ports{apart(p.tcp, o.tcp), apart(p.udp, o.udp), p.icmp && !o.icmp, p.other && !o.other}
}

func apart(spans, from []span) (out []span) {
	for _, s := range spans {
		for _, f := range from {
			if f.last < s.first || f.first > s.last {
				continue
			}
			if f.first > s.first {
				out = append(out, span{s.first, f.first - 1})
			}
			s.first = f.last + 1
		}
		if s.first <= s.last {
			out = append(out, s)
		}
	}
	return out
}

// has reports whether a port is in the set; for icmp, port is ignored.
func (p ports) has(proto string, port uint16) bool {
	in := func(spans []span) bool {
		return slices.ContainsFunc(spans, func(s span) bool { return s.first <= int(port) && int(port) <= s.last })
	}
	switch proto {
	case "tcp":
		return in(p.tcp)
	case "udp":
		return in(p.udp)
	case "icmp":
		return p.icmp
	}
	return false
}

// String returns the set in the words of a rule, separated by ", "; "" for none.
func (p ports) String() string {
	var words []string
	all := func(spans []span) bool { return slices.Equal(spans, anyPort) }
	if all(p.tcp) && all(p.udp) && p.icmp && p.other {
		return "*"
	}
	for _, l := range []struct {
		proto string
		spans []span
	}{{"tcp", p.tcp}, {"udp", p.udp}} {
		for _, s := range l.spans {
			switch {
			case s == anyPort[0]:
				words = append(words, l.proto)
			case s.first == 0 && s.last > 0: // nothing listens on port 0
				words = append(words, portWords(l.proto, 1, s.last))
			default:
				words = append(words, portWords(l.proto, s.first, s.last))
			}
		}
	}
	if p.icmp {
		words = append(words, "icmp")
	}
	if p.other {
		words = append(words, "other protocols")
	}
	return strings.Join(words, ", ")
}

func portWords(proto string, first, last int) string {
	if first == last {
		return fmt.Sprintf("%s:%d", proto, first)
	}
	return fmt.Sprintf("%s:%d-%d", proto, first, last)
}
