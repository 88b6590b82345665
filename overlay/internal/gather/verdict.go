package gather

import (
	"net/netip"
	"slices"

	"weft/overlay/internal/path"
	"weft/overlay/portmap"
)

// perFamily bounds the STUN candidates of one family: a NAT with a pool of
// addresses shows several.
const perFamily = 2

// family makes the result for one address family of the answers of a round. own are the
// machine's addresses, port is the socket's. over says that no more answers are expected.
func (r *round) family(v4, over bool, own []netip.Addr, port uint16) (f Family, seen []netip.AddrPort) {
	f.Local = port != 0 && slices.ContainsFunc(own, func(a netip.Addr) bool { return a.Is4() == v4 })
	best := -1
	for i := range r.asks {
		a := &r.asks[i]
		if a.to.Addr().Is4() != v4 || !a.reachable || a.peer {
			continue
		}
		f.Asked++
		if a.seen.IsValid() {
			f.Answered++
			best = max(best, a.weight())
		}
	}
	f.UDP = f.Answered > 0

	// Only the best kind of answer counts, because a relay in the LAN and one outside see
	// different addresses behind any NAT. A peer's report counts if servers at two
	// addresses did not answer.
	var from []netip.Addr
	var among int
	var others bool // a peer saw another address
	for _, peers := range []bool{false, true} {
		for i := range r.asks {
			a := &r.asks[i]
			if a.peer != peers || a.to.Addr().Is4() != v4 || !a.seen.IsValid() || a.weight() != best || peers && len(from) > 1 {
				continue
			}
			among++
			if !slices.Contains(from, a.to.Addr()) {
				from = append(from, a.to.Addr())
			}
			if peers {
				others = others || !slices.Contains(seen, a.seen)
			} else if !slices.Contains(seen, a.seen) {
				seen = append(seen, a.seen)
			}
		}
	}
	f.Addresses = len(from)
	if len(seen) > 0 {
		f.Seen = seen[0]
	}
	switch {
	case len(seen) > 1 || others:
		f.Mapping = path.MappingHard
		// A peer will see other ports, so only the addresses count.
		seen = oneOfEach(seen)
	case len(seen) == 1 && seen[0].Port() == port && slices.Contains(own, seen[0].Addr()):
		f.Mapping = path.MappingNone
	case among > 1:
		f.Mapping = path.MappingEasy
	case among == 0 && over && f.Asked > 0 && f.Local:
		f.Mapping = path.MappingBlocked
	}
	return f, seen[:min(len(seen), perFamily)]
}

// oneOfEach returns the first entry of each IP address.
func oneOfEach(all []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range all {
		if !slices.ContainsFunc(out, func(b netip.AddrPort) bool { return a.Addr() == b.Addr() }) {
			out = append(out, a)
		}
	}
	return out
}

// weight orders answers by how much they show about the path to the internet.
func (a *ask) weight() int {
	switch {
	case !public(a.to.Addr()):
		return 0
	case !public(a.seen.Addr()):
		return 1
	}
	return 2
}

// carrier is the address range between a provider's NAT and its customers (RFC 6598).
var carrier = netip.MustParsePrefix("100.64.0.0/10")

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !carrier.Contains(a)
}

// candidates returns the candidates to send to peers: the most specific first, at most
// MaxCandidates.
func candidates(manual []netip.AddrPort, mapped portmap.Status, seen []netip.AddrPort, hosts []netip.AddrPort, refuse func(netip.Addr) bool) []path.Candidate {
	var out []path.Candidate
	add := func(a netip.AddrPort, t path.Type) {
		a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
		ip := a.Addr()
		if len(out) == MaxCandidates || a.Port() == 0 || !ip.IsGlobalUnicast() || refuse != nil && refuse(ip) {
			return
		}
		if !slices.ContainsFunc(out, func(c path.Candidate) bool { return c.Addr == a }) {
			out = append(out, path.Candidate{Addr: a, Type: t})
		}
	}
	for _, a := range manual {
		add(a, path.TypeManual)
	}
	add(mapped.External, path.TypeMapped)
	for _, a := range seen {
		// Without a NAT this is the address of an interface, and listed as such.
		if !slices.Contains(hosts, a) {
			add(a, path.TypeSTUN)
		}
	}
	for _, a := range hosts {
		add(a, path.TypeHost)
	}
	return out
}
