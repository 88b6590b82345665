// Package api holds the requests and responses that nodes and the coordination server
// exchange. Both sides import it, so it imports the standard library only.
//
// Transport: HTTP/1.1 with JSON bodies inside a TLS 1.3 connection that was
// negotiated with ALPN "weft-api/1" (package overlay/link). The caller is the
// identity key of the TLS client certificate, never a field of a request.
//
//	POST /v1/join       JoinRequest  -> JoinResponse   self-signed certificate over the identity key
//	POST /v1/ask        …                              to join without a token: ask.go
//	POST /v1/renew      RenewRequest -> RenewResponse  node certificate, also an expired one
//	GET  /v1/config     ?since=EPOCH.N -> Config, or 304 when that is the current version
//	GET  /v1/directory  ?since=EPOCH.N -> Directory
//	GET  /v1/lookup     ?name= | ?ip= | ?id= -> Peer, 404 when unknown or not visible
//	POST /v1/presence   PresenceRequest -> PresenceResponse; 404 by servers before 2026-11-29
//	GET  /v1/crl        -> application/pkix-crl, DER
//	POST /v1/crl        application/pkix-crl, DER -> 204: a list newer than the server's own
//	POST /v1/logout     {} -> 204: the node is deleted and its certificates are revoked
//
// The requests of a relay that runs alone are in relay.go.
//
// Every answer carries the header Weft-Time (RFC 3339, UTC). Errors are Error as JSON.
// Every request carries the header Weft-Protocol, the sender's version. Nodes before
// 2026-11-27 send it in join and renew only. Of a node whose Config says so, any request
// may carry the header Weft-Introductions (introductions.go).
//
// Both sides ignore unknown fields and refuse unknown words of an enum: a selector or
// protocol of a Rule that a node does not know opens nothing. So a new restriction must
// be a word, never a field, which old nodes would ignore.
//
// Versions whose numbers differ by at most one work together, in both directions. An
// older or newer one is refused with CodeProtocol, on every path but /v1/crl: everybody
// must be able to learn who was revoked.
package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Protocol is the version of this API. Each line is a change of the wire with its date.
//
//	1  2026-11-22  first version
//	1  2026-11-22  Peer.Aliases
//	1  2026-11-27  Weft-Protocol, POST /v1/relay/crl
//	1  2026-11-29  POST /v1/renew answers with the certificate in force
//	1  2026-11-29  POST /v1/presence
//	1  2026-11-29  Peer.Unknown, Presence.Unknown, RelayReport.All
//	1  2026-11-30  Config.Introductions, Weft-Introductions
//	1  2026-11-30  POST /v1/ask
//	1  2026-11-30  Config.Overdue, Config.SignIn, Ask.SignIn, NotOverdue in rules
//	1  2026-11-30  JoinResponse.CRL, JoinResponse.Directory
const Protocol = 1

// Oldest and Newest bound the versions that this one works with.
const (
	Oldest = max(1, Protocol-1)
	Newest = Protocol + 1
)

// ProtocolHeader is the request header with the sender's version.
const ProtocolHeader = "Weft-Protocol"

// TimeHeader is the response header with the server's time (RFC 3339 with
// nanoseconds, UTC).
const TimeHeader = "Weft-Time"

// CRLTag names the revocation list with this number, in the header ETag of an answer and
// in If-None-Match of a request. Servers and nodes before 2026-11-29 send neither.
func CRLTag(number uint64) string { return fmt.Sprintf("\"crl-%d\"", number) }

// MaxBody bounds a request body in bytes; longer ones are answered with 413.
const MaxBody = 64 << 10

// Version is the version of a part of the server's state that a node has. The epoch is
// new after a restore, so versions are compared for equality only: any difference means
// "fetch".
type Version struct {
	Epoch uint64 `json:"epoch"`
	N     uint64 `json:"n"`
}

// String returns "EPOCH.N", the form of the since parameter.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Epoch, v.N) }

// IsZero reports whether v is unset: the node has no version yet.
func (v Version) IsZero() bool { return v == Version{} }

// ParseVersion parses the form that String prints; "" is the zero version.
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return Version{}, nil
	}
	e, n, ok := strings.Cut(s, ".")
	epoch, err1 := strconv.ParseUint(e, 10, 64)
	num, err2 := strconv.ParseUint(n, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return Version{}, fmt.Errorf("parse version %q: want EPOCH.N", s)
	}
	return Version{Epoch: epoch, N: num}, nil
}

// Versions are the versions of what a node keeps in step with the server. CRL is the
// CRL's own number, which never goes back, not even after a restore.
type Versions struct {
	Config    Version `json:"config"`
	Directory Version `json:"directory"`
	CRL       uint64  `json:"crl"`
	// Names changes with every change that anybody in the network may see. A node sends
	// it while it remembers names that it looked up. A node that sends none gets none.
	Names Version `json:"names,omitzero"`
}

// JoinRequest asks for a first certificate. Repeating it with the same key
// and the same token is answered with the same node.
type JoinRequest struct {
	Protocol int    `json:"protocol"`
	Secret   []byte `json:"secret"` // the token's secret
	CSR      []byte `json:"csr"`    // PKCS #10, DER, signed by the identity key
	Hostname string `json:"hostname"`
	OS       string `json:"os"`       // runtime.GOOS/GOARCH
	Software string `json:"software"` // weft's version
}

// JoinResponse is what a node needs to take part in the network.
type JoinResponse struct {
	Certificate []byte `json:"certificate"` // DER
	Config      Config `json:"config"`
	// CRL and Directory are the answers to GET /v1/crl and GET /v1/directory, which a node
	// would ask for next, over a connection that shows its certificate. The server leaves
	// out what is long, and the node then fetches it; servers before 2026-11-30 leave out
	// both.
	CRL       []byte     `json:"crl,omitempty"`
	Directory *Directory `json:"directory,omitempty"`
}

// RenewRequest asks for the certificate in force over the same identity key: a new one
// when less than a third of the last one's life is left, when it has expired, or when
// something in it has changed; else the last one. The server accepts it with an expired
// certificate too, as long as the node exists.
type RenewRequest struct {
	Protocol int    `json:"protocol"`
	CSR      []byte `json:"csr"`
	OS       string `json:"os"`
	Software string `json:"software"`
}

// RenewResponse carries the certificate in force.
type RenewResponse struct {
	Certificate []byte `json:"certificate"`
}

// Config is a node's whole configuration. Its size does not depend on the
// number of nodes in the network.
type Config struct {
	Version    Version   `json:"version"`
	Versions   Versions  `json:"versions"` // current versions of everything, to save a nudge
	ServerTime time.Time `json:"server_time"`
	Network    string    `json:"network"` // NetworkID, hex
	Suffix     string    `json:"suffix"`  // "weft.internal", no dots at the ends
	Self       Self      `json:"self"`

	ServerURLs []string `json:"server_urls"` // https://HOST:PORT, all of them
	ServerCAs  [][]byte `json:"server_cas"`  // DER
	NetworkCAs [][]byte `json:"network_cas"` // DER
	Relays     []Relay  `json:"relays"`

	// Rules say who may reach this node. Everything else is denied.
	Rules []Rule `json:"rules"`
	// Overdue are the nodes whose people have yet to sign them in again, NodeIDs in hex, as
	// far as they could reach this node: see NotOverdue.
	Overdue []string `json:"overdue,omitempty"`
	// SignIn says when this node's person has to sign it in again, nil for never.
	SignIn *SignIn `json:"sign_in,omitempty"`
	// Directory says whether this node may reach anybody, so that it should fetch the
	// directory. Lookup says that the directory is too large to fetch: ask by name
	// instead.
	Directory bool `json:"directory"`
	Lookup    bool `json:"lookup"`

	DNS DNS `json:"dns"`
	// ReleaseKey is the public half (Ed25519) of the key with which the network's owner
	// signs releases. A node pins the first one that it receives.
	ReleaseKey []byte `json:"release_key"`
	// Introductions says that the network's owner has this node report who introduces
	// themselves to it: see IntroductionsHeader.
	Introductions bool `json:"introductions,omitempty"`
	// RenewAfter is the share of a certificate's life after which it is
	// renewed, in percent (66).
	RenewAfter int `json:"renew_after"`
}

// SignIn is how long a node may go on until its person signs it in again (ask.go). Times are
// the server's.
type SignIn struct {
	Due    time.Time `json:"due"`
	Remind time.Time `json:"remind"` // from when on its user is told
	// Overdue says that the node reaches nothing, as the server has decided.
	Overdue bool `json:"overdue"`
}

// Self describes this node.
type Self struct {
	ID   string   `json:"id"` // NodeID, hex
	Name string   `json:"name"`
	FQDN string   `json:"fqdn"`
	IPv4 string   `json:"ipv4"`
	IPv6 string   `json:"ipv6"`
	User string   `json:"user"`
	Tags []string `json:"tags"`
	// IPv4Prefix and IPv6Prefix are the network's whole address ranges.
	IPv4Prefix string `json:"ipv4_prefix"`
	IPv6Prefix string `json:"ipv6_prefix"`
	// Ephemeral nodes are deleted by the server soon after they go offline.
	Ephemeral bool `json:"ephemeral"`
}

// Relay is one relay that nodes may use.
type Relay struct {
	ID   string   `json:"id"`   // hex of the first 16 bytes of SHA-256 over the relay's SPKI
	Name string   `json:"name"` // for people
	URLs []string `json:"urls"` // https://HOST:PORT
	STUN []string `json:"stun"` // host:port, UDP; those that offer relayed UDP too come first
}

// Rule lets the sources in From reach this node at Ports.
//
// A selector is "*", "user:NAME" (nodes of that user that carry no tag),
// "group:NAME" or "tag:NAME"; or AESOnly, NotOverdue or both in this order, and one of these.
type Rule struct {
	From  []string    `json:"from"`
	Ports []PortRange `json:"ports"`
}

// AESOnly, before a selector of Rule.From, makes the rule grant nothing to those nodes
// unless their packets are encrypted with AES. Earlier nodes do not know the word, so that
// there the rule grants nothing at all.
const AESOnly = "aes:"

// NotOverdue, before a selector of Rule.From, makes the rule grant nothing to those nodes
// that are in Config.Overdue. Earlier nodes do not know the word, so that there the rule
// grants nothing at all.
const NotOverdue = "not-overdue:"

// PortRange is one protocol ("tcp", "udp", "icmp" or "*") with ports First to
// Last; 0 to 65535 is every port. ICMP has none.
type PortRange struct {
	Proto string `json:"proto"`
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// Directory lists the nodes that the caller may reach. Without Full it is a delta on the
// version in the request.
type Directory struct {
	Version Version  `json:"version"`
	Full    bool     `json:"full"`
	Peers   []Peer   `json:"peers"`
	Removed []string `json:"removed"` // NodeIDs, hex
}

// Changes is a delta from the directory at version Since to a newer one. The coordination
// server sends it unasked over a relay connection to its own relay, where it is as
// trustworthy as an answer of the API. It is never Full, and always short: when more has
// changed, the node is only nudged to fetch.
type Changes struct {
	Since Version `json:"since"`
	Directory
}

// Peer is another node. Its certificate says who it is; the rest is presence and only a
// hint.
type Peer struct {
	Certificate []byte     `json:"certificate"` // DER
	Relay       string     `json:"relay"`       // Relay.ID of its home, "" when unknown
	Online      bool       `json:"online"`
	LastSeen    *time.Time `json:"last_seen"`
	// Unknown says that Online is false only because the server does not know yet: the
	// server or the peer's relay has just started, or the peer may be moving to another
	// relay. Servers before 2026-11-29 never set it.
	Unknown bool `json:"unknown,omitempty"`
	// Aliases are the node's former names, by which it can still be reached. The server
	// assigns them, as it does the name in the certificate.
	Aliases []Alias `json:"aliases,omitempty"`
}

// Alias is a former name of a device.
type Alias struct {
	Name  string    `json:"name"` // short
	Until time.Time `json:"until"`
}

// MaxAliases bounds the former names of one device; the oldest are dropped.
const MaxAliases = 8

// MaxPresence bounds the nodes in one PresenceRequest.
const MaxPresence = 1000

// PresenceRequest asks for the presence of nodes. A change of presence raises no version:
// a node asks when a user wants to see it.
type PresenceRequest struct {
	IDs []string `json:"ids"` // NodeIDs, hex, at most MaxPresence
}

// PresenceResponse has the nodes of the request that the caller may reach, in any order.
type PresenceResponse struct {
	Peers []Presence `json:"peers"`
}

// Presence says whether a node is connected to a relay, and when anything was last
// received from it, null for never. It is a hint, as in Peer.
type Presence struct {
	ID       string     `json:"id"`
	Online   bool       `json:"online"`
	LastSeen *time.Time `json:"last_seen"`
	Unknown  bool       `json:"unknown,omitempty"` // as in Peer
}

// Error is the body of every answer with a status of 400 and above.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`    // one of the Code constants
	Message string `json:"message"` // what and why, one line, for people
	Hint    string `json:"hint"`    // what to do next; may be empty
}

// Error implements error.
func (e *Error) Error() string {
	if e.Hint != "" {
		return e.Message + ": " + e.Hint
	}
	return e.Message
}

// The codes of Error.
const (
	CodeBadRequest   = "bad-request"
	CodeTokenUnknown = "token-unknown" // never existed, or a typo
	CodeTokenExpired = "token-expired"
	CodeTokenUsed    = "token-used"
	CodeTokenRevoked = "token-revoked"
	CodeTokenKind    = "token-kind"   // a relay's token used by a device, or the other way round
	CodeUnauthorized = "unauthorized" // no such node, or another key's
	CodeRevoked      = "revoked"      // the node was deleted
	CodeNotFound     = "not-found"
	CodeConflict     = "conflict"
	CodeTooLarge     = "too-large"
	CodeTooMany      = "too-many"
	CodeFull         = "pool-exhausted"
	CodeUnavailable  = "unavailable"
	CodeProtocol     = "protocol"
	CodeInternal     = "internal"
)
