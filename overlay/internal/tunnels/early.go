package tunnels

import (
	"bytes"
	"maps"
	"sync"

	"weft/overlay/cert"
)

// Messages of the data plane that arrive before their introduction is complete.

const (
	maxEarlySenders = 128 // senders whose messages are held during their introduction
	heldPerSender   = 4
	heldPacketSize  = 2048 // bytes: handshakes and small data; larger messages are dropped
)

// UnknownSender is called by the bind for a message of the data plane from a node without
// an endpoint. The message is held while an introduction of that node is pending, and
// otherwise answered with a reset.
func (t *Table) UnknownSender(from cert.NodeID, pkt []byte) {
	if !t.intro.InProgress(from) {
		t.intro.Reset(from)
		return
	}
	t.early.hold(from, pkt)
	if t.bind.Find(from) != nil { // admitted meanwhile
		t.deliverEarly(from)
	}
}

// Early is called for each message of the data plane from a node that has a tunnel. The
// node may have restarted and be introducing itself with another key. Then its first
// handshake message may arrive before our answer is given, when the plane does not know
// the key yet: it is delivered again later. If the plane did know the key, it refuses the
// second delivery as a replay.
func (t *Table) Early(from cert.NodeID, pkt []byte) {
	if t.plane.Begins(pkt) && t.bind.Find(from) != nil && t.intro.InProgress(from) {
		t.early.hold(from, pkt)
		if !t.intro.InProgress(from) { // decided meanwhile
			t.deliverEarly(from)
		}
	}
}

// early holds such messages. Its methods may be called from any goroutine.
type early struct {
	// pending reports whether an introduction of a node is pending. It must not use
	// early.
	pending func(id cert.NodeID) bool

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
	if q == nil && len(e.from) >= maxEarlySenders {
		// Failed introductions leave their messages behind.
		maps.DeleteFunc(e.from, func(id cert.NodeID, _ [][]byte) bool { return !e.pending(id) })
	}
	if len(q) < heldPerSender && (q != nil || len(e.from) < maxEarlySenders) {
		e.from[from] = append(q, bytes.Clone(pkt))
	}
}

// take removes and returns the messages held of a node, in the order of arrival.
func (e *early) take(id cert.NodeID) [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	pkts := e.from[id]
	delete(e.from, id)
	return pkts
}

// deliverEarly delivers the held messages of a node to the data plane.
func (t *Table) deliverEarly(id cert.NodeID) {
	for _, pkt := range t.early.take(id) {
		t.bind.Deliver(id, pkt)
	}
}
