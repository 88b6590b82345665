package dataplane

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

	// A destination whose tunnel is being made or replaced has traffic already, so it
	// gets more.
	holdGatedPackets = 256
	holdGatedBytes   = 1 << 20

	holdAllBytes = 16 << 20 // over all destinations, with 512 MB of memory or more
	holdShare    = 1. / 32
)

// hold is the queue of packets that cannot be sent yet: to destinations without a peer,
// or whose peer is gated.
type hold struct {
	// Constant.
	f    *Forwarder
	most int // bounds the bytes over all destinations

	ready atomic.Int32 // len(released)

	// mu guards the following and changes of Entry.gate. It is taken after Forwarder.mu.
	mu       sync.Mutex
	closed   bool
	dests    map[netip.Addr]*held
	bytes    int         // held bytes over all dests
	released [][]byte    // returned by the next Read
	timer    *time.Timer // runs while dests is not empty
	armed    bool
}

// held are the packets for one destination, oldest first.
type held struct {
	packets []heldPacket
	bytes   int
	missed  time.Time // when Config.Miss was last called; zero for a gated peer
}

type heldPacket struct {
	bytes []byte
	since time.Time
}

func (h *hold) init(f *Forwarder) {
	h.f, h.most = f, limited.Share(holdAllBytes, holdShare)
	h.dests = make(map[netip.Addr]*held)
}

// put holds a copy of a packet, or drops it if there is no room or no node can have its
// destination. It returns true, and holds nothing, if the packet can be sent after all.
func (h *hold) put(pkt []byte) (pass bool) {
	dst := destination(pkt)
	if !isUnicast(dst) {
		return false
	}
	pass, miss := h.keep(dst, pkt)
	if miss {
		h.f.miss(dst)
	}
	return pass
}

// isUnicast reports whether a node of an overlay can have the address. A kernel sends
// multicast to all its interfaces.
func isUnicast(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.Is4In6() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (h *hold) keep(dst netip.Addr, pkt []byte) (pass, miss bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Look again: SetAddrs first makes an entry and then releases its packets, so a
	// packet that is held from here on will be released.
	e, _ := h.f.table.Load().byDestination(pkt)
	if e != nil && !e.gated() {
		return true, false
	}
	if h.closed {
		return false, false
	}
	now := time.Now()
	maxPackets, maxBytes := holdPackets, holdBytes
	if e != nil {
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
	if e == nil && now.Sub(q.missed) >= holdTime {
		q.missed, miss = now, true
	}
	// The first packets of a flood are held, because they open connections.
	if len(q.packets) < maxPackets && q.bytes+len(pkt) <= maxBytes && h.bytes+len(pkt) <= h.most {
		q.packets = append(q.packets, heldPacket{slices.Clone(pkt), now})
		q.bytes += len(pkt)
		h.bytes += len(pkt)
	}
	return false, miss
}

// arm sets the timer of expire. The caller holds mu.
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

// expire drops packets that were held for too long.
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

// gate makes the packets to a peer wait at a gate.
func (h *hold) gate(e *Entry, g *Gate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.gate.Store(g)
}

// release opens the gate of a peer if it is g, or any gate if g is nil, and releases the
// held packets. The entry must be in the table already.
func (h *hold) release(e *Entry, g *Gate) {
	h.mu.Lock()
	if g != nil && e.gate.Load() != g {
		h.mu.Unlock()
		return
	}
	e.gate.Store(nil)
	n := 0
	for dst, q := range h.dests {
		if h.f.entryOf(dst) != e {
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
		h.f.net.WakeRead()
	}
}

// send releases one packet that was not held.
func (h *hold) send(pkt []byte) {
	h.mu.Lock()
	h.released = append(h.released, pkt)
	h.ready.Add(1)
	h.mu.Unlock()
	h.f.net.WakeRead()
}

// take returns released packets to Read.
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

// drop removes and returns the packets for a destination.
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

// remove removes a destination. The caller holds mu.
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

func (f *Forwarder) entryOf(dst netip.Addr) *Entry {
	t := f.table.Load()
	if dst.Is4() {
		return t.v4[dst.As4()]
	}
	return t.v6[dst.As16()]
}

// Reason says why nothing can be sent to an address.
type Reason uint8

// The reasons, and the errors that programs get.
const (
	Unreachable Reason = iota // unknown or no answer: EHOSTUNREACH
	Prohibited                // denied by policy: EACCES
)

// Fail answers the packets held for dst with ICMP unreachable, and TCP with a reset too,
// so that programs fail at once. A later packet for dst is a new miss. Fail does nothing
// while dst has a peer.
func (f *Forwarder) Fail(dst netip.Addr, reason Reason) {
	dst = dst.Unmap()
	if f.entryOf(dst) != nil {
		return
	}
	for _, p := range f.hold.drop(dst) {
		for _, answer := range refusals(p.bytes, reason) {
			if _, err := f.net.Write([][]byte{answer}, 0); err != nil {
				return
			}
		}
	}
}
