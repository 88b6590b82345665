// Package path selects the path of packets to one peer: direct to one of its addresses,
// relayed UDP, or the relay connection.
//
// An Agent is a pure state machine, one for each peer. It has no clock, no socket and no
// goroutine: its owner reports what happens and when, does what Take returns, and calls
// Tick at Next.
//
//	introduction, gathering -> SetLocal, SetRemote, CallMe, SetLane, NetworkChanged
//	authentic probes        -> Ping, Pong
//	data of the tunnel      -> Data
//	                        <- Take: probes to send, requests; Selected: the path to use
//
// # Life
//
// An Agent looks for a path while data flow (Data) or when the peer asks for it (CallMe).
// In a round each candidate gets up to 7 pings in 1.6 s. Both sides do this at the same
// time, which opens NATs and firewalls. An authentic ping from any address is answered
// with a pong and a ping. The first address that answers is used at once, and a better
// one as soon as it answers: an address in the same LAN is best, then the shorter round
// trip, if it is shorter by a fifth and by 5 ms. If nothing answers, rounds follow while
// data flow, at growing intervals of up to 5 minutes, or 1 minute if the data flow
// without a pause of a second.
//
// While this side sends data it pings the selected address every 250 ms, more often when
// an answer is missing. The path is dead after three lost pings if nothing was received
// on it for 300 ms, or for two and a half round trips or more where these are long or
// vary (sooner if the peer sends through the relay). Traffic then moves to relayed UDP or
// the relay connection at once and a new round starts. Data received on the path keep it
// alive too, for two seconds.
//
// After a second without data nothing is sent. After 25 s the path is given up, because
// NATs forget: the next packet goes through the relay, and the old address is the first
// to be pinged.
//
// # Hard NATs
//
// A node behind a NAT that uses another port for each destination (a hard NAT) cannot
// name its address. If only one side has a hard NAT, and the other's NAT is too strict
// for simple hole punching, the hard side sends from 256 sockets to the other's address
// and the other pings 1,536 ports of the hard side's address, about 500 a second. They
// meet with a probability of over 99 %. That costs a side at most 150 KB and as many
// entries in its router for 30 s, so it happens at most once in 5 minutes, and only while
// data flow. A side that does not know the kind of its NAT, for want of a second STUN
// address, does both halves. Two hard NATs get relayed UDP.
//
// # Sizes
//
// A path starts with the size of datagram that every IPv6 link carries, the safe size.
// Padded pings find out whether it passes, and which longer ones do. While data flow, a
// ping every two seconds has the full length. If only these are lost, the path goes back
// to the safe size. A path that does not carry the safe size is not used.
//
// # Bounds
//
// There are at most 32 candidates of the peer and 8 other addresses from which it has
// sent. An address that has not answered gets at most 14 pings of 54 bytes in 30 s, and
// one more a second while the peer pings from there; all such addresses together get 8 a
// second, 256 at once. At most 64 pings of the peer are answered a second, 256 at once,
// never with more bytes than received. Loopback, multicast, broadcast and refused
// addresses are never pinged. An Agent allocates nothing once its tables have grown.
//
//   - agent.go   what an Agent is told
//   - step.go    what it does when time passes, and what its owner has to do
//   - link.go    the paths that it knows, candidates included
//   - round.go   pings to candidates
//   - choose.go  which path is best, and whether it works
//   - size.go    which datagrams pass
//   - scan.go    hard NATs
//   - reason.go  why there is no better path, for users
package path

import (
	"net/netip"
	"time"

	"weft/overlay/internal/probe"
)

// Kind is the kind of a path. A greater one is better.
type Kind uint8

// The kinds.
const (
	Relay      Kind = iota // the relay connection
	RelayedUDP             // relayed UDP
	Direct                 // UDP to an address of the peer
)

// String returns the word that weft status shows.
func (k Kind) String() string { return [...]string{"relay", "lane", "direct"}[min(k, Direct)] }

// Path is a path on which datagrams travel to or from the peer. The zero Path is the relay
// connection.
type Path struct {
	// Addr is the peer's address; invalid for relayed UDP.
	Addr netip.AddrPort
	// Socket is 0 for the node's main socket, else the number of an extra socket for IPv4
	// on any port. The owner opens it at its first Send and closes it once Uses returns
	// false.
	Socket uint16
	// Relayed says that it is relayed UDP.
	Relayed bool
}

// Selection is the selected path.
type Selection struct {
	Kind Kind
	Path Path
	// LAN says that the peer is in the same LAN.
	LAN bool
	// Limit is the length in bytes of the longest WireGuard message to send on this path
	// (the UDP payload, without the lane's header); 0 for the relay connection, which
	// carries all.
	Limit int
	// RTT is the measured round trip, 0 if there is none yet.
	RTT time.Duration
	// Quiet says that the direct path was given up because nothing was sent.
	Quiet bool
	// Reason says why there is no better path.
	Reason Reason
}

// Send is a probe to send.
type Send struct {
	Path Path
	Kind probe.Kind
	Tx   probe.Tx
	Size int // length of a ping in bytes
	To   netip.AddrPort
}

// Output is what an Agent wants done. Its slices are valid until the next call
// of the Agent.
type Output struct {
	// Send are probes to send, in this order. To of a pong is the address from which its
	// ping came (invalid for relayed UDP), which the pong reports to the peer.
	Send []Send
	// Admit are paths on which WireGuard messages are the peer's from now on; on those in
	// Forget they no longer are. Do Admit first: a path in both is to be forgotten.
	Admit  []Admission
	Forget []Path
	// Gather asks for fresh candidates of this node (SetLocal), CallMe for a message that
	// asks the peer to probe now. Doubt says that a path was lost, so that candidates
	// gathered lately may be outdated.
	Gather, CallMe, Doubt bool
	// Lane says whether a lane is wanted now.
	Lane bool
	// Changed says that the result of Selected has changed in more than its RTT.
	Changed bool
}

// Admission is a path that is the peer's. Proven says that the peer has answered a ping
// on it. Otherwise only an authentic ping has arrived, which may be a replay and must not
// take the path from another peer.
type Admission struct {
	Path   Path
	Proven bool
}

// Config configures New.
type Config struct {
	// Refuse reports addresses that cannot be candidates, such as those of the overlay.
	// May be nil.
	Refuse func(netip.Addr) bool
	// Rand is a source of unpredictable numbers. Required.
	Rand func() uint64
}

// Local is what this node has found out about itself.
type Local struct {
	// Candidates are those sent to the peer.
	Candidates []Candidate
	NAT        NAT
	// Nets are the networks of the interfaces.
	Nets []netip.Prefix
	// MTU is the largest MTU of the interfaces that datagrams leave by, in bytes; 0 means
	// 1500.
	MTU int
}

// Remote is what the peer has sent about itself.
type Remote struct {
	Candidates []Candidate
	NAT        NAT
}
