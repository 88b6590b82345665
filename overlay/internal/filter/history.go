package filter

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// The record of the ports that were open. It identifies flows that the peer began for as
// long as they may last, without a table that others could fill.
//
// If a port was ever open, a packet from it begins nothing. Two exceptions keep our own
// programs working after a rule for nearly all ports was narrowed. First, TCP marks
// beginnings itself. Second, for UDP client ports it is recorded which ones the peer has
// used: from the others we may begin, if only rules for more than wideRule ports have
// opened them.

// clients are the client ports: those that some system gives to programs that ask for
// none. gVisor uses 16000 and above, Linux 32768 to 60999, BSD and Windows 49152 and
// above.
var clients = span{16000, 65535}

const (
	// A range of more ports than this is not meant for one service.
	wideRule = 4096
	// The most ranges of one kind in a History.
	maxSpans = 64
)

// History records what was ever open to a peer, for the next filter of the peer. If there
// are more than 64 ranges of a kind, those with the smallest gaps are joined, so it may
// have too much but never too little. The zero History is empty.
type History struct {
	Every bool        `json:"every,omitempty"` // protocols without ports
	TCP   [][2]uint16 `json:"tcp,omitempty"`   // first and last; client ports only
	UDP   [][2]uint16 `json:"udp,omitempty"`
	Used  [][2]uint16 `json:"used,omitempty"` // UDP client ports on which the peer was let in
}

// With returns the union of p and q.
func (p History) With(q History) History {
	join := func(a, b [][2]uint16) [][2]uint16 { return fromSpans(append(toSpans(a), toSpans(b)...)) }
	return History{p.Every || q.Every, join(p.TCP, q.TCP), join(p.UDP, q.UDP), join(p.Used, q.Used)}
}

// Covers reports whether p contains everything in q.
func (p History) Covers(q History) bool {
	in := func(a, b [][2]uint16) bool { return covers(merge(toSpans(a)), merge(toSpans(b))) }
	return (p.Every || !q.Every) && in(p.TCP, q.TCP) && in(p.UDP, q.UDP) && in(p.Used, q.Used)
}

func toSpans(list [][2]uint16) []span {
	out := make([]span, 0, len(list))
	for _, r := range list {
		if r[0] <= r[1] {
			out = append(out, span{r[0], r[1]})
		}
	}
	return out
}

func fromSpans(spans []span) [][2]uint16 {
	var out [][2]uint16
	for _, s := range fewer(merge(slices.Clone(spans)), maxSpans) {
		out = append(out, [2]uint16{s.first, s.last})
	}
	return out
}

// fewer joins merged spans across their smallest gaps until at most limit are left. Equal
// gaps are joined together.
func fewer(spans []span, limit int) []span {
	if len(spans) <= limit {
		return spans
	}
	gaps := make([]int, 0, len(spans))
	for i := range spans[1:] {
		gaps = append(gaps, int(spans[i+1].first)-int(spans[i].last))
	}
	slices.Sort(gaps)
	smallest := gaps[len(spans)-limit-1]
	out := spans[:1]
	for _, s := range spans[1:] {
		if last := &out[len(out)-1]; int(s.first)-int(last.last) <= smallest {
			last.last = s.last
			continue
		}
		out = append(out, s)
	}
	return out
}

// covers reports whether each span of b lies in one of a. Both must be merged.
func covers(a, b []span) bool {
	for _, s := range b {
		if in, ok := find(a, s.first); !ok || in.last < s.last {
			return false
		}
	}
	return true
}

// clip returns the parts of merged spans that lie in s.
func clip(spans []span, s span) (out []span) {
	for _, r := range spans {
		if r.last >= s.first && r.first <= s.last {
			out = append(out, span{max(r.first, s.first), min(r.last, s.last)})
		}
	}
	return out
}

// portSet is a set of ports that only grows.
type portSet struct {
	n    atomic.Uint32 // ports in it
	bits [1 << 16 / 64]atomic.Uint64
}

func (s *portSet) has(port uint16) bool {
	return s != nil && s.bits[port/64].Load()&(1<<(port%64)) != 0
}

func (s *portSet) add(port uint16) {
	if bit := uint64(1) << (port % 64); s.bits[port/64].Load()&bit == 0 && s.bits[port/64].Or(bit)&bit == 0 {
		s.n.Add(1)
	}
}

func (s *portSet) spans() (out []span) {
	if s == nil {
		return nil
	}
	for i := range s.bits {
		for word := s.bits[i].Load(); word != 0; word &= word - 1 {
			port := uint16(i*64 + bits.TrailingZeros64(word))
			out = append(out, span{port, port})
		}
	}
	return merge(out)
}

// AddPorts records that ports may have been open to the peer, as SetPorts does, and
// reports whether that was new. It opens nothing.
func (p *Peer) AddPorts(ports *Ports) (news bool) {
	if ports == nil || !ports.every && len(ports.tcp) == 0 && len(ports.udp) == 0 {
		return false
	}
	for {
		once := p.once.Load()
		if once != nil && (once.every || !ports.every) && covers(once.tcp, ports.tcp) && covers(once.udp, ports.udp) {
			return false
		}
		all := &Ports{every: ports.every, tcp: slices.Clone(ports.tcp), udp: slices.Clone(ports.udp)}
		if once != nil {
			all.every = all.every || once.every
			all.tcp, all.udp = append(all.tcp, once.tcp...), append(all.udp, once.udp...)
		}
		all.tcp, all.udp = fewer(merge(all.tcp), maxSpans), fewer(merge(all.udp), maxSpans)
		if p.once.CompareAndSwap(once, all) {
			return true
		}
	}
}

// History returns what was ever open to the peer.
func (p *Peer) History() History {
	past := History{Used: fromSpans(p.used.Load().spans())}
	if once := p.once.Load(); once != nil {
		past.Every = once.every
		past.TCP, past.UDP = fromSpans(clip(once.tcp, clients)), fromSpans(once.udp)
	}
	return past
}

// AddHistory adds what was open to the peer before the filter was made.
func (p *Peer) AddHistory(past History) {
	p.AddPorts(&Ports{every: past.Every, tcp: merge(toSpans(past.TCP)), udp: merge(toSpans(past.UDP))})
	for _, s := range toSpans(past.Used) {
		for port := int(s.first); port <= int(s.last); port++ {
			p.use(uint16(port))
		}
	}
}

// Used returns how many UDP ports were added to History().Used.
func (p *Peer) Used() uint32 {
	if used := p.used.Load(); used != nil {
		return used.n.Load()
	}
	return 0
}

// use records that the peer was let in on a UDP client port.
func (p *Peer) use(port uint16) {
	used := p.used.Load()
	if used == nil {
		p.used.CompareAndSwap(nil, new(portSet))
		used = p.used.Load()
	}
	used.add(port)
}

// begins reports whether a packet of ours that belongs to no known flow begins one, so
// that its answers are let in. TCP marks beginnings; a packet in the middle of a
// connection begins one only in a filter that adopts.
func (p *Peer) begins(h *header, now int64) bool {
	once := p.once.Load()
	switch h.proto {
	case protoTCP:
		// A packet with SYN or RST answers a packet of the peer.
		return now < p.adoptUntil && h.tcpFlags&(tcpSYN|tcpRST) == 0 &&
			p.adopt.has(h.srcPort) && !once.allows(protoTCP, h.srcPort)
	case protoUDP:
		return !p.visited(h.srcPort)
	}
	return !once.allows(h.proto, 0)
}

// visited reports whether the peer was, or may have been, let in on a UDP port.
func (p *Peer) visited(port uint16) bool {
	if once := p.once.Load(); once != nil {
		s, opened := find(once.udp, port)
		if opened && (int(s.last)-int(s.first) < wideRule || !clients.has(port)) {
			return true
		}
	}
	return p.used.Load().has(port)
}
