// Package localapi is what the command line says to the daemon: HTTP/1.1 over
// a unix socket. The server half (Server) drives anything that implements
// Node; the client half (Client) is all that the verbs of cmd/weft know.
//
// Wire, all under http://weft.local/v1/ (the fixed Host; any other Host, any
// Origin and any Referer are refused):
//
//	GET  /v1/status    ?name= &ask=no      -> Status
//	GET  /v1/health                        -> 204, the daemon answers
//	POST /v1/up        UpRequest           -> Status
//	POST /v1/down      {}                  -> 204
//	POST /v1/logout    {}                  -> 204
//	GET  /v1/resolve   ?name=              -> Peer
//	GET  /v1/names                         -> Names
//	POST /v1/ping      PingRequest         -> Pong
//	POST /v1/wait      WaitRequest         -> 204
//	GET  /v1/netcheck                      -> Netcheck
//	POST /v1/dns       DNSRequest          -> DNSAnswer
//	     /v1/dns/…                         see Resolver
//	GET  /v1/dns/os                        -> OSDNS
//	POST /v1/dial      ?network=&addr=     -> 101, then the connection (stream.go)
//
// Bodies are JSON of at most MaxBody bytes. Failures are Error as JSON with a
// status of 400 and above; its kind decides the exit code of the verb.
//
// Access: the socket has mode 0600 in a directory of mode 0700, and each
// connection's SO_PEERCRED must be the daemon's own user or root. There is no
// TCP listener.
package localapi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Schema is the value of Status.Schema.
const Schema = "status/1"

// MaxBody bounds the body of a request in bytes.
const MaxBody = 64 << 10

// Node is the daemon as the local API sees it: the implementation is
// overlay.Node. All methods may be called from many goroutines at once. Names
// are a short name ("kitchen-pi"), a full name, with or without the final dot,
// or an overlay address; case does not matter.
//
// Errors that are to reach the user as more than "failed" are *Error.
type Node interface {
	// Status never blocks on the network.
	Status() Status
	// Look is Status for who looks at the peers: the server is asked first which of
	// them are online, for a moment at most and not again within a few seconds. When
	// it does not answer, PresenceAt says how old what is shown is. A name adds that
	// peer, if it is not among them; the errors are those of Resolve.
	Look(ctx context.Context, name string) (Status, error)

	// Up starts the node: with a token it joins the network first (repeating
	// a join is harmless), with "" it uses the identity in the state
	// directory. It returns once the node holds a certificate and runs; it
	// does not wait for the relay (see Wait). KindNotJoined without a token
	// and without an identity, KindApproval when the owner must approve first.
	Up(ctx context.Context, token string) error
	// Down stops all traffic and keeps the identity. Nil when down already.
	Down(ctx context.Context) error
	// Logout gives the identity up, here and on the server.
	Logout(ctx context.Context) error

	// Resolve finds a peer (or this node itself) by name or address, asking
	// the server when it is not known here. KindUnknown says that there is no
	// such peer; KindUnavailable that nobody could be asked.
	Resolve(ctx context.Context, name string) (Peer, error)
	// Names is the snapshot that the DNS zone is made from. It must be cheap:
	// the same *Names is returned until something changed.
	Names() *Names

	// DialContext connects over the overlay. network is tcp, tcp4, tcp6, udp,
	// udp4 or udp6, address is "name:port". A TCP connection has CloseWrite.
	// KindUnknown, KindUnreachable (offline, since when), KindRefused (the
	// port is closed), KindDenied, KindTimeout.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// Ping sends one echo through the tunnel, introducing the nodes first if
	// need be, and waits for the answer until ctx ends (KindTimeout).
	Ping(ctx context.Context, name string) (Pong, error)
	// Wait returns nil once the node runs and is connected to its relay and,
	// unless name is empty, that peer has answered. It returns KindTimeout
	// when ctx ends first, naming what was still missing, and KindUnknown at once
	// for a name that is nobody's.
	Wait(ctx context.Context, name string) error

	// Relays are the server side as configured, for Netcheck.
	Relays() []Relay
}

// Status is the contract "status/1" of weft status --json: fields are added,
// never changed, and empty ones are present.
type Status struct {
	Schema  string `json:"schema"`
	State   State  `json:"state"`
	Network string `json:"network"` // network id, hex
	Version string `json:"version"` // of the daemon
	// Time is when this was said, by the server's clock as far as it is known: what
	// the peers' times are to be compared with. Null when the node is not up.
	Time   *time.Time   `json:"time"`
	Server ServerStatus `json:"server"`
	Self   SelfStatus   `json:"self"`
	Peers  []PeerStatus `json:"peers"`  // the directory, plus every peer with a live tunnel
	Health []Health     `json:"health"` // what needs attention, empty when all is well
}

// State is what the node is doing as a whole.
type State string

// The states.
const (
	StateUnjoined   State = "unjoined"   // no identity yet
	StatePending    State = "pending"    // joined, waits for approval
	StateConnecting State = "connecting" // has an identity, no relay yet
	StateRunning    State = "running"    // connected to its relay
	StateDown       State = "down"       // stopped by weft down
)

// ServerStatus is the coordination server last talked to.
type ServerStatus struct {
	URL    string `json:"url"`
	Online bool   `json:"online"` // it answered the last request made to it
	// LastSeen is when it last answered, by this machine's clock; null: not since
	// the daemon started.
	LastSeen *time.Time `json:"last_seen"`
}

// SelfStatus is this node.
type SelfStatus struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	FQDN   string `json:"fqdn"`
	IPv4   string `json:"ipv4"`
	IPv6   string `json:"ipv6"`
	Online bool   `json:"online"` // connected to a relay
	Relay  string `json:"relay"`  // its name
	// CertificateExpires is the end of the certificate's life, by weft time.
	CertificateExpires *time.Time `json:"certificate_expires"`
}

// PathKind says how packets reach a peer right now.
type PathKind string

// The kinds of path.
const (
	PathDirect  PathKind = "direct"
	PathLane    PathKind = "lane"
	PathRelay   PathKind = "relay"
	PathIdle    PathKind = "idle"    // nothing sent lately: no tunnel, or one whose path was given up
	PathOffline PathKind = "offline" // not connected to any relay
)

// PeerStatus is one peer.
type PeerStatus struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	FQDN   string `json:"fqdn"`
	IPv4   string `json:"ipv4"`
	IPv6   string `json:"ipv6"`
	Online bool   `json:"online"`
	// PresenceAt is when Online was known to be so, by Status.Time; null: it is not
	// known.
	PresenceAt    *time.Time `json:"presence_at"`
	Path          PathKind   `json:"path"`
	PathReason    string     `json:"path_reason"` // why not a better one
	PathNote      string     `json:"path_note"`   // the same in a few words, or ""
	Relay         string     `json:"relay"`
	Endpoint      string     `json:"endpoint"` // IP:port of the direct path
	RTTms         *float64   `json:"rtt_ms"`   // null until measured
	RxBytes       uint64     `json:"rx_bytes"`
	TxBytes       uint64     `json:"tx_bytes"`
	LastHandshake *time.Time `json:"last_handshake"`
	// LastSeen is when anything last came from it, by Status.Time: to the server, or
	// here if that is later.
	LastSeen    *time.Time `json:"last_seen"`
	KeyExchange string     `json:"key_exchange"` // "X25519MLKEM768", "" without a tunnel
}

// Health is one thing that needs attention.
type Health struct {
	Code    string `json:"code"`    // stable, for programs: "server-offline", "dns-port-taken"
	Message string `json:"message"` // for people, with the next step
}

// Peer is a node found by name or address. IPv4 and IPv6 are the zero Addr
// when it has none.
type Peer struct {
	ID     string     `json:"id"`
	Name   string     `json:"name"`
	FQDN   string     `json:"fqdn"`
	IPv4   netip.Addr `json:"ipv4"`
	IPv6   netip.Addr `json:"ipv6"`
	Online bool       `json:"online"`
	Self   bool       `json:"self"`
	// LookedUp says that it is not in the directory that the server gave:
	// what is known of it may be old, and is to be asked for again.
	LookedUp bool `json:"looked_up"`
}

// Names is an immutable snapshot of what this node knows about names.
type Names struct {
	// Ready is false until the node has a configuration: nothing is known
	// about names then, not even which ones are ours.
	Ready bool `json:"ready"`
	// Serial moves with each change of the snapshot.
	Serial uint64 `json:"serial"`
	// Suffix is "weft.internal": lower case, no dots at the ends.
	Suffix string `json:"suffix"`
	// IPv4 and IPv6 are the network's whole address ranges.
	IPv4 netip.Prefix `json:"ipv4_prefix"`
	IPv6 netip.Prefix `json:"ipv6_prefix"`
	// Peers holds this node itself and every peer known here.
	Peers []Peer `json:"peers"`
	// Complete says that Peers is the whole directory and the server was
	// reachable lately, so that a name not in it does not exist. Otherwise a
	// miss is put to Resolve.
	Complete bool `json:"complete"`
	// LookedUp moves when what Resolve said before counts no more: a name may
	// have come to be, or be another's.
	LookedUp uint64 `json:"looked_up"`
	// Aliases are former names of Peers that still lead to them.
	Aliases []Alias `json:"aliases"`
	// NoIPv4 says that a firewall of this machine drops what peers send over IPv4.
	NoIPv4 bool `json:"no_ipv4"`
}

// Alias is a former name of a peer.
type Alias struct {
	Name   string    `json:"name"`   // short
	Target string    `json:"target"` // the peer's name now
	Until  time.Time `json:"until"`
}

// Pong is one answered Ping.
type Pong struct {
	Peer     Peer          `json:"peer"`
	Addr     netip.Addr    `json:"addr"` // the address that answered
	RTT      time.Duration `json:"rtt_ns"`
	Path     PathKind      `json:"path"`
	Reason   string        `json:"path_reason"`
	Relay    string        `json:"relay"`
	Endpoint string        `json:"endpoint"`
}

// Relay is one relay (or the coordination server, when Server is set).
type Relay struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	URLs    []string `json:"urls"` // https://HOST:PORT
	STUN    []string `json:"stun"` // host:port, UDP
	Server  bool     `json:"server"`
	Current bool     `json:"current"` // this node's home
}

// UpRequest is the body of POST /v1/up.
type UpRequest struct {
	Token string `json:"token"`
}

// PingRequest is the body of POST /v1/ping. Timeout is in nanoseconds, 0 is 5 s.
type PingRequest struct {
	Name    string        `json:"name"`
	Timeout time.Duration `json:"timeout_ns"`
}

// WaitRequest is the body of POST /v1/wait. Timeout is in nanoseconds, 0 is
// 30 s.
type WaitRequest struct {
	Name    string        `json:"name"`
	Timeout time.Duration `json:"timeout_ns"`
}

// DNSRequest is the body of POST /v1/dns. Type is "A", "AAAA", "PTR" and so
// on; "" is A and AAAA.
type DNSRequest struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// DNSAnswer is what the daemon's resolver answers.
type DNSAnswer struct {
	Schema    string    `json:"schema"` // "dns/1"
	Name      string    `json:"name"`
	Rcode     string    `json:"rcode"`   // "NOERROR", "NXDOMAIN", ...
	Answers   []string  `json:"answers"` // records in presentation form
	Authority []string  `json:"authority"`
	Source    string    `json:"source"` // "overlay" or the upstream that answered
	Note      string    `json:"note"`   // the text of an extended error, if any
	Steps     []DNSStep `json:"steps"`  // how it was decided, of a trace
}

// Kind sorts errors by what the user can do about them. Each has one exit
// code, see ExitCode.
type Kind string

// The kinds.
const (
	KindFailed      Kind = "failed"         // 1: all else
	KindUsage       Kind = "usage"          // 2: the request makes no sense
	KindNoDaemon    Kind = "no-daemon"      // 3: made by the client only
	KindNotJoined   Kind = "not-joined"     // 4: run weft up TOKEN
	KindApproval    Kind = "needs-approval" // 4
	KindUnknown     Kind = "unknown-peer"   // 5: no such name or address
	KindUnavailable Kind = "unavailable"    // 5: the server is away, so nobody knows
	KindUnreachable Kind = "unreachable"    // 5: offline, or it does not answer
	KindRefused     Kind = "refused"        // 5: the peer answers, the port is closed
	KindDenied      Kind = "denied"         // 6: policy, here or there
	KindTimeout     Kind = "timeout"        // 7
)

// ExitCode is the exit code of a verb that fails with this kind.
func (k Kind) ExitCode() int {
	switch k {
	case KindUsage:
		return 2
	case KindNoDaemon:
		return 3
	case KindNotJoined, KindApproval:
		return 4
	case KindUnknown, KindUnavailable, KindUnreachable, KindRefused:
		return 5
	case KindDenied:
		return 6
	case KindTimeout:
		return 7
	default:
		return 1
	}
}

// Error is a failure that crosses the local API.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"` // what and why: one line, no final dot
	Hint    string `json:"hint"`    // the next command or step, may be empty
}

// Error implements error: the message and the hint on one line.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// KindOf returns the kind of err: the one of the *Error in its chain,
// KindTimeout for a context that ran out, else KindFailed. nil has kind "".
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return KindTimeout
	default:
		return KindFailed
	}
}
