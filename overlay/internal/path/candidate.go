package path

import "net/netip"

// Type says how a candidate was found. It is part of the message "candidates" of a
// session.
type Type string

// The types of candidates.
const (
	TypeHost   Type = "host"   // an address of an interface
	TypeSTUN   Type = "stun"   // the node's socket as a STUN server saw it
	TypeMapped Type = "mapped" // a port mapping made by the gateway (PCP, NAT-PMP, UPnP)
	TypeManual Type = "manual" // given by the user, --endpoint
	TypeSeen   Type = "seen"   // the source of a probe that was authenticated
)

// Candidate is an address at which a node may be reached directly. Addr is unmapped
// (never IPv4 in IPv6) and without a zone.
type Candidate struct {
	Addr netip.AddrPort
	Type Type
}

// Mapping is the kind of NAT between a node's UDP socket of one address family and the
// internet. It is sent as its string.
type Mapping string

// The kinds of mapping. The zero value is MappingUnknown.
const (
	// MappingUnknown: no STUN server could be asked, or only one address answered, so
	// that easy and hard cannot be distinguished (if there are candidates of the type
	// stun, one answered).
	MappingUnknown Mapping = ""
	// MappingNone: the address seen from outside is one of the node's own.
	// There may still be a firewall.
	MappingNone Mapping = "none"
	// MappingEasy: one address and port outside, whatever the destination.
	MappingEasy Mapping = "easy"
	// MappingHard: another port, or address, outside for each destination.
	MappingHard Mapping = "hard"
	// MappingBlocked: the node has addresses of the family and has asked STUN servers,
	// but none answered. Without any address of the family it is MappingUnknown.
	MappingBlocked Mapping = "blocked"
)

// NAT is the kind of NAT in front of a node, as the node itself has found out.
type NAT struct {
	IPv4, IPv6 Mapping
}
