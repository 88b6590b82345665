package relayserver

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/relay"
)

// Two machines with one identity fight for its connection and do not wait, as a
// client of ours would: the one that is there stays for minutes at a time, and
// people are told now and then.
func TestCloneFlood(t *testing.T) {
	onStage(t, func(st *stage) {
		other := st.join(9)
		const minutes = 30
		tries := 0
		var clones [2]*peer
		for begun := time.Now(); time.Since(begun) < minutes*time.Minute; time.Sleep(50 * time.Millisecond) {
			for i, c := range clones {
				if c == nil || len(c.take(relay.TypeReplaced)) > 0 { // again, at once
					clones[i] = st.join(1)
					tries++
				}
			}
		}
		s := st.s.Stats()
		t.Logf("%d tries in %d minutes: %d connections replaced, %d refused, %d alerts", tries, minutes, s.Replaced, s.Refused, st.alerts)
		if most := uint64(minutes/5*flipAlert + flipAlert); s.Replaced > most {
			t.Errorf("%d connections replaced, want %d at most", s.Replaced, most)
		}
		if s.Refused < 1000 || s.Clients != 2 {
			t.Errorf("%d tries refused, %d clients", s.Refused, s.Clients)
		}
		if most := minutes/10 + 1; st.alerts < 1 || st.alerts > most {
			t.Errorf("%d alerts, want 1 to %d", st.alerts, most)
		}
		other.packet(id(1), "x")
		if got := len(clones[0].take(relay.TypePacket)) + len(clones[1].take(relay.TypePacket)); got != 1 {
			t.Errorf("%d connections got the packet", got)
		}
	})
}

// A device that comes back by another network gets in at once, and after many
// times as soon as its old connection is found dead.
func TestDeviceComesBack(t *testing.T) {
	onStage(t, func(st *stage) {
		peer := st.join(9)
		last := st.join(1)
		for i := range 10 {
			last.mu.Lock()
			last.mute = true // its network is gone, and nobody has said so
			last.mu.Unlock()
			next := st.join(1)
			if i >= flipAlert {
				time.Sleep(flipAsk)
				synctest.Wait()
			}
			peer.packet(id(1), fmt.Sprint(i))
			if got := next.take(relay.TypePacket); len(got) != 1 {
				t.Fatalf("the device has come back %d times and gets %d packets", i+1, len(got))
			}
			last = next
			time.Sleep(time.Second)
		}
		// One that was closed properly is not in the way at all.
		last.c.Close()
		synctest.Wait()
		next := st.join(1)
		peer.packet(id(1), "x")
		if got := next.take(relay.TypePacket); len(got) != 1 {
			t.Errorf("a device whose old connection is closed gets %d packets", len(got))
		}
	})
}

// What is remembered about flips goes.
func TestFlipsAreForgotten(t *testing.T) {
	onStage(t, func(st *stage) {
		for i := range 200 {
			st.join(10 + i)
			st.join(10 + i)
		}
		time.Sleep(alertEvery + time.Second)
		st.join(1)
		st.join(1)
		st.s.mu.Lock()
		defer st.s.mu.Unlock()
		if n := len(st.s.flips); n != 1 {
			t.Errorf("%d nodes are remembered", n)
		}
	})
}
