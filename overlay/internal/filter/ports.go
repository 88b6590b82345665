package filter

import (
	"slices"
	"sort"
	"strings"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Ports is the immutable set of protocols and ports that policy opens to one
// peer. A nil *Ports is empty.
type Ports struct {
	every    bool // every protocol, with or without ports
	icmp     bool // echo requests
	tcp, udp []span
}

// span is a range of ports, both ends included.
type span struct{ first, last uint16 }

func (s span) has(port uint16) bool { return s.first <= port && port <= s.last }

// Terms are what rules ask of a peer beside its certificate.
type Terms struct {
	AES     bool // packets between both nodes are encrypted with AES
	Overdue bool // it has to be signed in again
}

// Compile returns what rules open to the node of a certificate. The sources of a rule are
// "*", "user:NAME" and "group:NAME" (nodes that act as that user or as a member of that
// group, so not those with tags) and "tag:NAME"; each after api.AESOnly if it grants
// nothing without AES, and after api.NotOverdue if it grants nothing to an overdue node.
// Unknown sources, protocols and ranges grant nothing.
func Compile(rules []api.Rule, peer *cert.Node, is Terms) *Ports {
	p := &Ports{}
	for _, rule := range rules {
		if !slices.ContainsFunc(rule.From, func(sel string) bool { return selects(sel, peer, is) }) {
			continue
		}
		for _, r := range rule.Ports {
			p.add(r)
		}
	}
	p.tcp, p.udp = merge(p.tcp), merge(p.udp)
	return p
}

func selects(selector string, peer *cert.Node, is Terms) bool {
	if is.AES {
		selector = strings.TrimPrefix(selector, api.AESOnly)
	}
	if !is.Overdue {
		selector = strings.TrimPrefix(selector, api.NotOverdue)
	}
	if selector == "*" {
		return true
	}
	what, name, ok := strings.Cut(selector, ":")
	if !ok || name == "" {
		return false
	}
	switch what {
	case "user":
		return len(peer.Tags) == 0 && peer.User == name
	case "group":
		return len(peer.Tags) == 0 && slices.Contains(peer.Groups, name)
	case "tag":
		return slices.Contains(peer.Tags, name)
	}
	return false
}

func (p *Ports) add(r api.PortRange) {
	if r.First > r.Last {
		return
	}
	s := span{r.First, r.Last}
	switch r.Proto {
	case "tcp":
		p.tcp = append(p.tcp, s)
	case "udp":
		p.udp = append(p.udp, s)
	case "icmp":
		p.icmp = true
	case "*":
		p.tcp = append(p.tcp, s)
		p.udp = append(p.udp, s)
		if s == (span{0, 65535}) {
			p.icmp, p.every = true, true
		}
	}
}

// merge sorts spans and joins those that touch.
func merge(spans []span) []span {
	sort.Slice(spans, func(i, j int) bool { return spans[i].first < spans[j].first })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && int(s.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return slices.Clip(out)
}

// Any reports whether anything at all is open to the peer.
func (p *Ports) Any() bool {
	return p != nil && (p.every || p.icmp || len(p.tcp) > 0 || len(p.udp) > 0)
}

func (p *Ports) allowsICMP() bool { return p != nil && p.icmp }

// allows reports whether the peer may send to a port of this node; for a
// protocol without ports, port is 0.
func (p *Ports) allows(proto uint8, port uint16) bool {
	if p == nil {
		return false
	}
	spans := p.udp
	switch proto {
	case protoTCP:
		spans = p.tcp
	case protoUDP:
	default:
		return p.every
	}
	_, ok := find(spans, port)
	return ok
}

// find returns the one of merged spans that contains port.
func find(spans []span, port uint16) (s span, ok bool) {
	// Find the last span that starts at or before port.
	lo, hi := 0, len(spans)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if spans[mid].first <= port {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 || port > spans[lo-1].last {
		return span{}, false
	}
	return spans[lo-1], true
}
