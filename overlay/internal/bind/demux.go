package bind

import (
	"encoding/binary"

	"weft/overlay/relay/lane"
)

// The first bytes of datagrams that are not WireGuard messages.
const (
	firstProbe = 0xF5
	// Sealed and SealedRandom are datagrams of package gcm.
	Sealed       = 5
	SealedRandom = 6
)

// sort is what a datagram claims to be.
type sort uint8

const (
	sortJunk sort = iota
	sortWireGuard
	sortSealed
	sortProbe
	sortSTUN
	sortLane
	sortLaneControl
)

const (
	stunCookie = 0x2112A442
	stunHeader = 20
)

// sortOf returns the sort of a datagram by its first bytes, which are not authenticated.
func sortOf(b []byte) sort {
	if len(b) < stunHeader {
		return sortJunk
	}
	switch first := b[0]; {
	case first >= 1 && first <= SealedRandom && b[1]|b[2]|b[3] == 0:
		if len(b) < minMessage || len(b) > MaxMessage {
			return sortJunk
		}
		if isSealed(b) {
			return sortSealed
		}
		return sortWireGuard
	case first == firstProbe:
		return sortProbe
	case first <= 1 && binary.BigEndian.Uint32(b[4:]) == stunCookie:
		return sortSTUN
	case first == lane.First && b[1]|b[2]|b[3] == 0 && len(b) > lane.HeaderLen:
		return sortLane
	case first == lane.First && b[1] <= 3 && b[2]|b[3] == 0:
		return sortLaneControl
	}
	return sortJunk
}

// isSealed reports whether a message is for the Taker of its Endpoint, not for WireGuard.
func isSealed(msg []byte) bool { return msg[0] == Sealed || msg[0] == SealedRandom }
