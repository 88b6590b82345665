package dataplane

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/internal/hosttest"
)

// Lull is called once after traffic, not during it and not after a trickle.
func TestLull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		l := &lull{tell: func() { told++ }}
		after := func(d time.Duration, want int, when string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if told != want {
				t.Fatalf("%s: told %d times, want %d", when, told, want)
			}
		}
		l.count(lullWorth - 1)
		after(time.Hour, 0, "little traffic")
		for range 30 {
			l.count(1 << 20)
			after(time.Second, 0, "traffic")
		}
		l.count(1000)
		after(2*lullAfter, 1, "traffic has stopped")
		after(time.Hour, 1, "idle")
		l.count(lullWorth)
		after(lullAfter, 2, "traffic again")
	})
}

// Traffic in either direction counts.
func TestLullAfterTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, out := range []bool{false, true} {
			var told atomic.Int32
			w := world{}
			a, b := w.nodeOf(t, 1, Config{Net: hosttest.NewNet(), Lull: func() { told.Add(1) }}), w.node(t, 2)
			a.connect(b, reads)
			from, to := b, a
			if out {
				from, to = a, b
			}
			payload := make([]byte, 32<<10)
			for range lullWorth/len(payload) + 1 {
				from.net.Out <- ipPacket(from.v4, to.v4, 47, payload)
				<-to.net.In
			}
			time.Sleep(lullAfter - time.Second)
			synctest.Wait()
			if told.Load() != 0 {
				t.Errorf("outwards %v: told too early", out)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if n := told.Load(); n != 1 {
				t.Errorf("outwards %v: told %d times", out, n)
			}
			// Lull is not called after Close.
			for range lullWorth/len(payload) + 1 {
				from.net.Out <- ipPacket(from.v4, to.v4, 47, payload)
				<-to.net.In
			}
			a.stop()
			b.stop()
			time.Sleep(2 * lullAfter)
			synctest.Wait()
			if n := told.Load(); n != 1 {
				t.Errorf("outwards %v: told after Close", out)
			}
		}
	})
}
