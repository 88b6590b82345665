// Package filter decides which packets of a peer enter this node.
//
// A Peer is the filter of one remote node. It has the node's certified addresses, the
// ports that policy opens to it (Ports, compiled from the rules and the peer's
// certificate) and the flows between it and us. CheckIn judges a decrypted packet from
// the peer. NoteOut records a packet to the peer, so that its answers are let in.
//
// A packet is let in if all of this is true:
//
//   - it is a well-formed IP packet, exactly as long as its header says, with
//     whole transport headers and no source routing;
//   - its source is an address of the peer and its destination one of ours;
//   - Ports allows its protocol and destination port, or it answers something that this
//     node began. Every packet of a flow that the peer began is checked against Ports, so
//     a change of policy (SetPorts) cuts live flows that are no longer allowed.
//
// Everything else is refused, and the Verdict says why.
//
// # Who began it
//
// The flow table (flows.go) has only flows that this node began: a packet of the peer
// neither makes an entry nor replaces one. A packet of ours makes an entry if it begins
// something: a TCP SYN, an echo request, and for protocols that do not mark beginnings a
// packet that cannot be an answer, because the peer was never let in on its source port
// (history.go). So our services may keep answering what policy has cut, but the peer's
// packets are not let in by that. An entry lives for a minute after the last packet in
// either direction; a TCP connection for two hours, or for a minute once both ends have
// ended it.
//
// Some protocols, such as TFTP and RTP, answer from another port than the one that was
// asked. So a UDP flow that we begin from a client port makes a second entry, for our
// port alone: while it lives, UDP from any port of the peer is let in to our port. This
// is not done if the peer was ever let in there (history.go), so that it does not revive
// what policy has cut. It makes a closed service of ours reachable only if the service
// itself has sent to the peer first, from a port of 16000 or above.
//
// The filter must exist as long as the program, or know what its predecessor has let in
// (History, AddHistory), because the peer's tunnels may end and be made again. Where connections
// outlive the program, in the kernel, those are adopted that cannot be the peer's
// (Adopt).
//
// # What else passes
//
// ICMP errors pass if the packet that they quote belongs to a flow of ours or was sent
// from an open port. Echo requests need a rule, echo replies a request; no other ICMP
// passes. The fragments of a datagram pass if its first one did within the last 15 s, and
// policy has not changed since. Protocols without ports need a rule for every protocol
// ("*", 0 to 65535).
//
// The filter must find the transport header where the receiving stack finds it. Packets
// that stacks parse in different ways are refused (packet.go).
//
// The package is pure: no I/O, no goroutine, and no clock. Times are in nanoseconds since
// any fixed moment and must not go back. CheckIn and NoteOut take no lock and may run on
// many goroutines at once. They allocate only the sets of the flow table, at most 512 of
// 128 bytes in a Peer's life, the same again for fragments after each change of policy,
// and once 8 KB for ports.
package filter

import (
	"net/netip"
	"sync/atomic"
)

// Verdict is the result of CheckIn. The zero value refuses the packet.
type Verdict uint8

// The verdicts, in the order of the checks. Allowed and later ones let the packet in.
const (
	Malformed      Verdict = iota // malformed, or parsed differently by different stacks
	BadSource                     // inner source is not an address of the peer
	BadDestination                // inner destination is not an address of ours
	NoFirst                       // fragment of a datagram whose first fragment was not let in
	Denied                        // no rule and no flow lets it in
	Allowed                       // a rule lets it in
	Reply                         // it belongs to a flow that this node began, or answers one from another UDP port
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
	// Constant after NewPeer, or Adopt.
	adopt      span
	adoptUntil int64

	ports atomic.Pointer[Ports]   // open now
	once  atomic.Pointer[Ports]   // everything that was ever open; nil: nothing
	used  atomic.Pointer[portSet] // UDP client ports on which the peer was let in
	flows table
	frags atomic.Pointer[table] // made with the first fragment
}

// addrs are the overlay addresses of one node, at most one per family.
type addrs struct{ v4, v6 netip.Addr }

func (a *addrs) has(ip netip.Addr) bool { return ip == a.v4 || ip == a.v6 }

func addrsOf(list []netip.Addr) addrs {
	var a addrs // a zero Addr equals no packet's address
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

// NewPeer makes the filter of a peer. local are this node's addresses, remote the peer's
// certified ones; the last of each family counts. An address in both belongs to this
// node. With nil ports everything is denied that this node did not begin.
func NewPeer(local, remote []netip.Addr, ports *Ports) *Peer {
	p := &Peer{local: addrsOf(local), remote: addrsOf(remote)}
	if p.local.has(p.remote.v4) {
		p.remote.v4 = netip.Addr{}
	}
	if p.local.has(p.remote.v6) {
		p.remote.v6 = netip.Addr{}
	}
	p.SetPorts(ports)
	return p
}

// SetPorts replaces what policy opens to the peer, for live flows too. The remaining
// fragments of datagrams in flight are lost.
func (p *Peer) SetPorts(ports *Ports) {
	p.AddPorts(ports)
	p.ports.Store(ports)
	p.frags.Store(nil) // last: see CheckIn
}

// Adopt makes the filter treat an unknown TCP connection as one that this node began,
// until the time until, if we send a packet in it from one of the ports first to last,
// which the system gives to programs that ask for none, and if that port was never open
// to the peer. Ports below 16000 are never adopted. It is for a network whose connections
// outlive the program. Call it before the first packet.
func (p *Peer) Adopt(first, last uint16, until int64) {
	p.adopt, p.adoptUntil = span{max(first, clients.first), last}, until
}

// Ports returns what policy opens to the peer now; it may be nil.
func (p *Peer) Ports() *Ports { return p.ports.Load() }

// HasOwnFlow reports whether a flow that this node began is alive at now. It reads the whole
// table, so it is not for the packet path.
func (p *Peer) HasOwnFlow(now int64) bool { return p.flows.any(now) }

// CheckIn judges a packet from the peer: a whole IP packet without trailing bytes. It
// does not change or keep pkt. now is in nanoseconds.
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
	// Load frags before the rules: if SetPorts runs in between, what this packet records
	// is lost with the old table.
	frags := p.frags.Load()
	if h.frag == fragLater {
		if frags == nil || !frags.look(h.fragKey(), now) {
			return NoFirst
		}
		return Allowed
	}
	if h.frag == fragFirst && frags == nil {
		p.frags.CompareAndSwap(nil, new(table))
		frags = p.frags.Load()
	}
	v := p.judge(&h, now)
	if h.frag == fragFirst && v.OK() && frags != nil {
		frags.put(h.fragKey(), now, fragLife)
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
		if p.flows.renew(flowKey(h.v6, h.proto, h.dstPort, 0), now, shortLife, 0) {
			return Reply
		}
		return Denied

	case kindICMPError:
		// The quoted packet was sent by us: its source port is our port.
		q := &h.quoted
		if p.flows.look(flowKey(h.v6, q.proto, q.srcPort, q.dstPort), now) {
			return Reply
		}
		if q.proto != protoICMP4 && q.proto != protoICMP6 && ports.allows(q.proto, q.srcPort) {
			return Reply
		}
		return Denied

	case kindICMPOther:
		return Denied
	}

	key := flowKey(h.v6, h.proto, h.dstPort, h.srcPort)
	// A bare SYN opens a connection, so it cannot be an answer.
	if !h.opens() && p.flows.renew(key, now, lifeOf(h.proto), h.marks(endPeers)) {
		return Reply
	}
	if !ports.allows(h.proto, h.dstPort) {
		if h.proto == protoUDP && clients.has(h.dstPort) && !p.visited(h.dstPort) && p.flows.renew(anyPortKey(h.v6, h.dstPort), now, shortLife, 0) {
			return Reply
		}
		return Denied
	}
	switch {
	case h.opens():
		p.flows.forget(key) // our own flow with these ports is over
	case h.proto == protoUDP && clients.has(h.dstPort):
		p.use(h.dstPort)
	}
	return Allowed
}

// NoteOut records a packet that this node sends to the peer, and reports whether it opens a
// TCP connection. It ignores packets that it cannot parse. now is in nanoseconds.
func (p *Peer) NoteOut(pkt []byte, now int64) (opens bool) {
	var h header
	if !h.parse(pkt) || h.frag == fragLater || !p.local.has(h.src) || !p.remote.has(h.dst) {
		return false
	}
	switch h.kind {
	case kindEcho:
		if key := flowKey(h.v6, h.proto, h.srcPort, 0); !p.flows.renew(key, now, shortLife, 0) {
			p.flows.put(key, now, shortLife)
		}
		return false
	case kindEchoReply, kindICMPError, kindICMPOther:
		return false
	}
	key, life := flowKey(h.v6, h.proto, h.srcPort, h.dstPort), lifeOf(h.proto)
	switch {
	case h.opens():
		p.flows.put(key, now, life)
		return true
	case p.flows.renew(key, now, life, h.marks(endOurs)):
		p.asks(&h, now)
	case p.begins(&h, now):
		p.flows.put(key, now, life)
		if h.proto == protoTCP { // in the middle of a connection
			p.flows.renew(key, now, life, h.marks(endOurs))
		}
		p.asks(&h, now)
	}
	return false
}

// asks records, for a packet of a flow that we began, that the peer may answer from
// another port.
func (p *Peer) asks(h *header, now int64) {
	if h.proto != protoUDP || !clients.has(h.srcPort) {
		return
	}
	if from := anyPortKey(h.v6, h.srcPort); !p.flows.renew(from, now, shortLife, 0) {
		p.flows.put(from, now, shortLife)
	}
}
