// Package dataplane is what every data plane of a node has in common: how packets
// get from the host's network to the plane of the peer that they are for, and
// back. A plane is what seals packets for a peer and opens them: package wg
// (WireGuard) is one. Several may stand beside each other, over one host and one
// bind.Bind; which of them a pair of nodes has is agreed upon in its introduction.
//
// # Outwards
//
//	Net -> Forwarder.Read: destination -> Entry, by an immutable table
//	    no entry: hold queue, Config.Miss; returned by a later Read (SetAddrs)
//	    or answered with an ICMP unreachable (Fail)
//	    entry gated: hold queue, until its plane can take packets (Release)
//	    TCP is split by the Net to what the way to the peer carries
//	  -> flow noted (package filter), counted, backlog bounded
//	  -> the plane of the entry:
//	       that reads: it is its own call of Read that returns
//	       any other:  Carrier.Carry
//	  -> Entry.Send: taken out of the backlog -> bind.Bind
//
// # Inwards
//
//	bind.Bind -> the plane: opens
//	  -> Entry.Write: package filter judges, the source too; counted
//	     (wireguard-go has judged the source: Forwarder.Write, source -> Entry)
//	  -> Net
//
// # What a plane is
//
// To who makes tunnels it is a Plane: SetPeer with what an introduction has
// yielded, RemovePeer. One that names a public key of this node to peers is
// Keys as well. To this package it is what makes an Entry for each peer:
//
//   - SetPeer checks what it is given (Peer.Check, Free), then NewEntry, Hold
//     while nothing can be sent, SetAddrs, Release
//   - RemovePeer: Remove, DropHeld
//   - what it seals leaves by Entry.Send, what it opens comes in by Entry.Write, at
//     most MaxPacket bytes long; it says how long its messages are (Framing)
//   - Keyed when there are new session keys, ResetBacklog when queues end
//
// One plane reads, with buffers of its own, since wireguard-go does that: packets
// are neither copied nor queued on their way to it. To the others packets are
// handed in those buffers, one peer's run of them at a time. So is the order of
// packets to a peer kept.
//
// # Bounds
//
// Hold queue: 32 packets or 64 KB for each of 256 destinations, 5 s. Backlog
// between Read and Send: 1 MB a peer by relay, 4 MB by UDP; when it is full Read
// waits up to 50 ms, or 500 ms, which is felt as backpressure by the Net, and
// then drops. Inwards see package bind. An inner packet is at most MaxPacket bytes
// long.
//
// # Packet sizes
//
// How long a message may be depends on the peer's way out at the moment (package
// bind) and changes with it. Large TCP packets are split to what it carries by the
// Net. Whatever else is longer goes by the relay, and once the way has been the
// same for 3 s it is answered, every 10 s at most, with "packet too big", so that
// its sender learns what would go directly.
//
// # Goroutines
//
// None, but for a Pump's, and timers while packets are held and after traffic. The
// packet path takes no lock and makes no garbage. Locks are taken in this order: a
// plane's own, Forwarder.mu, hold.mu.
package dataplane
