// Package path decides which way packets go to one peer: straight to one of its
// addresses, through a relay's lane, or through the relay's TLS connection.
//
// An Agent is a pure state machine, one for each peer. It has no clock, no
// socket and no goroutine: its owner tells it what happens and when, sends what
// it puts out (Take), and calls Tick at Next.
//
//	introduction, gathering -> SetLocal, SetRemote, CallMe, SetLane, NetworkChanged
//	authentic probes        -> Ping, Pong
//	data of the tunnel      -> Data
//	                        <- Take: probes to send, requests; Path: the way to use
//
// # Life
//
// A path is looked for while data flow (Data) or the peer asks for it (CallMe).
// In a round each candidate gets up to 7 pings in 1.6 s, both sides at the same
// time, which opens NATs and firewalls; an authentic ping from anywhere is
// answered, and followed back. The first address that answers is used at once,
// a better one when it answers: one in the same network before all others, then
// by round trip, where a switch needs a fifth and 5 ms. When nothing answers
// there are other rounds, ever more seldom, while data flow: after 5 minutes in the
// end, or after one if they have flowed without a pause of a second.
//
// While this side sends data it pings the chosen address every 250 ms, faster
// when an answer is missing. After three lost pings and 300 ms without any sign
// of life, or two and a half round trips or more where those are long or vary
// (sooner if the peer sends through the relay), the path is dead: traffic goes to
// lane or relay at once and a new round begins. Data that come in on the path are
// a sign of life too, for two seconds.
//
// After a second without data nothing is sent at all. After 25 s the path is
// given up silently, because NATs forget: the next packet goes through the
// relay while the old address is pinged first.
//
// # Hard NATs
//
// A NAT that gives each destination another port cannot be told an address. If
// only one side has such a NAT, and the other a stricter one than usual hole
// punching can deal with, the hard side sends from 256 sockets to the other's
// address and the other pings 1,536 ports of the hard side's address, about 500 a
// second: the chance to meet is over 99 %. That costs a side at most 150 KB and
// as many entries in its router for 30 s, so it happens once in 5 minutes at most,
// and only while data flow. Where a side does not know what its NAT is, for want
// of a second STUN address, both halves are tried. Two hard NATs get a lane.
//
// # Sizes
//
// A path starts with datagrams that every IPv6 link carries. Padded pings find
// out whether these pass, and which longer ones; while data flow a ping every two
// seconds has the full length, and if these alone get lost the path goes back to
// the safe length. A path that does not carry that is not used.
//
// # Bounds
//
// 32 candidates of the peer and 8 addresses from which it was heard. To
// addresses that have not answered: 14 pings of 54 bytes in 30 s each, and 8 a
// second, 256 at once, in all; one a second more while the peer pings from there.
// Pings of the peer are answered 64 a second, 256 at once, never with more bytes
// than came. Loopback, multicast, broadcast and refused addresses are never
// pinged. An Agent allocates nothing once its tables have grown.
//
//   - agent.go   what an Agent is told
//   - round.go   pings to candidates
//   - choose.go  which way is best, and whether it lives
//   - size.go    which datagrams pass
//   - scan.go    hard NATs
//   - reason.go  why, in plain words
package path

import (
	"net/netip"
	"time"

	"weft/overlay/internal/probe"
)

// Kind is how packets reach a peer. A greater one is better.
type Kind uint8

// The kinds.
const (
	Relay  Kind = iota // through the relay's TLS connection
	Lane               // UDP datagrams forwarded by the relay
	Direct             // straight to an address of the peer
)

// String returns the word that weft status shows.
func (k Kind) String() string { return [...]string{"relay", "lane", "direct"}[min(k, Direct)] }

// Via is a way that a datagram can take to or from the peer. The zero Via is
// the relay's TLS connection.
type Via struct {
	// Addr is the peer's address; invalid for a lane.
	Addr netip.AddrPort
	// Socket is 0 for the node's own socket of the address family, else the
	// extra socket of that number: one for IPv4 on any port, opened when it is
	// first sent from and closed when Uses says so.
	Socket uint16
	// Lane says that it is the relay's lane.
	Lane bool
}

// Path is the way to use.
type Path struct {
	Kind Kind
	Via  Via
	// LAN says that the peer is in the same network.
	LAN bool
	// Limit is the length in bytes of the longest WireGuard message to send
	// this way (the UDP payload; the lane's header is taken off already), 0
	// for the relay, which carries all.
	Limit int
	// RTT is the measured round trip, 0 before.
	RTT time.Duration
	// Quiet says that the way was given up because nothing was sent.
	Quiet bool
	// Reason says in plain words why it is no better one.
	Reason Reason
}

// Send is a probe to send.
type Send struct {
	Via  Via
	Kind probe.Kind
	Tx   probe.Tx
	Size int // of a ping in bytes
	To   netip.AddrPort
}

// Output is what an Agent wants done. Its slices are valid until the next call
// of the Agent.
type Output struct {
	// Send are probes to send in this order. To is what a pong tells the
	// peer: the address from which its ping came (invalid through a lane).
	Send []Send
	// Admit are ways from which WireGuard messages are the peer's from now on.
	// Forget are ways that are no longer. A way in both was forgotten last.
	Admit  []Admission
	Forget []Via
	// Gather asks for fresh candidates of this node (SetLocal), CallMe for a
	// message to the peer that it should probe now. Doubt says that a path
	// was lost: what was gathered lately may hold no more.
	Gather, CallMe, Doubt bool
	// Lane says whether a lane is wanted now.
	Lane bool
	// Changed says that Path returns something else than before, its RTT and
	// small changes apart.
	Changed bool
}

// Admission is a way that is the peer's. Proven says that the peer has answered
// there; otherwise an authentic ping came from there, which may be a replay and
// must not take a way from another peer.
type Admission struct {
	Via    Via
	Proven bool
}

// Config says who an Agent works for.
type Config struct {
	// Refuse reports addresses that are no candidates, such as those of the
	// overlay. May be nil.
	Refuse func(netip.Addr) bool
	// Rand is a source of unpredictable numbers. Required.
	Rand func() uint64
}

// Local is what this node knows about itself.
type Local struct {
	// Candidates are what the peer was told.
	Candidates []Candidate
	NAT        NAT
	// Nets are the networks of the interfaces.
	Nets []netip.Prefix
	// MTU is the largest of the links that datagrams leave by, 0 for 1500.
	MTU int
}

// Remote is what the peer said about itself.
type Remote struct {
	Candidates []Candidate
	NAT        NAT
}
