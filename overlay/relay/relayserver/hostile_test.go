package relayserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
	"weft/overlay/stun"
)

// junkFrame makes a frame, or the beginning of one, that no node sends. end says to close
// the connection after it, because the frame is only incomplete.
func junkFrame(r *rand.Rand) (f []byte, end bool) {
	peer := cert.NodeID{1: byte(r.Uint32()), 2: 1}
	body := make([]byte, r.IntN(3000))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	head := func(t relay.Type, n int) []byte { return []byte{byte(t), byte(n >> 16), byte(n >> 8), byte(n)} }
	switch r.IntN(10) {
	case 0: // an empty body
		return head(relay.TypePacket+relay.Type(r.IntN(2)), r.IntN(relay.PeerLen+1)), false
	case 1: // too long
		return append(head(relay.TypePacket, relay.PeerLen+relay.MaxPacket+1+r.IntN(1<<20)), body...), false
	case 2:
		return append(head(relay.TypeSession, relay.PeerLen+relay.MaxSession+1+r.IntN(1<<20)), body...), false
	case 3:
		return append(head(relay.Type(r.IntN(17)), 1<<24-1), body...), false
	case 4:
		return append([]byte{255, 255, 255, 255}, body...), false
	case 5: // an unknown type, or not for a relay
		for {
			t := relay.Type(r.IntN(256))
			if relay.CheckHead(relay.AtRelay, t, len(body)) != nil {
				return append(head(t, len(body)), body...), false
			}
		}
	case 6: // no peer
		return relay.AppendPeerFrame(nil, relay.Type([]int{1, 2, 14}[r.IntN(3)]), cert.NodeID{}, body[:0]), false
	case 7:
		return relay.AppendPeerFrame(nil, relay.TypeSession, cert.NodeID{}, []byte{1}), false
	case 8:
		return relay.AppendFrame(nil, relay.TypeVersions, append([]byte("{\"config\":"), body...)[:2+r.IntN(8)]), false
	}
	f = relay.AppendPeerFrame(nil, relay.TypePacket, peer, append(body, 1))
	return f[:1+r.IntN(len(f)-1)], true
}

// Ten thousand members send one malformed frame each and are all disconnected. Two others
// lose nothing, and no goroutine or client remains.
func TestTenThousandJunkFrames(t *testing.T) {
	onStage(t, func(st *stage) {
		r := rand.New(rand.NewPCG(1, 2))
		a, b := st.join(1), st.join(2)
		measure := func() (heap uint64, goroutines int) {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc, runtime.NumGoroutine()
		}
		heap, goroutines := measure()
		peak := heap
		rounds, each := 100, 100
		if raceEnabled {
			rounds = 20 // enough here: the race detector takes ten times as long
		}
		for i := range rounds {
			var all []*peer
			for j := range each {
				p := st.joinAs(netA, id(1000+j), false, false)
				f, end := junkFrame(r)
				go func() {
					p.c.Write(f)
					if end {
						p.c.Close()
					}
				}()
				all = append(all, p)
			}
			text := fmt.Sprint("good ", i)
			a.packet(b.id, text)
			b.wantOne(relay.TypePacket, a.id, text)
			if i%20 == 10 {
				h, _ := measure()
				peak = max(peak, h)
			}
			time.Sleep(2 * lastWords)
			for _, p := range all {
				if !p.closed() {
					t.Fatal("a client that sent junk is still connected")
				}
				p.c.Close()
			}
		}
		synctest.Wait()
		if n := st.s.Stats().Clients; n != 2 {
			t.Errorf("%d clients, want 2", n)
		}
		after, g := measure()
		if g > goroutines {
			t.Errorf("%d goroutines, were %d", g, goroutines)
		}
		if max(peak, after) > heap+32<<20 {
			t.Errorf("the heap grew from %d to %d KB, %d at the end", heap>>10, peak>>10, after>>10)
		}
	})
}

// Clients without a certificate, and members that send junk, over TCP: two others lose
// nothing meanwhile.
func TestJunkOverTCP(t *testing.T) {
	w := newWorld(t, Config{})
	a, b := w.node("a"), w.node("b")
	ca, cb := &checker{from: b.id, welcome: make(chan struct{})}, &checker{from: a.id, welcome: make(chan struct{})}
	la := a.run(ca)
	b.run(cb)
	<-ca.welcome
	<-cb.welcome
	r := rand.New(rand.NewPCG(3, 4))
	bad := w.node("bad")
	const n = 200
	for i := range n {
		if err := la.SendPackets(b.id, [][]byte{packet(uint32(i+1), 100)}); err != nil {
			t.Fatal(err)
		}
		f, _ := junkFrame(r)
		var c net.Conn
		switch i % 4 {
		case 0:
			c = bad.dial()
		case 1:
			tc, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"weft-relay/1"}})
			if err != nil {
				continue // refused in the handshake
			}
			c = tc
		default:
			var err error
			if c, err = net.Dial("tcp", strings.TrimPrefix(w.url, "https://")); err != nil {
				t.Fatal(err)
			}
		}
		c.Write(f)
		c.Close()
	}
	for deadline := time.Now().Add(patient); cb.frames.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d packets", cb.frames.Load(), n)
		}
	}
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if cb.bad != 0 {
		t.Errorf("%d packets are changed or out of order", cb.bad)
	}
}

// echo sends every packet back.
type echo struct {
	counter
	c       atomic.Pointer[relay.Conn]
	welcome chan struct{}
	back    chan struct{} // the other side: signals that an answer came
}

func (e *echo) Welcome(relay.Welcome) { close(e.welcome) }
func (e *echo) Packet(from cert.NodeID, p []byte) {
	if e.back != nil {
		e.back <- struct{}{}
	} else {
		e.c.Load().SendPackets(from, [][]byte{p})
	}
}

// One node sends all it can to a node that does not read. At most 256 KB are queued for
// that one, and the packets of two others still flow. p99 is only logged, because it
// depends on the machine.
func TestFloodToTheDeaf(t *testing.T) {
	w := newWorld(t, Config{})
	flooder, deaf, a, b := w.node("flooder"), w.node("deaf"), w.node("a"), w.node("b")
	tc := deaf.dial() // never reads
	defer tc.Close()
	ea, eb := &echo{welcome: make(chan struct{}), back: make(chan struct{}, 1)}, &echo{welcome: make(chan struct{})}
	la, lb := a.run(ea), b.run(eb)
	eb.c.Store(lb)
	<-ea.welcome
	<-eb.welcome
	round := func() time.Duration {
		start := time.Now()
		if err := la.SendPackets(b.id, [][]byte{make([]byte, 1380)}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ea.back:
		case <-time.After(patient):
			t.Fatal("a packet of the other flow was lost")
		}
		return time.Since(start)
	}
	p99 := func() time.Duration {
		var all []time.Duration
		for range 100 {
			all = append(all, round())
		}
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	before := p99()
	var sent atomic.Int64
	ef := &echo{welcome: make(chan struct{})}
	lf := flooder.run(ef)
	<-ef.welcome
	ctx, cancel := context.WithCancel(context.Background())
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		bufs := make([][]byte, 16)
		for i := range bufs {
			bufs[i] = make([]byte, 1380)
		}
		for ctx.Err() == nil {
			if lf.SendPackets(deaf.id, bufs) != nil {
				return
			}
			sent.Add(16 * 1380)
		}
	}()
	for deadline := time.Now().Add(patient); w.relay.Stats().Dropped == 0; time.Sleep(time.Millisecond) { // the kernel's buffers are full
		if time.Now().After(deadline) {
			t.Fatal("nothing was dropped")
		}
	}
	start, first := time.Now(), sent.Load()
	during := p99()
	rate := float64(sent.Load()-first) * 8 / time.Since(start).Seconds() / 1e6
	c := w.relay.find(&network{id: w.network}, deaf.id)
	c.mu.Lock()
	queued := c.packets.bytes + c.sessions.bytes + len(c.control)
	c.mu.Unlock()
	if queued > 256<<10 {
		t.Errorf("%d bytes wait for the deaf one", queued)
	}
	t.Logf("p99 of the others %v, %v beside a flood of %.0f Mbit/s", before, during, rate)
	cancel()
	lf.Close()
	<-flooded
}

// STUN on the shared port: at most 20 answers a second to one address, however many
// requests come in however few system calls; never more than twice the bytes; others are
// still served.
func TestSTUNFlood(t *testing.T) {
	w := newWorld(t, Config{})
	udp := serveUDP(t, w.relay, "udp4", "127.0.0.1:0")
	from := func(ip string) *net.UDPConn {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)}, net.UDPAddrFromAddrPort(udp))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	flooder, other := from("127.0.0.5"), from("127.0.0.6")
	request := stun.AppendRequest(nil, stun.TxID{1})
	start := time.Now()
	for i := range 3000 {
		flooder.Write(request)
		if i%300 == 0 { // ten times: it has a limit too
			(&laneEnd{t: t, udp: other}).nothing()
		}
	}
	flooder.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	answers := 0
	var buf [2000]byte
	for {
		n, err := flooder.Read(buf[:])
		if err != nil {
			break
		}
		answers++
		if n > 2*len(request) {
			t.Errorf("%d bytes for %d", n, len(request))
		}
	}
	if limit := 20 * (int(time.Since(start).Seconds()) + 2); answers == 0 || answers > limit {
		t.Errorf("%d answers in %v", answers, time.Since(start))
	}
}

// No datagram gets a longer answer than allowed, and none disturbs a lane.
func FuzzDatagram(f *testing.F) {
	key := lane.Key{7}
	f.Add(stun.AppendRequest(nil, stun.TxID{1}))
	f.Add(lane.AppendControl(nil, lane.Bind, lane.ID{1}, lane.Cookie{}, key))
	f.Add(lane.AppendControl(nil, lane.Bind, lane.ID{1}, lane.Cookie{1}, key))
	f.Add(append(lane.AppendHeader(nil, lane.ID{1}), 1))
	f.Add(append(lane.AppendHeader(nil, lane.ID{2}), 1))
	s := New(Config{})
	u := newUDPCore(s, &udpSocket{})
	owner := newClient(s, nil, id(1), false)
	owner.closed = true
	x := &laneSide{id: lane.ID{1}, key: key, owner: owner}
	x.other = &laneSide{id: lane.ID{2}, key: lane.Key{8}, owner: owner, other: x}
	here, there := addr(1), addr(2)
	x.at.Store(&binding{remote: here, since: 1})
	x.other.at.Store(&binding{remote: there, since: 1})
	s.lanes.table.add(x, 1)
	s.lanes.table.add(x.other, 2)
	stranger := netip.MustParseAddrPort("[2001:db8::1]:53")
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, _, ok := lane.ParseData(b); ok && u.to(id, stranger).IsValid() {
			t.Fatal("forwarded")
		}
		if out := u.answer(b, stranger, sourceInfo{}, s.now()); len(out) > 2*len(b) || len(b) > 0 && b[0] == lane.First && len(out) > len(b) {
			t.Fatalf("%d bytes for %d", len(out), len(b))
		}
		if u.to(x.id, here) != there || u.to(x.other.id, there) != here {
			t.Fatal("the lane moved")
		}
	})
}
