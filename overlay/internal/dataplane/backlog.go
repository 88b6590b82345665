package dataplane

import (
	"sync/atomic"
	"time"

	"weft/overlay/internal/bind"
	"weft/overlay/internal/mono"
	"weft/overlay/limited"
)

// The backlog of a peer is what is between Read and Entry.Send, in the plane's queues,
// encrypted or not. In wireguard-go each packet has a buffer of 64 KB, of which only the
// used pages are resident, and wireguard-go itself would allow 131,072 packets for each
// peer. On UDP paths packets are small and are sent fast.
const (
	MaxBacklog    = 1 << 20
	maxBacklogUDP = 4 << 20
	packetCost    = 4 << 10 // what a packet counts besides its bytes

	// With less than 1 GB of memory a packet counts with its whole buffer (see package
	// bind), and a peer may have this share of the memory.
	shortShare   = 1. / 16
	packetBuffer = 64 << 10
	backpressure = 50 * time.Millisecond
	// On UDP paths there is no slow reader at the other end: if nothing is sent for a
	// while, the CPU is busy, and dropping would waste the work done.
	backpressureUDP = 500 * time.Millisecond
	backlogStale    = 5 * time.Second
)

// backlogBounds returns the bounds of a peer's backlog, and the cost of a packet besides
// its bytes, for a machine with this many bytes of memory.
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
	sentAt  atomic.Int64 // when the backlog last shrank, by mono.Now; maintained while it is full
	space   chan struct{}
}

func (b *backlog) init() { b.space = make(chan struct{}, 1) }

// reset clears the count when the plane's queues end.
func (b *backlog) reset() { b.cost.Store(0) }

func (f *Forwarder) costOf(padded int) int64 { return int64(padded) + f.packetCost }

// admit reports whether a packet of size bytes may enter the backlog, and counts it. It
// belongs to the goroutine of Read, and may block it for 50 ms, or 500 ms if the peer's
// packets go over UDP.
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
		// A plane drops packets when a handshake fails for long. So packets that were not
		// sent for a long time are no longer counted, unless a Send is blocked.
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

// Send sends data messages to the peer through the bind, and removes them from the
// backlog. Only the plane's sender for the peer calls it.
func (e *Entry) Send(b *bind.Bind, bufs [][]byte) error {
	e.sending.Add(1)
	err := b.Send(bufs, e.ep)
	e.sending.Add(-1)
	e.sent(bufs)
	return err
}

// sent removes messages from the backlog.
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
