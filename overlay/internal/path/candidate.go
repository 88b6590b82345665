package path

import "net/netip"

// Type says how a candidate was learnt; it is what travels in the session's
// "candidates" message.
type Type string

// The types of candidates.
const (
	TypeHost   Type = "host"   // an address of an interface
	TypeSTUN   Type = "stun"   // the node's socket as a STUN server saw it
	TypeMapped Type = "mapped" // a port mapping made by the gateway (PCP, NAT-PMP, UPnP)
	TypeManual Type = "manual" // given by the user, --endpoint
	TypeSeen   Type = "seen"   // the source of a probe that was authenticated
)

// Candidate is an address at which a node can perhaps be reached directly.
// Addr is unmapped (never IPv4 in IPv6) and without a zone.
type Candidate struct {
	Addr netip.AddrPort
	Type Type
}

// Mapping is what stands between a node's UDP socket of one address family
// and the internet. It travels as its string.
type Mapping string

// The kinds of mapping. The zero value is MappingUnknown.
const (
	// MappingUnknown: nobody could be asked, or only one address answered, so
	// that easy and hard cannot be told apart (Candidates of the type stun
	// tell whether anybody answered).
	MappingUnknown Mapping = ""
	// MappingNone: the address seen from outside is one of the node's own.
	// There may still be a firewall.
	MappingNone Mapping = "none"
	// MappingEasy: one address and port outside, whatever the destination.
	MappingEasy Mapping = "easy"
	// MappingHard: another port, or address, outside for each destination.
	MappingHard Mapping = "hard"
	// MappingBlocked: the node has addresses of the family and somebody to
	// ask, but nobody answered. Where there is no address of the family at
	// all, it is MappingUnknown.
	MappingBlocked Mapping = "blocked"
)

// NAT is a node's view of what is in front of it, one's own or as a peer told.
type NAT struct {
	IPv4, IPv6 Mapping
}
