package wg

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"
)

func TestMissHoldSetPeerDelivered(t *testing.T) {
	for name, wrap := range map[string]func(*testNet) dataplane.Net{
		"woken":  func(n *testNet) dataplane.Net { return n },
		"pumped": pumped,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire()
			a, b := newNode(t, w, 1, wrap), newNode(t, w, 2, wrap)
			for i := range uint32(3) {
				a.net.Out <- a.udp(b, i)
			}
			a.net.Out <- udpPacket(a.v6, b.v6, 3)
			for _, want := range b.ips() {
				if got := <-a.miss; got != want {
					t.Fatalf("miss of %v, want %v", got, want)
				}
			}
			b.silent(20 * time.Millisecond)
			a.introduce(b, 1)
			seen := make(map[uint32]bool)
			for range 4 {
				seen[number(b.recv())] = true
			}
			if len(seen) != 4 {
				t.Errorf("arrived: %v", seen)
			}
			b.ping(a, 9)
			a.ping(b, 10)
			if len(a.miss) != 0 || len(b.miss) != 0 {
				t.Error("more misses than destinations")
			}
			s, ok := a.fwd.Stats(b.id)
			if !ok || s.TxPackets != 5 || s.RxPackets != 1 || s.RxBytes != 32 || s.LastHandshake.IsZero() || s.LastRx.IsZero() || s.LastTx.IsZero() {
				t.Errorf("stats %+v", s)
			}
			a.dev.Close()
			b.dev.Close()
			if err := a.dev.SetPeer(a.peerOf(b, 1, true)); !errors.Is(err, dataplane.ErrClosed) {
				t.Errorf("SetPeer after Close: %v", err)
			}
			checkLeaks(t)
		})
	}
}

func TestFilterAppliesToWrite(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	a.introduce(b, 1)
	a.introduce(c, 2)
	a.ping(b, 1)
	a.ping(c, 2)

	// A sends with the address of B, of the receiver, of nobody and of everybody.
	for _, src := range []string{"100.64.0.3", "100.64.0.2", "0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1",
		"::ffff:100.64.0.3", "::ffff:100.64.0.1", "fe80::1", "fd00::3", "fd00::2", "::", "::1", "ff02::1"} {
		ip := netip.MustParseAddr(src)
		dst := b.v4
		if ip.Is6() {
			dst = b.v6
		}
		a.net.Out <- udpPacket(ip, dst, 99)
	}

	a.net.Out <- a.udp(b, 100)
	if got := number(b.recv()); got != 100 {
		t.Fatalf("packet %d came through", got)
	}
	// Policy no longer allows it: refused and counted.
	before := b.fwd.Verdicts()
	p := b.peerOf(a, 1, false)
	p.Filter = filter.NewPeer(b.ips(), a.ips(), nil)
	b.set(p)
	a.net.Out <- a.udp(b, 101)
	waitFor(t, "a refusal", func() bool { return b.fwd.Verdicts()[filter.Denied] == before[filter.Denied]+1 })
	if s, _ := b.fwd.Stats(a.id); s.Refused != 1 {
		t.Errorf("refused %d", s.Refused)
	}
	// Answers to what b begins still pass.
	b.net.Out <- udpPacket(b.v4, a.v4, 5)
	a.recv()
	answer := udpPacket(a.v4, b.v4, 6)
	copy(answer[20:], []byte{0, 9, 0, 7})
	a.net.Out <- answer
	if got := number(b.recv()); got != 6 {
		t.Fatalf("answer %d", got)
	}
}

// wireguard-go adds 40 to IPv6's payload length in 16 bits.
func TestIPv6LengthOverflow(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	for _, length := range []uint16{65535, 65500, 65496, 65495, 11, 0} {
		pkt := udpPacket(a.v6, b.v6, 1)
		binary.BigEndian.PutUint16(pkt[4:], length)
		a.net.Out <- pkt
	}
	a.ping(b, 2)
}

func TestSegmentsOf64KB(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	for _, size := range []int{1280, 20000, 60<<10 + 100, dataplane.MaxPacket} {
		payload := make([]byte, size-20)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		pkt := ipPacket(a.v4, b.v4, 47, payload)
		a.net.Out <- pkt
		if got := b.recv(); !bytes.Equal(got, pkt) {
			t.Errorf("%d bytes changed on the way", size)
		}
	}
	a.net.Out <- ipPacket(a.v4, b.v4, 47, make([]byte, dataplane.MaxPacket-19))
	a.ping(b, 1)
}

// Packets that claim to be from another node change no endpoint.
func TestForeignEndpointMovesNothing(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	a.introduce(b, 1)
	a.introduce(c, 2)
	a.ping(b, 1)
	// C forwards everything that B sends, handshakes and data, as its own.
	w.lose(func(from, to cert.NodeID, msg []byte) bool {
		if from == b.id && to == a.id {
			a.bind.Deliver(c.id, msg)
			return true
		}
		return false
	})
	var toC atomic.Int32
	b.ping(a, 2)
	b.dev.mu.Lock()
	b.dev.begin(b.dev.peers[a.id].cur, true, 0)
	b.dev.mu.Unlock()
	w.lose(func(from, to cert.NodeID, msg []byte) bool {
		if from == b.id && to == a.id {
			a.bind.Deliver(c.id, msg)
			return true
		}
		if to == c.id && len(msg) > 32 { // a keepalive may be late
			toC.Add(1)
		}
		return false
	})
	b.ping(a, 3)
	a.ping(b, 4)
	if n := toC.Load(); n != 0 {
		t.Errorf("%d messages for b went to c", n)
	}
	// A node without an endpoint is an unknown sender.
	a.bind.Deliver(cert.NodeID{7}, make([]byte, 148))
	if got := <-a.alien; got != (cert.NodeID{7}) {
		t.Errorf("stranger %v", got)
	}
}

// An introduced node floods another with forged initiations, of which only the first MAC
// is valid. It gets fewer bytes than it sends, and a third node can still connect.
func TestInitiationFlood(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	a.introduce(b, 1)
	a.ping(b, 1)
	var came, cookies, others atomic.Int64
	w.lose(func(from, to cert.NodeID, msg []byte) bool {
		if from == b.id && to == a.id {
			came.Add(int64(len(msg)))
			if msg[0] == device.MessageCookieReplyType && len(msg) == device.MessageCookieReplySize {
				cookies.Add(1)
			} else {
				others.Add(1)
			}
		}
		return false
	})
	var mac device.CookieGenerator
	mac.Init(b.dev.PublicKey())
	msg := make([]byte, device.MessageInitiationSize)
	sent := int64(0)
	flood := func(n int) {
		for range n {
			rand.Read(msg[4:])
			msg[0] = device.MessageInitiationType
			clear(msg[device.MessageInitiationSize-16:])
			mac.AddMacs(msg)
			a.port.SendPackets(b.id, [][]byte{msg})
			sent += int64(len(msg))
		}
	}
	flood(20_000)
	start := time.Now()
	c.net.Out <- c.udp(b, 7)
	<-c.miss
	c.introduce(b, 2)
	flood(30_000)
	for number(b.recv()) != 7 {
	}
	t.Logf("a third came through after %v; %d cookies, %d other messages for the flood", time.Since(start).Round(time.Millisecond), cookies.Load(), others.Load())
	if cookies.Load() == 0 {
		t.Error("the flood was not answered with cookies")
	}
	if came.Load() > sent/2 {
		t.Errorf("%d bytes came for %d", came.Load(), sent)
	}
	a.ping(b, 8)
}

// Keys and addresses that another node has, or that no node may have.
func TestKeyOrAddressOfAnotherNode(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	a.introduce(b, 1)
	for name, change := range map[string]func(*dataplane.Peer){
		"key":             func(p *dataplane.Peer) { p.Key = b.dev.PublicKey() },
		"own key":         func(p *dataplane.Peer) { p.Key = a.dev.PublicKey() },
		"IPv4":            func(p *dataplane.Peer) { p.IPs = []netip.Addr{b.v4, c.v6} },
		"IPv6":            func(p *dataplane.Peer) { p.IPs = []netip.Addr{c.v4, b.v6} },
		"zero key":        func(p *dataplane.Peer) { p.Key = [32]byte{} },
		"zero PSK":        func(p *dataplane.Peer) { p.Secret = [32]byte{} },
		"no addresses":    func(p *dataplane.Peer) { p.IPs = nil },
		"multicast":       func(p *dataplane.Peer) { p.IPs = []netip.Addr{netip.MustParseAddr("224.0.0.1")} },
		"mapped":          func(p *dataplane.Peer) { p.IPs = []netip.Addr{netip.MustParseAddr("::ffff:100.64.0.9")} },
		"zone":            func(p *dataplane.Peer) { p.IPs = []netip.Addr{netip.MustParseAddr("fd00::9%eth0")} },
		"no filter":       func(p *dataplane.Peer) { p.Filter = nil },
		"no endpoint":     func(p *dataplane.Peer) { p.Endpoint = nil },
		"other endpoint":  func(p *dataplane.Peer) { p.Endpoint = a.bind.Find(b.id) },
		"invalid address": func(p *dataplane.Peer) { p.IPs = []netip.Addr{{}} },
	} {
		p := a.peerOf(c, 2, false)
		change(&p)
		err := a.dev.SetPeer(p)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		switch name {
		case "key", "own key", "IPv4", "IPv6":
			if !errors.Is(err, dataplane.ErrTaken) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, ok := a.fwd.Stats(c.id); ok {
			t.Fatalf("%s: peer exists", name)
		}
	}
	a.ping(b, 1)
	a.introduce(c, 2)
	a.ping(c, 2)
	// Once freed, key and address may become another's.
	a.dev.RemovePeer(c.id)
	p := a.peerOf(b, 3, false)
	p.IPs = append(p.IPs, c.v4)
	if err := a.dev.SetPeer(p); err != nil {
		t.Error(err)
	}
}

func TestPSKMismatchCarriesNothing(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	b.set(b.peerOf(a, 1, false))
	a.set(a.peerOf(b, 2, true))
	a.net.Out <- a.udp(b, 1)
	b.net.Out <- b.udp(a, 2)
	b.silent(1200 * time.Millisecond) // longer than a retry of either side
	a.silent(0)
	if s, _ := a.fwd.Stats(b.id); !s.LastHandshake.IsZero() {
		t.Error("handshake without a common key")
	}
	b.set(b.peerOf(a, 2, false))
	a.set(a.peerOf(b, 2, true))
	if got := number(b.recv()); got != 1 {
		t.Errorf("packet %d", got)
	}
	if got := number(a.recv()); got != 2 {
		t.Errorf("packet %d", got)
	}
}

// stream sends numbered packets from n to m until stop is called. stop returns how many
// were sent.
func (n *node) stream(m *node, every time.Duration) (stop func() uint32) {
	quit, done := make(chan struct{}), make(chan uint32)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := uint32(0); ; i++ {
			select {
			case <-quit:
				done <- i
				return
			case <-tick.C:
				n.net.Out <- n.udp(m, i)
			}
		}
	}()
	return func() uint32 { close(quit); return <-done }
}

func drain(nodes ...*node) map[uint32]bool {
	got := make(map[uint32]bool)
	for _, n := range nodes {
		for len(n.net.In) > 0 {
			got[number(<-n.net.In)] = true
		}
	}
	return got
}

// A new key that never answers leaves the old tunnel unchanged, and packets held
// meanwhile go through it.
func TestNewKeyThatDoesNotAnswer(t *testing.T) {
	w := newWire()
	a, b, ghost := newNode(t, w, 1), newNode(t, w, 2), newNode(t, newWire(), 9)
	a.introduce(b, 1)
	a.ping(b, 0)
	p := a.peerOf(b, 7, true)
	p.Key = ghost.dev.PublicKey()
	a.set(p)
	a.net.Out <- a.udp(b, 1)
	b.ping(a, 2) // receiving through the old tunnel works all the time
	b.silent(100 * time.Millisecond)
	if got := number(b.recv()); got != 1 {
		t.Errorf("packet %d", got)
	}
	a.ping(b, 3)
	if a.dev.KeyOf(b.id) != b.dev.PublicKey() {
		t.Error("key changed without a handshake")
	}
	if a.dev.byKey[p.Key] != nil {
		t.Error("the failed tunnel is still there")
	}
}

// The first initiation and the first response are lost.
func TestHandshakeRetriesSoon(t *testing.T) {
	for _, lost := range []byte{messageInitiation, messageResponse} {
		w := newWire()
		a, b := newNode(t, w, 1), newNode(t, w, 2)
		var n atomic.Int32
		w.lose(func(_, _ cert.NodeID, msg []byte) bool { return msg[0] == lost && n.Add(1) == 1 })
		start := time.Now()
		a.introduce(b, 1)
		b.net.Out <- b.udp(a, 1)
		a.recv()
		if took := time.Since(start); took > 4500*time.Millisecond { // WireGuard tries again after 5 s
			t.Errorf("message %d lost: took %v", lost, took)
		}
	}
}

// The caller's initiation arrives before the callee knows the new preshared key.
func TestInitiationOvertakesIntroduction(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.ping(b, 1)
	b.ping(a, 1)
	time.Sleep(30 * time.Millisecond) // wireguard-go refuses two initiations within 20 ms
	b.dev.mu.Lock()
	tun := b.dev.peers[a.id].cur
	b.dev.mu.Unlock()
	tun.answered.Store(0)
	a.set(a.peerOf(b, 2, true))
	a.net.Out <- a.udp(b, 2)
	waitFor(t, "an answer under the old key", func() bool { return tun.answered.Load() != 0 })
	start := time.Now()
	b.set(b.peerOf(a, 2, false))
	if got := number(b.recv()); got != 2 {
		t.Errorf("packet %d", got)
	}
	if took := time.Since(start); took > firstRetry/2 {
		t.Errorf("took %v", took)
	}
}

// Both sides begin at once, and so both initiations are lost.
func TestCrossingInitiations(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	var n atomic.Int32
	w.lose(func(_, _ cert.NodeID, msg []byte) bool { return msg[0] == messageResponse && n.Add(1) <= 2 })
	start := time.Now()
	a.set(a.peerOf(b, 1, true))
	b.set(b.peerOf(a, 1, true))
	a.net.Out <- a.udp(b, 1)
	b.net.Out <- b.udp(a, 2)
	a.recv()
	b.recv()
	if took := time.Since(start); took > 4500*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// A callee that has nothing to send does not begin a second handshake.
func TestSilentCalleeDoesNotBegin(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	var begun atomic.Int32
	w.lose(func(_, _ cert.NodeID, msg []byte) bool {
		if msg[0] == messageInitiation {
			begun.Add(1)
		}
		return false
	})
	a.introduce(b, 1)
	a.ping(b, 1)
	waitFor(t, "the callee to confirm", func() bool {
		s, _ := b.fwd.Stats(a.id)
		return !s.LastHandshake.IsZero()
	})
	b.dev.mu.Lock()
	tun := b.dev.peers[a.id].cur
	b.dev.mu.Unlock()
	waitFor(t, "its timer to end", func() bool {
		b.dev.mu.Lock()
		defer b.dev.mu.Unlock()
		return tun.timer == nil
	})
	if n := begun.Load(); n != 1 {
		t.Errorf("%d handshakes", n)
	}
}

// The caller never begins: the callee does, after a while.
func TestCalleeBeginsAfterAll(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	b.set(b.peerOf(a, 1, false))
	a.set(a.peerOf(b, 1, false))
	start := time.Now()
	b.net.Out <- b.udp(a, 1)
	a.recv()
	if took := time.Since(start); took < firstTurn/2 || took > 4*time.Second {
		t.Errorf("took %v", took)
	}
}

// A Sender that blocks stops the packets of its own peer only, and a bounded number of
// them is queued.
func TestBlockedSender(t *testing.T) {
	w := newWire()
	a, b, c := newNode(t, w, 1), newNode(t, w, 2), newNode(t, w, 3)
	a.introduce(b, 1)
	a.introduce(c, 2)
	a.ping(b, 0)
	a.ping(c, 0)
	stuck := blocker{free: make(chan struct{})}
	a.bind.Find(b.id).SetSender(stuck)
	payload := make([]byte, 50000)
	go func() {
		for range 200 {
			a.net.Out <- ipPacket(a.v4, b.v4, 47, payload)
		}
		a.net.Out <- a.udp(c, 1)
	}()
	if got := number(c.recv()); got != 1 {
		t.Errorf("packet %d", got)
	}
	if cost := a.dev.peers[b.id].Backlog(); cost > dataplane.MaxBacklog+60000 {
		t.Errorf("backlog of %d", cost)
	}
	a.bind.Find(b.id).SetSender(a.port)
	close(stuck.free)
	waitFor(t, "the backlog to drain", func() bool { return a.dev.peers[b.id].Backlog() == 0 })
	drain(b)
	waitFor(t, "traffic after it", func() bool {
		a.net.Out <- a.udp(b, 77)
		time.Sleep(time.Millisecond)
		return drain(b)[77]
	})
}

type blocker struct{ free chan struct{} }

func (s blocker) SendPackets(cert.NodeID, [][]byte) error { <-s.free; return nil }

// The packet path needs no lock of this package or of package dataplane: it works while
// all are held.
func TestPacketPathTakesNoLock(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.ping(b, 1)
	b.ping(a, 1)
	thaw := map[*node]func(){}
	for _, n := range []*node{a, b} {
		n.dev.mu.Lock()
		thaw[n] = n.fwd.Freeze()
		n.dev.spawn.Lock()
	}
	for i := range uint32(100) {
		a.ping(b, i)
		b.ping(a, i)
	}
	for _, n := range []*node{a, b} {
		n.dev.spawn.Unlock()
		thaw[n]()
		n.dev.mu.Unlock()
	}
}

// Read and Write belong to package dataplane.
func TestSendMakesNoGarbage(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.ping(b, 1)
	b.ping(a, 1)
	data := make([]byte, 64)
	data[0] = messageData
	tun := a.dev.peers[b.id].cur
	tun.session.Store(0)
	tun.Endpoint.SetSender(nowhere{})
	out := [][]byte{data}
	if n := testing.AllocsPerRun(1000, func() { outer{a.bind, a.dev}.Send(out, tun) }); n != 0 {
		t.Errorf("%v allocations per Send", n)
	}
}

type nowhere struct{}

func (nowhere) SendPackets(cert.NodeID, [][]byte) error { return nil }

// Peers are added and removed a thousand times under load, and then the device is closed
// in the middle of it.
func TestChurnUnderLoadAndClose(t *testing.T) {
	w := newWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.ping(b, 0)
	stop := a.stream(b, 200*time.Microsecond)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 250 {
				id := cert.NodeID{100 + byte(g), byte(i), byte(i >> 8)}
				ip := netip.AddrFrom4([4]byte{100, 70 + byte(g), byte(i >> 8), byte(i)})
				ep := endpoint(a.bind, id, ip)
				ep.SetSender(a.port)
				p := dataplane.Peer{ID: id, Key: [32]byte([]byte(id.String())), Secret: [32]byte{1}, IPs: []netip.Addr{ip}, Endpoint: ep,
					Filter: filter.NewPeer(a.ips(), []netip.Addr{ip}, everything), Initiate: i%2 == 0}
				if err := a.dev.SetPeer(p); err != nil {
					t.Error(err)
					return
				}
				a.net.Out <- udpPacket(a.v4, ip, 1)
				if i%3 == 0 {
					p.Key[0] ^= 1
					a.dev.SetPeer(p)
				}
				a.dev.RemovePeer(id)
				a.bind.Drop(id)
				a.net.Out <- udpPacket(a.v4, ip, 2)
				a.fwd.Fail(ip, dataplane.Unreachable)
			}
		})
	}
	misses := make(chan struct{})
	go func() {
		for {
			select {
			case <-a.miss:
			case <-misses:
				return
			}
		}
	}()
	wg.Wait()
	n := stop()
	waitFor(t, "all packets", func() bool { return len(b.net.In) == int(n) })
	a.dev.mu.Lock()
	if len(a.dev.peers) != 1 || len(a.fwd.Each()) != 1 || len(a.dev.byKey) != 1 || a.fwd.Addrs() != 2 {
		t.Errorf("left: %d peers, %d entries, %d keys, %d addresses", len(a.dev.peers), len(a.fwd.Each()), len(a.dev.byKey), a.fwd.Addrs())
	}
	a.dev.mu.Unlock()
	// Close with packets in flight in both directions.
	for i := range uint32(500) {
		a.net.Out <- a.udp(b, i)
		b.net.Out <- b.udp(a, i)
	}
	a.dev.Close()
	b.dev.Close()
	close(misses)
	checkLeaks(t)
}
