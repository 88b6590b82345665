package relayserver

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
	"weft/overlay/stun"
)

// onLanes is onStage with a relay that serves a stand-in for a socket: the test hands
// datagrams to the core.
func onLanes(t *testing.T, f func(st *stage, u *udpCore)) {
	onStage(t, func(st *stage) {
		st.s.lanes.serving.Add(1)
		u := newUDPCore(st.s, &udpSocket{})
		f(st, &u)
	})
}

func (p *peer) ask(for_ cert.NodeID) {
	p.send(relay.AppendPeerFrame(nil, relay.TypeLane, for_, nil))
	synctest.Wait()
}

// info takes the one lane frame received and returns its Info.
func (p *peer) info(peer cert.NodeID) lane.Info {
	p.st.t.Helper()
	frames := p.take(relay.TypeLane)
	if len(frames) != 1 || relay.Peer(frames[0]) != peer {
		p.st.t.Fatalf("%d lane frames, want one with %s", len(frames), peer)
	}
	i, ok := lane.ParseInfo(frames[0][relay.HeadLen+relay.PeerLen:])
	if !ok {
		p.st.t.Fatalf("bad lane frame %x", frames[0])
	}
	return i
}

func addr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 1000)
}

// bind binds a side and returns the two datagrams that it sent.
func (u *udpCore) bind(t *testing.T, i lane.Info, from netip.AddrPort) (first, second []byte) {
	t.Helper()
	b := lane.NewBinder(i)
	first, _ = b.Poll(time.Now())
	challenge := u.answer(first, from, sourceInfo{}, u.s.now())
	if challenge == nil {
		t.Fatal("no challenge")
	}
	second = b.Handle(challenge)
	b.Handle(u.answer(second, from, sourceInfo{}, u.s.now()))
	if b.State() != lane.IsBound {
		t.Fatal("not bound")
	}
	return first, second
}

// to returns where a datagram of a side goes, the zero address for nowhere.
func (u *udpCore) to(id lane.ID, from netip.AddrPort) netip.AddrPort {
	if to := u.s.laneDestination(id, from, 100, u.s.now()); to != nil {
		return to.remote
	}
	return netip.AddrPort{}
}

func TestLaneMade(t *testing.T) {
	onLanes(t, func(st *stage, u *udpCore) {
		a, b := st.join(1), st.join(2)
		a.ask(b.id)
		ia, ib := a.info(b.id), b.info(a.id)
		if ia.Send != ib.Recv || ia.Recv != ib.Send || ia.Key == ib.Key || ia.Idle != 2*time.Minute {
			t.Fatalf("sides do not match: %+v %+v", ia, ib)
		}
		// Asking again repeats the lane, also to the other node while it is not bound.
		time.Sleep(2 * time.Second)
		b.ask(a.id)
		if again := b.info(a.id); again != ib {
			t.Fatalf("another lane: %+v, had %+v", again, ib)
		}
		if again := a.info(b.id); again != ia {
			t.Fatalf("another lane: %+v, had %+v", again, ia)
		}
		for range 10 {
			b.ask(a.id)
		}
		if n := len(a.take(relay.TypeLane)); n != 0 {
			t.Fatalf("sent %d lane frames within a second", n)
		}
		b.take(relay.TypeLane)
		u.bind(t, ia, addr(1))
		if got := u.to(ia.Send, addr(1)); got.IsValid() {
			t.Fatalf("sent to %v before the other side was bound", got)
		}
		u.bind(t, ib, addr(2))
		if got := u.to(ia.Send, addr(1)); got != addr(2) {
			t.Fatalf("goes to %v", got)
		}
		if got := u.to(ib.Send, addr(2)); got != addr(1) {
			t.Fatalf("goes to %v", got)
		}
		time.Sleep(2 * time.Second)
		a.ask(b.id)
		if again := a.info(b.id); again != ia {
			t.Fatal("another lane")
		}
		if n := len(b.take(relay.TypeLane)); n != 0 {
			t.Fatal("the other side gets a lane frame though it is bound")
		}
		if n := st.s.Stats().Lanes; n != 1 {
			t.Fatalf("%d lanes", n)
		}
	})
}

func TestNoLane(t *testing.T) {
	onLanes(t, func(st *stage, u *udpCore) {
		a, b := st.join(1), st.join(2)
		elsewhere := st.joinAs(netB, id(3), false, false)
		gone := func(peer cert.NodeID, why relay.LaneReason) {
			t.Helper()
			a.wantOne(relay.TypeLaneGone, peer, string(rune(why)))
			if n := len(a.take(relay.TypeLane)); n != 0 {
				t.Fatal("got a lane all the same")
			}
		}
		a.ask(id(9))
		gone(id(9), relay.LaneAbsent)
		a.ask(elsewhere.id)
		gone(elsewhere.id, relay.LaneAbsent)
		a.ask(a.id)
		gone(a.id, relay.LaneAbsent)
		st.s.cfg.Limits.LanesPerClient = 1
		c := st.join(4)
		a.ask(b.id)
		a.info(b.id)
		a.ask(c.id)
		gone(c.id, relay.LaneFull)
		c.ask(a.id) // lanes that others ask for do not count
		c.info(a.id)
		a.info(c.id)
		st.s.cfg.Limits.Lanes = 2
		b.ask(c.id)
		b.wantOne(relay.TypeLaneGone, c.id, string(rune(relay.LaneFull)))
		st.s.lanes.serving.Add(-1)
		a.ask(c.id)
		gone(c.id, relay.LaneOff)
		if n := len(elsewhere.take(relay.TypeLane)) + len(b.take(relay.TypeLane)); n != 1 {
			t.Fatalf("%d lane frames for the others, want one", n)
		}
	})
}

func TestLaneDestinationsAreLimited(t *testing.T) {
	onLanes(t, func(st *stage, u *udpCore) {
		a := st.join(1)
		for i := range 150 {
			a.ask(id(1000 + i))
		}
		if n := len(a.take(relay.TypeLaneGone)); n != 100 {
			t.Fatalf("could try %d nodes at once, want 100", n)
		}
		if n := len(a.take(relay.TypeBusy)); n != 1 {
			t.Fatalf("%d busy", n)
		}
	})
}

func TestLaneEnds(t *testing.T) {
	for name, end := range map[string]func(st *stage, a *peer){
		"kick":       func(st *stage, a *peer) { st.s.Kick(netA, a.id) },
		"disconnect": func(st *stage, a *peer) { a.c.Close() },
		"replaced":   func(st *stage, a *peer) { st.join(1) },
		"junk":       func(st *stage, a *peer) { a.send([]byte{99, 0, 0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			onLanes(t, func(st *stage, u *udpCore) {
				a, b := st.join(1), st.join(2)
				a.ask(b.id)
				ia, ib := a.info(b.id), b.info(a.id)
				u.bind(t, ia, addr(1))
				u.bind(t, ib, addr(2))
				bind := lane.AppendControl(nil, lane.Bind, ia.Send, lane.Cookie{}, ia.Key)
				end(st, a)
				synctest.Wait()
				if u.to(ia.Send, addr(1)).IsValid() || u.to(ib.Send, addr(2)).IsValid() {
					t.Error("still forwards")
				}
				if u.answer(bind, addr(1), sourceInfo{}, st.s.now()) != nil {
					t.Error("still binds")
				}
				if n := st.s.Stats().Lanes; n != 0 {
					t.Errorf("%d lanes are left", n)
				}
				b.wantOne(relay.TypeLaneGone, a.id, string(rune(relay.LaneAbsent)))
				time.Sleep(2 * time.Second)
				a.c.Close()
				synctest.Wait()
				a2 := st.join(1) // which may have a lane again
				b.take(relay.TypeLaneGone)
				b.ask(a2.id)
				if again := b.info(a2.id); again.Send == ib.Send || again.Key == ib.Key {
					t.Error("the new lane has the old ids")
				}
			})
		})
	}
}

// A node asks just when the other's connection is being replaced.
func TestLaneWithTheReplaced(t *testing.T) {
	s := New(Config{})
	defer s.lanes.stop()
	c, old, dst := newClient(s, nil, id(1), false), newClient(s, nil, id(2), false), newClient(s, nil, id(2), false)
	for _, x := range []*client{c, old, dst} {
		x.closed = true // so that nothing is written to a connection that does not exist
	}
	first, _, _ := s.lanes.get(c, old, 1)
	second, both, _ := s.lanes.get(c, dst, 2)
	if second == nil || second == first || !both {
		t.Fatalf("got %p after %p, other told: %v", second, first, both)
	}
	s.lanes.end(old)
	if again, _, _ := s.lanes.get(c, dst, 3); again != second || s.lanes.table.find(first.id) != nil || c.asked != 1 || s.lanes.sides != 2 {
		t.Fatalf("got %p, want %p; %d asked for, %d sides", again, second, c.asked, s.lanes.sides)
	}
	if none, _, why := s.lanes.get(c, old, 4); none != nil || why != relay.LaneAbsent {
		t.Fatal("a lane with one who left")
	}
	s.lanes.end(c)
	if s.lanes.sides != 0 || len(dst.lanes) != 0 {
		t.Fatalf("%d sides are left", s.lanes.sides)
	}
}

func TestLaneIdles(t *testing.T) {
	onLanes(t, func(st *stage, u *udpCore) {
		a, b := st.join(1), st.join(2)
		a.ask(b.id)
		ia, ib := a.info(b.id), b.info(a.id)
		u.bind(t, ia, addr(1))
		u.bind(t, ib, addr(2))
		for range 10 { // one direction is enough
			time.Sleep(100 * time.Second)
			if u.to(ia.Send, addr(1)) != addr(2) {
				t.Fatal("forgotten while in use")
			}
		}
		for range 20 { // unauthenticated datagrams do not keep it alive
			time.Sleep(10 * time.Second)
			u.to(ia.Send, addr(7))
			u.answer(lane.AppendControl(nil, lane.Bind, ia.Send, lane.Cookie{}, lane.Key{}), addr(7), sourceInfo{}, st.s.now())
		}
		if n := st.s.Stats().Lanes; n != 0 {
			t.Fatal("an idle lane is kept")
		}
		a.wantOne(relay.TypeLaneGone, b.id, string(rune(relay.LaneIdle)))
		b.wantOne(relay.TypeLaneGone, a.id, string(rune(relay.LaneIdle)))
		if st.s.lanes.timer != nil {
			t.Error("looks after lanes that are not there")
		}
	})
}

// What an attacker can do who sees all datagrams and sends from any address.
func TestLaneAttacks(t *testing.T) {
	onLanes(t, func(st *stage, u *udpCore) {
		a, b := st.join(1), st.join(2)
		a.ask(b.id)
		ia, ib := a.info(b.id), b.info(a.id)
		victim := addr(66)
		answer := func(d []byte, from netip.AddrPort) []byte { return u.answer(d, from, sourceInfo{}, st.s.now()) }

		first, second := u.bind(t, ia, addr(1))
		u.bind(t, ib, addr(2))
		inPlace := func(what string) {
			t.Helper()
			if u.to(ia.Send, addr(1)) != addr(2) || u.to(ib.Send, addr(2)) != addr(1) {
				t.Fatalf("%s: the lane does not work any more", what)
			}
			if got := u.to(ia.Send, victim); got.IsValid() {
				t.Fatalf("%s: the stranger's datagrams go to %v", what, got)
			}
		}
		inPlace("nothing yet")

		// Guessed ids, and the other side's.
		for range 1000 {
			if u.to(lane.NewID(), addr(1)).IsValid() {
				t.Fatal("a guessed id works")
			}
		}
		if u.to(ib.Send, addr(1)).IsValid() {
			t.Error("a side may send as the other")
		}
		// A bind without the key.
		for name, d := range map[string][]byte{
			"no key":          lane.AppendControl(nil, lane.Bind, ia.Send, lane.Cookie{}, lane.Key{}),
			"other's key":     lane.AppendControl(nil, lane.Bind, ia.Send, lane.Cookie{}, ib.Key),
			"other's side":    lane.AppendControl(nil, lane.Bind, ib.Send, lane.Cookie{}, ia.Key),
			"challenge":       lane.AppendControl(nil, lane.Challenge, ia.Send, lane.Cookie{}, ia.Key),
			"bound":           lane.AppendControl(nil, lane.Bound, ia.Send, lane.Cookie{}, ia.Key),
			"guessed cookie":  lane.AppendControl(nil, lane.Bind, ia.Send, lane.Cookie{1}, ia.Key),
			"unknown kind":    append([]byte{lane.First, 9, 0, 0}, first[4:]...),
			"cut":             first[:lane.ControlLen-1],
			"only a header":   first[:lane.HeaderLen],
			"half a header":   first[:7],
			"one byte":        first[:1],
			"junk":            []byte("GET / HTTP/1.1\r\n\r\n"),
			"STUN with junk":  append(stun.AppendRequest(nil, stun.TxID{1}), 1, 2, 3),
			"STUN indication": append([]byte{0, 0x11}, stun.AppendRequest(nil, stun.TxID{1})[2:]...),
			"DNS query":       []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"),
			"WireGuard":       append([]byte{1, 0, 0, 0}, make([]byte, 144)...),
		} {
			if out := answer(d, victim); out != nil {
				t.Errorf("%s: answered %x", name, out)
			}
			inPlace(name)
		}
		// Replays of the binds from another address get a challenge at most, no longer
		// than the request, and gain nothing.
		out := answer(first, victim)
		if len(out) > len(first) {
			t.Errorf("%d bytes for %d", len(out), len(first))
		}
		inPlace("repeated bind")
		if out := answer(second, victim); out != nil {
			t.Errorf("another's cookie: answered %x", out)
		}
		inPlace("repeated cookie")
		// One address gets no more than 20 challenges a second.
		n := 0
		for range 1000 {
			if answer(first, victim) != nil {
				n++
			}
		}
		if n > 20 {
			t.Errorf("%d challenges to one address in a second", n)
		}
		// Neither this nor STUN requests with the node's source address prevent the node
		// from binding.
		for range 1000 {
			answer(stun.AppendRequest(nil, stun.TxID{1}), addr(3))
		}
		time.Sleep(time.Millisecond)
		u.bind(t, ia, addr(3))
		if u.to(ia.Send, addr(3)) != addr(2) || u.to(ib.Send, addr(2)) != addr(3) {
			t.Fatal("did not move")
		}
		// Old binds from the old address do not bind it again.
		if out := answer(second, addr(1)); out != nil {
			t.Errorf("an old bind is answered with %x", out)
		}
		if u.to(ia.Send, addr(1)).IsValid() || u.to(ib.Send, addr(2)) != addr(3) {
			t.Fatal("an old bind moved the side back")
		}
		// A cookie expires.
		late := lane.AppendControl(nil, lane.Bind, ia.Send, st.s.lanes.cookie(ia.Send, victim, st.s.now()), ia.Key)
		time.Sleep(cookieLife + time.Second)
		if answer(late, victim) != nil || u.to(ib.Send, addr(2)) != addr(3) {
			t.Fatal("an old cookie is taken")
		}
	})
}

// The NAT in front of a node chose another port: the relay drops its datagrams without an
// answer and sends the node a rebind over TLS.
func TestLaneRebind(t *testing.T) {
	onLanes(t, func(st *stage, u *udpCore) {
		a, b := st.join(1), st.join(2)
		a.ask(b.id)
		ia, ib := a.info(b.id), b.info(a.id)
		for range 10 {
			u.to(ia.Send, addr(1)) // not bound yet, so it is binding anyway
		}
		u.bind(t, ia, addr(1))
		u.bind(t, ib, addr(2))
		time.Sleep(time.Minute)
		for range 1000 {
			u.to(ia.Send, addr(3))
		}
		synctest.Wait()
		a.wantOne(relay.TypeRebind, b.id, "")
		if n := len(b.take(relay.TypeRebind)); n != 0 {
			t.Error("the other side is told")
		}
		for range 5000 {
			time.Sleep(time.Millisecond)
			u.to(ia.Send, addr(3))
		}
		synctest.Wait()
		if n := len(a.take(relay.TypeRebind)); n < 4 || n > 6 {
			t.Errorf("sent %d rebinds in 5 s", n)
		}
	})
}

func TestLaneRate(t *testing.T) {
	onLanes(t, func(st *stage, u *udpCore) {
		const rate = 10 << 20
		st.s.cfg.Limits.LaneRate = rate
		a, b, c := st.join(1), st.join(2), st.join(3)
		a.ask(b.id)
		a.ask(c.id)
		var to [2]lane.Info
		for i, f := range a.take(relay.TypeLane) {
			to[i], _ = lane.ParseInfo(f[relay.HeadLen+relay.PeerLen:])
			u.bind(t, to[i], addr(1))
		}
		u.bind(t, b.info(a.id), addr(2))
		u.bind(t, c.info(a.id), addr(3))
		sent := 0
		for i := range 5000 { // 40 MB/s for 5 s, over two lanes
			time.Sleep(time.Millisecond)
			for range 10 {
				if st.s.laneDestination(to[i%2].Send, addr(1), 4<<10, st.s.now()) != nil {
					sent += 4 << 10
				}
			}
		}
		if got := sent / 5; got < rate*9/10 || got > rate*11/10 {
			t.Fatalf("%d bytes/s at a limit of %d", got, rate)
		}
		if st.s.Stats().LaneDropped == 0 {
			t.Error("nothing is counted")
		}
	})
}

// Readers find every side that exists while others are added and removed.
func TestLaneTable(t *testing.T) {
	var table laneTable
	side := func() *laneSide { return &laneSide{id: lane.NewID()} }
	stays := make([]*laneSide, 100)
	for i := range stays {
		stays[i] = side()
		table.add(stays[i], i+1)
	}
	if table.find(lane.NewID()) != nil {
		t.Fatal("found what is not there")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				for _, x := range stays {
					if table.find(x.id) != x {
						t.Error("lost a side")
						return
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	var others []*laneSide
	for range 2000 {
		x := side()
		others = append(others, x)
		table.add(x, len(stays)+len(others))
	}
	for _, x := range others {
		table.remove(x)
		if table.find(x.id) != nil {
			t.Error("found what was removed")
		}
	}
	close(stop)
	wg.Wait()
	n := 0
	table.each(func(*laneSide) { n++ })
	if n != len(stays) {
		t.Fatalf("%d sides, want %d", n, len(stays))
	}
}

// BenchmarkLaneMemory measures the memory of an idle, bound lane.
func BenchmarkLaneMemory(b *testing.B) {
	s := New(Config{Limits: Limits{Lanes: 1 << 30, LanesPerClient: 1 << 30}})
	const clients = 500
	cs := make([]*client, clients)
	for i := range cs {
		cs[i] = newClient(s, nil, id(i), false)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 0
	for i := range cs {
		for j := range i {
			if n == 100_000 {
				break
			}
			x, _, _ := s.lanes.get(cs[i], cs[j], 1)
			x.at.Store(&binding{remote: addr(1)})
			x.other.at.Store(&binding{remote: addr(2)})
			n++
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/lane")
	b.ReportMetric(0, "ns/op")
	s.lanes.stop()
	runtime.KeepAlive(fmt.Sprint(cs[0].id))
}
