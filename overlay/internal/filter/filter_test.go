package filter

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"

	"weft/overlay/api"
	"weft/overlay/cert"
)

var (
	us4   = netip.MustParseAddr("100.64.0.1")
	us6   = netip.MustParseAddr("fd00::1")
	them4 = netip.MustParseAddr("100.64.0.2")
	them6 = netip.MustParseAddr("fd00::2")
)

const sec = int64(time.Second)

func newPeer(rules ...api.Rule) *Peer {
	return NewPeer([]netip.Addr{us4, us6}, []netip.Addr{them4, them6}, Compile(rules, &cert.Node{}, Terms{}))
}

func open(proto string, first, last uint16) api.Rule {
	return api.Rule{From: []string{"*"}, Ports: []api.PortRange{{Proto: proto, First: first, Last: last}}}
}

// ip wraps a payload into an IP packet.
func ip(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is4() && dst.Is4() {
		b := make([]byte, 20, 20+len(payload))
		b[0] = 0x45
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		b[8], b[9] = 64, proto
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = proto, 64
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

func tcp(src, dst uint16, flags uint8, data ...byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[12], b[13] = 5<<4, flags
	return append(b, data...)
}

func udp(src, dst uint16, data ...byte) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

func echo(typ uint8, id uint16) []byte {
	b := make([]byte, 16)
	b[0] = typ
	binary.BigEndian.PutUint16(b[4:], id)
	return b
}

func icmpError(typ, code uint8, quoted []byte) []byte {
	return append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, quoted...)
}

// ext puts one extension header of size bytes (a multiple of 8) before payload.
func ext(next uint8, size int, payload []byte) []byte {
	b := make([]byte, size)
	b[0], b[1] = next, uint8(size/8-1)
	return append(b, payload...)
}

func frag6(next uint8, offset int, more bool, id uint32, payload []byte) []byte {
	b := make([]byte, 8)
	b[0] = next
	binary.BigEndian.PutUint16(b[2:], uint16(offset))
	if more {
		b[3] |= 1
	}
	binary.BigEndian.PutUint32(b[4:], id)
	return append(b, payload...)
}

func frag4(pkt []byte, offset int, more bool, id uint16) []byte {
	binary.BigEndian.PutUint16(pkt[4:], id)
	f := uint16(offset / 8)
	if more {
		f |= 0x2000
	}
	binary.BigEndian.PutUint16(pkt[6:], f)
	return pkt
}

func with(b []byte, at int, v ...byte) []byte {
	copy(b[at:], v)
	return b
}

func TestRulesOpenPorts(t *testing.T) {
	web := open("tcp", 80, 443)
	dns := open("udp", 53, 53)
	all := open("*", 0, 65535)
	const icmp4, icmp6, sctp, gre = 1, 58, 132, 47
	for _, tc := range []struct {
		name  string
		rules []api.Rule
		pkt   []byte
		want  Verdict
	}{
		{"no rules", nil, ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN)), Denied},
		{"tcp in range", []api.Rule{web}, ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN)), Allowed},
		{"tcp end of range", []api.Rule{web}, ip(them4, us4, protoTCP, tcp(9, 443, tcpSYN)), Allowed},
		{"tcp past range", []api.Rule{web}, ip(them4, us4, protoTCP, tcp(9, 444, tcpSYN)), Denied},
		{"tcp before range", []api.Rule{web}, ip(them4, us4, protoTCP, tcp(9, 79, tcpSYN)), Denied},
		{"tcp6", []api.Rule{web}, ip(them6, us6, protoTCP, tcp(9, 80, tcpSYN)), Allowed},
		{"udp under tcp rule", []api.Rule{web}, ip(them4, us4, protoUDP, udp(9, 80)), Denied},
		{"udp", []api.Rule{web, dns}, ip(them6, us6, protoUDP, udp(9, 53)), Allowed},
		{"tcp under udp rule", []api.Rule{dns}, ip(them6, us6, protoTCP, tcp(9, 53, tcpSYN)), Denied},
		{"echo", []api.Rule{open("icmp", 0, 0)}, ip(them4, us4, icmp4, echo(8, 1)), Allowed},
		{"echo6", []api.Rule{open("icmp", 0, 0)}, ip(them6, us6, icmp6, echo(128, 1)), Allowed},
		{"echo denied", []api.Rule{web}, ip(them4, us4, icmp4, echo(8, 1)), Denied},
		{"unasked echo reply", []api.Rule{all}, ip(them4, us4, icmp4, echo(0, 1)), Denied},
		{"redirect", []api.Rule{all}, ip(them4, us4, icmp4, echo(5, 1)), Denied},
		{"router advertisement", []api.Rule{all}, ip(them6, us6, icmp6, echo(134, 1)), Denied},
		{"icmp6 in ipv4", []api.Rule{all}, ip(them4, us4, icmp6, echo(128, 1)), Malformed},
		{"sctp under tcp rule", []api.Rule{web}, ip(them4, us4, sctp, tcp(9, 80, tcpSYN)), Denied},
		{"gre6 under tcp rule", []api.Rule{open("tcp", 0, 65535)}, ip(them6, us6, gre, tcp(9, 80, tcpSYN)), Denied},
		{"4 in 6 under udp rule", []api.Rule{open("udp", 0, 65535)}, ip(them6, us6, 4, ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN))), Denied},
		{"sctp under every", []api.Rule{all}, ip(them4, us4, sctp, tcp(9, 80, tcpSYN)), Allowed},
		{"star with a port", []api.Rule{open("*", 80, 80)}, ip(them4, us4, protoUDP, udp(9, 80)), Allowed},
		{"star with a port, icmp", []api.Rule{open("*", 80, 80)}, ip(them4, us4, icmp4, echo(8, 1)), Denied},
		{"star with a port, sctp", []api.Rule{open("*", 0, 65534)}, ip(them4, us4, sctp, tcp(0, 0, 0)), Denied},
		{"unknown protocol word", []api.Rule{open("sctp", 0, 65535)}, ip(them4, us4, sctp, tcp(0, 0, 0)), Denied},
		{"range upside down", []api.Rule{open("tcp", 443, 80)}, ip(them4, us4, protoTCP, tcp(9, 100, tcpSYN)), Denied},
		{"behind extensions", []api.Rule{web}, ip(them6, us6, protoHopByHop, ext(protoDestOpts, 8, ext(protoTCP, 16, tcp(9, 80, tcpSYN)))), Allowed},
		{"behind extensions, denied", []api.Rule{web}, ip(them6, us6, protoDestOpts, ext(protoTCP, 8, tcp(9, 22, tcpSYN))), Denied},
		{"options", []api.Rule{web}, with(ip(them4, us4, protoTCP, append([]byte{1, 1, 1, 0}, tcp(9, 80, tcpSYN)...)), 0, 0x46), Allowed},
	} {
		if got := newPeer(tc.rules...).CheckIn(tc.pkt, 0); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	good4 := func() []byte { return ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN, 1, 2, 3)) }
	good6 := func() []byte { return ip(them6, us6, protoUDP, udp(9, 80, 1, 2, 3)) }
	deep := udp(9, 80)
	next := uint8(protoUDP)
	for range 12 {
		deep, next = ext(next, 8, deep), protoDestOpts
	}
	for name, pkt := range map[string][]byte{
		"empty":                  {},
		"version 5":              with(good4(), 0, 0x55),
		"version 0":              make([]byte, 64),
		"ipv4 short":             good4()[:19],
		"ipv4 cut":               good4()[:30],
		"ipv4 trailing bytes":    append(good4(), 0),
		"ipv4 ihl 4":             with(good4(), 0, 0x44),
		"ipv4 ihl past end":      with(ip(them4, us4, protoTCP, nil), 0, 0x4f),
		"source route":           with(ip(them4, us4, protoTCP, append([]byte{131, 4, 4, 0}, tcp(9, 80, tcpSYN)...)), 0, 0x46),
		"strict source route":    with(ip(them4, us4, protoTCP, append([]byte{1, 137, 3, 4}, tcp(9, 80, tcpSYN)...)), 0, 0x46),
		"option past end":        with(ip(them4, us4, protoTCP, append([]byte{7, 40, 0, 0}, tcp(9, 80, tcpSYN)...)), 0, 0x46),
		"option of length 0":     with(ip(them4, us4, protoTCP, append([]byte{7, 0, 0, 0}, tcp(9, 80, tcpSYN)...)), 0, 0x46),
		"tcp cut":                ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN)[:19]),
		"tcp offset 4":           ip(them4, us4, protoTCP, with(tcp(9, 80, tcpSYN), 12, 4<<4)),
		"tcp offset past end":    ip(them4, us4, protoTCP, with(tcp(9, 80, tcpSYN), 12, 6<<4)),
		"udp cut":                ip(them4, us4, protoUDP, udp(9, 80)[:7]),
		"udp length 7":           ip(them4, us4, protoUDP, with(udp(9, 80), 4, 0, 7)),
		"udp length past end":    ip(them4, us4, protoUDP, with(udp(9, 80), 4, 0, 9)),
		"icmp cut":               ip(them4, us4, 1, echo(8, 1)[:7]),
		"ipv6 short":             good6()[:39],
		"ipv6 cut":               good6()[:45],
		"ipv6 trailing bytes":    append(good6(), 0),
		"ipv6 jumbo":             with(good6(), 4, 0, 0),
		"ipv6 length overflow":   with(good6(), 4, 0xff, 0xf0), // wireguard-go adds 40 in 16 bits
		"no next header":         ip(them6, us6, protoNone, nil),
		"routing header":         ip(them6, us6, protoRouting, ext(protoTCP, 8, tcp(9, 80, tcpSYN))),
		"hop-by-hop not first":   ip(them6, us6, protoDestOpts, ext(protoHopByHop, 8, ext(protoTCP, 8, tcp(9, 80, tcpSYN)))),
		"extension past end":     ip(them6, us6, protoDestOpts, with(ext(protoTCP, 8, tcp(9, 80, tcpSYN)), 1, 9)),
		"extension of 1 byte":    ip(them6, us6, protoDestOpts, []byte{protoTCP}),
		"12 extensions":          ip(them6, us6, next, deep),
		"authentication header":  ip(them6, us6, protoAH, append([]byte{protoTCP, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, tcp(9, 80, tcpSYN)...)),
		"mobility header":        ip(them6, us6, protoMobility, ext(protoTCP, 8, tcp(9, 80, tcpSYN))),
		"host identity header":   ip(them6, us6, protoHIP, ext(protoTCP, 8, tcp(9, 80, tcpSYN))),
		"shim6 header":           ip(them6, us6, protoShim6, ext(protoTCP, 8, tcp(9, 80, tcpSYN))),
		"experimental header":    ip(them6, us6, protoTest1, ext(protoTCP, 8, tcp(9, 80, tcpSYN))),
		"experimental header 2":  ip(them6, us6, protoDestOpts, ext(protoTest2, 8, ext(protoTCP, 8, tcp(9, 80, tcpSYN)))),
		"hop-by-hop twice":       ip(them6, us6, protoHopByHop, ext(protoHopByHop, 8, ext(protoTCP, 8, tcp(9, 80, tcpSYN)))),
		"home address":           ip(them6, us6, protoDestOpts, with(ext(protoTCP, 24, tcp(9, 80, tcpSYN)), 2, 0xc9, 16)),
		"jumbo payload":          ip(them6, us6, protoHopByHop, with(ext(protoTCP, 8, tcp(9, 80, tcpSYN)), 2, 0xc2, 4)),
		"router alert":           ip(them6, us6, protoHopByHop, with(ext(protoTCP, 8, tcp(9, 80, tcpSYN)), 2, 5, 2)),
		"option6 past end":       ip(them6, us6, protoDestOpts, with(ext(protoTCP, 8, tcp(9, 80, tcpSYN)), 2, 1, 5)),
		"options in a fragment":  ip(them6, us6, protoFragment, frag6(protoDestOpts, 0, true, 1, ext(protoUDP, 8, udp(9, 80)))),
		"options after atomic":   ip(them6, us6, protoFragment, frag6(protoDestOpts, 0, false, 1, ext(protoUDP, 8, udp(9, 80)))),
		"later over tcp flags":   ip(them6, us6, protoFragment, frag6(protoUDP, 8, false, 1, make([]byte, 24))),
		"two fragment headers":   ip(them6, us6, protoFragment, frag6(protoFragment, 0, false, 1, frag6(protoUDP, 0, false, 1, udp(9, 80)))),
		"tiny first fragment":    frag4(ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN)[:16]), 0, true, 1),
		"fragment over header":   frag4(ip(them4, us4, protoTCP, make([]byte, 24)), 8, false, 1),
		"ragged first fragment":  frag4(ip(them4, us4, protoUDP, udp(9, 80, 1, 2, 3)), 0, true, 1),
		"fragment past the end":  frag4(ip(them4, us4, protoUDP, make([]byte, 64)), 65528, false, 1),
		"empty later fragment":   frag4(ip(them4, us4, protoUDP, nil), 64, false, 1),
		"icmp error, no quote":   ip(them4, us4, 1, icmpError(3, 1, nil)),
		"icmp error, other pair": ip(them4, us4, 1, icmpError(3, 1, ip(us4, us4, protoTCP, tcp(80, 9, 0)))),
		"icmp error on error":    ip(them4, us4, 1, icmpError(3, 1, ip(us4, them4, 1, icmpError(3, 1, make([]byte, 8))))),
	} {
		if got := newPeer(open("*", 0, 65535)).CheckIn(pkt, 0); got != Malformed {
			t.Errorf("%s: %v, want malformed", name, got)
		}
	}
}

// A peer may use its certified addresses only.
func TestSpoofedAddresses(t *testing.T) {
	for _, src := range []string{"100.64.0.3", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1",
		"::ffff:100.64.0.3", "::ffff:100.64.0.2", "fe80::1", "fd00::3", "fd00::1", "::", "::1", "ff02::1"} {
		a := netip.MustParseAddr(src)
		dst := us4
		if a.Is6() {
			dst = us6
		}
		p := newPeer(open("*", 0, 65535))
		if got := p.CheckIn(ip(a, dst, protoUDP, udp(1, 2)), 0); got != BadSource {
			t.Errorf("from %s: %v, want bad-source", src, got)
		}
	}
	for _, dst := range []string{"100.64.0.2", "100.64.0.9", "224.0.0.1", "127.0.0.1", "255.255.255.255", "fd00::2", "::1", "ff02::1", "::ffff:100.64.0.1"} {
		a := netip.MustParseAddr(dst)
		src := them4
		if a.Is6() {
			src = them6
		}
		if got := newPeer(open("*", 0, 65535)).CheckIn(ip(src, a, protoUDP, udp(1, 2)), 0); got != BadDestination {
			t.Errorf("to %s: %v, want bad-destination", dst, got)
		}
	}
	same := NewPeer([]netip.Addr{us4}, []netip.Addr{us4}, Compile([]api.Rule{open("*", 0, 65535)}, &cert.Node{}, Terms{}))
	if got := same.CheckIn(ip(us4, us4, protoUDP, udp(1, 2)), 0); got != BadSource {
		t.Errorf("peer with our own address: %v", got)
	}
	if got := NewPeer(nil, nil, nil).CheckIn(ip(them4, us4, protoUDP, udp(1, 2)), 0); got != BadSource {
		t.Errorf("peer without addresses: %v", got)
	}
}

func TestRepliesByState(t *testing.T) {
	out := func(p uint8, b []byte) []byte { return ip(us4, them4, p, b) }
	in := func(p uint8, b []byte) []byte { return ip(them4, us4, p, b) }
	for _, tc := range []struct {
		name       string
		out, in    []byte
		after      int64
		want, late Verdict // within the life of the flow, and one second after it
		life       int64
	}{
		{"tcp", out(protoTCP, tcp(5000, 80, tcpSYN)), in(protoTCP, tcp(80, 5000, tcpSYN|tcpACK)), 0, Reply, Denied, tcpLife},
		{"tcp, other port", out(protoTCP, tcp(5000, 80, tcpSYN)), in(protoTCP, tcp(81, 5000, tcpSYN|tcpACK)), 0, Denied, Denied, tcpLife},
		{"tcp, their syn", out(protoTCP, tcp(5000, 80, tcpSYN)), in(protoTCP, tcp(80, 5000, tcpSYN)), 0, Denied, Denied, tcpLife},
		{"tcp, mid stream", out(protoTCP, tcp(5000, 80, tcpACK)), in(protoTCP, tcp(80, 5000, tcpACK)), 0, Denied, Denied, tcpLife},
		{"tcp, our syn-ack", out(protoTCP, tcp(22, 80, tcpSYN|tcpACK)), in(protoTCP, tcp(80, 22, tcpACK)), 0, Denied, Denied, tcpLife},
		{"tcp, our rst", out(protoTCP, tcp(22, 80, tcpRST|tcpACK)), in(protoTCP, tcp(80, 22, tcpACK)), 0, Denied, Denied, tcpLife},
		{"udp", out(protoUDP, udp(5000, 53)), in(protoUDP, udp(53, 5000)), 0, Reply, Denied, shortLife},
		{"udp for tcp", out(protoUDP, udp(5000, 53)), in(protoTCP, tcp(53, 5000, tcpACK)), 0, Denied, Denied, shortLife},
		{"udp, other family", out(protoUDP, udp(5000, 53)), ip(them6, us6, protoUDP, udp(53, 5000)), 0, Denied, Denied, shortLife},
		{"echo", out(1, echo(8, 7)), in(1, echo(0, 7)), 0, Reply, Denied, shortLife},
		{"echo, other id", out(1, echo(8, 7)), in(1, echo(0, 8)), 0, Denied, Denied, shortLife},
		{"gre", out(47, make([]byte, 8)), in(47, make([]byte, 8)), 0, Reply, Denied, shortLife},
		{"unreachable", out(protoUDP, udp(5000, 53)), in(1, icmpError(3, 3, out(protoUDP, udp(5000, 53)))), 0, Reply, Denied, shortLife},
		{"unreachable, cut", out(protoTCP, tcp(5000, 53, tcpSYN)), in(1, icmpError(3, 3, out(protoTCP, tcp(5000, 53, tcpSYN))[:28])), 0, Reply, Denied, tcpLife},
		{"unreachable, no flow", out(protoUDP, udp(5000, 53)), in(1, icmpError(3, 3, out(protoUDP, udp(5001, 53)))), 0, Denied, Denied, shortLife},
		{"echo unreachable", out(1, echo(8, 7)), in(1, icmpError(11, 0, out(1, echo(8, 7)))), 0, Reply, Denied, shortLife},
		{"too big, ipv6", ip(us6, them6, protoTCP, tcp(5000, 80, tcpSYN)), ip(them6, us6, 58, icmpError(2, 0, ip(us6, them6, protoTCP, tcp(5000, 80, tcpSYN)))), 0, Reply, Denied, tcpLife},
	} {
		p := newPeer()
		if got := p.CheckIn(tc.in, 0); got.OK() {
			t.Errorf("%s: %v before anything was sent", tc.name, got)
		}
		p.NoteOut(tc.out, 5*sec)
		if got := p.CheckIn(tc.in, 5*sec); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
		if got := p.CheckIn(tc.in, (5+tc.life)*sec); got != tc.want {
			t.Errorf("%s, at the end of its life: %v, want %v", tc.name, got, tc.want)
		}
		// The last answer has prolonged the flow (errors do not).
		if got := p.CheckIn(tc.in, (6+2*tc.life)*sec); got != tc.late {
			t.Errorf("%s, late: %v, want %v", tc.name, got, tc.late)
		}
	}
}

// A flow of the peer ends with its permission, whatever we have sent; a flow of ours
// continues.
func TestPolicyChangeCutsLiveFlows(t *testing.T) {
	ssh := Compile([]api.Rule{open("tcp", 22, 22), open("udp", 53, 53)}, &cert.Node{}, Terms{})
	p := newPeer()
	p.SetPorts(ssh)
	check := func(what string, pkt []byte, want Verdict) {
		t.Helper()
		if got := p.CheckIn(pkt, sec); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	theirSSH := ip(them4, us4, protoTCP, tcp(4000, 22, tcpACK))
	theirDNS := ip(them4, us4, protoUDP, udp(4000, 53))
	ourWeb := ip(them4, us4, protoTCP, tcp(80, 5000, tcpACK))
	dnsError := ip(them4, us4, 1, icmpError(3, 3, ip(us4, them4, protoUDP, udp(53, 4000))))
	check("ssh syn", ip(them4, us4, protoTCP, tcp(4000, 22, tcpSYN)), Allowed)
	check("dns", theirDNS, Allowed)
	reply := func() {
		p.NoteOut(ip(us4, them4, protoTCP, tcp(22, 4000, tcpSYN|tcpACK)), sec)
		p.NoteOut(ip(us4, them4, protoTCP, tcp(22, 4000, tcpACK, 1, 2, 3)), sec)
		p.NoteOut(ip(us4, them4, protoUDP, udp(53, 4000)), sec)
		p.NoteOut(ip(us4, them4, protoTCP, tcp(5000, 80, tcpACK)), sec)
	}
	p.NoteOut(ip(us4, them4, protoTCP, tcp(5000, 80, tcpSYN)), sec)
	reply()
	check("ssh", theirSSH, Allowed)
	check("web", ourWeb, Reply)
	check("error about dns", dnsError, Reply)

	p.SetPorts(Compile(nil, &cert.Node{}, Terms{}))
	reply()
	check("ssh after deny", theirSSH, Denied)
	check("dns after deny", theirDNS, Denied)
	check("error about dns after deny", dnsError, Denied)
	check("web after deny", ourWeb, Reply)

	p.SetPorts(ssh)
	check("ssh allowed again", theirSSH, Allowed)
	if !p.HasOwnFlow(sec) || p.HasOwnFlow((tcpLife+2)*sec) {
		t.Error("Began does not follow the web flow")
	}
}

// A connection that left the table while the port is open to the peer counts as the
// peer's.
func TestForgottenFlowIsThePeers(t *testing.T) {
	p := newPeer(open("tcp", 22, 22))
	p.NoteOut(ip(us4, them4, protoTCP, tcp(22, 4000, tcpACK)), 0)
	p.SetPorts(nil)
	if got := p.CheckIn(ip(them4, us4, protoTCP, tcp(4000, 22, tcpACK)), 0); got != Denied {
		t.Errorf("%v, want denied", got)
	}
}

func TestFragments(t *testing.T) {
	body := make([]byte, 24)
	first4 := func(port uint16) []byte {
		return frag4(ip(them4, us4, protoUDP, with(udp(9, port, body...), 4, 0, 200)), 0, true, 77)
	}
	later4 := frag4(ip(them4, us4, protoUDP, body), 32, false, 77)
	first6 := ip(them6, us6, protoFragment, frag6(protoUDP, 0, true, 99, with(udp(9, 80, body...), 4, 0, 200)))
	later6 := ip(them6, us6, protoFragment, frag6(protoUDP, 32, false, 99, body))
	p := newPeer(open("udp", 80, 80))
	for i, step := range []struct {
		pkt  []byte
		at   int64
		want Verdict
	}{
		{later4, 0, NoFirst},
		{first4(81), 0, Denied},
		{later4, 0, NoFirst}, // a denied datagram stays denied
		{first4(80), 0, Allowed},
		{later4, 0, Allowed},
		{later6, 0, NoFirst},
		{first6, 0, Allowed},
		{later6, fragLife * sec, Allowed},
		{later6, (2*fragLife + 2) * sec, NoFirst},
	} {
		if got := p.CheckIn(step.pkt, step.at); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	// Answers may be fragmented too.
	q := newPeer()
	q.NoteOut(ip(us4, them4, protoUDP, udp(80, 9)), 0)
	if got := q.CheckIn(first4(81), 0); got != Denied {
		t.Errorf("fragmented answer to another port: %v", got)
	}
	q.NoteOut(ip(us4, them4, protoUDP, udp(80, 9)), 0)
	ans := frag4(ip(them4, us4, protoUDP, with(udp(9, 80, body...), 4, 0, 200)), 0, true, 5)
	if got := q.CheckIn(ans, 0); got != Reply {
		t.Errorf("fragmented answer: %v, want reply", got)
	}
}

// A flood of first fragments fills the table of its own peer only. Fragments soon after
// their first one still pass, and those of other peers all do.
func TestFragmentFlood(t *testing.T) {
	body := make([]byte, 24)
	first := func(id uint32) []byte {
		return ip(them6, us6, protoFragment, frag6(protoUDP, 0, true, id, with(udp(9, 80, body...), 4, 0, 200)))
	}
	p, other := newPeer(open("udp", 80, 80)), newPeer(open("udp", 80, 80))
	const datagrams, between = 10_000, 10
	lost := 0
	other.CheckIn(first(7), 0)
	for i := range uint32(datagrams) {
		now := int64(i) * sec / 1000
		if v := p.CheckIn(first(i), now); v != Allowed {
			t.Fatalf("first fragment: %v", v)
		}
		for j := range uint32(between) {
			p.CheckIn(first(1<<20+i*between+j), now)
		}
		if p.CheckIn(ip(them6, us6, protoFragment, frag6(protoUDP, 32, false, i, body)), now) != Allowed {
			lost++
		}
	}
	if v := other.CheckIn(ip(them6, us6, protoFragment, frag6(protoUDP, 32, false, 7, body)), fragLife*sec/2); v != Allowed {
		t.Errorf("another peer's fragment: %v", v)
	}
	if lost > datagrams/100 {
		t.Errorf("%d of %d datagrams were lost", lost, datagrams)
	}
	if n := unsafe.Sizeof(*p.frags.Load()); n > 256<<10 {
		t.Errorf("the table takes %d bytes", n)
	}
}

func TestCompileSources(t *testing.T) {
	alice := cert.Attributes{User: "alice", Groups: []string{"ops"}}
	sensor := cert.Attributes{User: "alice", Groups: []string{"ops"}, Tags: []string{"sensor"}}
	for _, tc := range []struct {
		from string
		a    cert.Attributes
		want bool
	}{
		{"*", alice, true}, {"*", sensor, true},
		{"user:alice", alice, true}, {"user:alice", sensor, false}, {"user:bob", alice, false}, {"user:", cert.Attributes{}, false},
		{"group:ops", alice, true}, {"group:ops", sensor, false}, {"group:dev", alice, false},
		{"tag:sensor", sensor, true}, {"tag:sensor", alice, false}, {"tag:", sensor, false},
		{"alice", alice, false}, {"", alice, false}, {"host:alice", alice, false}, {"**", alice, false},
	} {
		rule := api.Rule{From: []string{"user:nobody", tc.from}, Ports: []api.PortRange{{Proto: "tcp", First: 1, Last: 2}}}
		if got := Compile([]api.Rule{rule}, &cert.Node{Attributes: tc.a}, Terms{}).Any(); got != tc.want {
			t.Errorf("%q selects %+v: %v, want %v", tc.from, tc.a, got, tc.want)
		}
	}
	// After api.AESOnly it takes AES besides.
	for _, tc := range []struct {
		from      string
		with, not bool // AES
	}{{"aes:*", true, false}, {"aes:tag:sensor", true, false}, {"aes:tag:other", false, false}, {"aes:user:alice", false, false}, {"aes:", false, false}, {"aes:aes:*", false, false}} {
		rules := []api.Rule{{From: []string{tc.from}, Ports: []api.PortRange{{Proto: "tcp", First: 1, Last: 2}}}}
		with, not := Compile(rules, &cert.Node{Attributes: sensor}, Terms{AES: true}).Any(), Compile(rules, &cert.Node{Attributes: sensor}, Terms{}).Any()
		if with != tc.with || not != tc.not {
			t.Errorf("%q: with AES %v, without %v", tc.from, with, not)
		}
	}
	// After api.NotOverdue it takes that the node is not.
	for _, tc := range []struct {
		from              string
		a                 cert.Attributes
		aes, not, overdue bool // lets in one that is not overdue, one that is
	}{
		{"not-overdue:user:alice", alice, false, true, false}, {"not-overdue:user:bob", alice, false, false, false}, {"not-overdue:user:alice", sensor, false, false, false},
		{"aes:not-overdue:user:alice", alice, true, true, false}, {"aes:not-overdue:user:alice", alice, false, false, false},
		{"not-overdue:aes:user:alice", alice, true, false, false}, {"not-overdue:", alice, false, false, false}, {"not-overdue:not-overdue:user:alice", alice, false, false, false},
		{"user:alice", alice, false, true, true}, {"tag:sensor", sensor, false, true, true},
	} {
		rules := []api.Rule{{From: []string{tc.from}, Ports: []api.PortRange{{Proto: "tcp", First: 1, Last: 2}}}}
		not, overdue := Compile(rules, &cert.Node{Attributes: tc.a}, Terms{AES: tc.aes}).Any(), Compile(rules, &cert.Node{Attributes: tc.a}, Terms{AES: tc.aes, Overdue: true}).Any()
		if not != tc.not || overdue != tc.overdue {
			t.Errorf("%q: %v, overdue %v", tc.from, not, overdue)
		}
	}
	if (*Ports)(nil).Any() || Compile(nil, &cert.Node{}, Terms{}).Any() {
		t.Error("nil Ports are not empty")
	}
}

// Property: merged spans allow exactly the union of the ranges.
func TestPortsAreTheUnion(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var rules []api.Rule
		var want [65536]bool
		for range r.IntN(12) {
			first := uint16(r.IntN(65536))
			last := first + uint16(min(r.IntN(3000), 65535-int(first)))
			rules = append(rules, open("tcp", first, last))
			for p := int(first); p <= int(last); p++ {
				want[p] = true
			}
		}
		ports := Compile(rules, &cert.Node{}, Terms{})
		for p := range want {
			if got := ports.allows(protoTCP, uint16(p)); got != want[p] {
				t.Fatalf("port %d under %v: %v", p, rules, got)
			}
		}
	}
}

// Property: the place of a key is unique, so a table never confuses two flows.
func TestPlaceIsOneToOne(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	seen := make(map[uint64]uint64)
	for range 300_000 {
		key := r.Uint64() & keyMask
		if r.IntN(2) == 0 { // dense keys too
			key &= 0x1ffff
		}
		i, tag := place(key)
		if i < 0 || i >= numSets || uint32(tag) != 0 {
			t.Fatalf("place(%x) = %d, %x", key, i, tag)
		}
		at := uint64(i)<<32 | tag>>32
		if old, ok := seen[at]; ok && old != key {
			t.Fatalf("%x and %x share a place", old, key)
		}
		seen[at] = key
	}
}

// Property: the table agrees with a map while no set overflows, and never has more than
// MaxFlows entries.
func TestTableAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	model := make(map[uint64]int64) // second in which it ends
	var tab table
	now := int64(0)
	for range 50_000 {
		now += int64(r.IntN(2)) * sec / 4
		key := uint64(r.IntN(300)) // few enough never to fill a set
		life := uint32(shortLife)
		end, ok := model[key]
		alive := ok && end >= now/sec
		switch r.IntN(4) {
		case 0:
			tab.put(key, now, life)
			model[key] = now/sec + int64(life)
		case 1:
			if got := tab.renew(key, now, life, 0); got != alive {
				t.Fatalf("renew(%d) = %v, it ends at %d, now %d", key, got, end, now/sec)
			} else if got {
				model[key] = now/sec + int64(life)
			}
		case 2:
			if got := tab.look(key, now); got != alive {
				t.Fatalf("look(%d) = %v, it ends at %d, now %d", key, got, end, now/sec)
			}
		case 3:
			if r.IntN(8) == 0 {
				tab.forget(key)
				delete(model, key)
			}
		}
	}
}

func TestTableOverflowKeepsTheNewest(t *testing.T) {
	var tab table
	for i := range uint64(200_000) {
		now := int64(i/1000) * sec
		tab.put(i, now, shortLife)
		if !tab.look(i, now) {
			t.Fatalf("flow %d is gone at once", i)
		}
	}
}

func TestTableConcurrently(t *testing.T) {
	var tab table
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range uint64(20_000) {
				key := i % 512
				tab.put(key, sec, shortLife)
				tab.renew(key, sec, shortLife, 0)
				if g == 0 && i%16 == 0 {
					tab.forget(key)
				}
			}
		})
	}
	wg.Wait()
	for i := range tab.sets {
		s := tab.sets[i].Load()
		if s == nil {
			continue
		}
		tags := make(map[uint64]int)
		for j := range s {
			if e := s[j].Load(); e != 0 {
				tags[e>>32]++
			}
		}
		for tag, n := range tags {
			if n > 1 {
				t.Errorf("set %d holds tag %x %d times", i, tag, n)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	p := newPeer(open("tcp", 80, 80))
	in := ip(them4, us4, protoTCP, tcp(9, 80, tcpACK))
	in6 := ip(them6, us6, protoDestOpts, ext(protoTCP, 8, tcp(9, 80, tcpACK)))
	out := ip(us4, them4, protoUDP, udp(9, 80))
	icmp := ip(them4, us4, 1, icmpError(3, 3, out))
	bad := ip(us4, us4, protoTCP, tcp(9, 80, tcpACK))
	now := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += sec / 10
		p.CheckIn(in, now)
		p.CheckIn(in6, now)
		p.NoteOut(out, now)
		p.CheckIn(icmp, now)
		p.CheckIn(bad, now)
	}); n != 0 {
		t.Errorf("%v allocations per round", n)
	}
}

func BenchmarkCheckIn(b *testing.B) {
	p := newPeer(open("tcp", 80, 80))
	pkt := ip(them4, us4, protoTCP, tcp(9, 80, tcpACK))
	b.ReportAllocs()
	for b.Loop() {
		if !p.CheckIn(pkt, 0).OK() {
			b.Fatal("denied")
		}
	}
}

func BenchmarkCheckInReply(b *testing.B) {
	p := newPeer(open("tcp", 80, 80))
	p.NoteOut(ip(us4, them4, protoTCP, tcp(40000, 443, tcpSYN)), 0)
	pkt := ip(them4, us4, protoTCP, tcp(443, 40000, tcpACK))
	b.ReportAllocs()
	for b.Loop() {
		if p.CheckIn(pkt, 0) != Reply {
			b.Fatal("no reply")
		}
	}
}

func BenchmarkNoteOut(b *testing.B) {
	p := newPeer()
	p.NoteOut(ip(us6, them6, protoTCP, tcp(9, 80, tcpSYN)), 0)
	pkt := ip(us6, them6, protoTCP, tcp(9, 80, tcpACK))
	b.ReportAllocs()
	for b.Loop() {
		p.NoteOut(pkt, 0)
	}
}

// An answer of a service of ours to the peer.
func BenchmarkNoteOutAnswer(b *testing.B) {
	p := newPeer(open("tcp", 80, 80))
	p.CheckIn(ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN)), 0)
	pkt := ip(us4, them4, protoTCP, tcp(80, 9, tcpACK))
	b.ReportAllocs()
	for b.Loop() {
		p.NoteOut(pkt, 0)
	}
}

// FuzzCheckIn: a packet that passes without a rule answers something; one that passes at
// all is whole and has the right addresses; and CheckIn changes no byte.
func FuzzCheckIn(f *testing.F) {
	fixKeys(f)
	for _, b := range [][]byte{
		ip(them4, us4, protoTCP, tcp(9, 80, tcpSYN)),
		ip(them6, us6, protoUDP, udp(9, 53, 1, 2)),
		ip(them6, us6, protoHopByHop, ext(protoFragment, 8, frag6(protoUDP, 0, true, 9, udp(9, 53)))),
		ip(them4, us4, 1, icmpError(3, 3, ip(us4, them4, protoUDP, udp(5000, 53)))),
		frag4(ip(them4, us4, protoUDP, make([]byte, 16)), 64, true, 3),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		before := string(pkt)
		open, closed := newPeer(open("*", 0, 65535)), newPeer()
		v := open.CheckIn(pkt, 0)
		if closed.CheckIn(pkt, 0).OK() {
			t.Fatal("passed a filter without rules or flows")
		}
		open.NoteOut(pkt, 0)
		closed.NoteOut(pkt, 0)
		if v.OK() {
			if pkt[0]>>4 == 4 && (len(pkt) < 20 || netip.AddrFrom4([4]byte(pkt[12:])) != them4 || netip.AddrFrom4([4]byte(pkt[16:])) != us4) ||
				pkt[0]>>4 == 6 && (len(pkt) < 40 || netip.AddrFrom16([16]byte(pkt[8:])) != them6 || netip.AddrFrom16([16]byte(pkt[24:])) != us6) {
				t.Fatal("passed with other addresses")
			}
		}
		if string(pkt) != before {
			t.Fatal("packet was changed")
		}
	})
}
