package wg

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/limited"
)

// The bounds of the hold queue.
const (
	holdPackets      = 32 // for each destination without a peer
	holdBytes        = 64 << 10
	holdDestinations = 256
	holdTime         = 5 * time.Second

	// A destination whose tunnel is being made or replaced had traffic
	// already, so it gets more.
	holdGatedPackets = 256
	holdGatedBytes   = 1 << 20

	holdAllBytes = 16 << 20 // over all destinations, with 512 MB of memory or more
	holdShare    = 1. / 32
)

// hold keeps packets that cannot be sent yet: to destinations without a peer,
// or whose peer is gated.
type hold struct {
	// Constant.
	d    *Device
	most int // bytes over all destinations

	ready atomic.Int32 // len(released)

	// mu guards the following and the closing and opening of peer.gate. It
	// is taken after Device.mu.
	mu       sync.Mutex
	closed   bool
	dests    map[netip.Addr]*held
	bytes    int         // held, over all dests
	released [][]byte    // returned by the next Read
	timer    *time.Timer // runs while dests is not empty
	armed    bool
}

// held are the packets for one destination, oldest first.
type held struct {
	packets []heldPacket
	bytes   int
	missed  time.Time // when Config.Miss was called last; zero for a gated peer
}

type heldPacket struct {
	bytes []byte
	since time.Time
}

func (h *hold) init(d *Device) {
	h.d, h.most = d, limited.Share(holdAllBytes, holdShare)
	h.dests = make(map[netip.Addr]*held)
}

// put keeps a copy of a packet, or drops it if there is no room or no node can
// have its destination. It returns true, and keeps nothing, if the packet may
// be sent after all.
func (h *hold) put(pkt []byte) (pass bool) {
	dst := destination(pkt)
	if !isUnicast(dst) {
		return false
	}
	pass, miss := h.keep(dst, pkt)
	if miss {
		h.d.miss(dst)
	}
	return pass
}

// isUnicast reports whether a node of an overlay may have the address. A kernel
// sends multicast to every interface it has.
func isUnicast(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.Is4In6() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (h *hold) keep(dst netip.Addr, pkt []byte) (pass, miss bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Look again: SetPeer makes a peer first and releases its packets then,
	// so what is kept from here on is released.
	p, _ := h.d.table.Load().byDestination(pkt)
	if p != nil && !p.gated() {
		return true, false
	}
	if h.closed {
		return false, false
	}
	now := time.Now()
	maxPackets, maxBytes := holdPackets, holdBytes
	if p != nil {
		maxPackets, maxBytes = holdGatedPackets, holdGatedBytes
	}
	q := h.dests[dst]
	if q == nil {
		if len(h.dests) >= holdDestinations {
			return false, false
		}
		q = &held{}
		h.dests[dst] = q
		h.arm(holdTime)
	}
	if p == nil && now.Sub(q.missed) >= holdTime {
		q.missed, miss = now, true
	}
	// Of a flood the beginning is kept: it is what opens connections.
	if len(q.packets) < maxPackets && q.bytes+len(pkt) <= maxBytes && h.bytes+len(pkt) <= h.most {
		q.packets = append(q.packets, heldPacket{slices.Clone(pkt), now})
		q.bytes += len(pkt)
		h.bytes += len(pkt)
	}
	return false, miss
}

// arm makes expire run after wait. The caller holds mu.
func (h *hold) arm(wait time.Duration) {
	switch {
	case h.armed || h.closed:
	case h.timer == nil:
		h.armed = true
		h.timer = time.AfterFunc(wait, h.expire)
	default:
		h.armed = true
		h.timer.Reset(wait)
	}
}

// expire drops packets that nobody waits for any more.
func (h *hold) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed = false
	now := time.Now()
	next := holdTime
	for dst, q := range h.dests {
		keep := slices.IndexFunc(q.packets, func(p heldPacket) bool { return now.Sub(p.since) < holdTime })
		if keep < 0 {
			h.remove(dst, q)
			continue
		}
		for i := range q.packets[:keep] {
			q.bytes -= len(q.packets[i].bytes)
			h.bytes -= len(q.packets[i].bytes)
		}
		q.packets = slices.Delete(q.packets, 0, keep)
		next = min(next, holdTime-now.Sub(q.packets[0].since))
	}
	if len(h.dests) > 0 {
		h.arm(next)
	}
}

// gate makes the packets to a peer wait for a tunnel.
func (h *hold) gate(p *peer, t *tunnel) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.gate.Store(t)
}

// release lets packets to a peer go, those held and those to come. The caller
// has made the peer visible in the table.
func (h *hold) release(p *peer) { h.releaseFor(p, nil) }

// releaseFor is release if packets wait for t, or in any case if t is nil. It
// may be called without Device.mu.
func (h *hold) releaseFor(p *peer, t *tunnel) {
	h.mu.Lock()
	if t != nil && p.gate.Load() != t {
		h.mu.Unlock()
		return
	}
	p.gate.Store(nil)
	n := 0
	for dst, q := range h.dests {
		if h.d.peerOf(dst) != p {
			continue
		}
		h.remove(dst, q)
		for _, pkt := range q.packets {
			h.released = append(h.released, pkt.bytes)
			n++
		}
	}
	h.ready.Add(int32(n))
	h.mu.Unlock()
	if n > 0 {
		h.d.net.WakeRead()
	}
}

// take gives released packets to Read.
func (h *hold) take(bufs [][]byte, sizes []int, offset int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(len(h.released), len(bufs))
	for i, pkt := range h.released[:n] {
		sizes[i] = copy(bufs[i][offset:], pkt)
	}
	clear(h.released[:n])
	h.released = h.released[n:]
	if len(h.released) == 0 {
		h.released = nil
	}
	h.ready.Add(int32(-n))
	return n
}

// drop forgets the packets for a destination and returns them.
func (h *hold) drop(dst netip.Addr) []heldPacket {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.dests[dst]
	if q == nil {
		return nil
	}
	h.remove(dst, q)
	return q.packets
}

// remove forgets a destination. The caller holds mu.
func (h *hold) remove(dst netip.Addr, q *held) {
	delete(h.dests, dst)
	h.bytes -= q.bytes
}

func (h *hold) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	clear(h.dests)
}

func (d *Device) peerOf(dst netip.Addr) *peer {
	t := d.table.Load()
	if dst.Is4() {
		return t.v4[dst.As4()]
	}
	return t.v6[dst.As16()]
}

// Reason says why nothing can be sent to an address.
type Reason uint8

// The reasons, and what programs see of them.
const (
	Unreachable Reason = iota // unknown or not answering: EHOSTUNREACH
	Prohibited                // policy denies it: EACCES
)

// Fail answers the packets that are held for dst with ICMP unreachable, and TCP
// with a reset after it, so that programs fail at once. A later packet for dst
// is a new miss. While dst has a peer it does nothing.
func (d *Device) Fail(dst netip.Addr, reason Reason) {
	dst = dst.Unmap()
	if d.peerOf(dst) != nil {
		return
	}
	for _, p := range d.hold.drop(dst) {
		for _, answer := range refusals(p.bytes, reason) {
			if _, err := d.net.Write([][]byte{answer}, 0); err != nil {
				return
			}
		}
	}
}
