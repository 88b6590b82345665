package gcm

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/hosttest"
	"weft/overlay/internal/mono"
)

func TestPackets(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		a.net.Out <- a.udp(b, 1)
		if got := <-a.miss; got != b.v4 {
			t.Fatalf("miss of %v", got)
		}
		a.introduce(b, 1)
		if got := number(b.recv()); got != 1 {
			t.Fatalf("packet %d", got)
		}
		for i := range uint32(300) {
			a.both(b, i)
		}
		s, ok := a.fwd.Stats(b.id)
		if !ok || s.TxPackets != 301 || s.RxPackets != 300 || s.RxBytes != 32*300 || s.LastHandshake.IsZero() {
			t.Errorf("stats %+v", s)
		}
		k, ok := a.dev.Keys(b.id)
		if !ok || k.Packets < 301 || k.Packets > 302 || time.Since(k.Since) > time.Minute {
			t.Errorf("keys %+v", k)
		}
		// Nobody can send with the address of another.
		b.net.Out <- hosttest.UDP(netip.MustParseAddr("100.64.0.9"), a.v4, 1)
		waitFor(t, "a refusal", func() bool { return a.fwd.Verdicts()[filter.BadSource] == 1 })
		a.dev.RemovePeer(b.id)
		if _, ok := a.dev.Keys(b.id); ok || a.fwd.Addrs() != 0 {
			t.Error("the peer is still there")
		}
		b.net.Out <- b.udp(a, 7)
		a.net.Silent(t, 0)
	})
}

// As a caller a node takes packets under the new keys at once, and sends when the peer has
// accepted: when it is told so, or when a packet shows it. What it is to send waits.
func TestCallerWaitsForTheCallee(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.call(b, 1)
	a.net.Out <- a.udp(b, 1)
	waitFor(t, "the packet is read", func() bool { return len(a.net.Out) == 0 })
	b.set(b.peerOf(a, 1, false))
	b.net.Silent(t, 20*time.Millisecond)
	b.ping(a, 2)
	if got := number(b.recv()); got != 1 {
		t.Errorf("packet %d", got)
	}
	a.set(a.peerOf(b, 1, true))
	a.both(b, 3)
}

// The held packets of a peer that has never accepted stay, for the answer to the host.
func TestRefusedIntroduction(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.call(b, 1)
	a.net.Out <- a.udp(b, 1)
	waitFor(t, "the packet is read", func() bool { return len(a.net.Out) == 0 })
	time.Sleep(time.Millisecond)
	a.dev.RemovePeer(b.id)
	waitFor(t, "an answer", func() bool { a.fwd.Fail(b.v4, dataplane.Prohibited); return len(a.net.In) == 1 })
	if got := a.recv(); got[9] != 1 || got[20] != 3 || got[21] != 13 {
		t.Errorf("answer %x", got)
	}
}

// Another introduction while packets flow in both directions loses none, whichever side is
// the caller, and both sides then send under its keys.
func TestIntroducedAnewUnderLoad(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		a.introduce(b, 1)
		const last = 1 << 31
		var stop atomic.Bool
		var wg sync.WaitGroup
		for _, way := range [][2]*node{{a, b}, {b, a}} {
			from, to := way[0], way[1]
			window := make(chan struct{}, 1000) // what is on its way, so that no queue is full
			wg.Go(func() {
				for i := uint32(0); !stop.Load(); i++ {
					window <- struct{}{}
					from.net.Out <- from.udp(to, i)
				}
				from.net.Out <- from.udp(to, last)
			})
			wg.Go(func() {
				for want := uint32(0); ; want++ {
					select {
					case pkt := <-to.net.In:
						if got := number(pkt); got == last {
							return
						} else if got != want {
							t.Errorf("packet %d arrived, want %d", got, want)
							stop.Store(true)
							for ; want < got; want++ {
								<-window
							}
						}
						<-window
					case <-time.After(10 * time.Second):
						t.Error("no packet in 10 s")
						return
					}
				}
			})
		}
		for secret := byte(2); secret < 40; secret++ {
			x, y := a, b
			if secret%3 == 0 {
				x, y = b, a
			}
			x.introduce(y, secret)
			// A tunnel keeps one earlier session: what is on its way under it arrives first.
			waitFor(t, "both send under the new keys", func() bool { return a.sends(b, secret) && b.sends(a, secret) })
		}
		stop.Store(true)
		wg.Wait()
	})
}

// The callee sends under new keys after a second at the latest, even if it hears nothing
// under them. Until then it sends under the earlier ones.
func TestCalleeHearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		a.introduce(b, 1)
		a.both(b, 1)
		synctest.Wait()
		lose := func(from, _ cert.NodeID, _ []byte) bool { return from == a.id }
		w.lose(lose)
		a.introduce(b, 2)
		time.Sleep(adoptAfter - time.Millisecond)
		if b.secretOf(a) != 1 {
			t.Error("the callee has not waited")
		}
		b.ping(a, 2)
		time.Sleep(2 * time.Millisecond)
		if b.secretOf(a) != 2 {
			t.Error("the callee still waits")
		}
		b.ping(a, 3)
		w.lose(nil)
		a.both(b, 4)
		b.dev.RemovePeer(a.id)
		a.dev.RemovePeer(b.id)
	})
}

// Both nodes introduce themselves at once: both end up with the introduction that wins,
// and what waits for it arrives.
func TestBothCall(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.net.Out <- a.udp(b, 1)
	b.net.Out <- b.udp(a, 2)
	<-a.miss
	<-b.miss
	a.call(b, 1)
	b.call(a, 2)
	b.set(b.peerOf(a, 1, false))
	a.set(a.peerOf(b, 1, true))
	if got := number(b.recv()); got != 1 {
		t.Errorf("packet %d", got)
	}
	if got := number(a.recv()); got != 2 {
		t.Errorf("packet %d", got)
	}
	a.both(b, 3)
	if a.secretOf(b) != 1 || b.secretOf(a) != 1 {
		t.Errorf("secrets %d and %d", a.secretOf(b), b.secretOf(a))
	}
}

// A peer that has restarted has no earlier keys: the other side follows it.
func TestRestart(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.both(b, 1)
	for secret := byte(2); secret < 6; secret += 2 {
		b.dev.RemovePeer(a.id)
		b.introduce(a, secret)
		b.both(a, 2)
		b.dev.RemovePeer(a.id)
		a.introduce(b, secret+1)
		a.both(b, 3)
	}
}

// What is sent to a peer that has restarted waits until the peer takes the new keys, and is
// not lost under the earlier ones: as a caller until it has accepted, as a callee not at
// all.
func TestNothingIsLostAfterRestart(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.both(b, 1)
	b.dev.RemovePeer(a.id)
	restarted := func(p dataplane.Peer, claim dataplane.Claim) dataplane.Peer {
		p.Restarted, p.Claim = true, claim
		return p
	}
	a.set(restarted(a.peerOf(b, 2, true), dataplane.Tentative))
	a.net.Out <- a.udp(b, 2)
	a.net.Idle() // it is held
	b.set(b.peerOf(a, 2, false))
	a.set(a.peerOf(b, 2, true))
	if got := number(b.recv()); got != 2 {
		t.Errorf("packet %d", got)
	}
	a.both(b, 3)

	b.dev.RemovePeer(a.id)
	b.call(a, 4)
	a.set(restarted(a.peerOf(b, 4, false), dataplane.Claimed))
	a.ping(b, 4) // before the caller knows that it was accepted
	b.set(b.peerOf(a, 4, true))
	a.both(b, 5)

	// An introduction of the peer overtakes that of this node.
	b.dev.RemovePeer(a.id)
	a.set(restarted(a.peerOf(b, 5, true), dataplane.Tentative))
	a.net.Out <- a.udp(b, 6)
	a.net.Idle()
	b.call(a, 6)
	a.set(a.peerOf(b, 6, false))
	if got := number(b.recv()); got != 6 {
		t.Errorf("packet %d", got)
	}

	// It fails: nothing is sent any more.
	a.set(restarted(a.peerOf(b, 7, true), dataplane.Tentative))
	a.net.Out <- a.udp(b, 7)
	a.net.Idle()
	a.dev.RemovePeer(b.id)
	b.net.Silent(t, 10*time.Millisecond)
	a.introduce(b, 8)
	a.both(b, 8)
}

// After ten minutes asleep, or a step of the clock, nothing more is sealed under the
// earlier keys, and packets wait for new ones. Packets of the peer are taken meanwhile.
func TestAsleep(t *testing.T) {
	for _, by := range []time.Duration{10 * time.Minute, time.Second, -time.Second, -10 * time.Minute} {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		var sealed atomic.Int32
		w.lose(func(from, _ cert.NodeID, _ []byte) bool {
			if from == a.id {
				sealed.Add(1)
			}
			return false
		})
		a.introduce(b, 1)
		a.both(b, 1)
		a.wall.Add(int64(100 * time.Millisecond)) // less than counts
		a.both(b, 2)
		// Two packets, and the empty one of the caller, which another goroutine sends.
		hosttest.WaitFor(t, "all is sent", func() bool { return sealed.Load() == 3 })
		sealed.Store(0)
		a.wall.Add(int64(by))
		a.net.Out <- a.udp(b, 3)
		<-a.jumped
		a.net.Out <- a.udp(b, 4)
		a.net.Out <- a.udp(b, 5)
		a.net.Idle() // both are held
		b.ping(a, 6)
		if sealed.Load() != 0 {
			t.Fatalf("%v: %d datagrams were sealed", by, sealed.Load())
		}
		if k, ok := a.dev.Keys(b.id); !ok || !k.Since.IsZero() {
			t.Errorf("%v: keys %+v", by, k)
		}
		if by > 0 {
			a.introduce(b, 2)
		} else {
			b.introduce(a, 2)
		}
		for _, want := range []uint32{4, 5} { // the first was read before the jump was known
			if got := number(b.recv()); got != want {
				t.Errorf("%v: packet %d, want %d", by, got, want)
			}
		}
		a.both(b, 7)
		if a.dev.CheckClock() || len(a.jumped) > 0 {
			t.Errorf("%v: the new keys were dropped, too", by)
		}
	}
}

// CheckClock drops the keys of all peers, before any packet.
func TestCheckClock(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	a.introduce(b, 1)
	c.introduce(a, 2)
	if a.dev.CheckClock() {
		t.Error("dropped for nothing")
	}
	a.wall.Add(int64(time.Hour))
	if !a.dev.CheckClock() || a.dev.CheckClock() {
		t.Error("not dropped, or again")
	}
	for _, m := range []*node{b, c} {
		if k, _ := a.dev.Keys(m.id); !k.Since.IsZero() {
			t.Errorf("keys %+v", k)
		}
	}
}

// Data without an answer are answered by an empty datagram within ten seconds, so that
// their sender knows that they arrive; a quiet tunnel sends nothing.
func TestKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		a.introduce(b, 1)
		a.both(b, 1)
		var sent atomic.Int32
		w.lose(func(from, _ cert.NodeID, msg []byte) bool {
			if from == b.id {
				sent.Add(1)
			}
			return false
		})
		time.Sleep(time.Hour)
		sent.Store(0)
		heard := func() time.Duration { return time.Since(a.bind.Find(b.id).LastKeepalive()) }
		a.ping(b, 2)
		time.Sleep(keepaliveAfter + time.Millisecond)
		if sent.Load() != 1 || heard() > 2*time.Millisecond {
			t.Fatalf("%d datagrams, the last %v ago", sent.Load(), heard())
		}
		for range 60 { // one way, for a minute
			a.ping(b, 3)
			time.Sleep(time.Second)
		}
		if n := sent.Load(); n < 6 || n > 7 {
			t.Errorf("%d datagrams in a minute", n-1)
		}
		time.Sleep(time.Minute)
		sent.Store(0)
		// An answer now and then is enough; the last data are not answered.
		a.both(b, 4)
		time.Sleep(6 * time.Second)
		a.both(b, 5)
		time.Sleep(3 * time.Second)
		a.ping(b, 6)
		if sent.Load() != 2 {
			t.Errorf("%d datagrams with two answers", sent.Load())
		}
		time.Sleep(keepaliveAfter)
		if sent.Load() != 3 || heard() > 4*time.Second {
			t.Errorf("%d datagrams, the last %v ago", sent.Load(), heard())
		}
		time.Sleep(time.Hour)
		if sent.Load() != 3 {
			t.Errorf("%d datagrams of a quiet tunnel", sent.Load())
		}
		a.dev.Close()
		b.dev.Close()
	})
}

// Epochs change while data flow, and after long pauses.
func TestEpochsOfDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		a.introduce(b, 1)
		indexes := map[uint32]bool{}
		w.lose(func(from, _ cert.NodeID, msg []byte) bool {
			if from == a.id {
				indexes[binary.BigEndian.Uint32(msg[4:])] = true
			}
			return false
		})
		for i := range uint32(600) {
			a.both(b, i)
			time.Sleep(time.Second)
		}
		if len(indexes) != 5 {
			t.Errorf("%d epochs in ten minutes", len(indexes))
		}
		time.Sleep(24 * time.Hour)
		a.both(b, 1)
		if r := &a.peer(b).cur.Load().receiver; r.old.Load() == nil {
			t.Error("the epoch before is gone already")
		}
		time.Sleep(oldLife + time.Second)
		if r := &a.peer(b).cur.Load().receiver; r.old.Load() != nil {
			t.Error("the epoch before is still there")
		}
		a.dev.Close()
		b.dev.Close()
	})
}

// Errors of SetPeer change nothing.
func TestSetPeerRefused(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	a.introduce(b, 1)
	p := a.peerOf(c, 1, true)
	p.IPs = b.ips()
	var taken *dataplane.TakenError
	if err := a.dev.SetPeer(p); !errors.As(err, &taken) || taken.Holder != b.id {
		t.Errorf("address of another: %v", err)
	}
	p = a.peerOf(c, 0, true)
	if err := a.dev.SetPeer(p); err == nil {
		t.Error("no secret")
	}
	a.both(b, 1)
	a.dev.Clear()
	if a.fwd.Addrs() != 0 {
		t.Error("there are peers after Clear")
	}
	a.dev.Close()
	if err := a.dev.SetPeer(a.peerOf(b, 1, true)); !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Whatever arrives that the peer has not made is dropped.
func TestForgedDatagrams(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.both(b, 1)
	index := b.peer(a).cur.Load().receiver.cur.Load().index
	src := b.bind.NewSource()
	for kind := range byte(8) {
		for _, n := range []int{0, 1, 15, 16, 31, 32, 33, 43, 44, 45, 1400, bind.MaxMessage} {
			for _, i := range []uint32{0, index, index + 1} {
				msg := make([]byte, n)
				if n >= headerLen {
					header{index: i, counter: 1 << 40 >> kind}.put(msg)
				}
				if n > 0 {
					msg[0] = kind
				}
				src.Deliver(a.id, msg)
			}
		}
	}
	src.Flush()
	a.both(b, 2)
	b.net.Silent(t, 0)
	if ahead := len(b.peer(a).cur.Load().receiver.ahead); ahead > maxAhead {
		t.Errorf("%d epochs were derived", ahead)
	}
}

// The packet path takes no lock of this package or of the forwarder.
func TestPacketPathTakesNoLock(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.both(b, 0)
	var thaw []func()
	for _, n := range []*node{a, b} {
		for _, p := range n.dev.peers {
			s := p.cur.Load()
			s.sender.mu.Lock()
			s.receiver.mu.Lock()
			thaw = append(thaw, s.sender.mu.Unlock, s.receiver.mu.Unlock)
		}
		n.dev.mu.Lock()
		thaw = append(thaw, n.dev.mu.Unlock, n.fwd.Freeze())
	}
	for i := range uint32(100) {
		a.both(b, i)
	}
	for _, f := range thaw {
		f()
	}
}

// The packet path allocates nothing, over the bind to the other side's host.
func TestPacketPathMakesNoGarbage(t *testing.T) {
	bothModes(t, func(t *testing.T) {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		a.introduce(b, 1)
		a.both(b, 0)
		a.net.Idle() // a peer's packets are carried by one goroutine at a time
		taken := 0
		b.net.Sink = func(bufs [][]byte, _ int) { taken += len(bufs) }
		pkt := a.udp(b, 1)
		bufs, sizes := make([][]byte, 32), make([]int, 32)
		for i := range bufs {
			bufs[i] = make([]byte, 2048)
		}
		p := a.peer(b)
		if n := testing.AllocsPerRun(500, func() {
			for i := range sizes {
				sizes[i] = copy(bufs[i][headerLen:], pkt)
			}
			sizes[3] = 0
			p.Carry(p.Entry, bufs, sizes, headerLen)
		}); n != 0 && !raceEnabled {
			t.Errorf("%v allocations for a batch", n)
		}
		if taken != 501*31 {
			t.Errorf("%d packets arrived", taken)
		}
	})
}

// A peer whose tunnel ends while packets flow, again and again, leaves nothing behind.
func TestPeersComeAndGo(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		wg.Go(func() {
			for !stop.Load() {
				way[0].net.Out <- way[0].udp(way[1], 1)
			}
		})
	}
	for i := range 200 {
		a.introduce(b, byte(i+1))
		if i%2 == 0 {
			a.dev.RemovePeer(b.id)
		}
		if i%3 == 0 {
			b.dev.RemovePeer(a.id)
		}
		for len(a.miss) > 0 {
			<-a.miss
		}
		for len(b.miss) > 0 {
			<-b.miss
		}
	}
	stop.Store(true)
	wg.Wait()
	a.dev.RemovePeer(b.id)
	b.dev.RemovePeer(a.id)
	if a.fwd.Addrs() != 0 || b.fwd.Addrs() != 0 || mono.Now() < 0 {
		t.Error("addresses are left")
	}
}
