package gcm

import (
	"encoding/binary"

	"weft/overlay/internal/bind"
)

// The lengths in bytes; doc.go describes the format.
const (
	headerLen = 16 // kind, zeros, index, counter
	nonceLen  = 12 // a random nonce, after the header
	tagLen    = 16

	overhead       = headerLen + tagLen
	overheadRandom = overhead + nonceLen
)

// header is the first part of a datagram, not yet authenticated.
type header struct {
	random  bool // its nonce is random, and follows the header
	index   uint32
	counter uint64
}

// parse returns the header of a datagram; ok is false if no node makes such a one.
func parse(msg []byte) (h header, ok bool) {
	if len(msg) < overhead || len(msg) > bind.MaxMessage || msg[1]|msg[2]|msg[3] != 0 {
		return h, false
	}
	h = header{index: binary.BigEndian.Uint32(msg[4:]), counter: binary.BigEndian.Uint64(msg[8:])}
	switch msg[0] {
	case bind.Sealed:
	case bind.SealedRandom:
		if len(msg) < overheadRandom {
			return h, false
		}
		h.random = true
	default:
		return h, false
	}
	return h, h.counter < epochPackets
}

// put writes the header to the beginning of msg.
func (h header) put(msg []byte) {
	msg[0], msg[1], msg[2], msg[3] = bind.Sealed, 0, 0, 0
	if h.random {
		msg[0] = bind.SealedRandom
	}
	binary.BigEndian.PutUint32(msg[4:], h.index)
	binary.BigEndian.PutUint64(msg[8:], h.counter)
}

// data returns what GCM authenticates besides the packet and the nonce. A nonce that counts
// is the index and the counter.
func (h header) data(msg []byte) []byte {
	if h.random {
		return msg[:headerLen]
	}
	return msg[:4]
}
