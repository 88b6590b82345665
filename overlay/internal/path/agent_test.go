package path

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"weft/overlay/internal/probe"
)

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// bench is an agent with a simulated clock.
type bench struct {
	t   *testing.T
	a   *Agent
	now time.Time
}

func newBench(t *testing.T) *bench {
	rng := rand.New(rand.NewPCG(1, 2))
	return &bench{t: t, now: epoch, a: New(epoch, Config{
		Rand:   rng.Uint64,
		Refuse: func(a netip.Addr) bool { return netip.MustParsePrefix("100.64.0.0/10").Contains(a) },
	})}
}

// run lets time pass, with data flowing if flow is set, and passes each probe to f, which
// may be nil.
func (b *bench) run(d time.Duration, flow bool, f func(Send)) (n int) {
	end, late := b.now.Add(d), 0
	for b.now.Before(end) {
		next := b.a.Next()
		if next.IsZero() || next.After(end) {
			next = end
		}
		if flow {
			if soon := b.now.Add(100 * time.Millisecond); soon.Before(next) {
				next = soon
			}
		}
		if !next.After(b.now) {
			if late++; late > 3 {
				b.t.Fatalf("due %v ago, again and again", b.now.Sub(next))
			}
			next = b.now.Add(time.Millisecond)
		} else {
			late = 0
		}
		b.now = next
		if flow {
			b.a.Data(b.now, b.now)
		}
		b.a.Tick(b.now)
		n += b.take(f)
	}
	return n
}

func (b *bench) take(f func(Send)) (n int) {
	for _, s := range b.a.Take().Send {
		n++
		if f != nil {
			f(s)
		}
	}
	return n
}

func remote(addrs ...string) (r Remote) {
	r.NAT.IPv4 = MappingEasy
	for _, s := range addrs {
		r.Candidates = append(r.Candidates, Candidate{addr(s), TypeHost})
	}
	return r
}

// TestRefusedCandidates: addresses that a peer must not make this node ping.
func TestRefusedCandidates(t *testing.T) {
	for _, c := range []struct {
		addr string
		ok   bool
	}{
		{"192.0.2.1:7", true}, {"192.168.1.9:7", true}, {"[2001:db8::1]:7", true}, {"[fd00::1]:7", true},
		{"[::ffff:192.0.2.1]:7", true}, // is 192.0.2.1
		{"192.0.2.1:0", false}, {"127.0.0.1:7", false}, {"[::1]:7", false}, {"0.0.0.0:7", false}, {"[::]:7", false}, {"0.1.2.3:7", false},
		{"224.0.0.1:7", false}, {"[ff02::1]:7", false}, {"255.255.255.255:7", false}, {"240.0.0.1:7", false},
		{"169.254.169.254:7", false}, {"[fe80::1]:7", false}, {"[fe80::1%eth0]:7", false}, {"[::ffff:127.0.0.1]:7", false},
		{"100.64.0.9:7", false},                              // overlay
		{"192.168.1.255:7", false}, {"192.168.1.0:7", false}, // broadcast addresses of this LAN
	} {
		b := newBench(t)
		b.a.SetLocal(b.now, Local{Nets: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}})
		b.a.SetRemote(b.now, remote(c.addr))
		n := b.take(nil) + b.run(5*time.Second, true, nil)
		if (n > 0) != c.ok {
			t.Errorf("%s: %d pings", c.addr, n)
		}
	}
}

// TestNoAmplification: whatever candidates a peer sends, a bounded number of third
// parties get little traffic.
func TestNoAmplification(t *testing.T) {
	b := newBench(t)
	perAddr := map[netip.AddrPort]int{}
	bytes := 0
	count := func(s Send) {
		perAddr[s.Path.Addr]++
		bytes += s.Size
	}
	// The same 40 every 100 ms, with call-me in between.
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("192.0.2.%d:7", i+1))
	}
	b.a.SetLocal(b.now, Local{NAT: NAT{IPv4: MappingEasy}}) // no search for ports: see TestScanBudget
	for range 300 {
		b.a.SetRemote(b.now, remote(many...))
		b.a.CallMe(b.now)
		b.take(count)
		b.run(100*time.Millisecond, true, count)
	}
	if len(perAddr) > MaxCandidates {
		t.Errorf("%d addresses pinged", len(perAddr))
	}
	for a, n := range perAddr {
		if n > 2*perAddress {
			t.Errorf("%v got %d pings in 30 s", a, n)
		}
	}
	// Different addresses every time.
	clear(perAddr)
	bytes = 0
	for i := range 600 {
		many = many[:0]
		for j := range 32 {
			many = append(many, fmt.Sprintf("198.51.%d.%d:7", i%256, j+1))
		}
		b.a.SetRemote(b.now, remote(many...))
		b.take(count)
		b.run(100*time.Millisecond, true, count)
	}
	if limit := (60*unverifiedPerSec + unverifiedBurst) * probe.Len; bytes > limit {
		t.Errorf("%d bytes in a minute to addresses that never answered, at most %d", bytes, limit)
	}
	if len(b.a.links) > MaxCandidates+maxSeen+1 {
		t.Errorf("%d links", len(b.a.links))
	}
}

// TestPingFlood: pings of a peer, from any address, are answered at a bounded rate, never
// with more bytes than received, and do not change the path.
func TestPingFlood(t *testing.T) {
	b := newBench(t)
	pongs, pings := 0, 0
	count := func(s Send) {
		if s.Kind == probe.Pong {
			pongs++
			if s.Size > probe.Len {
				t.Errorf("a pong of %d bytes", s.Size)
			}
		} else {
			pings++
		}
	}
	for i := range 10_000 {
		b.a.Ping(b.now, Path{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 7)}, probe.Tx{1}, probe.Len)
		b.take(count)
		b.run(time.Millisecond, false, count)
	}
	if pongs > 10*pongsPerSec+pongsBurst+1 || pings > pongs {
		t.Errorf("%d pongs and %d pings for 10,000 pings in 10 s", pongs, pings)
	}
	if len(b.a.links) > maxSeen+1 || b.a.Selected().Kind != Relay {
		t.Errorf("%d links, path %v", len(b.a.links), b.a.Selected().Kind)
	}
}

// TestPongs: a pong counts only for an open ping, once, and only from the address of the
// ping.
func TestPongs(t *testing.T) {
	b := newBench(t)
	b.a.SetRemote(b.now, remote("192.0.2.1:7", "192.0.2.2:7"))
	b.a.Open(b.now)
	var pings []Send
	b.take(func(s Send) { pings = append(pings, s) })
	b.run(10*time.Millisecond, false, func(s Send) { pings = append(pings, s) })
	if len(pings) < 2 || pings[0].Path == pings[1].Path {
		t.Fatalf("sent %+v", pings)
	}
	b.a.Pong(b.now, pings[0].Path, probe.Tx{})
	b.a.Pong(b.now, pings[0].Path, pings[1].Tx)
	b.a.Pong(b.now, Path{Addr: addr("192.0.2.3:7")}, pings[0].Tx)
	if p := b.a.Selected(); p.Kind != Relay {
		t.Fatalf("moved to %+v", p)
	}
	b.a.Pong(b.now, pings[0].Path, pings[0].Tx)
	if p := b.a.Selected(); p.Kind != Direct || p.Path != pings[0].Path {
		t.Fatalf("not moved: %+v", p)
	}
	// The path dies; a replay of the pong changes nothing.
	b.run(2*time.Second, true, nil)
	b.a.Pong(b.now, pings[0].Path, pings[0].Tx)
	if p := b.a.Selected(); p.Kind != Relay {
		t.Errorf("an old pong moved to %+v", p)
	}
}

// TestHysteresis: two working addresses with different round trips.
func TestHysteresis(t *testing.T) {
	for _, c := range []struct {
		first, second time.Duration
		moves         bool
	}{
		{50 * time.Millisecond, 20 * time.Millisecond, true},
		{50 * time.Millisecond, 45 * time.Millisecond, false},
		{8 * time.Millisecond, 4 * time.Millisecond, false},
		{200 * time.Millisecond, 190 * time.Millisecond, false},
		{20 * time.Millisecond, 50 * time.Millisecond, false},
	} {
		b := newBench(t)
		b.a.SetRemote(b.now, remote("192.0.2.1:7", "[2001:db8::1]:7"))
		type answer struct {
			due time.Time
			s   Send
		}
		var due []answer
		note := func(s Send) {
			d, late := c.first, time.Duration(0)
			if s.Path.Addr.Addr().Is6() {
				// It begins to answer when the other one is in use.
				if d, late = c.second, time.Second; b.now.Before(epoch.Add(late)) {
					return
				}
			}
			due = append(due, answer{b.now.Add(d), s})
		}
		for range 30_000 {
			b.run(time.Millisecond, true, note)
			keep := due[:0]
			for _, d := range due {
				if d.due.After(b.now) {
					keep = append(keep, d)
				} else {
					b.a.Pong(b.now, d.s.Path, d.s.Tx)
				}
			}
			due = keep
			b.take(note)
		}
		if p := b.a.Selected(); p.Kind != Direct || p.Path.Addr.Addr().Is6() != c.moves {
			t.Errorf("%v, then %v: %+v", c.first, c.second, p)
		}
	}
}

// TestScanBudget: what the search through a hard NAT costs, and how often.
func TestScanBudget(t *testing.T) {
	for _, hard := range []bool{true, false} {
		b := newBench(t)
		mine, theirs := MappingEasy, MappingHard
		if hard {
			mine, theirs = theirs, mine
		}
		b.a.SetLocal(b.now, Local{NAT: NAT{IPv4: mine}})
		r := Remote{NAT: NAT{IPv4: theirs}, Candidates: []Candidate{{addr("192.0.2.1:7"), TypeSTUN}}}
		b.a.SetRemote(b.now, r)
		second, total, worst := 0, 0, 0
		sockets, ports := map[uint16]bool{}, map[uint16]bool{}
		for range 100 {
			second = b.run(time.Second, true, func(s Send) {
				sockets[s.Path.Socket] = true
				ports[s.Path.Addr.Port()] = true
			})
			total += second
			worst = max(worst, second)
		}
		if worst > 1000/20*scanBatch+30 || total > scanPorts+200 {
			t.Errorf("hard %v: %d probes in a second, %d in all", hard, worst, total)
		}
		if hard && (len(sockets) != Sockets+1 || len(ports) != 1) || !hard && (len(ports) < scanPorts-20 || len(sockets) != 1) {
			t.Errorf("hard %v: %d sockets, %d ports", hard, len(sockets), len(ports))
		}
		if b.a.Uses(1) || b.a.Uses(Sockets) {
			t.Error("the sockets stay open")
		}
		before := total
		for range 400 {
			total += b.run(time.Second, true, nil)
		}
		if total-before > scanPorts+400 {
			t.Errorf("hard %v: %d probes in 400 s more", hard, total-before)
		}
	}
}

// TestReasons: the text of each reason.
func TestReasons(t *testing.T) {
	some := []Candidate{{addr("192.0.2.1:7"), TypeSTUN}}
	six := []Candidate{{addr("[2001:db8::1]:7"), TypeHost}}
	for _, c := range []struct {
		local, remote NAT
		mine, theirs  []Candidate
		want          Reason
	}{
		{NAT{IPv4: MappingHard}, NAT{IPv4: MappingHard}, some, some, reasonBothHard},
		{NAT{IPv4: MappingHard}, NAT{IPv4: MappingEasy}, some, some, reasonOwnHard},
		{NAT{IPv4: MappingEasy}, NAT{IPv4: MappingHard}, some, some, reasonPeerHard},
		{NAT{IPv4: MappingBlocked}, NAT{IPv4: MappingEasy}, some, some, reasonOwnUDP},
		{NAT{IPv4: MappingEasy}, NAT{IPv4: MappingBlocked}, some, some, reasonPeerUDP},
		{NAT{IPv4: MappingEasy}, NAT{IPv4: MappingEasy}, some, some, reasonSilent},
		{NAT{IPv4: MappingEasy}, NAT{IPv6: MappingNone}, some, six, reasonNone},
	} {
		b := newBench(t)
		if got := b.a.Selected().Reason; got != reasonQuiet {
			t.Errorf("at first: %s", got)
		}
		b.a.Open(b.now)
		if got := b.a.Selected().Reason; got != reasonUntold {
			t.Errorf("then: %s", got)
		}
		b.a.SetLocal(b.now, Local{NAT: c.local, Candidates: c.mine})
		b.a.SetRemote(b.now, Remote{NAT: c.remote, Candidates: c.theirs})
		b.run(15*time.Second, true, nil)
		if got := b.a.Selected().Reason; got != c.want || got.Short == "" || len(got.Short) > 30 {
			t.Errorf("%v and %v: %q, want %q", c.local, c.remote, got, c.want)
		}
	}
}

// TestNoGarbage: an agent in use allocates nothing.
func TestNoGarbage(t *testing.T) {
	b := newBench(t)
	b.a.SetLocal(b.now, Local{MTU: 1500})
	b.a.SetRemote(b.now, remote("192.0.2.1:7", "192.168.1.9:7", "[2001:db8::1]:7"))
	b.a.Open(b.now)
	answer := func(s Send) {
		if s.Kind == probe.Ping && s.Path.Addr.Addr().Is6() {
			b.a.Pong(b.now.Add(time.Millisecond), s.Path, s.Tx)
		}
	}
	var sent []Send
	second := func() {
		for range 20 {
			b.now = b.now.Add(50 * time.Millisecond)
			b.a.Data(b.now, b.now)
			b.a.Tick(b.now)
			sent = append(sent[:0], b.a.Take().Send...)
			for _, s := range sent {
				answer(s)
			}
			b.a.Received(b.a.Selected().Path, b.now)
			b.a.Next()
		}
	}
	for range 30 {
		second()
	}
	if p := b.a.Selected(); p.Kind != Direct || p.Limit != 1452 {
		t.Fatalf("path %+v", p)
	}
	if n := testing.AllocsPerRun(20, second); n != 0 {
		t.Errorf("%v allocations a second", n)
	}
}

// FuzzAgent: no sequence of calls makes an agent panic, loop or grow.
func FuzzAgent(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte("the quick brown fox jumps over the lazy dog"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		b := newBench(t)
		var pings []Send
		ways := []Path{{Addr: addr("192.0.2.1:7")}, {Addr: addr("192.168.1.1:7")}, {Relayed: true}, {Addr: addr("192.0.2.1:7"), Socket: 3}, {}}
		nats := []Mapping{MappingUnknown, MappingNone, MappingEasy, MappingHard, MappingBlocked}
		ops = ops[:min(len(ops), 200)]
		for i := 0; i+1 < len(ops); i += 2 {
			op, arg := ops[i], ops[i+1]
			on := ways[int(arg)%len(ways)]
			switch op % 11 {
			case 0:
				b.a.Data(b.now, b.now)
			case 1:
				b.a.Ping(b.now, on, probe.Tx{arg}, int(arg))
			case 2:
				if len(pings) > 0 {
					s := pings[int(arg)%len(pings)]
					b.a.Pong(b.now, s.Path, s.Tx)
				}
			case 3:
				b.a.SetRemote(b.now, Remote{NAT: NAT{IPv4: nats[int(arg)%5]}, Candidates: []Candidate{{ways[int(arg)%2].Addr, TypeSTUN}}})
			case 4:
				b.a.SetLocal(b.now, Local{NAT: NAT{IPv4: nats[int(arg)%5]}, MTU: int(arg) * 40})
			case 5:
				b.a.SetLane(b.now, arg%2 == 0)
			case 6:
				b.a.NetworkChanged(b.now)
			case 7:
				b.a.CallMe(b.now)
			case 8:
				b.a.Received(on, b.now)
			default:
				b.run(time.Duration(arg)*20*time.Millisecond, op%2 == 0, func(s Send) {
					if len(pings) < 1000 {
						pings = append(pings, s)
					}
				})
			}
			if next := b.a.Next(); !next.IsZero() && next.Before(b.now) {
				// Due already: one Tick must be enough.
				b.a.Tick(b.now)
				if next := b.a.Next(); !next.IsZero() && next.Before(b.now) {
					t.Fatalf("due %v ago, again and again", b.now.Sub(next))
				}
			}
			b.take(func(s Send) { pings = append(pings[:min(len(pings), 999)], s) })
			if len(b.a.links) > MaxCandidates+maxSeen+2 {
				t.Fatalf("%d links", len(b.a.links))
			}
		}
	})
}
