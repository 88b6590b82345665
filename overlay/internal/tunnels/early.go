package tunnels

import (
	"bytes"
	"maps"
	"sync"

	"weft/overlay/cert"
)

// Messages of the data plane that come ahead of the introduction that says what to do
// with them.

const (
	heldStrangers  = 128 // senders whose messages are held during their introduction
	heldPerSender  = 4
	heldPacketSize = 2048 // handshakes and small data; larger ones are not held
)

// Stranger is called by the bind for a message of the data plane from a node that has
// no endpoint: held while that node is being introduced, answered with a
// reset otherwise.
func (t *Table) Stranger(from cert.NodeID, pkt []byte) {
	if !t.intro.InProgress(from) {
		t.intro.Reset(from)
		return
	}
	t.early.hold(from, pkt)
	if t.bind.Find(from) != nil { // admitted meanwhile
		t.deliverEarly(from)
	}
}

// Early is called for each message of the data plane from a node that has a tunnel.
// The node may have started anew and be introducing itself with another key:
// then its first handshake message may be ahead of our answer, and the plane
// will know it only once that was given. What the plane does know already it
// refuses the second time, as a replay.
func (t *Table) Early(from cert.NodeID, pkt []byte) {
	if t.plane.Begins(pkt) && t.bind.Find(from) != nil && t.intro.InProgress(from) {
		t.early.hold(from, pkt)
		if !t.intro.InProgress(from) { // decided meanwhile
			t.deliverEarly(from)
		}
	}
}

// early holds them. Its methods may be called from any goroutine.
type early struct {
	// underWay reports whether a node is being introduced. It takes no lock of early.
	underWay func(id cert.NodeID) bool

	mu sync.Mutex
	// mu guards the following.
	from map[cert.NodeID][][]byte
}

// hold keeps a copy of a message until take or forget, if there is room.
func (e *early) hold(from cert.NodeID, pkt []byte) {
	if len(pkt) > heldPacketSize {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.from[from]
	if q == nil && len(e.from) >= heldStrangers {
		// Introductions that came to nothing leave theirs behind.
		maps.DeleteFunc(e.from, func(id cert.NodeID, _ [][]byte) bool { return !e.underWay(id) })
	}
	if len(q) < heldPerSender && (q != nil || len(e.from) < heldStrangers) {
		e.from[from] = append(q, bytes.Clone(pkt))
	}
}

// take returns what is held of a node, in the order in which it came, and forgets it.
func (e *early) take(id cert.NodeID) [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	pkts := e.from[id]
	delete(e.from, id)
	return pkts
}

// deliverEarly hands the messages that came too early to the data plane.
func (t *Table) deliverEarly(id cert.NodeID) {
	for _, pkt := range t.early.take(id) {
		t.bind.Deliver(id, pkt)
	}
}
