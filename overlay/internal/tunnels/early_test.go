package tunnels

import (
	"bytes"
	"encoding/binary"
	"testing"

	"weft/overlay/cert"
)

func nodeID(n int) (id cert.NodeID) {
	binary.BigEndian.PutUint32(id[:], uint32(n)+1)
	return id
}

// Early messages are held in order, a few of each sender, and only for a moment.
func TestEarly(t *testing.T) {
	e := early{pending: func(cert.NodeID) bool { return true }, from: map[cert.NodeID][][]byte{}}
	pkt := []byte{0}
	for n := range byte(heldPerSender + 2) {
		pkt[0] = n
		e.hold(nodeID(1), pkt) // which copies pkt
	}
	e.hold(nodeID(1), make([]byte, heldPacketSize+1))
	e.hold(nodeID(2), make([]byte, heldPacketSize+1))
	if len(e.from) != 1 {
		t.Errorf("messages of %d nodes are held, want 1: the other's is too long", len(e.from))
	}
	if got := bytes.Join(e.take(nodeID(1)), nil); !bytes.Equal(got, []byte{0, 1, 2, 3}) {
		t.Errorf("held %v", got)
	}
	if got := e.take(nodeID(1)); got != nil {
		t.Errorf("taken twice: %v", got)
	}
}

// The messages of unknown senders are bounded. Those of failed introductions make room
// for others; no others do.
func TestEarlyOfManySenders(t *testing.T) {
	over := map[cert.NodeID]bool{}
	e := early{pending: func(id cert.NodeID) bool { return !over[id] }, from: map[cert.NodeID][][]byte{}}
	for n := range 3 * maxEarlySenders {
		e.hold(nodeID(n), []byte{1})
	}
	if len(e.from) != maxEarlySenders || e.from[nodeID(0)] == nil {
		t.Fatalf("messages of %d nodes are held, the first's: %v", len(e.from), e.from[nodeID(0)] != nil)
	}
	e.hold(nodeID(0), []byte{2})
	if len(e.from[nodeID(0)]) != 2 {
		t.Error("who is held already is held no more when there is no room for others")
	}
	for n := range 10 {
		over[nodeID(n)] = true
	}
	e.hold(nodeID(maxEarlySenders), []byte{1})
	if len(e.from) != maxEarlySenders-10+1 || e.from[nodeID(0)] != nil || e.from[nodeID(maxEarlySenders)] == nil {
		t.Errorf("messages of %d nodes are held; of one whose introduction is over: %v, of the new one: %v", len(e.from), e.from[nodeID(0)] != nil, e.from[nodeID(maxEarlySenders)] != nil)
	}
}
