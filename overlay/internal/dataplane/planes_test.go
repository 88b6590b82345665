package dataplane

import (
	"errors"
	"net/netip"
	"testing"

	"weft/overlay/internal/bind"
	"weft/overlay/internal/filter"
)

// With two planes, a packet goes to the plane of its peer, whatever was read with it, and
// everything else is common to both.
func TestTwoPlanes(t *testing.T) {
	w := world{}
	a, b, c := w.node(t, 1), w.node(t, 2), w.node(t, 3)
	// Packets without a peer are held in one queue.
	a.net.Out <- a.udp(b, 1)
	a.net.Out <- a.udp(c, 2)
	for _, want := range []netip.Addr{b.v4, c.v4} {
		if got := <-a.miss; got != want {
			t.Fatalf("miss of %v, want %v", got, want)
		}
	}
	a.connect(b, reads)
	ac, ca := a.connect(c, isHanded)
	if got := number(b.recv()); got != 1 {
		t.Errorf("packet %d", got)
	}
	if got := number(c.recv()); got != 2 {
		t.Errorf("packet %d", got)
	}
	const each = 200
	for i := range uint32(each) {
		a.net.Out <- a.udp(b, i)
		a.net.Out <- a.udp(c, i)
		b.net.Out <- b.udp(a, i)
		c.net.Out <- c.udp(a, i)
	}
	for i := range uint32(each) {
		for _, n := range []*node{b, c} {
			if got := number(n.recv()); got != i {
				t.Fatalf("packet %d arrived, want %d", got, i)
			}
		}
	}
	for range 2 * each {
		a.recv()
	}
	for _, m := range []*node{b, c} {
		s, ok := a.fwd.Stats(m.id)
		if !ok || s.TxPackets != each+1 || s.RxPackets != each || s.RxBytes != 32*each || s.LastRx.IsZero() || s.LastTx.IsZero() {
			t.Errorf("stats %+v", s)
		}
		waitFor(t, "an empty backlog", func() bool { return a.fwd.peer(m.id).Backlog() == 0 })
	}
	// No node can send with the address of another.
	c.net.Out <- udpPacket(b.v4, a.v4, 6)
	waitFor(t, "a refusal", func() bool { return a.fwd.Verdicts()[filter.BadSource] == 1 })
	if s, _ := a.fwd.Stats(c.id); s.Refused != 1 {
		t.Errorf("stats %+v", s)
	}
	a.silent(0)
	// An address belongs to one node, whatever its plane.
	var taken *TakenError
	if err := a.fwd.Free(b.id, []netip.Addr{b.v4, c.v6}); !errors.As(err, &taken) || taken.Holder != c.id || !errors.Is(err, ErrTaken) {
		t.Errorf("address of a peer of the other plane: %v", err)
	}
	if err := a.fwd.Free(b.id, b.ips()); err != nil {
		t.Errorf("own address: %v", err)
	}
	// The same filter applies to both. Denied packets are dropped and counted.
	for _, n := range []*node{b, c} {
		n.fwd.peer(a.id).SetFilter(filter.NewPeer(n.ips(), a.ips(), nil))
	}
	a.net.Out <- a.udp(b, 7)
	a.net.Out <- a.udp(c, 8)
	for _, n := range []*node{b, c} {
		waitFor(t, "a refusal", func() bool { return n.fwd.Verdicts()[filter.Denied] == 1 })
		n.silent(0)
	}
	// A pair changes its plane: its addresses move to the new entry, and packets held for
	// it use the new plane.
	var gate Gate
	next := a.entry(c, reads, everything)
	next.Hold(&gate)
	next.SetAddrs(c.ips())
	ac.Remove()
	a.net.Out <- a.udp(c, 9)
	waitFor(t, "a held packet", func() bool {
		a.fwd.hold.mu.Lock()
		defer a.fwd.hold.mu.Unlock()
		return len(a.fwd.hold.dests) == 1
	})
	ca.Remove()
	back := c.entry(a, reads, everything)
	back.SetAddrs(a.ips())
	next.ReleaseAt(new(Gate))
	c.silent(0)
	next.ReleaseAt(&gate)
	if got := number(c.recv()); got != 9 {
		t.Errorf("packet %d", got)
	}
	c.ping(a, 10)
	if a.fwd.Addrs() != 4 || len(a.fwd.Each()) != 2 {
		t.Errorf("%d addresses, %d peers", a.fwd.Addrs(), len(a.fwd.Each()))
	}
	next.Remove()
	a.net.Out <- a.udp(c, 11)
	if got := <-a.miss; got != c.v4 {
		t.Errorf("miss of %v", got)
	}
}

// The packet path needs no lock of this package: it works while all are held.
func TestPacketPathTakesNoLock(t *testing.T) {
	w := world{}
	a, b, c := w.node(t, 1), w.node(t, 2), w.node(t, 3)
	a.connect(b, reads)
	a.connect(c, isHanded)
	var thaw []func()
	for _, n := range w {
		thaw = append(thaw, n.fwd.Freeze())
	}
	for i := range uint32(100) {
		a.ping(b, i)
		b.ping(a, i)
		a.ping(c, i)
		c.ping(a, i)
	}
	for _, f := range thaw {
		f()
	}
}

// nowhere is a Carrier that drops packets.
type nowhere struct{ packets int }

func (p *nowhere) Carry(e *Entry, bufs [][]byte, sizes []int, offset int) {
	for _, size := range sizes {
		if size > 0 {
			p.packets++
		}
	}
	e.ResetBacklog()
}

func TestPacketPathMakesNoGarbage(t *testing.T) {
	w := world{}
	a, b, c := w.node(t, 1), w.node(t, 2), w.node(t, 3)
	ab, _ := a.connect(b, reads)
	ac, ca := a.connect(c, isHanded)
	lost := new(nowhere)
	ac.carrier = lost
	b.net.Sink = func([][]byte, int) {}
	c.net.Sink = b.net.Sink
	pkts := [][]byte{a.udp(b, 1), a.udp(c, 1)}
	bufs, sizes := [][]byte{append(make([]byte, 16), pkts[0]...), append(make([]byte, 16), pkts[1]...)}, make([]int, 2)
	const runs = 1000
	if n := testing.AllocsPerRun(runs, func() {
		sizes[0], sizes[1] = len(pkts[0]), len(pkts[1])
		if !a.fwd.outbound(bufs, sizes, 16) || sizes[0] == 0 || sizes[1] != 0 {
			t.Fatal("not sent")
		}
		ab.ResetBacklog()
		b.fwd.Write(bufs[:1:1], 16)
		ca.Write(bufs[1:2:2], 16)
	}); n != 0 {
		t.Errorf("%v allocations per packet in Read and Write", n)
	}
	if lost.packets != runs+1 {
		t.Errorf("%d packets were handed to their plane", lost.packets)
	}
	ab.ep.SetPath(bind.Path{Kind: bind.Direct, Addr: netip.MustParseAddrPort("192.0.2.1:1")}, 1472)
	if n := testing.AllocsPerRun(1000, func() { a.fwd.limit(pkts[0]) }); n != 0 || a.fwd.limit(pkts[0]) != 1472-testHeader {
		t.Errorf("%v allocations for a limit, which is %d", n, a.fwd.limit(pkts[0]))
	}
}
