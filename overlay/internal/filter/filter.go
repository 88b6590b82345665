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
//     that this node began. A flow that the peer began is judged by Ports anew
//     for every packet. So a change of policy (SetPorts) cuts live flows that
//     are no longer allowed.
//
// Everything else is refused, and the Verdict says why.
//
// # Who began it
//
// The flow table (flows.go) holds what this node began, and nothing else: no
// packet of the peer makes an entry or takes the place of one. An entry is made
// by a packet of ours that begins something: a TCP SYN, an echo request, and of
// protocols that do not say so a packet that cannot be an answer, since the peer
// was never let in on the port that it leaves from (past.go). So our services may
// go on to answer what policy has cut, for as long as they like, and nothing of
// it comes back. An entry lives for a minute after the last packet either way,
// for two hours that of a TCP connection, a minute once both ends have ended it.
//
// Some answer from another port than they were asked at: TFTP, RTP. So a UDP flow
// that we begin from a port for clients makes a second entry, for our port alone:
// while it lives, UDP comes in to it from any port of the peer's. Not so if the
// peer was ever let in there (past.go): what policy has cut does not come back by
// it. A service of ours that is closed to the peer is reached by this only if it
// began to talk to the peer itself, from a port from 16000 on.
//
// The filter has to be as old as the program, or to know what its predecessor
// did (Past, Recall): the peer's tunnels may end and come back as they like. Where
// connections outlive the program, in the kernel, those are adopted that cannot be
// the peer's (Adopt).
//
// # What else passes
//
// ICMP errors pass if the packet that they quote belongs to a flow of ours or
// comes from an open port. Echo requests need a rule, echo replies a request; no
// other ICMP passes. The fragments of a datagram pass if its first one did
// within the last 15 s, and policy has not changed since. Protocols without ports
// need a rule for every protocol ("*", 0 to 65535).
//
// The filter has to find the transport header where the receiving stack does.
// What stacks read in different ways is refused (packet.go).
//
// The package is pure: no I/O, no goroutine, and no clock. The time is given in
// nanoseconds since any fixed moment and must not go back. CheckIn and NoteOut
// take no lock and may run at the same time on many goroutines. They allocate
// nothing but sets of the flow table, at most 512 of 128 bytes in a Peer's life,
// the same again for fragments after each change of policy, and once 8 KB of
// ports.
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
	Reply                         // it belongs to something this node began, or answers it from another UDP port
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
	once  atomic.Pointer[Ports]   // open at any time; nil is none
	used  atomic.Pointer[portSet] // UDP ports of clients on which the peer was let in
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
	p.SetPorts(ports)
	return p
}

// SetPorts replaces what policy opens to the peer, for live flows too. The rest
// of a datagram under way is lost.
func (p *Peer) SetPorts(ports *Ports) {
	p.Remember(ports)
	p.ports.Store(ports)
	p.frags.Store(nil) // last: see CheckIn
}

// Adopt has the filter take the middle of an unknown TCP connection for one that
// this node began, until the time given, if its packet leaves from one of the
// ports first to last, which the system gives to programs that ask for none, and
// if that port was never open to the peer. From ports below 16000 nothing is
// adopted. It is for a network whose connections outlive the program, and comes
// before the first packet.
func (p *Peer) Adopt(first, last uint16, until int64) {
	p.adopt, p.adoptUntil = span{max(first, clients.first), last}, until
}

// Ports returns what policy opens to the peer now; it may be nil.
func (p *Peer) Ports() *Ports { return p.ports.Load() }

// Began reports whether a flow that this node began is alive at now. It is not
// meant for the packet path: it looks at the whole table.
func (p *Peer) Began(now int64) bool { return p.flows.any(now) }

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
	// Taken before the rules are: if SetPorts comes in between, what this packet
	// notes is lost with the old table.
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
		// The quoted packet is one of ours: its source port is our port.
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
	// A bare SYN opens a connection, so it is no answer to anything.
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
		p.flows.forget(key) // what we had begun there is over
	case h.proto == protoUDP && clients.has(h.dstPort):
		p.use(h.dstPort)
	}
	return Allowed
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
		if key := flowKey(h.v6, h.proto, h.srcPort, 0); !p.flows.renew(key, now, shortLife, 0) {
			p.flows.put(key, now, shortLife)
		}
		return
	case kindEchoReply, kindICMPError, kindICMPOther:
		return
	}
	key, life := flowKey(h.v6, h.proto, h.srcPort, h.dstPort), lifeOf(h.proto)
	switch {
	case h.opens():
		p.flows.put(key, now, life)
	case p.flows.renew(key, now, life, h.marks(endOurs)):
		p.asks(&h, now)
	case p.begins(&h, now):
		p.flows.put(key, now, life)
		if h.proto == protoTCP { // in the middle of it
			p.flows.renew(key, now, life, h.marks(endOurs))
		}
		p.asks(&h, now)
	}
}

// asks notes, for a packet of a flow that we began, that the peer may answer it
// from another port.
func (p *Peer) asks(h *header, now int64) {
	if h.proto != protoUDP || !clients.has(h.srcPort) {
		return
	}
	if from := anyPortKey(h.v6, h.srcPort); !p.flows.renew(from, now, shortLife, 0) {
		p.flows.put(from, now, shortLife)
	}
}
