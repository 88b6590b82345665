package dataplane

import (
	"sync/atomic"
	"time"

	"weft/overlay/internal/bind"
	"weft/overlay/internal/mono"
	"weft/overlay/limited"
)

// The backlog of a peer is what is between Read and Entry.Send: in the plane's
// queues, encrypted or not. Each packet occupies 64 KB in wireguard-go's, of which
// those are resident that were ever used, and its own bounds allow 131,072 of them
// a peer. By UDP packets are small and leave fast.
const (
	MaxBacklog    = 1 << 20
	maxBacklogUDP = 4 << 20
	packetCost    = 4 << 10 // what a packet counts beyond its bytes

	// With less than 1 GB of memory a packet counts as all of its buffer (see
	// package bind), of which a peer then has some share of the memory.
	shortShare   = 1. / 16
	packetBuffer = 64 << 10
	backpressure = 50 * time.Millisecond
	// With UDP there is no slow reader at the other end: when nothing leaves
	// for a while a processor is missing, and what is dropped is work lost.
	backpressureUDP = 500 * time.Millisecond
	backlogStale    = 5 * time.Second
)

// backlogBounds are the bounds of a peer's backlog, and the cost of a packet beyond
// its bytes, with so many bytes of memory.
func backlogBounds(memory int64) (most, mostUDP, packet int64) {
	if limited.Short(memory) {
		most := int64(float64(memory) * shortShare)
		return most, most, packetBuffer
	}
	return MaxBacklog, maxBacklogUDP, packetCost
}

type backlog struct {
	cost    atomic.Int64
	waiting atomic.Bool  // Read waits for space
	stuck   atomic.Bool  // Read has waited in vain: do not wait again until something is sent
	sentAt  atomic.Int64 // by mono.Now, of the last change for the better, kept while full
	space   chan struct{}
}

func (b *backlog) init() { b.space = make(chan struct{}, 1) }

// reset forgets what is in queues that end.
func (b *backlog) reset() { b.cost.Store(0) }

func (f *Forwarder) costOf(padded int) int64 { return int64(padded) + f.packetCost }

// admit reports whether a packet of size bytes may enter the backlog, and counts
// it. It belongs to the goroutine of Read, and may block it for 50 ms, or 500 ms if the peer's packets
// go by UDP.
func (r *run) admit(f *Forwarder, size int) bool {
	b := &r.entry.backlog
	if b.cost.Load()+r.cost >= r.max {
		b.cost.Add(r.cost)
		r.cost = 0
		if !b.wait(f, r.entry, r.max, r.patience) {
			return false
		}
	}
	r.cost += f.costOf(r.entry.framing.padded(size))
	return true
}

func (b *backlog) wait(f *Forwarder, e *Entry, most int64, patience time.Duration) bool {
	if b.stuck.Load() {
		// A plane throws packets away when a handshake fails for long. What
		// was not sent in a long time is not counted any more, unless a Send
		// is blocked.
		if e.sending.Load() == 0 && mono.Now()-b.sentAt.Load() > int64(backlogStale) {
			b.cost.Store(0)
			b.stuck.Store(false)
			return true
		}
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		b.waiting.Store(true)
		if b.cost.Load() < most {
			b.waiting.Store(false)
			return true
		}
		select {
		case <-b.space:
		case <-timer.C:
			b.waiting.Store(false)
			b.sentAt.Store(mono.Now())
			b.stuck.Store(true)
			return false
		case <-f.done:
			return false
		}
	}
}

// Send sends data messages of the peer by the bind, and takes them out of the
// backlog. It belongs to the plane's sender of the peer.
func (e *Entry) Send(b *bind.Bind, bufs [][]byte) error {
	e.sending.Add(1)
	err := b.Send(bufs, e.ep)
	e.sending.Add(-1)
	e.sent(bufs)
	return err
}

// sent takes messages out of the backlog.
func (e *Entry) sent(bufs [][]byte) {
	var cost int64
	for _, b := range bufs {
		if len(b) > e.framing.Overhead {
			cost += e.f.costOf(len(b) - e.framing.Overhead)
		}
	}
	b := &e.backlog
	if b.cost.Add(-cost) < 0 {
		b.cost.Store(0)
	}
	if b.stuck.Load() {
		b.stuck.Store(false)
	}
	if b.waiting.Load() {
		b.waiting.Store(false)
		select {
		case b.space <- struct{}{}:
		default:
		}
	}
}
