package gather

import (
	"net/netip"
	"slices"
	"time"

	"weft/overlay/internal/path"
	"weft/overlay/portmap"
)

// MaxCandidates bounds Snapshot.Candidates.
const MaxCandidates = 32

// Snapshot is what a Gatherer has found. It is immutable.
type Snapshot struct {
	// Candidates are at most MaxCandidates different ones: manual, mapped, STUN, then
	// host addresses, the best first.
	Candidates []path.Candidate
	IPv4, IPv6 Family
	// PortMap is the zero value when the gateway is not asked.
	PortMap portmap.Status
	// Answers are the STUN requests of the last round, for netcheck.
	Answers []Answer
	// Started is when the last round started, zero before the first. Complete is set once
	// it has ended.
	Started  time.Time
	Complete bool

	round uint64 // number of the round
}

// Family is what was found for one address family.
type Family struct {
	Mapping path.Mapping
	// Local: this machine has an address of the family beyond link-local.
	Local bool
	// UDP: a STUN server answered.
	UDP bool
	// Seen is the node's socket as seen from outside, invalid if unknown.
	Seen netip.AddrPort
	// Asked and Answered count STUN destinations. Addresses counts the different IP
	// addresses whose answers decided Mapping. If it is 1 and Mapping is unknown, there
	// was only one STUN address.
	Asked, Answered, Addresses int
}

// Answer is one STUN destination.
type Answer struct {
	Server string         // as configured
	Addr   netip.AddrPort // invalid when the name was not found
	Seen   netip.AddrPort // invalid when there was no answer
	RTT    time.Duration  // round trip of the answered try
	Err    string         // for users; "" when answered or still open
}

// NAT returns the kind of NAT, to send to peers.
func (s *Snapshot) NAT() path.NAT {
	return path.NAT{IPv4: s.IPv4.Mapping, IPv6: s.IPv6.Mapping}
}

// view makes a snapshot.
func (g *Gatherer) view(now time.Time, over bool) *Snapshot {
	s := &Snapshot{Started: g.begun, Complete: over, round: g.rounds.Load()}
	if g.mapper != nil {
		s.PortMap = g.mapper.Status()
	}
	var seen4, seen6 []netip.AddrPort
	g.mu.Lock()
	if g.round != nil {
		s.IPv4, seen4 = g.round.family(true, over, g.locals, g.v4)
		s.IPv6, seen6 = g.round.family(false, over, g.locals, g.v6)
		s.Answers = g.round.answers(now)
	}
	g.mu.Unlock()
	// Until the round is over, the result of the round before in this network counts too,
	// so that peers are not sent changes that are none.
	if !over {
		s.IPv4, seen4 = carryOver(s.IPv4, seen4, g.last4, g.lastSeen4)
		s.IPv6, seen6 = carryOver(s.IPv6, seen6, g.last6, g.lastSeen6)
	} else {
		g.last4, g.lastSeen4, g.last6, g.lastSeen6 = s.IPv4, seen4, s.IPv6, seen6
	}
	var hosts []netip.AddrPort
	for _, a := range g.locals {
		port := g.v6
		if a.Is4() {
			port = g.v4
		}
		hosts = append(hosts, netip.AddrPortFrom(a, port))
	}
	s.Candidates = candidates(g.cfg.Manual, s.PortMap, append(seen4, seen6...), hosts, g.cfg.Refuse)
	return s
}

func carryOver(f Family, seen []netip.AddrPort, last Family, lastSeen []netip.AddrPort) (Family, []netip.AddrPort) {
	switch {
	case !f.UDP:
		asked := f.Asked
		f, seen = last, lastSeen
		f.Asked = max(asked, last.Asked)
	case f.Mapping == path.MappingUnknown && f.Seen.Addr() == last.Seen.Addr():
		f.Mapping, f.Addresses = last.Mapping, last.Addresses
	}
	return f, slices.Clip(seen)
}
