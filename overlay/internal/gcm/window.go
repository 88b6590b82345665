package gcm

import "sync/atomic"

// windowSize is how many counters the window covers.
const windowSize = 8192

const (
	slotBits = 32 // counters in a slot
	slots    = windowSize / slotBits
)

// window tells which counters of an epoch have been taken, so that no datagram is taken
// twice. It may be used by several goroutines and needs no lock: a slot is one word, the
// number of a block of 32 counters in its upper half and one bit for each of them in its
// lower half. The number in a slot only grows, and bits of a block are only set. So a
// counter that was taken is refused for ever: its bit is there, or its slot has a later
// block. A counter that was not taken is refused only once one that is at least
// windowSize - slotBits higher has been taken. The zero window has taken nothing. Counters
// are below epochPackets, so that a block's number fits.
type window [slots]atomic.Uint64

// has reports whether a counter would be refused.
func (w *window) has(counter uint64) bool {
	block, bit := counter/slotBits, uint64(1)<<(counter%slotBits)
	v := w[block%slots].Load()
	return v>>32 > block || v>>32 == block && v&bit != 0
}

// take records a counter, and returns false if it must be refused.
func (w *window) take(counter uint64) bool {
	block, bit := counter/slotBits, uint64(1)<<(counter%slotBits)
	slot := &w[block%slots]
	for {
		v := slot.Load()
		next := block<<32 | bit
		switch {
		case v>>32 > block || v>>32 == block && v&bit != 0:
			return false
		case v>>32 == block:
			next |= v
		}
		if slot.CompareAndSwap(v, next) {
			return true
		}
	}
}
