package filter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// history is a model of this machine, its programs and the peer around the filter. choose
// selects each step. The model knows who began what; the filter does not. Whatever
// happens, a closed port may only let in what belongs to something that this machine
// began.
type history struct {
	t      *testing.T
	choose func(n int) int // 0 to n-1
	log    []string

	kernel bool // connections outlive the process
	p      *Peer
	now    int64
	ports  *Ports
	disk   []byte // Past
	noted  uint32 // Used at the time of that

	began     map[tuple]bool      // by this machine; false: by the peer
	asked     map[port]int64      // when a UDP flow that this machine began from there was last used
	letIn     map[uint16]bool     // UDP ports on which the peer was let in by a rule
	narrow    map[uint16]bool     // UDP ports that a narrow rule has opened
	wide      bool                // a rule has opened all UDP client ports
	conns     []conn              // connections of programs on this machine
	frags     map[[2]uint32]tuple // datagrams whose first fragment was let in
	fragID    uint32
	passed    int
	answers   int
	elsewhere int // answers from another port
}

type tuple struct {
	v6           bool
	proto        uint8
	ours, theirs uint16
}

// port is a UDP port of this machine.
type port struct {
	v6   bool
	ours uint16
}

// conn is a socket of a program here.
type conn struct {
	tuple
	ours bool // begun by us
}

var (
	servicePorts = []uint16{22, 53, 8080, 40000, 50000, 60001}
	clientPorts  = []uint16{40001, 45678, 50001, 59999}
	theirPorts   = []uint16{53, 443, 1000, 40000, 50001}
)

const gre = 47

func newHistory(t *testing.T, choose func(int) int) *history {
	h := &history{t: t, choose: choose, kernel: choose(2) == 0, began: map[tuple]bool{}, asked: map[port]int64{}, letIn: map[uint16]bool{}, narrow: map[uint16]bool{}, frags: map[[2]uint32]tuple{}}
	h.policy()
	h.restart()
	return h
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf("%4ds ", h.now/sec)+fmt.Sprintf(format, args...))
}

func pick[T any](h *history, list []T) T { return list[h.choose(len(list))] }

// policy makes new rules.
func (h *history) policy() {
	var rules []api.Rule
	for range h.choose(4) {
		p := pick(h, servicePorts)
		rules = append(rules, pick(h, []api.Rule{
			open("tcp", p, p), open("udp", p, p), open("tcp", 32768, 65535), open("udp", 16000, 65535), open("icmp", 0, 0), open("*", 0, 65535), open("*", p, p),
		}))
	}
	h.ports = Compile(rules, &cert.Node{}, Terms{})
	for _, p := range h.ports.udp {
		if p.first == p.last {
			h.narrow[p.first] = true
		} else {
			h.wide = true
		}
	}
	h.note("policy %v", rules)
	if h.p == nil {
		return
	}
	// As package filters does: on disk before it is open.
	if h.p.AddPorts(h.ports) {
		h.save()
	}
	h.p.SetPorts(h.ports)
}

func (h *history) save() {
	h.noted = h.p.Used()
	h.disk, _ = json.Marshal(h.p.History())
}

// fresh makes another filter for the peer.
func (h *history) fresh(past []byte, adopts bool) {
	h.p = NewPeer([]netip.Addr{us4, us6}, []netip.Addr{them4, them6}, nil)
	if h.kernel {
		until := int64(0)
		if adopts {
			until = h.now + ConnLife
		}
		h.p.Adopt(32768, 60999, until)
	}
	if past != nil {
		var q History
		if err := json.Unmarshal(past, &q); err != nil {
			h.t.Fatal(err)
		}
		h.p.AddHistory(q)
	}
	if h.p.AddPorts(h.ports) {
		h.save()
	}
	h.p.SetPorts(h.ports)
}

// restart ends the process, orderly or not, and starts another one. Ports that the peer
// has begun to use are written within seconds; the model has no crash before that.
func (h *history) restart() {
	if h.p != nil && (h.choose(2) == 0 || h.noted != h.p.Used()) {
		h.save()
	}
	had := h.disk != nil
	h.note("restart, kernel %v", h.kernel)
	h.now = 0
	clear(h.asked)
	if !h.kernel {
		h.conns, h.disk = nil, nil // they end with the process
		clear(h.letIn)
		clear(h.narrow)
		h.wide = false
		for _, p := range h.ports.udp {
			h.narrow[p.first] = p.first == p.last
			h.wide = h.wide || p.first != p.last
		}
	} else {
		h.fresh(h.disk, had)
		h.frags = map[[2]uint32]tuple{}
		return
	}
	h.frags = map[[2]uint32]tuple{}
	h.fresh(nil, false)
}

func (h *history) packet(out bool, c tuple, flags uint8) []byte {
	src, dst := them4, us4
	if c.v6 {
		src, dst = them6, us6
	}
	from, to := c.theirs, c.ours
	if out {
		src, dst, from, to = dst, src, to, from
	}
	switch c.proto {
	case protoTCP:
		return ip(src, dst, protoTCP, tcp(from, to, flags))
	case protoUDP:
		return ip(src, dst, protoUDP, udp(from, to))
	}
	return ip(src, dst, c.proto, make([]byte, 8))
}

func (h *history) fail(format string, args ...any) {
	h.t.Helper()
	for _, line := range h.log[max(0, len(h.log)-60):] {
		h.t.Log(line)
	}
	h.t.Fatalf(format, args...)
}

// allowed reports whether a packet on c may pass, by the present policy and by who began
// c.
func (h *history) allowed(c tuple) bool {
	return h.ports.allows(c.proto, c.ours) || h.began[c] || h.answersFromElsewhere(c)
}

// answersFromElsewhere reports whether c may be an answer from another port than the one
// that was asked: it goes to a UDP port from which this machine has asked within a
// minute, and on which the peer was never let in.
func (h *history) answersFromElsewhere(c tuple) bool {
	at, asked := h.asked[port{c.v6, c.ours}]
	return c.proto == protoUDP && asked && h.now-at <= (shortLife+1)*sec && !h.letIn[c.ours] && (h.wide || !h.narrow[c.ours])
}

// inUse records a packet of a flow, in either direction.
func (h *history) inUse(c tuple) {
	if c.proto == protoUDP && (h.began[c] || h.answersFromElsewhere(c)) {
		h.asked[port{c.v6, c.ours}] = h.now
	}
}

// someTuple returns a known tuple or a random one.
func (h *history) someTuple() tuple {
	if len(h.conns) > 0 && h.choose(3) > 0 {
		return pick(h, h.conns).tuple
	}
	c := tuple{h.choose(2) == 0, pick(h, []uint8{protoTCP, protoUDP, gre}), pick(h, append(append([]uint16{}, servicePorts...), clientPorts...)), pick(h, theirPorts)}
	if c.proto == gre {
		c.ours, c.theirs = 0, 0
	}
	return c
}

// comesIn is any packet of the peer.
func (h *history) comesIn(c tuple) {
	flags := uint8(0)
	if c.proto == protoTCP {
		flags = pick(h, []uint8{tcpSYN, tcpSYN, tcpSYN | tcpACK, tcpACK, tcpACK, tcpACK | tcpFIN, tcpRST, tcpRST | tcpACK, 0, tcpSYN | tcpFIN})
	}
	v := h.p.CheckIn(h.packet(false, c, flags), h.now)
	h.note("in %+v flags %02x: %v", c, flags, v)
	if !v.OK() {
		return
	}
	h.passed++
	opens := c.proto != protoTCP || flags&(tcpSYN|tcpACK|tcpRST) == tcpSYN
	if opens && v == Allowed {
		// The peer has begun it with a service here.
		delete(h.began, c)
		h.letIn[c.ours] = h.letIn[c.ours] || c.proto == protoUDP
		h.hold(conn{tuple: c})
	}
	h.inUse(c)
	if c.proto == protoTCP && opens && v != Allowed {
		h.fail("a SYN passed as an answer: %+v", c)
	}
	if !h.allowed(c) {
		h.fail("%+v passed: policy does not allow it and this machine did not begin it", c)
	}
}

func (h *history) hold(c conn) {
	for i := range h.conns {
		if h.conns[i].tuple == c.tuple {
			h.conns[i] = c
			return
		}
	}
	if h.conns = append(h.conns, c); len(h.conns) > 24 {
		h.conns = h.conns[1:]
	}
}

// errorIn is an ICMP error of the peer about any packet of ours.
func (h *history) errorIn(c tuple) {
	quoted := h.packet(true, c, tcpACK)
	pkt := ip(them4, us4, protoICMP4, icmpError(3, 3, quoted))
	if c.v6 {
		pkt = ip(them6, us6, protoICMP6, icmpError(1, 4, quoted))
	}
	v := h.p.CheckIn(pkt, h.now)
	h.note("error in about %+v: %v", c, v)
	if v.OK() && !h.allowed(c) {
		h.fail("an error about %+v passed", c)
	}
}

// fragmentsIn are fragments of a datagram of the peer, or only later ones.
func (h *history) fragmentsIn(c tuple) {
	id := h.fragID - uint32(h.choose(3))
	src, dst, family := them4, us4, uint32(4)
	if c.v6 {
		src, dst, family = them6, us6, 6
	}
	body := make([]byte, 24)
	if c.proto == protoUDP && h.choose(2) == 0 {
		h.fragID++
		id = h.fragID
		first := with(udp(c.theirs, c.ours, body...), 4, 0, 200)
		pkt := frag4(ip(src, dst, protoUDP, first), 0, true, uint16(id))
		if c.v6 {
			pkt = ip(src, dst, protoFragment, frag6(protoUDP, 0, true, id, first))
		}
		v := h.p.CheckIn(pkt, h.now)
		h.note("first fragment %d in %+v: %v", id, c, v)
		if v == Allowed {
			delete(h.began, c)
			h.letIn[c.ours] = true
			h.hold(conn{tuple: c})
		}
		if v.OK() {
			h.inUse(c)
			h.frags[[2]uint32{family, id}] = c
			if !h.allowed(c) {
				h.fail("a first fragment of %+v passed", c)
			}
		}
		return
	}
	pkt := frag4(ip(src, dst, protoUDP, body), 32, false, uint16(id))
	if c.v6 {
		pkt = ip(src, dst, protoFragment, frag6(protoUDP, 32, false, id, body))
	}
	v := h.p.CheckIn(pkt, h.now)
	h.note("later fragment %d in: %v", id, v)
	if v.OK() {
		if of, ok := h.frags[[2]uint32{family, id}]; !ok || !h.allowed(of) {
			h.fail("a later fragment of %+v passed", of)
		}
	}
}

// goesOut is a packet of ours on a connection of a program here, whoever began it: data,
// a retransmission, the end, an answer, an error.
func (h *history) goesOut(i int) {
	c := &h.conns[i]
	if h.choose(8) == 0 {
		quoted := h.packet(false, c.tuple, tcpACK)
		pkt := ip(us4, them4, protoICMP4, icmpError(3, 3, quoted))
		if c.v6 {
			pkt = ip(us6, them6, protoICMP6, icmpError(1, 4, quoted))
		}
		h.p.NoteOut(pkt, h.now)
		h.note("error out about %+v", c.tuple)
		return
	}
	flags := uint8(0)
	if c.proto == protoTCP {
		flags = pick(h, []uint8{tcpACK, tcpACK, tcpACK | 8, tcpACK | tcpFIN, tcpRST, tcpRST | tcpACK})
		if !c.ours && h.choose(4) == 0 {
			flags = tcpSYN | tcpACK
		}
	}
	pkt := h.packet(true, c.tuple, flags)
	if c.proto == protoUDP && h.choose(4) == 0 {
		first := with(udp(c.tuple.ours, c.theirs, make([]byte, 24)...), 4, 0, 200)
		if pkt = frag4(ip(us4, them4, protoUDP, first), 0, true, 7); c.v6 {
			pkt = ip(us6, them6, protoFragment, frag6(protoUDP, 0, true, 7, first))
		}
	}
	h.p.NoteOut(pkt, h.now)
	h.inUse(c.tuple)
	h.note("out %+v flags %02x", c.tuple, flags)
	if flags&(tcpRST|tcpFIN) != 0 && c.ours && c.proto == protoTCP {
		h.conns = append(h.conns[:i], h.conns[i+1:]...)
	}
}

// begins is a program here that begins something from a port of its own, and the answer
// to it, which must be let in.
func (h *history) begins() {
	c := tuple{h.choose(2) == 0, pick(h, []uint8{protoTCP, protoUDP}), pick(h, clientPorts), pick(h, theirPorts)}
	for _, k := range h.conns {
		if k.tuple == c && !k.ours {
			return // the kernel does not give out a port in use
		}
	}
	if mine, known := h.began[c]; known && !mine {
		return
	}
	h.p.NoteOut(h.packet(true, c, tcpSYN), h.now)
	h.note("we begin %+v", c)
	h.began[c] = true
	h.inUse(c)
	h.hold(conn{tuple: c, ours: true})
	if c.proto == protoUDP && h.p.used.Load().has(c.ours) {
		return // the peer was let in there: this could be an answer
	}
	if v := h.p.CheckIn(h.packet(false, c, tcpSYN|tcpACK), h.now); !v.OK() {
		if s, opened := find(h.once(), c.ours); c.proto == protoTCP || !opened || int(s.last)-int(s.first) >= wideRule {
			h.fail("the answer to %+v is refused: %v", c, v)
		}
	}
	h.answers++
	if c.proto == protoUDP && h.choose(2) == 0 {
		// As TFTP does.
		c.theirs = 2000 + uint16(h.choose(3))
		if v := h.p.CheckIn(h.packet(false, c, 0), h.now); v == Allowed {
			h.letIn[c.ours] = true
		} else if !v.OK() && h.answersFromElsewhere(c) && !h.narrow[c.ours] {
			h.fail("the answer to %+v from another port is refused: %v", c, v)
		} else if v.OK() {
			h.elsewhere++
		}
	}
}

func (h *history) once() []span {
	if once := h.p.once.Load(); once != nil {
		return once.udp
	}
	return nil
}

// outlived checks that after a restart a continuing connection of ours is known again
// with our first packet.
func (h *history) outlived() {
	for _, c := range h.conns {
		if !c.ours || c.proto != protoTCP || !h.kernel || h.now >= h.p.adoptUntil || h.p.once.Load().allows(protoTCP, c.tuple.ours) {
			continue
		}
		h.p.NoteOut(h.packet(true, c.tuple, tcpACK), h.now)
		if v := h.p.CheckIn(h.packet(false, c.tuple, tcpACK), h.now); !v.OK() {
			h.fail("%+v is not known any more: %v", c.tuple, v)
		}
	}
}

func (h *history) step() {
	switch h.choose(16) {
	case 0:
		h.policy()
	case 1:
		h.now += sec * pick(h, []int64{1, 20, 59, 61, 600, 2*60*60 + 1})
	case 2, 3:
		if len(h.conns) > 0 {
			h.goesOut(h.choose(len(h.conns)))
		}
	case 4, 5:
		h.begins()
	case 6:
		h.errorIn(h.someTuple())
	case 7, 8:
		h.fragmentsIn(h.someTuple())
	case 9:
		switch h.choose(6) {
		case 0:
			h.restart()
			if h.choose(2) == 0 {
				h.outlived()
			}
		case 1: // too many others: the filter of a peer without a tunnel was dropped
			h.note("the filter is dropped")
			past, _ := json.Marshal(h.p.History())
			h.frags = map[[2]uint32]tuple{}
			h.fresh(past, false)
		case 2: // the tunnel ends and is made again
			h.note("bye")
			h.p.SetPorts(nil)
			h.p.SetPorts(h.ports)
		case 3: // a flood
			h.note("flood")
			for i := range uint16(2000) {
				h.p.CheckIn(ip(them4, us4, protoTCP, tcp(i+20000, 22, tcpSYN)), h.now)
				h.p.CheckIn(ip(them4, us4, protoUDP, udp(i+20000, 53)), h.now)
			}
		}
	case 10: // our services answer on all their connections at once
		for i := range len(h.conns) {
			if c := h.conns[i]; !c.ours {
				h.p.NoteOut(h.packet(true, c.tuple, tcpACK), h.now)
			}
		}
		h.note("services answer")
	default:
		h.comesIn(h.someTuple())
	}
}

// Property: whatever the peer sends and our programs answer, through changes of policy,
// ends of the tunnel and restarts, a closed port lets in only answers to what this
// machine began, and these are let in.
func TestHistories(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	passed, answers, elsewhere := 0, 0, 0
	for i := range uint64(300) {
		h := newHistory(t, rand.New(rand.NewPCG(seed, i)).IntN)
		for range 400 {
			h.step()
		}
		passed += h.passed
		answers += h.answers
		elsewhere += h.elsewhere
	}
	if passed < 1000 || answers < 1000 || elsewhere < 100 {
		t.Errorf("only %d packets passed, %d answers, %d from another port: nothing was tried", passed, answers, elsewhere)
	}
}

func FuzzHistory(f *testing.F) {
	fixKeys(f)
	for i := range uint64(8) {
		r := rand.New(rand.NewPCG(9, i))
		b := make([]byte, 600)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		at := 0
		h := newHistory(t, func(n int) int {
			if at++; at > len(b) {
				return 0
			}
			return int(b[at-1]) % n
		})
		for at < len(b) && at < 4000 {
			h.step()
		}
	})
}

// fixKeys makes the places of entries the same in every run, so that inputs are
// reproducible.
func fixKeys(t testing.TB) {
	before := keys
	keys.flip, keys.mul1, keys.mul2 = 1, 0x9e3779b97f4a7c15, 0xd1b54a32d192ed03
	t.Cleanup(func() { keys = before })
}
