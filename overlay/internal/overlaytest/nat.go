package overlaytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Kind is the behaviour of a NAT router, in the terms of RFC 4787.
type Kind int

const (
	// NoNAT only routes: hosts behind it have addresses of the network outside, and
	// everything passes.
	NoNAT Kind = iota
	// FullCone maps a socket to one port and lets everybody in there.
	FullCone
	// AddressRestricted maps a socket to one port and lets in the addresses
	// that the socket has sent to.
	AddressRestricted
	// PortRestricted maps a socket to one port and lets in the addresses with ports that
	// the socket has sent to. Most home routers are of this kind.
	PortRestricted
	// Symmetric maps a socket to another random port for each destination.
	Symmetric
	// SymmetricPreserving maps a socket to a mapping of its own for each
	// destination, with the socket's own port as long as that is free.
	SymmetricPreserving
	// UDPBlocked drops all UDP.
	UDPBlocked
)

// Kinds are all kinds of NAT, for grids.
var Kinds = []Kind{NoNAT, FullCone, AddressRestricted, PortRestricted, Symmetric, SymmetricPreserving, UDPBlocked}

// String returns the kind's name in small letters.
func (k Kind) String() string {
	names := []string{"no-nat", "full-cone", "address-restricted", "port-restricted", "symmetric", "symmetric-preserving", "udp-blocked"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return names[k]
}

// mappingTimeout is how long an idle mapping lives, unless SetMappingTimeout sets another
// time.
const mappingTimeout = 30 * time.Second

// NAT is a router between two networks. It embeds the network behind it.
type NAT struct {
	*Net
	// Link joins the router to the network outside.
	Link *Link

	kind    Kind
	outside netip.Addr
	outer   *Net
	rand    *rand.Rand

	out     map[mapKey]*mapping // by socket inside, and destination if the kind cares
	back    map[mapKey]*mapping // by port outside, and destination if the kind cares
	flows   map[flow]time.Time  // what IPv6 hosts have sent to whom
	timeout time.Duration
	hairpin bool
	onlyTCP map[uint16]bool
	epoch   int // counts reboots, which streams do not survive
}

// mapKey is a socket and, if the kind makes mappings per destination, the
// destination.
type mapKey struct{ socket, remote netip.AddrPort }

type flow struct{ inside, remote netip.AddrPort }

type mapping struct {
	inside   netip.AddrPort
	outside  uint16
	remote   netip.AddrPort // of the keys
	contacts map[netip.AddrPort]bool
	used     time.Time
}

// NAT adds a router with one address in n and a network behind it.
func (n *Net) NAT(name string, kind Kind, outside string) *NAT {
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	a := netip.MustParseAddr(outside).Unmap()
	if n.hosts[a] != nil || n.routers[a] != nil {
		panic(fmt.Sprintf("overlaytest: %s: address %v is taken", name, a))
	}
	r := &NAT{
		Net:  &Net{in: n.in, name: name, hosts: map[netip.Addr]*Host{}, routers: map[netip.Addr]*NAT{}},
		Link: newLink(n.in, name), kind: kind, outside: a, outer: n, rand: n.in.rand("nat " + name), timeout: mappingTimeout,
	}
	r.Net.router = r
	r.forgetLocked()
	n.routers[a] = r
	return r
}

// SetMappingTimeout sets how long a mapping lives after its last packet. At
// first it is 30 s.
func (r *NAT) SetMappingTimeout(d time.Duration) {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	r.timeout = d
}

// SetHairpin sets whether hosts behind the router can reach each other through the
// router's outside address. At first they cannot.
func (r *NAT) SetHairpin(on bool) {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	r.hairpin = on
}

// SetOnlyTCP lets out streams to these ports only; others time out. No ports, as at
// first, means all.
func (r *NAT) SetOnlyTCP(ports ...uint16) {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	r.onlyTCP = map[uint16]bool{}
	for _, p := range ports {
		r.onlyTCP[p] = true
	}
}

// Reboot drops all mappings. Streams through the router stall for ever.
func (r *NAT) Reboot() {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	r.forgetLocked()
	r.epoch++
}

func (r *NAT) forgetLocked() {
	r.out, r.back, r.flows = map[mapKey]*mapping{}, map[mapKey]*mapping{}, map[flow]time.Time{}
}

// translates reports whether hosts behind r appear under r's address when they
// speak from a.
func (r *NAT) translates(a netip.Addr) bool { return a.Is4() && r.kind != NoNAT }

// leaveLocked handles a datagram from inside and returns its source as seen outside;
// false drops it.
func (r *NAT) leaveLocked(src, dst netip.AddrPort) (netip.AddrPort, bool) {
	switch {
	case r.kind == UDPBlocked:
		return src, false
	case r.kind == NoNAT:
		return src, true
	case !r.translates(src.Addr()):
		r.flows[flow{src, dst}] = time.Now()
		return src, true
	}
	key := mapKey{socket: src}
	if r.kind == Symmetric || r.kind == SymmetricPreserving {
		key.remote = dst
	}
	m := r.out[key]
	if m == nil || r.expired(m.used) {
		if m != nil {
			delete(r.back, mapKey{r.ext(m.outside), m.remote})
		}
		m = &mapping{inside: src, remote: key.remote, contacts: map[netip.AddrPort]bool{}}
		m.outside = r.freePortLocked(src.Port(), key.remote)
		r.out[key], r.back[mapKey{r.ext(m.outside), m.remote}] = m, m
	}
	m.used = time.Now()
	m.contacts[dst] = true
	return r.ext(m.outside), true
}

// enterLocked handles a datagram from outside and returns its destination inside; false
// drops it.
func (r *NAT) enterLocked(src, dst netip.AddrPort) (netip.AddrPort, bool) {
	switch {
	case r.kind == UDPBlocked:
		return dst, false
	case r.kind == NoNAT:
		return dst, true
	case dst.Addr() != r.outside: // not translated
		used, ok := r.flows[flow{dst, src}]
		if !ok || r.expired(used) {
			return dst, false
		}
		r.flows[flow{dst, src}] = time.Now()
		return dst, true
	}
	m := r.back[mapKey{dst, src}]
	if m == nil {
		m = r.back[mapKey{socket: dst}]
	}
	if m == nil || r.expired(m.used) {
		return dst, false
	}
	pass := false
	switch r.kind {
	case FullCone:
		pass = true
	case AddressRestricted:
		for c := range m.contacts {
			pass = pass || c.Addr() == src.Addr()
		}
	default:
		pass = m.contacts[src]
	}
	if pass {
		m.used = time.Now()
	}
	return m.inside, pass
}

func (r *NAT) ext(port uint16) netip.AddrPort { return netip.AddrPortFrom(r.outside, port) }

func (r *NAT) expired(used time.Time) bool { return time.Since(used) > r.timeout }

// freePortLocked picks the outside port of a new mapping.
func (r *NAT) freePortLocked(inside uint16, remote netip.AddrPort) uint16 {
	free := func(port uint16) bool {
		m := r.back[mapKey{r.ext(port), remote}]
		return m == nil || r.expired(m.used)
	}
	if r.kind == SymmetricPreserving && free(inside) {
		return inside
	}
	for {
		if port := uint16(1024 + r.rand.IntN(1<<16-1024)); port != inside && free(port) {
			return port
		}
	}
}
