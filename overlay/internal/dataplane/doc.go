// Package dataplane is what all data planes of a node have in common: how packets get
// from the host's network to the plane of their peer, and back. A plane encrypts and
// decrypts the packets of a peer: packages wg (WireGuard) and gcm (AES) are planes. A node
// may have several, over one host network and one bind.Bind; two nodes agree on one of them
// in their introduction.
//
// # Outwards
//
//	Net -> Forwarder.Read: destination -> Entry, by an immutable table
//	    no entry: hold queue, Config.Miss; a later Read returns it (SetAddrs),
//	    or it is answered with an ICMP unreachable (Fail)
//	    entry gated: hold queue, until its plane can take packets (Release)
//	    the Net splits TCP to what the path to the peer carries
//	  -> flow recorded (package filter), counted
//	  -> the plane of the entry:
//	       that reads: backlog bounded; its own call of Read returns
//	                   -> Entry.Send: removed from the backlog -> bind.Bind
//	       any other:  Carrier.Carry -> bind.Bind, before the next Read
//
// # Inwards
//
//	bind.Bind -> the plane: decrypts
//	  -> Entry.Write: package filter checks, the source too; counted
//	     (wireguard-go has checked the source: Forwarder.Write, source -> Entry)
//	  -> Net
//
// # What a plane is
//
// For the owner of tunnels it is a Plane: SetPeer with the result of an introduction, and
// RemovePeer. A plane that has a public key to send to peers implements Keys, too. For
// this package a plane makes an Entry for each peer:
//
//   - SetPeer checks its argument (Peer.Check, Free), then calls NewEntry, Hold while
//     nothing can be sent, SetAddrs, Release
//   - RemovePeer calls Remove and DropHeld
//   - it sends encrypted packets with Entry.Send (the plane that reads) or bind.Bind, and
//     passes decrypted ones, of at most
//     MaxPacket bytes, to Entry.Write; Framing says how long its messages are
//   - it calls Keyed when there are new session keys, and ResetBacklog when its queues
//     end
//
// One plane calls Read with buffers of its own, as wireguard-go does: packets are neither
// copied nor queued on their way to it. Packets for the other planes are passed to them
// in the same buffers, a run for one peer at a time, so that the order of packets to a
// peer is kept.
//
// # Bounds
//
// Hold queue: 32 packets or 64 KB for each of 256 destinations, for 5 s. Backlog of the
// plane that reads, between Read and Send: 1 MB for each peer through a relay, 4 MB over UDP. When it is full, Read
// waits up to 50 ms, or 500 ms, which slows the Net down (backpressure), and then drops.
// For the inward direction see package bind. An inner packet is at most MaxPacket bytes
// long. To be sent again (Again) the last 64 packets are kept that open TCP connections, of
// at most 128 bytes, for a second.
//
// # Packet sizes
//
// How long a message may be depends on the present path to the peer (package bind). The
// Net splits large TCP packets to a size that the path carries. Any other packet that is
// too long goes through the relay. Once the path has been the same for 3 s, such a packet
// is answered with "packet too big", at most every 10 s, so that its sender learns the
// size that the path carries.
//
// # Goroutines
//
// The package has no goroutines, except a Pump's, and timers while packets are held and
// after traffic. The packet path takes no lock and allocates nothing. Locks are taken in
// this order: a plane's own, Forwarder.mu, hold.mu.
package dataplane
