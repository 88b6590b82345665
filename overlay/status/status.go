// Package status is the state of a node for people and programs: what weft status
// shows, what needs attention, names, and the kinds of errors. It is pure: no I/O, no
// goroutine, and the time is an argument. Its types are the JSON of the local API,
// which users' scripts read: fields and words are added, never changed.
package status

import (
	"time"

	"weft/overlay/fips"
)

// Schema is the value of Status.Schema.
const Schema = "status/1"

// Status is the contract "status/1" of weft status --json: fields are added,
// never changed, and empty ones are present.
type Status struct {
	Schema  string `json:"schema"`
	State   State  `json:"state"`
	Network string `json:"network"` // network id, hex
	Version string `json:"version"` // of the daemon
	// Time is when the status was made, by the server's clock as far as it is known:
	// compare the peers' times with it. Null if the node is not up.
	Time   *time.Time   `json:"time"`
	Server ServerStatus `json:"server"`
	Self   SelfStatus   `json:"self"`
	Peers  []PeerStatus `json:"peers"`  // the directory, plus every peer with a live tunnel
	Health []Health     `json:"health"` // what needs attention, empty if nothing does
	// FIPS is the daemon's FIPS 140-3 mode; zero from a daemon of an earlier version.
	FIPS fips.Status `json:"fips"`
}

// State is the state of the whole node.
type State string

// The states.
const (
	StateUnjoined   State = "unjoined"   // no identity yet
	StatePending    State = "pending"    // joined, waiting for approval
	StateConnecting State = "connecting" // has an identity, no relay yet
	StateRunning    State = "running"    // connected to its relay
	StateDown       State = "down"       // stopped by weft down
)

// ServerStatus is the coordination server of the last request.
type ServerStatus struct {
	URL    string `json:"url"`
	Online bool   `json:"online"` // it answered the last request
	// LastSeen is the time of its last answer, by this machine's clock; null if there
	// was none since the daemon started.
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
	// CertificateExpires is when the certificate expires, by weft time.
	CertificateExpires *time.Time `json:"certificate_expires"`
	// ReportsIntroductions says that the network's owner has this node tell the server
	// who introduces themselves to it, and when.
	ReportsIntroductions bool `json:"reports_introductions"`
	// SignIn is when this node's person has to sign it in again; null for never.
	SignIn *SignIn `json:"sign_in"`
}

// SignIn is when a node's person has to sign it in again, by the server's clock.
type SignIn struct {
	Due     time.Time `json:"due"`
	Soon    bool      `json:"soon"`    // weft up asks for it
	Overdue bool      `json:"overdue"` // the node reaches nothing until then
}

// PathKind is how packets reach a peer right now.
type PathKind string

// The kinds of path.
const (
	PathDirect  PathKind = "direct"
	PathLane    PathKind = "lane"
	PathRelay   PathKind = "relay"
	PathIdle    PathKind = "idle"    // nothing sent lately: no tunnel, or one without a current path
	PathOffline PathKind = "offline" // not connected to any relay
)

// Words is what people read for a kind of path; JSON has the kind itself.
func (k PathKind) Words() string {
	if k == PathLane {
		return "relayed UDP"
	}
	return string(k)
}

// PeerStatus is one peer.
type PeerStatus struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	FQDN   string `json:"fqdn"`
	IPv4   string `json:"ipv4"`
	IPv6   string `json:"ipv6"`
	Online bool   `json:"online"`
	// PresenceAt is when Online was known, by Status.Time; null if it is unknown.
	PresenceAt    *time.Time `json:"presence_at"`
	Path          PathKind   `json:"path"`
	PathReason    string     `json:"path_reason"` // why the path is not a better one
	PathNote      string     `json:"path_note"`   // PathReason in a few words, or ""
	Relay         string     `json:"relay"`
	Endpoint      string     `json:"endpoint"` // IP:port of the direct path
	RTTms         *float64   `json:"rtt_ms"`   // null until measured
	RxBytes       uint64     `json:"rx_bytes"`
	TxBytes       uint64     `json:"tx_bytes"`
	LastHandshake *time.Time `json:"last_handshake"`
	// LastSeen is when the peer last sent anything, by Status.Time: to the server, or
	// to this node if that is later.
	LastSeen    *time.Time `json:"last_seen"`
	KeyExchange string     `json:"key_exchange"` // "X25519MLKEM768", "" without a tunnel
	// Suite is how packets are encrypted: "aes", "wireguard", or "" without a tunnel.
	Suite string `json:"suite"`
	// KeysSince is when the present key for sending began, by Status.Time, and
	// KeysPackets how many packets were sent under it; null for WireGuard.
	KeysSince   *time.Time `json:"keys_since"`
	KeysPackets *uint64    `json:"keys_packets"`
}
