// Package intro introduces nodes to each other: a TLS 1.3 session in which both nodes
// present their node certificates, carried in session frames through a relay that need
// not be trusted.
//
// An introduction authenticates both ends, lets the callee check its policy and exchanges
// the nodes' ephemeral WireGuard public keys. The TLS exporter gives the pair the secret
// of its data plane (for WireGuard the preshared key) and the keys of its probes. The only key exchange is hybrid
// ML-KEM. Afterwards the session carries messages (candidates, "call me", ping,
// revocation lists, bye) until either side ends it. An introduction takes two round
// trips:
//
//	caller                                          callee
//	  open  ClientHello                      ->
//	        <-  ServerHello … Certificate{hello} … Finished
//	  established(session): keys are known
//	        Certificate … Finished, hello    ->      Accept(session)
//	        <-  accept | deny
//	  Dial returns
//
// The callee's hello is in the SCT list of its certificate message, which its
// CertificateVerify signs, because crypto/tls cannot send server data before the client's
// Finished. So the caller can send its WireGuard initiation with its hello, one round
// trip after the start.
//
// Each side says which suites it can use (suite.go). Nodes before 2026-11-30 use WireGuard
// only.
//
// Each side names a WireGuard key; the caller's hello and the callee's accept prove that
// it is the sender's own (prove.go). Nodes before 2026-11-29 send no proof. The caller of
// this package decides what an unproven key is worth, see Session.Proven.
//
// # Frames
//
//	0       8       12    13
//	+-------+-------+-----+----------- - -
//	| id    | seq   | kind| payload         at most MaxFrame bytes, big endian
//	+-------+-------+-----+----------- - -
//
// The caller chooses the id at random. seq counts the frames of one direction from 0. The
// kinds are open (the caller's first), data, bye (data, and the last frame of its sender)
// and reset (the sender does not know this session or has given it up; its seq has no
// meaning). A reset with id 0 says "I have no WireGuard peer for you". A gap, a duplicate
// or a bad record ends the session with a reset. Frames are not authenticated but TLS
// records are: whatever a relay does to frames costs at most the session, never a
// WireGuard peer.
//
// # Messages
//
// Inside TLS: u16 length, then a JSON object with "type" (see Message).
// Unknown types and fields are ignored.
//
// # Concurrency
//
// A Switch runs one goroutine per introduction in progress and none per idle session.
// Callbacks for one session are called one at a time; so are established and Accept for
// one peer, in the order in which their keys must be installed. Only Known is called with
// a lock of this package held, but established and Accept must not Dial the same peer.
// Callbacks may use the session's methods.
//
// The package does no I/O and does not depend on relays, WireGuard or the policy.
//
//   - switch.go   the table of sessions, and received frames
//   - places.go   which introductions are answered when there are too many
//   - dial.go     the caller's half
//   - answer.go   the callee's half, glare
//   - session.go  a session, and its end
//   - live.go     messages after the introduction
//   - resets.go   resets to send
//   - crl.go      revocation lists, from the side with the newer one
//   - conn.go     a session as the net.Conn under crypto/tls
//   - secure.go   TLS configuration, verification, exported keys
//   - suite.go    how the pair's packets will be encrypted
//   - prove.go    proofs that a WireGuard key is the sender's own
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
	// HandshakeTimeout bounds each wait in an attempt: the caller waits for the callee's
	// first flight and then for its verdict; the callee for the caller's hello and then
	// for its own verdict. So a full uplink may delay an answer by seconds, but a node
	// that does not answer is soon given up. Dial makes at most two attempts. The second
	// waits twice as long for the first flight, and so does a callee for the hello of a
	// known node, so that TCP below the relay connection has time to retransmit.
	HandshakeTimeout = 5 * time.Second

	maxHalfOpen        = 32       // as callee, in all, until the caller has said hello
	maxHalfOpenPerPeer = 4        // as callee, per sender, until decided
	maxDeciding        = 96       // as callee, in all, from hello until decided
	maxSessions        = 4096     // accepted and in progress, both roles …
	maxPeers           = 4096     // table entries, including those for rate limits …
	ownRoom            = 256      // … and more of both for introductions by this node
	maxHandshakeBytes  = 80 << 10 // received before accept, per session, as caller …
	maxOpeningBytes    = 40 << 10 // … and as callee; all places together stay below maxQueueAll
	maxQueue           = 256 << 10
	maxQueueAll        = 8 << 20 // received and not yet read, all sessions
	maxResets          = 64      // resets waiting to be sent

	openBurst  = 20 // introductions a sender may open at once …
	openPerSec = 4  // … and per second after that

	// wasteHalf is the half-life of the count of a sender's failed introductions.
	wasteHalf = 20 * time.Second
)

// Hello is what a node sends about itself. It is valid until the node takes another
// WireGuard key, with another boot id.
type Hello struct {
	Boot uint64   // random for each WireGuard key, so at least for each daemon start
	Key  [32]byte // WireGuard public key; zero if the node cannot use WireGuard
	CRL  uint64   // number of the node's revocation list, 0 for none
	AES  bool     // the node can use SuiteAES
	Only bool     // the node uses nothing but SuiteAES
}

// Config configures New. All fields but PairKey, Known, CRL, OnCRL, OnReset, Message,
// Live, Closed and Log are required. The functions are called from many goroutines.
type Config struct {
	Network cert.NetworkID
	ID      cert.NodeID
	// Identity returns the node certificate in force with its key.
	Identity func() *tls.Certificate
	// Verify checks a certificate against the network's CA, weft time and
	// the revocation list. It is called during handshakes and by Recheck.
	Verify func(leafDER []byte) (*cert.Node, error)
	Hello  func() Hello
	// PairKey returns a secret that only the owners of two WireGuard keys can compute.
	// own is the key in a Hello of this node; it returns an error if the node has another
	// key by now. nil: no key is proven, and proofs of others do not count.
	PairKey func(own, peer [32]byte) ([32]byte, error)
	// CRL returns this node's revocation list. OnCRL gets a newer one, complete but not
	// verified; it must verify and store it and call Recheck.
	CRL   func() (number uint64, der []byte)
	OnCRL func(der []byte)
	// Send passes one frame for a node to the relay. frame is valid until Send returns.
	// It may block while the relay connection is full. An error ends the session.
	Send func(to cert.NodeID, frame []byte) error
	// Accept is called once per introduction as callee, after verification and before
	// accept is sent. It installs the peer with the session's keys and returns nil, or
	// returns why the caller is refused. It may block for a while, within the caller's
	// HandshakeTimeout.
	Accept func(*Session) *Deny
	// Known reports whether a node will probably be let in, before it has presented its
	// certificate: it has a tunnel, or policy allows its last known certificate. Such
	// nodes have places of their own. Known is called with a lock held, at most a few
	// times a second for a node: it must not block or use the Switch. May be nil.
	Known func(cert.NodeID) bool
	// Live is called when the introduction is complete on this side. Before, only the
	// caller may use Send. It must not block for long. May be nil.
	Live func(*Session)
	// Closed is called at the end of a session for which Accept returned nil or that Dial
	// returned, unless Session.Bye, Session.Close or Switch.Close has ended it. Only
	// ErrBye and an error of Verify end the WireGuard peer, too.
	Closed func(*Session, error)
	// Message is called with the messages that this package does not handle itself
	// ("candidates", "call-me" and unknown types). It may be called just before Dial
	// returns the session.
	Message func(*Session, Message)
	// OnReset is called for a reset with id 0: a node, or perhaps only the relay, says
	// that the node has no WireGuard peer for us. It is called from Deliver and must not
	// block.
	OnReset func(from cert.NodeID)
	// LastReceived returns when data of a node were last received through its tunnel, the zero
	// Time if none were. The answer to a ping says it. It must not block. May be nil.
	LastReceived func(cert.NodeID) time.Time
	Log          *slog.Logger
}

// Deny is the reason why an introduction was refused: one of the Deny constants, and a
// text for users, which may be empty.
type Deny struct {
	Reason string
	Text   string
}

// The reasons of Deny. Others may come from newer nodes.
const (
	DenyPolicy      = "policy"      // the callee's policy does not allow the caller
	DenyCertificate = "certificate" // the callee refuses the caller's certificate
	DenyConflict    = "conflict"    // another node has this WireGuard key or overlay address
	DenyBusy        = "busy"        // too many peers
	DenySuite       = "suite"       // no suite that both sides can use and may use
)

// DenyError is returned by Dial when the callee, authenticated as the node that was
// dialled, refuses.
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
	ErrBye      = errors.New("peer said bye")                          // authentic: it has dropped its WireGuard peer
	ErrEnded    = errors.New("session ended by the peer")              // or by a relay that claims so
	ErrReset    = errors.New("session reset by the peer or the relay") // proves nothing
	ErrBroken   = errors.New("session broken")                         // gap, duplicate, bad record, overflow
	ErrReplaced = errors.New("session replaced by a newer one")
	ErrTimeout  = errors.New("no answer to the introduction")
	ErrClosed   = errors.New("introductions are closed")
	ErrTooMany  = errors.New("too many introduction sessions")
	ErrIdentity = errors.New("the certificate is not the dialled or sending node's")
	ErrKey      = errors.New("the WireGuard key is not the peer's own")
	ErrSuite    = errors.New("the peer has changed the suite")
)
