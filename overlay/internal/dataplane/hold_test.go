package dataplane

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/internal/hosttest"
)

func TestHoldQueueBounds(t *testing.T) {
	w := world{}
	a, b := w.node(t, 1), w.node(t, 2)
	for i := range uint32(100) {
		a.net.Out <- a.udp(b, i)
	}
	<-a.miss
	big := netip.MustParseAddr("100.64.9.9")
	for range 5 {
		a.net.Out <- ipPacket(a.v4, big, 17, make([]byte, 30000))
	}
	for i := range 400 {
		a.net.Out <- udpPacket(a.v4, netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}), 0)
	}
	for _, dst := range []string{"224.0.0.251", "255.255.255.255", "127.0.0.1", "ff02::fb", "fe80::1", "::1", "0.0.0.0"} {
		ip := netip.MustParseAddr(dst)
		a.net.Out <- udpPacket(ip, ip, 0)
	}
	last := netip.MustParseAddr("100.64.9.10") // refused, like the last hundred before it
	a.net.Out <- udpPacket(a.v4, last, 0)
	h := &a.fwd.hold
	waitFor(t, "the queue to be read", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(a.net.Out) == 0 && len(h.dests) == holdDestinations
	})
	h.mu.Lock()
	if n := len(h.dests); n != holdDestinations {
		t.Errorf("%d destinations", n)
	}
	if q := h.dests[b.v4]; len(q.packets) != holdPackets {
		t.Errorf("%d packets held", len(q.packets))
	}
	if q := h.dests[big]; q.bytes > holdBytes || len(q.packets) != 2 {
		t.Errorf("%d packets, %d bytes held", len(q.packets), q.bytes)
	}
	sum := 0
	for _, q := range h.dests {
		sum += q.bytes
	}
	if sum != h.bytes {
		t.Errorf("%d bytes held, %d counted", sum, h.bytes)
	}
	h.mu.Unlock()
	if n := 1 + len(a.miss); n != holdDestinations {
		t.Errorf("%d misses", n)
	}
	a.connect(b, reads)
	for i := range uint32(holdPackets) {
		if got := number(b.recv()); got != i {
			t.Fatalf("packet %d arrived, want %d", got, i)
		}
	}
	b.silent(10 * time.Millisecond)
}

// Time is simulated, since the hold queue needs no plane.
func TestHoldQueueExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var misses []time.Time
		d := New(Config{Net: hosttest.NewNet(), Miss: func(netip.Addr) { misses = append(misses, time.Now()) }})
		t.Cleanup(func() { d.Close() })
		dst := netip.MustParseAddr("100.64.0.2")
		start := time.Now()
		for range 9 { // at 0, 1 .. 8 s
			if d.hold.put(udpPacket(dst, dst, 1)) {
				t.Fatal("passed without a peer")
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		d.hold.mu.Lock()
		if n := len(d.hold.dests[dst].packets); n != 4 {
			t.Errorf("%d packets at 9 s, want those of 5 to 8 s", n)
		}
		d.hold.mu.Unlock()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		d.hold.mu.Lock()
		defer d.hold.mu.Unlock()
		if len(d.hold.dests) != 0 || d.hold.bytes != 0 || d.hold.armed {
			t.Errorf("left: %d destinations, %d bytes, timer %v", len(d.hold.dests), d.hold.bytes, d.hold.armed)
		}
		if len(misses) != 2 || misses[1].Sub(start) != 5*time.Second {
			t.Errorf("misses at %v", misses)
		}
	})
}

// Programs fail at once, and a later packet is a new miss.
func TestFailAnswersHeldPackets(t *testing.T) {
	w := world{}
	a, b := w.node(t, 1), w.node(t, 2)
	a.net.Out <- ipPacket(a.v4, b.v4, 6, []byte{12: 5 << 4, 13: 2, 19: 0}) // a SYN
	a.net.Out <- a.udp(b, 1)
	<-a.miss
	waitFor(t, "both packets to be held", func() bool {
		a.fwd.hold.mu.Lock()
		defer a.fwd.hold.mu.Unlock()
		return len(a.fwd.hold.dests[b.v4].packets) == 2
	})
	a.fwd.Fail(b.v4, Prohibited)
	for i, proto := range []byte{1, 6, 1} {
		p := a.recv()
		if p[9] != proto || netip.AddrFrom4([4]byte(p[12:])) != b.v4 || netip.AddrFrom4([4]byte(p[16:])) != a.v4 || proto == 1 && p[21] != 13 {
			t.Errorf("answer %d: %x", i, p)
		}
	}
	a.silent(5 * time.Millisecond)
	a.fwd.Fail(b.v4, Prohibited)
	a.silent(0)
	a.net.Out <- a.udp(b, 2)
	<-a.miss
	a.connect(b, reads)
	if got := number(b.recv()); got != 2 {
		t.Errorf("packet %d", got)
	}
	a.fwd.Fail(b.v4, Unreachable) // it has a peer now
	a.ping(b, 3)
}
