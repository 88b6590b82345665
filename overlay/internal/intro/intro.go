// Package intro introduces nodes to each other: a TLS 1.3 session between two
// nodes, both showing their node certificates, carried in session frames
// through a relay that need not be trusted.
//
// An introduction authenticates both ends, lets the called side check its
// policy, exchanges the nodes' ephemeral WireGuard public keys and, by the TLS
// exporter, gives the pair its WireGuard preshared key and the keys of the path
// probes. Key exchange is hybrid ML-KEM and nothing else. The session then
// stays for signalling (candidates, "call me", ping, revocation lists, bye)
// until either side ends it. It costs two round trips:
//
//	caller                                          callee
//	  open  ClientHello                      ->
//	        <-  ServerHello … Certificate{hello} … Finished
//	  established(session): keys are known
//	        Certificate … Finished, hello    ->      Accept(session)
//	        <-  accept | deny
//	  Dial returns
//
// The callee's hello rides in the SCT list of its certificate message, which
// its CertificateVerify signs: crypto/tls has no server data before the
// client's Finished, and like this the caller's WireGuard initiation leaves
// with the caller's hello, one round trip after the start.
//
// Whoever is introduced names a WireGuard key; hello (of the caller) and accept
// prove that it is the sender's own (prove.go). Nodes of before send no proof:
// what is not proven is for the user to put last, see Session.Proven.
//
// # Frames
//
//	0       8       12    13
//	+-------+-------+-----+----------- - -
//	| id    | seq   | kind| payload         at most MaxFrame bytes, big endian
//	+-------+-------+-----+----------- - -
//
// The id is random, chosen by the caller. seq counts the frames of one
// direction from 0. Kinds: open (the caller's first), data, bye (data, and the
// last frame of its sender), reset (the sender does not know this session or
// gave it up; its seq means nothing). A reset with id 0 is the stranger reset:
// "I have no WireGuard peer for you". A gap, a duplicate or a bad record ends
// the session with a reset. Frames are not authenticated, records are:
// whatever a relay does to frames costs at most the session, never a WireGuard
// peer.
//
// # Messages
//
// Inside TLS: u16 length, then a JSON object with "type" (see Message).
// Unknown types and fields are ignored.
//
// # Concurrency
//
// A Switch runs one goroutine per introduction in progress and none per idle
// session. Callbacks for one session come one at a time; established and
// Accept for one peer come one at a time, in the order in which the keys
// handed over are to be installed. No callback but Known is made with a lock of
// this package held, except that established and Accept may not Dial the same peer.
// Callbacks may use the session's methods.
//
// The package does no I/O of its own, knows no relay, no WireGuard and no
// policy.
//
//   - switch.go   the table of sessions, frames in, resets
//   - places.go   how many introductions are answered at a time, and whose
//   - dial.go     the caller's half
//   - answer.go   the callee's half, glare
//   - session.go  the life of a session after its introduction
//   - crl.go      revocation lists from the newer side to the other
//   - conn.go     a session as net.Conn under crypto/tls
//   - secure.go   TLS configuration, verification, exported keys
//   - prove.go    that the WireGuard key is the sender's own
//   - frame.go, message.go  the codecs
package intro

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"weft/overlay/cert"
)

const (
	// HandshakeTimeout bounds each wait of an attempt at an introduction: of the
	// caller for the callee's first flight and then for its verdict, of the callee
	// from the first frame to the caller's hello and then for its own verdict. So a
	// full uplink may delay an answer by seconds, and who does not answer at all is
	// given up as soon. Dial makes at most two attempts, the second of which waits
	// twice as long for the first flight, as a callee does for the hello of a node
	// that it knows: what was lost on the way is sent again by then.
	HandshakeTimeout = 5 * time.Second

	maxHalfOpen        = 32       // as callee, in all, until the caller has said hello
	maxHalfOpenPerPeer = 4        // as callee, per sender, until decided
	maxDeciding        = 96       // as callee, in all, from hello until decided
	maxSessions        = 4096     // accepted and in progress, both roles …
	maxPeers           = 4096     // table entries, including those kept for rate limits …
	ownRoom            = 256      // … and so many more for introductions by this node
	maxHandshakeBytes  = 80 << 10 // received before accept, per session, as caller …
	maxOpeningBytes    = 40 << 10 // … and as callee: all places together fill no more than maxQueueAll
	maxQueue           = 256 << 10
	maxQueueAll        = 8 << 20 // received and not yet read, all sessions
	maxResets          = 64      // resets waiting to be sent

	openBurst  = 20 // introductions a sender may open at once …
	openPerSec = 4  // … and per second after that

	// wasteHalf is the time in which half of what a sender has wasted of this
	// node's attention is forgotten.
	wasteHalf = 20 * time.Second
)

// Hello is what one node tells the other about itself: it holds until the node
// takes another WireGuard key, with another boot id.
type Hello struct {
	Boot uint64   // random per WireGuard key, so per daemon start at least
	Key  [32]byte // WireGuard public key
	CRL  uint64   // number of the revocation list held, 0 for none
}

// Config says who the node is and what to do with sessions. All fields but
// PairKey, Known, CRL, OnCRL, OnReset, Message, Live, Closed and Log are required. The functions are
// called from many goroutines.
type Config struct {
	Network cert.NetworkID
	ID      cert.NodeID
	// Identity returns the node certificate in force with its key.
	Identity func() *tls.Certificate
	// Verify checks a certificate against the network's CA, weft time and
	// the revocation list. It is called during handshakes and by Recheck.
	Verify func(leafDER []byte) (*cert.Node, error)
	Hello  func() Hello
	// PairKey returns what only the holders of the private keys of two
	// WireGuard keys can know: own is that of a Hello of this node, and it is
	// an error if the node has another by now. If nil nothing is proven, and no
	// proof is believed.
	PairKey func(own, peer [32]byte) ([32]byte, error)
	// CRL returns the revocation list held; OnCRL gets a newer one, complete
	// but not verified. OnCRL verifies, keeps it, and calls Recheck.
	CRL   func() (number uint64, der []byte)
	OnCRL func(der []byte)
	// Send hands one frame for a node to the relay. The frame is borrowed
	// until Send returns. It may block for as long as the relay's
	// backpressure lasts. An error ends the session concerned.
	Send func(to cert.NodeID, frame []byte) error
	// Accept is asked once per introduction as callee, after verification and
	// before accept goes out. It returns nil after it has installed the peer
	// with the session's keys, or why the caller may not come in. It may
	// block for a while (HandshakeTimeout is running for the caller).
	Accept func(*Session) *Deny
	// Known reports whether a node is one to let in, as far as can be known
	// before it has shown its certificate: it has a tunnel, or policy would let
	// in the certificate that it had before. Such nodes have places of their
	// own. Known is called with a lock held, at most a few times a second for a
	// node: it must not block, nor use the Switch. May be nil.
	Known func(cert.NodeID) bool
	// Live tells that a session is complete on this side. Before, only the
	// caller may use Send. It must not block for long. May be nil.
	Live func(*Session)
	// Closed tells of the end of a session for which Accept returned nil or
	// that Dial returned; not of ends made here by Session.Bye,
	// Session.Close or Switch.Close. Only ErrBye ends the WireGuard peer, and
	// an error of Verify.
	Closed func(*Session, error)
	// Message gets the messages that this package does not handle itself
	// ("candidates", "call-me" and types that do not exist yet). It may be
	// called just before Dial returns the session.
	Message func(*Session, Message)
	// OnReset tells of a stranger reset: somebody, perhaps only the relay,
	// says that this node has no WireGuard peer for us. Called from Deliver;
	// must not block.
	OnReset func(from cert.NodeID)
	// Heard returns when data of a node last came out of its tunnel, the zero
	// Time if none did. It answers pings. It must not block. May be nil.
	Heard func(cert.NodeID) time.Time
	Log   *slog.Logger
}

// Deny is why an introduction was refused. The reason is one of the Deny
// constants, the text is for people and may be empty.
type Deny struct {
	Reason string
	Text   string
}

// The reasons of Deny. Others may come from newer nodes.
const (
	DenyPolicy      = "policy"      // the callee's policy does not let the caller in
	DenyCertificate = "certificate" // the callee does not believe the caller's certificate
	DenyConflict    = "conflict"    // another node holds this WireGuard key or overlay address
	DenyBusy        = "busy"        // too many peers
)

// DenyError is returned by Dial when the callee, proven to be the node that
// was dialled, refuses.
type DenyError struct{ Deny }

// Error implements error.
func (e *DenyError) Error() string {
	if e.Text == "" {
		return "introduction denied by the peer: " + e.Reason
	}
	return "introduction denied by the peer: " + e.Reason + ": " + e.Text
}

// Why sessions end and dials fail. Compare with errors.Is.
var (
	ErrBye      = errors.New("peer said bye")                          // proven; its WireGuard peer is gone
	ErrEnded    = errors.New("session ended by the peer")              // or by a relay that claims so
	ErrReset    = errors.New("session reset by the peer or the relay") // proves nothing
	ErrBroken   = errors.New("session broken")                         // gap, duplicate, bad record, overflow
	ErrReplaced = errors.New("session replaced by a newer one")
	ErrTimeout  = errors.New("no answer to the introduction")
	ErrClosed   = errors.New("introductions are closed")
	ErrTooMany  = errors.New("too many introduction sessions")
	ErrIdentity = errors.New("the certificate is not the dialled or sending node's")
	ErrKey      = errors.New("the WireGuard key is not the peer's own")
)
