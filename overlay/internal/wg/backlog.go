package wg

import (
	"sync/atomic"
	"time"

	"weft/overlay/internal/mono"
	"weft/overlay/limited"
)

// The backlog of a peer is what is between Read and Send: in wireguard-go's
// queues, encrypted or not. Each packet occupies 64 KB there, of which those are
// resident that were ever used, and wireguard-go's own bounds allow 131,072 of
// them a peer. By UDP packets are small and leave fast.
const (
	maxBacklog    = 1 << 20
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
	paddingUnit     = 16
	messageHeader   = 32 // header and tag
)

// backlogBounds are the bounds of a peer's backlog, and the cost of a packet beyond
// its bytes, with so many bytes of memory.
func backlogBounds(memory int64) (most, mostUDP, packet int64) {
	if limited.Short(memory) {
		most := int64(float64(memory) * shortShare)
		return most, most, packetBuffer
	}
	return maxBacklog, maxBacklogUDP, packetCost
}

type backlog struct {
	cost    atomic.Int64
	waiting atomic.Bool  // Read waits for space
	stuck   atomic.Bool  // Read has waited in vain: do not wait again until something is sent
	sentAt  atomic.Int64 // by mono.Now, of the last change for the better, kept while full
	space   chan struct{}
}

func (b *backlog) init() { b.space = make(chan struct{}, 1) }

// reset forgets what is in the queues of a tunnel that ends.
func (b *backlog) reset() { b.cost.Store(0) }

func (d *Device) costOf(padded int) int64 { return int64(padded) + d.packetCost }

// padded is the length to which wireguard-go pads a packet.
func padded(size, mtu int) int {
	last := size
	if mtu > 0 && last > mtu {
		last %= mtu
	}
	pad := (last + paddingUnit - 1) &^ (paddingUnit - 1)
	if mtu > 0 && pad > mtu {
		pad = mtu
	}
	return size + pad - last
}

// admit reports whether a packet of size bytes may enter the backlog, and counts
// it. It belongs to the goroutine of Read, and may block it for 50 ms, or 500 ms if the peer's packets
// go by UDP.
func (r *outRun) admit(d *Device, size int) bool {
	b := &r.peer.backlog
	if b.cost.Load()+r.cost >= r.max {
		b.cost.Add(r.cost)
		r.cost = 0
		if !b.wait(d, r.peer, r.max, r.patience) {
			return false
		}
	}
	r.cost += d.costOf(padded(size, d.mtu))
	return true
}

func (b *backlog) wait(d *Device, p *peer, most int64, patience time.Duration) bool {
	if b.stuck.Load() {
		// WireGuard throws packets away when a handshake fails for long. What
		// was not sent in a long time is not counted any more, unless a Send
		// is blocked.
		if p.sending.Load() == 0 && mono.Now()-b.sentAt.Load() > int64(backlogStale) {
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
		case <-d.done:
			return false
		}
	}
}

// sent takes messages out of the backlog. It belongs to wireguard-go's sender
// of the peer.
func (p *peer) sent(d *Device, bufs [][]byte) {
	var cost int64
	for _, b := range bufs {
		if len(b) > messageHeader {
			cost += d.costOf(len(b) - messageHeader)
		}
	}
	b := &p.backlog
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
