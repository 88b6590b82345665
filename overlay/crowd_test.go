package overlay_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// opening returns a frame that opens an introduction with a node, as captured at the
// relay.
func (w *farWorld) opening(from *node, to *node) carried {
	t := w.t
	t.Helper()
	seen := make(chan carried, 1)
	w.evil.watch(func(c carried) {
		if c.isOpen() && c.to == to.id() {
			select {
			case seen <- c:
			default:
			}
		}
	})
	say(t, from.dial("tcp", to.cfg.Hostname+":7"), "hello")
	w.evil.watch(nil)
	c := <-seen
	c.payload = slices.Clone(c.payload)
	return c
}

// member turns the frame into one of member number i, of its nth introduction.
func (c carried) member(i int, nth uint64) carried {
	c.from = cert.NodeID{1, byte(i), byte(i >> 8), 15: 1}
	c.payload = append(binary.BigEndian.AppendUint64(nil, nth+1), c.payload[8:]...)
	return c
}

// Members that open introductions and never continue keep no other node out, neither one
// that was here before nor one that comes for the first time.
func TestMembersThatNeverContinue(t *testing.T) {
	t.Parallel()
	for _, members := range []int{8, 64} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			t.Parallel()
			w := newFarWorld(t, setup{evil: true})
			pi := w.node("kitchen-pi", "198.51.100.2", "device")
			pi.echo()
			known, fresh := w.node("known", "198.51.100.1"), w.node("new", "198.51.100.4")
			open := w.opening(known, pi)
			known.restart()
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for nth := uint64(0); ; nth++ {
					for i := range members {
						w.evil.carry(open.member(i, nth))
					}
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
					}
				}
			})
			defer wg.Wait()
			defer close(stop)
			time.Sleep(time.Second) // of attack
			for _, n := range []*node{known, fresh} {
				start := time.Now()
				say(t, n.dial("tcp", "kitchen-pi:7"), "hello")
				t.Logf("%s: first answer after %v, a round trip being %v", n.cfg.Hostname, time.Since(start).Round(time.Millisecond), rtt)
			}
		})
	}
}

// Early WireGuard messages of failed introductions leave room for those of others.
func TestEarlyMessagesLeaveRoom(t *testing.T) {
	t.Parallel()
	w := newFarWorld(t, setup{evil: true})
	pi, laptop := w.node("kitchen-pi", "198.51.100.2", "device"), w.node("laptop", "198.51.100.1")
	pi.echo()
	open := w.opening(laptop, pi)
	early := func(i int) cert.NodeID {
		c := open.member(i, 0)
		w.evil.carry(c)
		w.evil.carry(carried{c.from, c.to, relay.TypePacket, append([]byte{1}, make([]byte, 147)...)})
		return c.from
	}
	const members = 300
	most := 0
	for i := range members {
		id := early(i)
		// Each is held while its introduction is pending, whatever was before.
		eventually(t, 10*time.Second, fmt.Sprintf("the message of member %d is held", i), func() bool {
			n, held := pi.HeldEarly(id)
			most = max(most, n)
			return held
		})
	}
	if most > 128 {
		t.Errorf("messages of %d nodes were held", most)
	}
}
