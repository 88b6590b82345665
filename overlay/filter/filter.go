// Package filter decides which packets of a peer enter this node.
//
// A Peer holds what is known about one remote node: its certified addresses,
// the ports that policy opens to it (Ports, compiled from the rules and the
// peer's certificate) and the flows between it and us. CheckIn judges a
// decrypted packet on its way in, NoteOut remembers a packet on its way out so
// that the answers to it may come back.
//
// A packet comes in when all of this holds:
//
//   - it is a well-formed IP packet, exactly as long as its header says, with
//     whole transport headers and no source routing;
//   - its source is an address of the peer and its destination one of ours;
//   - Ports allows its protocol and destination port, or it answers something
//     that this node began: the flow table knows who began a flow, and a flow
//     that the peer began is judged by Ports anew for every packet. So a change
//     of policy (SetPorts) cuts live flows that are no longer allowed.
//
// Everything else is refused, and the Verdict says why.
//
// ICMP errors pass if the packet they quote belongs to a live flow. Echo
// requests need a rule, echo replies a request; no other ICMP passes. The
// fragments of a datagram pass if its first one did within the last 15 s.
// Protocols without ports need a rule for every protocol ("*", 0 to 65535).
//
// The package is pure: no I/O, no goroutine, and no clock. The time is given in
// nanoseconds since any fixed moment and must not go back. CheckIn and NoteOut
// take no lock and may run at the same time on many goroutines; they allocate
// nothing but, at most 512 times in a Peer's life, 64 bytes of flow table.
package filter

import (
	"net/netip"
	"sync/atomic"
)

// Verdict is what CheckIn thinks of a packet. The zero value refuses.
type Verdict uint8

// The verdicts, in the order in which a packet is judged. Those from Allowed
// on let it in.
const (
	Malformed      Verdict = iota // not a packet that any stack should see
	BadSource                     // inner source is not an address of the peer
	BadDestination                // inner destination is not an address of ours
	NoFirst                       // fragment of a datagram whose start did not pass
	Denied                        // no rule and no flow lets it in
	Allowed                       // a rule lets it in
	Reply                         // it belongs to something this node began
	NumVerdicts    = int(Reply) + 1
)

// OK reports whether the packet may enter.
func (v Verdict) OK() bool { return v >= Allowed }

func (v Verdict) String() string {
	names := [NumVerdicts]string{"malformed", "bad-source", "bad-destination", "no-first-fragment", "denied", "allowed", "reply"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// Peer is the filter of one remote node.
type Peer struct {
	// Constant after NewPeer.
	local, remote addrs

	ports atomic.Pointer[Ports]
	flows table
	frags atomic.Pointer[table] // made with the first fragment
}

// addrs are the overlay addresses of one node, at most one per family.
type addrs struct{ v4, v6 netip.Addr }

func (a *addrs) has(ip netip.Addr) bool { return ip == a.v4 || ip == a.v6 }

func addrsOf(list []netip.Addr) addrs {
	var a addrs // a zero Addr equals the address of no packet
	for _, ip := range list {
		switch ip = ip.Unmap(); {
		case ip.Is4():
			a.v4 = ip
		case ip.Is6():
			a.v6 = ip.WithZone("")
		}
	}
	return a
}

// NewPeer makes the filter of a peer. Of local (this node's addresses) and
// remote (the peer's certified ones) the last of each family counts. An address
// that both have belongs to this node, never to the peer. nil ports deny
// everything that this node did not begin.
func NewPeer(local, remote []netip.Addr, ports *Ports) *Peer {
	p := &Peer{local: addrsOf(local), remote: addrsOf(remote)}
	if p.local.has(p.remote.v4) {
		p.remote.v4 = netip.Addr{}
	}
	if p.local.has(p.remote.v6) {
		p.remote.v6 = netip.Addr{}
	}
	p.ports.Store(ports)
	return p
}

// SetPorts replaces what policy opens to the peer, for live flows too.
func (p *Peer) SetPorts(ports *Ports) { p.ports.Store(ports) }

// Ports returns what policy opens to the peer now; it may be nil.
func (p *Peer) Ports() *Ports { return p.ports.Load() }

// Began reports whether a flow that this node began is alive at now. It is not
// meant for the packet path: it looks at the whole table.
func (p *Peer) Began(now int64) bool { return p.flows.anyOurs(now) }

// CheckIn judges a packet that came from the peer: a whole IP packet without
// trailing bytes, which is only read. now is in nanoseconds.
func (p *Peer) CheckIn(pkt []byte, now int64) Verdict {
	var h header
	if !h.parse(pkt) {
		return Malformed
	}
	if !p.remote.has(h.src) {
		return BadSource
	}
	if !p.local.has(h.dst) {
		return BadDestination
	}
	if h.frag == fragLater {
		frags := p.frags.Load()
		if frags == nil || !frags.touch(h.fragKey(), now, fragLife) {
			return NoFirst
		}
		return Allowed
	}
	v := p.judge(&h, now)
	if h.frag == fragFirst && v.OK() {
		frags := p.frags.Load()
		if frags == nil {
			p.frags.CompareAndSwap(nil, new(table))
			frags = p.frags.Load()
		}
		frags.put(h.fragKey(), true, now, fragLife)
	}
	return v
}

func (p *Peer) judge(h *header, now int64) Verdict {
	ports := p.ports.Load()
	switch h.kind {
	case kindEcho:
		if ports.allowsICMP() {
			return Allowed
		}
		return Denied

	case kindEchoReply:
		if p.flows.touch(flowKey(h.v6, h.proto, h.dstPort, 0), now, shortLife) {
			return Reply
		}
		return Denied

	case kindICMPError:
		// The quoted packet is one of ours: its source port is our port.
		key := flowKey(h.v6, h.quoted.proto, h.quoted.srcPort, h.quoted.dstPort)
		switch p.flows.look(key, now) {
		case ours:
			return Reply
		case theirs:
			if ports.allows(h.quoted.proto, h.quoted.srcPort) {
				return Reply
			}
		}
		return Denied

	case kindICMPOther:
		return Denied
	}

	key, life := flowKey(h.v6, h.proto, h.dstPort, h.srcPort), lifeOf(h.proto)
	// A bare SYN opens a connection, so it is no answer to anything.
	if !h.opens() && p.flows.touch(key, now, life) {
		return Reply
	}
	if ports.allows(h.proto, h.dstPort) {
		p.flows.put(key, false, now, life)
		return Allowed
	}
	return Denied
}

// NoteOut remembers a packet that this node sends to the peer. now is in
// nanoseconds. What it cannot parse it ignores.
func (p *Peer) NoteOut(pkt []byte, now int64) {
	var h header
	if !h.parse(pkt) || h.frag == fragLater || !p.local.has(h.src) || !p.remote.has(h.dst) {
		return
	}
	switch h.kind {
	case kindEcho:
		p.flows.put(flowKey(h.v6, h.proto, h.srcPort, 0), true, now, shortLife)
		return
	case kindEchoReply, kindICMPError, kindICMPOther:
		return
	}
	key, life := flowKey(h.v6, h.proto, h.srcPort, h.dstPort), lifeOf(h.proto)
	switch {
	case h.opens():
		p.flows.put(key, true, now, life)
	case p.flows.refresh(key, now, life):
		// Who began the flow does not change with its next packet.
	case h.proto != protoTCP:
		p.flows.put(key, true, now, life)
	case h.tcpFlags&(tcpRST|tcpSYN) != 0:
		// An answer to something that came in, never a beginning.
	default:
		// The middle of a connection that the table does not know (any more).
		// If the peer may open connections to this port the peer is taken to
		// have opened this one, so that a later change of policy cuts it.
		p.flows.put(key, !p.ports.Load().allows(protoTCP, h.srcPort), now, life)
	}
}
