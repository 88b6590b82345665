// Package relay is a node's half of the relay connection, and the frames that both halves
// exchange. Package relayserver is the other half.
//
// Inside a weft-relay/1 link (package overlay/link) each side sends frames:
//
//	type 1 B | length of the body 3 B, big endian | body
//
//	packet    1  peer 16 B, payload ≤ 65,535 B   a WireGuard message
//	session   2  peer 16 B, payload ≤ 16,384 B   an introduction frame
//	gone      3  peer 16 B, reason 1 B           from the relay
//	busy      4  peer 16 B                       from the relay
//	ping      5  8 B, answered by
//	pong      6  the same 8 B
//	versions  7  JSON Holds                      from the node
//	nudge     8  JSON Nudge                      from the relay
//	replaced  9  empty                           from the relay, at any time, even first
//	draining 10  JSON Draining                   from the relay
//	crl      11  DER                             from the relay
//	welcome  12  JSON Welcome                    from the relay, the first frame
//	refused  13  reason 1 B                      from the relay, the last frame
//	lane     14  peer 16 B                       from the node: asks for a lane with peer
//	             peer 16 B, lane.Info 82 B       from the relay, to both nodes
//	lanegone 15  peer 16 B, reason 1 B           from the relay: no lane, or it has ended
//	rebind   16  peer 16 B                       from the relay: see package lane
//
// Lanes (package lane) are for relayed UDP. A node asks only a relay whose welcome offers
// them, because an older one would close the connection.
//
// peer is the destination in frames to the relay and the sender in frames from it. The
// relay takes sender and network from the certificate of the link, so no frame can name
// another sender or network.
//
// What a relay says is a hint: it may start a fetch or an introduction, but never ends
// anything. A node ignores frames of unknown types with bodies up to 64 KB, and bytes
// after the fields above. A relay closes the connection on any frame that is not as
// above, so a node sends new frames only if welcome has offered them.
//
// Not for embedders: a node keeps its own connections to relays; see package
// overlay.
package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay/lane"
)

// Type is the first byte of a frame.
type Type uint8

// The types of frames.
const (
	TypePacket   Type = 1
	TypeSession  Type = 2
	TypeGone     Type = 3
	TypeBusy     Type = 4
	TypePing     Type = 5
	TypePong     Type = 6
	TypeVersions Type = 7
	TypeNudge    Type = 8
	TypeReplaced Type = 9
	TypeDraining Type = 10
	TypeCRL      Type = 11
	TypeWelcome  Type = 12
	TypeRefused  Type = 13
	TypeLane     Type = 14
	TypeLaneGone Type = 15
	TypeRebind   Type = 16
)

const (
	// HeadLen is the length of a frame's head.
	HeadLen = 4
	// PeerLen is the length of the peer that begins the body of a packet,
	// session, gone, busy, lane, lanegone and rebind frame.
	PeerLen = 16
	// MaxPacket and MaxSession bound payloads, MaxCRL the DER of a crl frame,
	// MaxJSON the bodies that are JSON.
	MaxPacket  = 65535
	MaxSession = 16 << 10
	MaxCRL     = 1 << 20
	MaxJSON    = 4 << 10
	maxShort   = 256 // room for fields that later relays add
	maxUnknown = 64 << 10
	// MaxFrame is the longest frame a relay takes.
	MaxFrame = HeadLen + PeerLen + MaxPacket
)

// ErrFrame is wrapped by every error about a malformed frame.
var ErrFrame = errors.New("bad relay frame")

// GoneReason says why a relay believes that it cannot deliver.
type GoneReason uint8

// The reasons of gone frames.
const (
	GoneAbsent GoneReason = 1 // not connected here
	GoneSilent GoneReason = 2 // connected, but it did not answer a ping within 2 s, or longer if its answers are known to be slow
)

func (r GoneReason) String() string {
	switch r {
	case GoneAbsent:
		return "not connected to this relay"
	case GoneSilent:
		return "does not answer the relay"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// LaneReason says why there is no lane, or why it has ended.
type LaneReason uint8

// The reasons of lanegone frames.
const (
	LaneAbsent LaneReason = 1 // the peer is not connected here, or no longer
	LaneFull   LaneReason = 2 // this node, or all nodes together, have as many as they may
	LaneOff    LaneReason = 3 // the relay has no UDP port
	LaneIdle   LaneReason = 4 // nobody sent anything for lane.Info's Idle
)

func (r LaneReason) String() string {
	switch r {
	case LaneAbsent:
		return "the peer is not connected to this relay"
	case LaneFull:
		return "the relay has no room for more relayed UDP"
	case LaneOff:
		return "the relay has no UDP port"
	case LaneIdle:
		return "nothing was sent for a while"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// RefusedReason says why a relay refuses a connection.
type RefusedReason uint8

// The reasons of refused frames.
const (
	RefusedUnknown  RefusedReason = 1 // the node is unknown or revoked, or the relay cannot check that now
	RefusedProtocol RefusedReason = 2 // the node sent something else than relay frames
	RefusedFull     RefusedReason = 3 // the relay has no room for another client
)

// RefusedError is returned by Run when the relay has refused the connection.
type RefusedError struct{ Reason RefusedReason }

func (e *RefusedError) Error() string {
	switch e.Reason {
	case RefusedUnknown:
		return "the relay does not accept this device's certificate"
	case RefusedProtocol:
		return "the relay did not understand this device"
	case RefusedFull:
		return "the relay has no room for another device"
	}
	return fmt.Sprintf("the relay refused this device: reason %d", e.Reason)
}

// Welcome is the body of the relay's first frame.
type Welcome struct {
	ServerTime time.Time    `json:"server_time"`
	Versions   api.Versions `json:"versions"` // the current ones for this node
	// SpreadMS is over how many milliseconds idle nodes should spread their
	// attempts when this relay is lost.
	SpreadMS int `json:"spread_ms"`
	// Lanes says that the relay understands lane frames.
	Lanes bool `json:"lanes,omitempty"`
	// Away says that the relay cannot reach the coordination server.
	Away bool `json:"server_away,omitempty"`
}

// Holds says which versions the node has. It is a node's first frame to its home relay,
// so it also says which process this is.
type Holds struct {
	api.Versions
	// Process is a random value of the running process for this relay; earlier versions
	// send none. The node sends it to this relay only. So a connection that replaces
	// another and has the same value comes from the same machine through another network,
	// not from a clone.
	Process string `json:"process,omitempty"`
}

// Nudge says that the node's versions are not the current ones, or that the server has
// become unreachable or reachable.
type Nudge struct {
	Versions api.Versions `json:"versions"`
	SpreadMS int          `json:"spread_ms"` // fetch after a random time of at most this many milliseconds
	Away     bool         `json:"server_away,omitempty"`
	// Changes brings the node's directory up to date. A node takes it only from a relay
	// that is the coordination server itself.
	Changes *api.Changes `json:"changes,omitempty"`
}

// Draining says that the relay is about to shut down.
type Draining struct {
	SpreadMS int `json:"spread_ms"` // idle nodes reconnect after a random time of at most this many milliseconds
}

// AppendFrame appends a frame whose body is the concatenation of parts. The caller must
// respect the bounds of the type.
func AppendFrame(dst []byte, t Type, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	dst = append(dst, byte(t), byte(n>>16), byte(n>>8), byte(n))
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

// AppendPeerFrame appends a frame that begins with a peer.
func AppendPeerFrame(dst []byte, t Type, peer cert.NodeID, payload []byte) []byte {
	n := PeerLen + len(payload)
	dst = append(dst, byte(t), byte(n>>16), byte(n>>8), byte(n))
	dst = append(dst, peer[:]...)
	return append(dst, payload...)
}

// FrameLen returns the length of the frame that begins at b, head included; b
// holds at least HeadLen bytes.
func FrameLen(b []byte) int { return HeadLen + int(binary.BigEndian.Uint32(b)&0xffffff) }

// Peer returns the peer of a frame that begins with one.
func Peer(frame []byte) cert.NodeID { return cert.NodeID(frame[HeadLen:]) }

// SetPeer overwrites the peer of a frame.
func SetPeer(frame []byte, id cert.NodeID) { copy(frame[HeadLen:HeadLen+PeerLen], id[:]) }

// Side says which side reads.
type Side bool

// The sides.
const (
	AtRelay Side = false
	AtNode  Side = true
)

// CheckHead returns an error unless a frame of type t with a body of n bytes may be sent
// to a side. It finds every wrong length before a byte of the body is buffered. Errors
// wrap ErrFrame.
func CheckHead(side Side, t Type, n int) error {
	lo, hi := 0, 0
	switch t {
	case TypePacket:
		lo, hi = PeerLen+1, PeerLen+MaxPacket
	case TypeSession:
		lo, hi = PeerLen+1, PeerLen+MaxSession
	case TypePing, TypePong:
		lo, hi = 8, 8
	case TypeVersions:
		lo, hi = 2, MaxJSON
		if side == AtNode {
			return fmt.Errorf("%w: type %d is not for nodes", ErrFrame, t)
		}
	case TypeLane:
		lo, hi = PeerLen, PeerLen
		if side == AtNode {
			lo, hi = PeerLen+lane.InfoLen, maxShort
		}
	default:
		if side == AtRelay {
			return fmt.Errorf("%w: type %d is not for relays", ErrFrame, t)
		}
		switch t {
		case TypeGone, TypeLaneGone:
			lo, hi = PeerLen+1, maxShort
		case TypeBusy, TypeRebind:
			lo, hi = PeerLen, maxShort
		case TypeNudge, TypeWelcome, TypeDraining:
			lo, hi = 2, MaxJSON
		case TypeCRL:
			lo, hi = 1, MaxCRL
		case TypeRefused:
			lo, hi = 1, maxShort
		case TypeReplaced:
			hi = maxShort
		default:
			hi = maxUnknown
		}
	}
	if n < lo || n > hi {
		return fmt.Errorf("%w: type %d with %d bytes", ErrFrame, t, n)
	}
	return nil
}

// hasPeer says whether bodies of the type begin with a peer.
func hasPeer(t Type) bool {
	return t >= TypePacket && t <= TypeBusy || t >= TypeLane && t <= TypeRebind
}
