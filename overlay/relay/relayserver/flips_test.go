package relayserver

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/relay"
)

// Two machines with one identity replace each other's connection without waiting, unlike
// our client: the present connection stays for minutes at a time, and alerts come now and
// then.
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

// A device that reconnects through another network gets in at once; after many flips, as
// soon as its old connection is found dead.
func TestDeviceComesBack(t *testing.T) {
	onStage(t, func(st *stage) {
		peer := st.join(9)
		last := st.join(1)
		for i := range 10 {
			last.mu.Lock()
			last.mute = true // its network has failed without closing the connection
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
		// A connection that was closed properly does not delay it.
		last.c.Close()
		synctest.Wait()
		next := st.join(1)
		peer.packet(id(1), "x")
		if got := next.take(relay.TypePacket); len(got) != 1 {
			t.Errorf("a device whose old connection is closed gets %d packets", len(got))
		}
	})
}

// Records of flips are removed.
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

// A device that hops between two working networks replaces its own connection each time.
// It is one process, so it never has to wait and raises no alert. Without a process
// value, or with another one, it is treated as a clone.
func TestSameProcessIsNoClone(t *testing.T) {
	for name, c := range map[string]struct {
		process func(i int) string // of the connection i
		held    bool
	}{
		"hops":                              {func(int) string { return "one" }, false},
		"an earlier version":                {func(int) string { return "" }, true},
		"a clone":                           {func(i int) string { return []string{"one", "other"}[i%2] }, true},
		"a clone that says nothing":         {func(i int) string { return []string{"one", ""}[i%2] }, true},
		"restarts all the time":             {func(i int) string { return fmt.Sprint(i) }, true},
		"says too much":                     {func(int) string { return strings.Repeat("x", maxProcess+1) }, true},
		"a clone beside a device that hops": {func(i int) string { return []string{"one", "one", "other"}[i%3] }, true},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, func(st *stage) {
				sent, held := st.join(9), false
				for i := range 20 {
					p := st.join(1)
					if p.closed() || len(p.take(relay.TypeReplaced)) > 0 {
						held = true
						continue
					}
					p.holds(relay.Holds{Process: c.process(i)})
					p.holds(relay.Holds{Process: "later"}) // only the first counts
					time.Sleep(2 * time.Second)
					sent.packet(id(1), fmt.Sprint(i))
					if got := p.take(relay.TypePacket); len(got) != 1 {
						t.Fatalf("connection %d gets %d packets", i, len(got))
					}
				}
				if held != c.held || (st.alerts > 0) != c.held {
					t.Errorf("held: %v, %d alerts; want %v", held, st.alerts, c.held)
				}
			})
		})
	}
}
