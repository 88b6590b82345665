package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	txPackets = 1024    // capacity in packets
	txBytes   = 8 << 20 // above this many bytes a flow with more than its share loses packets; less where memory is short
	txFlows   = 64      // flows are distinguished by hash
	txQuantum = 16 << 10
)

// txQueue holds the packets that wait for the tunnel: first in, first out within a
// flow, deficit round robin between flows. So an interactive connection waits behind
// one packet of each bulk transfer and not behind their whole windows. When the queue
// is full, the flow that has more than its share loses packets.
// One lock is held for a few instructions per push and per batch popped (a channel
// would do the same). Nothing is allocated.
type txQueue struct {
	ready    chan struct{} // see wake
	maxBytes int           // constant once in use; see txBytes

	// mu guards the following.
	mu     sync.Mutex
	closed bool
	woken  bool // the next pop returns at once
	nodes  [txPackets]txNode
	free   int16 // head of the list of free nodes, -1: none
	flows  [txFlows]txFlow
	first  int16 // list of flows with packets, in their order of turn, -1: none
	last   int16
	active int
	bytes  int
}

type txNode struct {
	pkt  *stack.PacketBuffer
	size int32
	next int16
}

type txFlow struct {
	head, tail int16 // nodes, -1: none
	next       int16 // next flow in turn
	deficit    int32 // bytes it may still send in this turn
	bytes      int
}

func newTxQueue() *txQueue {
	q := &txQueue{ready: make(chan struct{}, 1), maxBytes: txBytes, first: -1, last: -1}
	for i := range q.nodes {
		q.nodes[i].next = int16(i) - 1
	}
	q.free = txPackets - 1
	for i := range q.flows {
		q.flows[i].head, q.flows[i].tail = -1, -1
	}
	return q
}

// push takes over the caller's reference to pkt and reports true, or refuses the
// packet.
func (q *txQueue) push(pkt *stack.PacketBuffer, hash uint32, size int) bool {
	q.mu.Lock()
	id := int16(hash % txFlows)
	f := &q.flows[id]
	if q.closed || q.free < 0 || q.bytes+size > q.maxBytes && f.bytes*max(q.active, 1) >= q.bytes {
		q.mu.Unlock()
		return false
	}
	i := q.free
	node := &q.nodes[i]
	q.free = node.next
	*node = txNode{pkt: pkt, size: int32(size), next: -1}
	if f.tail >= 0 {
		q.nodes[f.tail].next = i
		f.tail = i
	} else {
		f.head, f.tail, f.deficit = i, i, txQuantum
		q.append(id)
		q.active++
	}
	f.bytes += size
	q.bytes += size
	q.mu.Unlock()
	q.wake()
	return true
}

// wake leaves a token for a reader: there are packets, or the queue is closed. A reader
// that leaves packets behind, or that finds the queue closed, passes the token on.
func (q *txQueue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// interrupt makes a waiting pop, or else the next one, return nothing.
func (q *txQueue) interrupt() {
	q.mu.Lock()
	q.woken = true
	q.mu.Unlock()
	q.wake()
}

// pop waits for packets, fills dst and returns their number, 0 after interrupt. The
// caller owns their references. ok is false after close.
func (q *txQueue) pop(dst []*stack.PacketBuffer) (n int, ok bool) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			q.wake()
			return 0, false
		}
		woken := q.woken
		q.woken = false
		for !woken && n < len(dst) && q.first >= 0 {
			dst[n] = q.take()
			n++
		}
		more := q.first >= 0
		q.mu.Unlock()
		if n > 0 || woken {
			if more {
				q.wake()
			}
			return n, true
		}
		<-q.ready
	}
}

// take removes the next packet of the flow whose turn it is. The caller holds mu and
// has checked that there is one.
func (q *txQueue) take() *stack.PacketBuffer {
	for {
		id := q.first
		f := &q.flows[id]
		if f.deficit <= 0 { // its turn is over
			f.deficit += txQuantum
			if q.last != id {
				q.first = f.next
				q.append(id)
			}
			continue
		}
		i := f.head
		node := &q.nodes[i]
		pkt, size := node.pkt, node.size
		f.head = node.next
		f.deficit -= size
		f.bytes -= int(size)
		q.bytes -= int(size)
		*node = txNode{next: q.free}
		q.free = i
		if f.head < 0 {
			f.tail = -1
			q.first = f.next
			if q.first < 0 {
				q.last = -1
			}
			q.active--
		}
		return pkt
	}
}

// append puts a flow at the end of the round.
func (q *txQueue) append(id int16) {
	q.flows[id].next = -1
	if q.last >= 0 {
		q.flows[q.last].next = id
	} else {
		q.first = id
	}
	q.last = id
}

// close drops the queued packets; pop and push fail from now on.
func (q *txQueue) close() {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return
	}
	var drop []*stack.PacketBuffer
	for q.first >= 0 {
		drop = append(drop, q.take())
	}
	q.closed = true
	q.mu.Unlock()
	for _, pkt := range drop {
		pkt.DecRef()
	}
	q.wake()
}
