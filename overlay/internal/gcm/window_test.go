package gcm

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Whatever the order of counters: none is taken twice, and none is refused that is new and
// less than windowSize-slotBits behind the highest one taken.
func TestWindow(t *testing.T) {
	for _, spread := range []uint64{1, 40, windowSize / 2, windowSize - slotBits, windowSize, 3 * windowSize} {
		var w window
		r := rand.New(rand.NewPCG(1, spread))
		taken, highest := map[uint64]bool{}, uint64(0)
		for i := range uint64(200_000) {
			c := i + r.Uint64N(spread)
			switch r.Uint64N(20) {
			case 0: // long ago
				c = r.Uint64N(i + 1)
			case 1: // again
				c = highest - min(highest, r.Uint64N(spread))
			}
			has := w.has(c)
			ok := w.take(c)
			if ok == has {
				t.Fatalf("spread %d: has %d: %v, but take: %v", spread, c, has, ok)
			}
			if ok && taken[c] {
				t.Fatalf("spread %d: %d was taken twice", spread, c)
			}
			if !ok && !taken[c] && c+windowSize-slotBits > highest {
				t.Fatalf("spread %d: %d was refused, the highest is %d", spread, c, highest)
			}
			if ok {
				taken[c] = true
				highest = max(highest, c)
			}
		}
	}
}

func TestWindowAtItsEnds(t *testing.T) {
	var w window
	if !w.take(epochPackets-1) || w.take(epochPackets-1) || !w.has(epochPackets-1) {
		t.Error("last counter")
	}
	if !w.take(epochPackets-windowSize+slotBits) || w.take(epochPackets-1-windowSize) {
		t.Error("the window has another size")
	}
	var zero window
	if zero.has(0) || zero.has(windowSize) || !zero.take(0) || zero.take(0) {
		t.Error("first counter")
	}
}

// Of several goroutines with the same counters, exactly one takes each.
func TestWindowInParallel(t *testing.T) {
	var w window
	const counters, goroutines = 50_000, 4
	taken := make([]atomic.Int32, counters)
	var wg sync.WaitGroup
	for g := range uint64(goroutines) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, g))
			for c := range uint64(counters) {
				c ^= r.Uint64N(64)
				if c < counters && w.take(c) {
					taken[c].Add(1)
				}
			}
			for c := range uint64(counters) {
				if w.take(c) {
					taken[c].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for c := range taken {
		if n := taken[c].Load(); n > 1 || n == 0 && c >= counters-windowSize+slotBits {
			t.Fatalf("counter %d was taken %d times", c, n)
		}
	}
}
