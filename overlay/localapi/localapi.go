// Package localapi carries the calls of the command line to the daemon: HTTP/1.1 over a
// unix socket. The server half (Server) calls anything that implements Node; the verbs
// of cmd/weft use the client half (Client). The types that it carries are those of
// package status.
//
// Requests, all under http://weft.local/v1/ (a fixed Host; any other Host, any
// Origin and any Referer are refused):
//
//	GET  /v1/status    ?name= &ask=no      -> Status
//	GET  /v1/health                        -> 204, the daemon answers
//	POST /v1/up        UpRequest           -> Status
//	POST /v1/ask       AskRequest          -> AskEvent, one a line, the last with Status or Error
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
// Bodies are JSON of at most MaxBody bytes. A failure is a status.Error as JSON with an
// HTTP status of 400 or above; its kind decides the exit code of the verb.
//
// Access: the socket has mode 0600 in a directory of mode 0700, and each connection's
// SO_PEERCRED must be the daemon's own user or root. There is no TCP listener.
package localapi

import (
	"context"
	"net"
	"time"

	"weft/overlay/status"
)

// MaxBody bounds the body of a request in bytes.
const MaxBody = 64 << 10

// Node is the daemon, implemented by overlay.Node. All methods may be called from many
// goroutines at once. A name is a short name ("kitchen-pi"), a full name with or
// without the final dot, or an overlay address, in upper or lower case.
//
// Errors whose kind matters to the user are *status.Error.
type Node interface {
	// Status never blocks on the network.
	Status() status.Status
	// Look is Status for callers that show the peers: it first asks the server which of
	// them are online, for a moment at most and not again within a few seconds. If the
	// server does not answer, PresenceAt says how old the shown presence is. A name
	// adds that peer, if it is not among them; its errors are those of Resolve.
	Look(ctx context.Context, name string) (status.Status, error)

	// Up starts the node. With a token it first joins the network (repeating a join
	// does no harm); with "" it uses the identity in the state directory. It returns
	// once the node has a certificate and runs; it does not wait for the relay (see
	// Wait). The error is KindNotJoined without token and identity, KindApproval if the
	// owner has to approve first.
	Up(ctx context.Context, token string) error
	// Ask is Up for a device without a token: it calls shown with the code that a
	// signed-in person approves, and waits for that. The server, https://HOST[:PORT], is
	// known by its certificate, or by fingerprint; if by neither, shown gets its
	// fingerprint and the error is KindDenied. If ctx ends first, nobody can approve it
	// any more.
	Ask(ctx context.Context, server, fingerprint string, shown func(status.Asked)) error
	// Down stops all traffic and keeps the identity. It returns nil if the node is down
	// already.
	Down(ctx context.Context) error
	// Logout removes the identity, here and on the server.
	Logout(ctx context.Context) error

	// Resolve finds a peer, or this node itself, by name or address, and asks the
	// server if it is unknown here. KindUnknown means that there is no such peer,
	// KindUnavailable that the server could not be asked.
	Resolve(ctx context.Context, name string) (status.Peer, error)
	// Names is the snapshot for the DNS zone. It must be cheap: it returns the same
	// *Names until something changed.
	Names() *status.Names

	// DialContext connects over the overlay. network is tcp, tcp4, tcp6, udp, udp4 or
	// udp6, address is "name:port". A TCP connection has CloseWrite. Error kinds are
	// KindUnknown, KindUnreachable (offline, since when), KindRefused (the port is
	// closed), KindDenied and KindTimeout.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// Ping sends one echo through the tunnel, after an introduction if there is no
	// tunnel yet, and waits for the reply until ctx ends (KindTimeout).
	Ping(ctx context.Context, name string) (status.Pong, error)
	// Wait returns nil once the node runs and is connected to its relay and, unless
	// name is empty, that peer has answered. If ctx ends first it returns KindTimeout
	// and says what was missing; for an unknown name it returns KindUnknown at once.
	Wait(ctx context.Context, name string) error

	// Relays are the configured server and relays, for Netcheck.
	Relays() []status.Relay
}

// UpRequest is the body of POST /v1/up.
type UpRequest struct {
	Token string `json:"token"`
}

// AskRequest is the body of POST /v1/ask.
type AskRequest struct {
	Server      string `json:"server"`
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256, hex, with or without colons
}

// AskEvent is one line of the answer to POST /v1/ask. One field is set.
type AskEvent struct {
	Asked  *status.Asked  `json:"asked,omitempty"` // more than once if the server was restarted
	Status *status.Status `json:"status,omitempty"`
	Error  *status.Error  `json:"error,omitempty"`
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

// DNSAnswer is the answer of the daemon's resolver.
type DNSAnswer struct {
	Schema    string    `json:"schema"` // "dns/1"
	Name      string    `json:"name"`
	Rcode     string    `json:"rcode"`   // "NOERROR", "NXDOMAIN", ...
	Answers   []string  `json:"answers"` // records in presentation form
	Authority []string  `json:"authority"`
	Source    string    `json:"source"` // "overlay" or the upstream that answered
	Note      string    `json:"note"`   // the text of an extended error, if any
	Steps     []DNSStep `json:"steps"`  // the decisions, only in a trace
}
