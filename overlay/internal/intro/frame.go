package intro

import (
	"encoding/binary"
	"fmt"
)

// MaxFrame bounds a session frame in bytes, header included.
const MaxFrame = 16 << 10

const (
	headerLen  = 13
	maxPayload = MaxFrame - headerLen
)

type kind uint8

const (
	kindOpen  kind = 1
	kindData  kind = 2
	kindBye   kind = 3
	kindReset kind = 4
)

type frame struct {
	id      uint64
	seq     uint32
	kind    kind
	payload []byte
}

func appendFrame(b []byte, f frame) []byte {
	b = binary.BigEndian.AppendUint64(b, f.id)
	b = binary.BigEndian.AppendUint32(b, f.seq)
	b = append(b, byte(f.kind))
	return append(b, f.payload...)
}

// FrameSession returns the session id of a frame, 0 for none, and whether the frame opens
// the session.
func FrameSession(b []byte) (id uint64, opens bool) {
	if len(b) < headerLen {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), kind(b[12]) == kindOpen
}

// parseFrame returns the frame in b; its payload is part of b.
func parseFrame(b []byte) (frame, error) {
	if len(b) < headerLen || len(b) > MaxFrame {
		return frame{}, fmt.Errorf("parse session frame: %d bytes", len(b))
	}
	f := frame{
		id:      binary.BigEndian.Uint64(b),
		seq:     binary.BigEndian.Uint32(b[8:]),
		kind:    kind(b[12]),
		payload: b[headerLen:],
	}
	switch {
	case f.kind < kindOpen || f.kind > kindReset:
		return frame{}, fmt.Errorf("parse session frame: unknown kind %d", f.kind)
	case f.kind == kindReset && len(f.payload) > 0:
		return frame{}, fmt.Errorf("parse session frame: reset with %d bytes", len(f.payload))
	case f.kind != kindReset && f.id == 0:
		return frame{}, fmt.Errorf("parse session frame: no session id")
	case f.kind == kindOpen && f.seq != 0:
		return frame{}, fmt.Errorf("parse session frame: open with sequence number %d", f.seq)
	}
	return f, nil
}
