package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// Memory is released once after traffic, not during it and not for a trickle.
func TestThrifty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := 0
		th := &thrifty{release: func() { released++ }}
		after := func(d time.Duration, want int, when string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if released != want {
				t.Fatalf("%s: released %d times, want %d", when, released, want)
			}
		}
		th.count(releaseWorth - 1)
		after(time.Hour, 0, "little traffic")
		for range 30 {
			th.count(1 << 20)
			after(time.Second, 0, "traffic")
		}
		th.count(1000)
		after(2*releaseAfter, 1, "traffic has stopped")
		after(time.Hour, 1, "idle")
		th.count(releaseWorth)
		after(releaseAfter, 2, "traffic again")
	})
}
