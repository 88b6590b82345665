// Package localapi is what the command line says to the daemon: HTTP/1.1 over
// a unix socket. The server half (Server) drives anything that implements
// Node; the client half (Client) is all that the verbs of cmd/weft know. What is
// said is of package status; this one carries it.
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
//	GET  /v1/netcheck                      -> netcheck.Report
//	POST /v1/dns       DNSRequest          -> DNSAnswer
//	     /v1/dns/…                         see Resolver
//	GET  /v1/dns/os                        -> OSDNS
//	POST /v1/dial      ?network=&addr=     -> 101, then the connection (stream.go)
//
// Bodies are JSON of at most MaxBody bytes. Failures are status.Error as JSON with a
// status of 400 and above; its kind decides the exit code of the verb.
//
// Access: the socket has mode 0600 in a directory of mode 0700, and each
// connection's SO_PEERCRED must be the daemon's own user or root. There is no
// TCP listener.
package localapi

import (
	"context"
	"net"
	"time"

	"weft/overlay/status"
)

// MaxBody bounds the body of a request in bytes.
const MaxBody = 64 << 10

// Node is the daemon as the local API sees it: the implementation is
// overlay.Node. All methods may be called from many goroutines at once. Names
// are a short name ("kitchen-pi"), a full name, with or without the final dot,
// or an overlay address; case does not matter.
//
// Errors that are to reach the user as more than "failed" are *status.Error.
type Node interface {
	// Status never blocks on the network.
	Status() status.Status
	// Look is Status for who looks at the peers: the server is asked first which of
	// them are online, for a moment at most and not again within a few seconds. When
	// it does not answer, PresenceAt says how old what is shown is. A name adds that
	// peer, if it is not among them; the errors are those of Resolve.
	Look(ctx context.Context, name string) (status.Status, error)

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
	Resolve(ctx context.Context, name string) (status.Peer, error)
	// Names is the snapshot that the DNS zone is made from. It must be cheap:
	// the same *Names is returned until something changed.
	Names() *status.Names

	// DialContext connects over the overlay. network is tcp, tcp4, tcp6, udp,
	// udp4 or udp6, address is "name:port". A TCP connection has CloseWrite.
	// KindUnknown, KindUnreachable (offline, since when), KindRefused (the
	// port is closed), KindDenied, KindTimeout.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// Ping sends one echo through the tunnel, introducing the nodes first if
	// need be, and waits for the answer until ctx ends (KindTimeout).
	Ping(ctx context.Context, name string) (status.Pong, error)
	// Wait returns nil once the node runs and is connected to its relay and,
	// unless name is empty, that peer has answered. It returns KindTimeout
	// when ctx ends first, naming what was still missing, and KindUnknown at once
	// for a name that is nobody's.
	Wait(ctx context.Context, name string) error

	// Relays are the server side as configured, for Netcheck.
	Relays() []status.Relay
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
