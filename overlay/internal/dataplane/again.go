package dataplane

import (
	"slices"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/mono"
)

// A packet that opens a TCP connection may go to a peer that has restarted without this
// node's knowledge: it is lost, and is what makes the peer say so. A kernel sends it again
// only after a second, although there is another tunnel after a few round trips. So the
// latest such packets are kept, and sent once more in that tunnel. Sending others again
// would gain little, since TCP repeats them sooner, and what a program sends by UDP must not
// be done twice.
const (
	openings    = 64          // packets that are kept, over all destinations
	openingMax  = 128         // bytes
	openingLife = time.Second // after that the kernel has sent it again itself
)

// opened keeps packets that open connections. The goroutine of Forwarder.Read puts them in
// and Again takes them out; each slot is owned by who has taken its pointer, so that neither
// waits for the other.
type opened struct {
	ring []atomic.Pointer[opening] // empty: none are kept
	next int                       // owned by the goroutine of Read
}

type opening struct {
	at   int64 // when it was sent, by mono.Now
	size int   // 0: none
	pkt  [openingMax]byte
}

func (o *opened) init() {
	o.ring = make([]atomic.Pointer[opening], openings)
	for i := range o.ring {
		o.ring[i].Store(new(opening))
	}
}

// keep keeps a copy of a packet in place of the oldest one.
func (o *opened) keep(pkt []byte) {
	if len(o.ring) == 0 || len(pkt) > openingMax {
		return
	}
	slot := &o.ring[o.next]
	k := slot.Swap(nil)
	if k == nil {
		return // take has it
	}
	k.at, k.size = mono.Now(), copy(k.pkt[:], pkt)
	slot.Store(k)
	o.next = (o.next + 1) % len(o.ring)
}

// take removes and returns the packets to a peer that were sent lately, and after data of
// the peer last arrived.
func (o *opened) take(e *Entry) (pkts [][]byte) {
	table := e.f.table.Load()
	since := max(mono.Now()-int64(openingLife), e.lastIn.Load())
	for i := range o.ring {
		k := o.ring[i].Swap(nil)
		if k == nil {
			continue // keep has it
		}
		if k.size > 0 && k.at > since {
			if to, _ := table.byDestination(k.pkt[:k.size]); to == e {
				pkts = append(pkts, slices.Clone(k.pkt[:k.size]))
				k.size = 0
			}
		}
		o.ring[i].Store(k)
	}
	return pkts
}

// Again sends packets once more that a peer cannot have got, because it has restarted: those
// that open connections. They wait with others if the peer is gated.
func (f *Forwarder) Again(id cert.NodeID) {
	f.mu.Lock()
	e := f.peers[id]
	f.mu.Unlock()
	if e == nil {
		return
	}
	for _, pkt := range f.opened.take(e) {
		if f.hold.put(pkt) { // it need not wait
			f.hold.send(pkt)
		}
	}
}
