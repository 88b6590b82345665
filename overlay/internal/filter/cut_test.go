package filter

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// What policy has cut stays cut. Each test is a case in which it once came back: the
// filter lost who had begun a flow, and the next packet of ours turned the peer's packets
// into answers.

func compiled(rules ...api.Rule) *Ports { return Compile(rules, &cert.Node{}, Terms{}) }

func wantVerdict(t *testing.T, p *Peer, what string, pkt []byte, now int64, want Verdict) {
	t.Helper()
	if got := p.CheckIn(pkt, now); got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestCutAfterFlood(t *testing.T) {
	p := newPeer(open("tcp", 22, 22), open("tcp", 80, 80), open("udp", 53, 53))
	ssh, dns := ip(them4, us4, protoTCP, tcp(4000, 22, tcpACK)), ip(them4, us4, protoUDP, udp(4000, 53))
	wantVerdict(t, p, "ssh", ip(them4, us4, protoTCP, tcp(4000, 22, tcpSYN)), 0, Allowed)
	wantVerdict(t, p, "dns", dns, 0, Allowed)
	ours := ip(us4, them4, protoTCP, tcp(50000, 443, tcpSYN))
	p.NoteOut(ours, 0)
	for port := range uint16(65535) {
		p.CheckIn(ip(them4, us4, protoTCP, tcp(port, 80, tcpSYN)), sec)
		p.CheckIn(ip(them4, us4, protoUDP, udp(port, 53)), sec)
		p.CheckIn(ip(them6, us6, protoTCP, tcp(port, 80, tcpSYN)), sec)
	}
	// The peer's packets did not push out our flows.
	wantVerdict(t, p, "our connection", ip(them4, us4, protoTCP, tcp(443, 50000, tcpSYN|tcpACK)), sec, Reply)
	p.SetPorts(compiled(open("tcp", 80, 80)))
	for _, flags := range []uint8{tcpACK, tcpACK | 8, tcpACK | tcpFIN, tcpRST | tcpACK, tcpSYN | tcpACK} {
		p.NoteOut(ip(us4, them4, protoTCP, tcp(22, 4000, flags)), sec)
		wantVerdict(t, p, "ssh after the cut", ssh, sec, Denied)
	}
	p.NoteOut(ip(us4, them4, protoUDP, udp(53, 4000)), sec)
	wantVerdict(t, p, "dns after the cut", dns, sec, Denied)
}

// A flow that is silent for longer than an entry lives.
func TestCutAfterSilence(t *testing.T) {
	for _, port := range []uint16{53, 5353, 50000} {
		p := newPeer(open("udp", port, port))
		flow := ip(them6, us6, protoUDP, udp(4000, port))
		wantVerdict(t, p, "question", flow, 0, Allowed)
		p.NoteOut(ip(us6, them6, protoUDP, udp(port, 4000)), 0)
		p.SetPorts(nil)
		late := (shortLife + 2) * sec
		p.NoteOut(ip(us6, them6, protoUDP, udp(port, 4000)), late)
		wantVerdict(t, p, "after the cut", flow, late, Denied)
	}
	// Neither a rule for the port nor one for a range around it revives the flow.
	p := newPeer(open("*", 0, 65535))
	for _, proto := range []uint8{47, 132, 50} {
		flow := ip(them4, us4, proto, make([]byte, 8))
		wantVerdict(t, p, "without ports", flow, 0, Allowed)
		p.SetPorts(nil)
		p.NoteOut(ip(us4, them4, proto, make([]byte, 8)), 100*sec)
		wantVerdict(t, p, "without ports, after the cut", flow, 100*sec, Denied)
		p.SetPorts(compiled(open("*", 0, 65535)))
	}
	flow := ip(them4, us4, protoUDP, udp(4000, 60001))
	wantVerdict(t, p, "a high port under a wide rule", flow, 100*sec, Allowed)
	p.SetPorts(compiled(open("tcp", 22, 22)))
	p.NoteOut(ip(us4, them4, protoUDP, udp(60001, 4000)), 200*sec)
	wantVerdict(t, p, "a high port under a wide rule, after the cut", flow, 200*sec, Denied)
}

// Clients keep working after a rule for every port was narrowed, and beside a rule for
// other ports.
func TestClientsAfterNarrowing(t *testing.T) {
	for name, before := range map[string]*Ports{
		"nothing was open": nil, "everything was open": compiled(open("*", 0, 65535)), "a service was open": compiled(open("udp", 53, 53), open("udp", 50000, 50000)),
	} {
		p := newPeer()
		p.Adopt(32768, 60999, ConnLife)
		p.SetPorts(before)
		wantOpen := Denied
		if before.allows(protoUDP, 53) {
			wantOpen = Allowed
		}
		wantVerdict(t, p, name, ip(them4, us4, protoUDP, udp(1000, 53)), 0, wantOpen)
		p.SetPorts(compiled(open("tcp", 22, 22)))
		for _, c := range []struct{ ours, theirs uint16 }{{40000, 53}, {51820, 51820}, {60999, 123}, {33333, 443}, {61820, 61820}} {
			p.NoteOut(ip(us4, them4, protoUDP, udp(c.ours, c.theirs)), 0)
			wantVerdict(t, p, name, ip(them4, us4, protoUDP, udp(c.theirs, c.ours)), 0, Reply)
			wantVerdict(t, p, name+", from another port", ip(them4, us4, protoUDP, udp(c.theirs+1, c.ours)), 0, Reply)
			wantVerdict(t, p, name+", to another port", ip(them4, us4, protoUDP, udp(c.theirs, c.ours+1)), 0, Denied)
		}
	}
}

// An answer from another port than the one that was asked is let in while the flow lives,
// but not to a port that was open to the peer before.
func TestAnswerFromAnotherPort(t *testing.T) {
	ask := func(p *Peer, ours uint16, now int64) { p.NoteOut(ip(us6, them6, protoUDP, udp(ours, 69)), now) }
	answer := func(ours uint16) []byte { return ip(them6, us6, protoUDP, udp(3000, ours)) }
	late := (shortLife + 2) * sec

	p := newPeer()
	wantVerdict(t, p, "before", answer(40000), 0, Denied)
	ask(p, 40000, 0)
	wantVerdict(t, p, "answer", answer(40000), 0, Reply)
	wantVerdict(t, p, "over IPv4", ip(them4, us4, protoUDP, udp(3000, 40000)), 0, Denied)
	wantVerdict(t, p, "TCP", ip(them6, us6, protoTCP, tcp(3000, 40000, tcpACK)), 0, Denied)
	wantVerdict(t, p, "another port of ours", answer(40001), 0, Denied)
	wantVerdict(t, p, "later", answer(40000), 50*sec, Reply)
	wantVerdict(t, p, "later still", answer(40000), 100*sec, Reply)
	wantVerdict(t, p, "silence", answer(40000), 100*sec+late, Denied)
	ask(p, 40000, 300*sec)
	ask(p, 40000, 350*sec) // within the flow
	wantVerdict(t, p, "asked on", answer(40000), 405*sec, Reply)

	// A flow that only the peer keeps alive, until we send again.
	for now := 400 * sec; now < 600*sec; now += 20 * sec {
		wantVerdict(t, p, "from where it was asked", ip(them6, us6, protoUDP, udp(69, 40000)), now, Reply)
	}
	wantVerdict(t, p, "long after we asked", answer(40000), 600*sec, Denied)
	ask(p, 40000, 600*sec)
	wantVerdict(t, p, "asked again", answer(40000), 600*sec, Reply)

	p = newPeer()
	ask(p, 9999, 0)
	wantVerdict(t, p, "a port that no client has", answer(9999), 0, Denied)

	// The peer was let in there before we sent, or meanwhile.
	for _, rule := range []api.Rule{open("udp", 40000, 40000), open("udp", 16000, 65535)} {
		p = newPeer(rule)
		wantVerdict(t, p, "by a rule", answer(40000), 0, Allowed)
		p.SetPorts(nil)
		ask(p, 40000, sec)
		wantVerdict(t, p, "asked after the cut", answer(40000), sec, Denied)
		p = newPeer()
		ask(p, 40000, 0)
		p.SetPorts(compiled(rule))
		wantVerdict(t, p, "by a rule", answer(40000), 0, Allowed)
		p.SetPorts(nil)
		wantVerdict(t, p, "cut", answer(40000), sec, Denied)
		ask(p, 40000, sec)
		wantVerdict(t, p, "asked on after the cut", answer(40000), sec, Denied)
		wantVerdict(t, p, "asked on, from where it was asked", ip(them6, us6, protoUDP, udp(69, 40000)), sec, Reply)
	}
	// Opened by a rule of its own, but never used.
	p = newPeer()
	ask(p, 40000, 0)
	p.SetPorts(compiled(open("udp", 40000, 40000)))
	p.SetPorts(nil)
	wantVerdict(t, p, "cut unused", answer(40000), sec, Denied)
}

// The filter after this one: of a tunnel that was made again when there had been no room
// for its filter, or of the next process.
func TestCutAfterAnotherFilter(t *testing.T) {
	next := func(p *Peer) *Peer {
		b, err := json.Marshal(p.History())
		if err != nil {
			t.Fatal(err)
		}
		var past History
		if err := json.Unmarshal(b, &past); err != nil {
			t.Fatal(err)
		}
		q := newPeer()
		q.Adopt(32768, 60999, ConnLife)
		q.AddHistory(past)
		return q
	}
	p := newPeer(open("tcp", 22, 22), open("tcp", 50000, 50000), open("udp", 53, 53), open("udp", 20000, 65535))
	p.Adopt(32768, 60999, ConnLife)
	for _, port := range []uint16{22, 50000} {
		wantVerdict(t, p, "tcp", ip(them4, us4, protoTCP, tcp(4000, port, tcpSYN)), 0, Allowed)
	}
	for _, port := range []uint16{53, 41000} {
		wantVerdict(t, p, "udp", ip(them4, us4, protoUDP, udp(4000, port)), 0, Allowed)
	}
	p.SetPorts(nil)
	for _, q := range []*Peer{next(p), next(next(p))} {
		for _, port := range []uint16{22, 50000} {
			p.NoteOut(ip(us4, them4, protoTCP, tcp(port, 4000, tcpACK)), 0)
			q.NoteOut(ip(us4, them4, protoTCP, tcp(port, 4000, tcpACK)), 0)
			wantVerdict(t, q, "tcp, next filter", ip(them4, us4, protoTCP, tcp(4000, port, tcpACK)), 0, Denied)
		}
		for _, port := range []uint16{53, 41000} {
			q.NoteOut(ip(us4, them4, protoUDP, udp(port, 4000)), 0)
			wantVerdict(t, q, "udp, next filter", ip(them4, us4, protoUDP, udp(4000, port)), 0, Denied)
		}
		// A client of ours on a port that the peer has not used.
		q.NoteOut(ip(us4, them4, protoUDP, udp(42000, 53)), 0)
		wantVerdict(t, q, "our question", ip(them4, us4, protoUDP, udp(53, 42000)), 0, Reply)
	}
	// In user space there is no history, and no connection survives.
	q := newPeer()
	for _, port := range []uint16{22, 5000, 50000} {
		for _, flags := range []uint8{tcpACK, tcpACK | 8, tcpACK | tcpFIN, tcpSYN | tcpACK, tcpRST, 0} {
			q.NoteOut(ip(us4, them4, protoTCP, tcp(port, 4000, flags)), 0)
			wantVerdict(t, q, "user space", ip(them4, us4, protoTCP, tcp(4000, port, tcpACK)), 0, Denied)
		}
	}
}

// A kernel connection that this node began survives a restart.
func TestAdopt(t *testing.T) {
	for _, tc := range []struct {
		name  string
		port  uint16
		flags uint8
		at    int64
		want  Verdict
	}{
		{"data", 40000, tcpACK | 8, 0, Reply},
		{"end", 40000, tcpACK | tcpFIN, 0, Reply},
		{"within its life", 40000, tcpACK, ConnLife - sec, Reply},
		{"after its life", 40000, tcpACK, ConnLife, Denied},
		{"answer to a SYN", 40000, tcpSYN | tcpACK, 0, Denied},
		{"reset", 40000, tcpRST, 0, Denied},
		{"no port for clients", 8080, tcpACK, 0, Denied},
		{"past the ports for clients", 61000, tcpACK, 0, Denied},
		{"a port that is open", 50000, tcpACK, 0, Allowed},
		{"a port that was open", 50001, tcpACK, 0, Denied},
	} {
		p := newPeer(open("tcp", 50001, 50001))
		p.SetPorts(compiled(open("tcp", 50000, 50000)))
		p.Adopt(32768, 60999, ConnLife)
		p.NoteOut(ip(us6, them6, protoTCP, tcp(tc.port, 443, tc.flags)), tc.at)
		wantVerdict(t, p, tc.name, ip(them6, us6, protoTCP, tcp(443, tc.port, tcpACK)), tc.at, tc.want)
		p.SetPorts(nil)
		if tc.want != Reply {
			p.NoteOut(ip(us6, them6, protoTCP, tcp(tc.port, 443, tcpACK)), max(tc.at, ConnLife))
			wantVerdict(t, p, tc.name+", cut", ip(them6, us6, protoTCP, tcp(443, tc.port, tcpACK)), max(tc.at, ConnLife), Denied)
		}
	}
}

// The peer opens a connection with the ports of one that this node had: from now on it is
// the peer's.
func TestOpenedOverOurs(t *testing.T) {
	p := newPeer(open("tcp", 50000, 50000))
	p.NoteOut(ip(us4, them4, protoTCP, tcp(50000, 443, tcpSYN)), 0)
	wantVerdict(t, p, "answer", ip(them4, us4, protoTCP, tcp(443, 50000, tcpSYN|tcpACK)), 0, Reply)
	wantVerdict(t, p, "SYN", ip(them4, us4, protoTCP, tcp(443, 50000, tcpSYN)), 0, Allowed)
	p.NoteOut(ip(us4, them4, protoTCP, tcp(50000, 443, tcpSYN|tcpACK)), 0)
	p.SetPorts(nil)
	p.NoteOut(ip(us4, them4, protoTCP, tcp(50000, 443, tcpACK)), 0)
	wantVerdict(t, p, "after the cut", ip(them4, us4, protoTCP, tcp(443, 50000, tcpACK)), 0, Denied)
}

// A datagram whose start was let in before the cut is not completed after it, however
// long its fragments keep coming.
func TestCutWithinADatagram(t *testing.T) {
	body := make([]byte, 24)
	first := frag4(ip(them4, us4, protoUDP, with(udp(9, 80, body...), 4, 0, 200)), 0, true, 77)
	later := frag4(ip(them4, us4, protoUDP, body), 32, false, 77)
	p := newPeer(open("udp", 80, 80))
	wantVerdict(t, p, "first", first, 0, Allowed)
	wantVerdict(t, p, "later", later, 0, Allowed)
	p.SetPorts(nil)
	wantVerdict(t, p, "later, after the cut", later, 0, NoFirst)
	p.SetPorts(compiled(open("udp", 80, 80)))
	wantVerdict(t, p, "first", first, 0, Allowed)
	wantVerdict(t, p, "later", later, 10*sec, Allowed)
	wantVerdict(t, p, "later than 15 s", later, 20*sec, NoFirst)
}

// A long flow of ours is not pushed out by many that have ended or have no answer.
func TestLongConnectionOutlastsShortOnes(t *testing.T) {
	p := newPeer()
	ssh := ip(them4, us4, protoTCP, tcp(22, 40000, tcpACK))
	p.NoteOut(ip(us4, them4, protoTCP, tcp(40000, 22, tcpSYN)), 0)
	wantVerdict(t, p, "answer", ip(them4, us4, protoTCP, tcp(22, 40000, tcpSYN|tcpACK)), 0, Reply)
	now := int64(0)
	for i := range 3 * MaxFlows {
		now += sec / 10
		port := uint16(i%20000) + 41000
		p.NoteOut(ip(us4, them4, protoTCP, tcp(port, 80, tcpSYN)), now)
		p.CheckIn(ip(them4, us4, protoTCP, tcp(80, port, tcpSYN|tcpACK)), now)
		p.NoteOut(ip(us4, them4, protoTCP, tcp(port, 80, tcpACK|tcpFIN)), now)
		p.CheckIn(ip(them4, us4, protoTCP, tcp(80, port, tcpACK|tcpFIN)), now)
		p.NoteOut(ip(us4, them4, protoTCP, tcp(port, 81, tcpSYN)), now) // unanswered
		p.NoteOut(ip(us4, them4, protoUDP, udp(port, 53)), now)
	}
	wantVerdict(t, p, "the long one", ssh, now, Reply)
}

// A connection stays known when one end has ended it, and for a minute after both have.
func TestEndOfConnection(t *testing.T) {
	for name, end := range map[string][2]uint8{"both ends": {tcpFIN, tcpFIN}, "our reset": {tcpRST, 0}, "the peer's": {0, tcpRST}, "ours only": {tcpFIN, 0}, "the peer's only": {0, tcpFIN}} {
		p := newPeer()
		p.NoteOut(ip(us4, them4, protoTCP, tcp(40000, 22, tcpSYN)), 0)
		p.NoteOut(ip(us4, them4, protoTCP, tcp(40000, 22, tcpACK|end[0])), 0)
		wantVerdict(t, p, name, ip(them4, us4, protoTCP, tcp(22, 40000, tcpACK|end[1])), 0, Reply)
		want := Reply
		if over := end != [2]uint8{tcpFIN, 0} && end != [2]uint8{0, tcpFIN}; over {
			want = Denied
		}
		wantVerdict(t, p, name+", later", ip(them4, us4, protoTCP, tcp(22, 40000, tcpACK)), (shortLife+2)*sec, want)
		p.NoteOut(ip(us4, them4, protoTCP, tcp(40000, 22, tcpSYN)), (shortLife+2)*sec)
		wantVerdict(t, p, name+", again", ip(them4, us4, protoTCP, tcp(22, 40000, tcpSYN|tcpACK)), 2000*sec, Reply)
	}
}

// Which flows share a set differs in every process.
func TestPlacesAreKeyed(t *testing.T) {
	before := keys
	defer func() { keys = before }()
	same := 0
	for key := range uint64(1000) {
		keys = before
		a, _ := place(key)
		keys.flip ^= 0x155_5555_5555
		b, _ := place(key)
		keys.flip, keys.mul1 = before.flip, before.mul1^0x1234_5678_9abc
		if c, _ := place(key); a == b && b == c {
			same++
		}
	}
	if same > 20 {
		t.Errorf("%d of 1000 places do not depend on the keys", same)
	}
}

// A History covers everything that was open, in few ranges.
func TestPastIsBounded(t *testing.T) {
	p := newPeer()
	for i := range uint16(500) {
		p.SetPorts(compiled(open("tcp", 20000+i*40, 20000+i*40), open("udp", i*100, i*100+uint16(i%7)), open("udp", 60000, 65535)))
		p.CheckIn(ip(them4, us4, protoUDP, udp(1, 60000+i*3)), 0)
	}
	past := p.History()
	if len(past.TCP) > maxSpans || len(past.UDP) > maxSpans || len(past.Used) > maxSpans {
		t.Errorf("%d, %d, %d ranges", len(past.TCP), len(past.UDP), len(past.Used))
	}
	for i := range uint16(500) {
		for _, q := range []History{
			{TCP: [][2]uint16{{20000 + i*40, 20000 + i*40}}}, {UDP: [][2]uint16{{i * 100, i*100 + uint16(i%7)}}}, {Used: [][2]uint16{{60000 + i*3, 60000 + i*3}}},
		} {
			if !past.Covers(q) || !past.With(History{Every: true}).Covers(q) {
				t.Fatalf("%v is not in it", q)
			}
		}
	}
	if past.Covers(History{Every: true}) || past.Covers(History{TCP: [][2]uint16{{16000, 16001}}}) {
		t.Error("too much is in it")
	}
	if (History{}).Covers(past) || !past.Covers(History{}) {
		t.Error("the zero Past is something")
	}
	q := NewPeer([]netip.Addr{us4}, []netip.Addr{them4}, nil)
	q.AddHistory(past)
	if again := q.History(); !again.Covers(past) || !slices.Equal(again.Used, past.Used) {
		t.Error("a Past is not what was recalled")
	}
}
