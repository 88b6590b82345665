package overlay_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay"
)

// wrongClock gives a node a clock for its data planes that can be set.
func (n *node) wrongClock() *atomic.Int64 {
	var offset atomic.Int64
	n.stop()
	n.prepare = func(x *overlay.Node) {
		x.SetStamps(func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	}
	n.start()
	return &offset
}

// knows waits until a node has a tunnel under another's present key.
func (n *node) knows(m *node) {
	n.w.t.Helper()
	eventually(n.w.t, 20*time.Second, n.cfg.Hostname+" knows the new key", func() bool { return n.KeyOf(m.id()) == m.Key() })
}

// The clock of a node is set back under live tunnels. The node takes another key and
// sends it to peers with traffic at once and to the others soon. Flows continue,
// whichever side sends first.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.suite = overlay.SuiteWireGuard
	pi, attic := w.node("kitchen-pi", "device"), w.node("attic-pi", "device")
	pi.echo()
	attic.echo()
	laptop := w.node("laptop")
	clock := laptop.wrongClock()
	busy, idle := laptop.dial("tcp", "kitchen-pi:7"), laptop.dial("tcp", "attic-pi:7")
	say(t, busy, "before")
	say(t, idle, "before")
	time.Sleep(2100 * time.Millisecond) // so that the tunnel is idle
	say(t, busy, "just before")

	old := laptop.Key()
	laptop.ClockSet()
	say(t, busy, "the clock was set, but not back")
	if laptop.Key() != old {
		t.Fatal("another key without need")
	}
	clock.Store(-int64(time.Hour))
	laptop.ClockSet()
	eventually(t, 20*time.Second, "another key", func() bool { return laptop.Key().Public != old.Public })
	if laptop.Key().Boot == old.Boot {
		t.Error("another key with the old boot id")
	}
	say(t, busy, "after")
	pi.knows(laptop)
	attic.knows(laptop)
	say(t, idle, "after")
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "a new connection")

	same := laptop.Key()
	say(t, busy, "still")
	if laptop.Key() != same {
		t.Error("another key for a clock that was set once")
	}
}

// The change of the clock is not reported: the next handshake finds out.
func TestClockSetBackUnseen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.suite = overlay.SuiteWireGuard
	pi := w.node("kitchen-pi", "device")
	pi.echo()
	laptop := w.node("laptop")
	clock := laptop.wrongClock()
	c := laptop.dial("tcp", "kitchen-pi:7")
	say(t, c, "before")
	old := laptop.Key()
	clock.Store(-int64(time.Hour))
	if err := laptop.SpoilKeys("kitchen-pi"); err != nil { // so that a handshake is due
		t.Fatal(err)
	}
	say(t, c, "after")
	eventually(t, 20*time.Second, "another key", func() bool { return laptop.Key() != old })
	pi.knows(laptop)
	say(t, c, "after that")
}

// The clock is set back repeatedly, also in the middle of introductions in both
// directions.
func TestClockSetBackDuringIntroductions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.suite = overlay.SuiteWireGuard
	laptop := w.node("laptop")
	clock := laptop.wrongClock()
	laptop.echo()
	var others []*node
	for i := range 4 {
		n := w.node(fmt.Sprintf("pi-%d", i))
		n.echo()
		others = append(others, n)
	}
	for round := range 5 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 4 {
				clock.Add(-int64(3 * time.Second))
				laptop.ClockSet()
				time.Sleep(7 * time.Millisecond)
			}
		}()
		for i, n := range others {
			from, to := laptop, n
			if (i+round)%2 == 0 {
				from, to = to, from
			}
			say(t, from.dial("tcp", to.cfg.Hostname+":7"), "a word")
		}
		<-done
	}
	for _, n := range others {
		n.knows(laptop)
		say(t, laptop.dial("tcp", n.cfg.Hostname+":7"), "the last word")
	}
}

// Both ends find their direct path again: for its peer the node has restarted, and so the
// peer drops the paths that it had verified.
func TestClockSetBackOnDirectPath(t *testing.T) {
	t.Parallel()
	w := newNATWorld(t)
	w.suite = overlay.SuiteWireGuard
	laptop := w.at("laptop", w.in.Host("laptop", "192.0.2.10"))
	pi := w.at("kitchen-pi", w.in.Host("pi", "192.0.2.11"))
	pi.echo()
	clock := laptop.wrongClock()
	stop := laptop.flow(laptop.dial("tcp", "kitchen-pi:7"))
	direct := func() bool {
		return laptop.pathTo("kitchen-pi").Path == "direct" && pi.pathTo("laptop").Path == "direct"
	}
	eventually(t, 20*time.Second, "a direct path", direct)
	for range 3 {
		clock.Add(-int64(time.Hour))
		laptop.ClockSet()
		pi.knows(laptop)
		eventually(t, 20*time.Second, "a direct path again", direct)
	}
	t.Logf("the longest wait for an answer: %v", stop())
}
