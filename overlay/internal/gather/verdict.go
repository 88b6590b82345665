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

// family makes the view of one address family out of the answers of a round.
// own are the machine's addresses, port is the socket's. over says that
// nothing more is waited for.
func (r *round) family(v4, over bool, own []netip.Addr, port uint16) (f Family, seen []netip.AddrPort) {
	f.Local = port != 0 && slices.ContainsFunc(own, func(a netip.Addr) bool { return a.Is4() == v4 })
	best := -1
	for i := range r.asks {
		a := &r.asks[i]
		if a.to.Addr().Is4() != v4 || !a.went || a.peer {
			continue
		}
		f.Asked++
		if a.seen.IsValid() {
			f.Answered++
			best = max(best, a.weight())
		}
	}
	f.UDP = f.Answered > 0

	// Only the best kind of answer counts: what a relay in the own network
	// saw, and what one outside saw, differ behind any NAT. A peer is heard
	// where servers at two addresses did not say.
	var from []netip.Addr
	var among int
	var others bool // a peer saw something else
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
		// The ports will be other ones for a peer; the addresses count.
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

// oneOfEach keeps the first of each IP address.
func oneOfEach(all []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range all {
		if !slices.ContainsFunc(out, func(b netip.AddrPort) bool { return a.Addr() == b.Addr() }) {
			out = append(out, a)
		}
	}
	return out
}

// weight orders answers by how much they say about the way to the internet.
func (a *ask) weight() int {
	switch {
	case !public(a.to.Addr()):
		return 0
	case !public(a.seen.Addr()):
		return 1
	}
	return 2
}

// carrier is the space between a provider's NAT and its customers (RFC 6598).
var carrier = netip.MustParsePrefix("100.64.0.0/10")

func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !carrier.Contains(a)
}

// candidates puts together what peers are told: most specific first, at most
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
		// Without a NAT this is an interface's, and better told as that.
		if !slices.Contains(hosts, a) {
			add(a, path.TypeSTUN)
		}
	}
	for _, a := range hosts {
		add(a, path.TypeHost)
	}
	return out
}
