package icmp

import (
	"bytes"
	"net/netip"
	"syscall"
	"testing"
)

var (
	self4, peer4 = netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	self6, peer6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

var families = map[string]struct {
	self, peer                 netip.Addr
	icmp, reply, echo, unreach byte
	head                       int // length of the IP header
}{
	"IPv4": {self4, peer4, protoICMPv4, echoReply4, echo4, unreachable4, 20},
	"IPv6": {self6, peer6, protoICMPv6, echoReply6, echo6, unreachable6, 40},
}

// fragment turns a packet into a first fragment, or a later one.
func fragment(pkt []byte, later bool) []byte {
	pkt = bytes.Clone(pkt)
	if pkt[0]>>4 == 4 {
		pkt[6] = 0x20
		if later {
			pkt[7] = 1
		}
		return pkt
	}
	head := []byte{pkt[6], 0, 0, 1, 0, 0, 0, 9}
	if later {
		head[3] |= 8
	}
	pkt[6] = protoFragment
	return append(append(pkt[:40:40], head...), pkt[40:]...)
}

func TestParse(t *testing.T) {
	for family, f := range families {
		message := func(typ, code byte, rest ...byte) []byte {
			return ip(f.peer, f.self, f.icmp, append([]byte{typ, code, 0, 0}, rest...))
		}
		about := func(quoted []byte) []byte {
			return message(f.unreach, 1, append(make([]byte, 4), quoted...)...)
		}
		reply := message(f.reply, 0, 1, 2, 3, 4, 'd', 'a', 't', 'a')
		udp := ip(f.self, f.peer, 17, []byte{0, 1, 0, 2, 0, 8, 0, 0})
		echo := ip(f.self, f.peer, f.icmp, []byte{f.echo, 0, 0, 0, 1, 2, 3, 4, 'd', 'a', 't', 'a'})
		const no = -1
		for name, tc := range map[string]struct {
			pkt []byte
			l4  int // where the transport header is, or no
		}{
			"reply":                         {reply, f.head},
			"reply without payload":         {reply[:f.head+8], f.head},
			"reply, short":                  {reply[:f.head+7], no},
			"reply, first fragment":         {fragment(reply, false), len(fragment(reply, false)) - 12},
			"reply, later fragment":         {fragment(reply, true), no},
			"echo request":                  {message(f.echo, 0, 1, 2, 3, 4), no},
			"another message":               {message(200, 0, 1, 2, 3, 4), no},
			"no ICMP":                       {ip(f.peer, f.self, 17, reply[f.head:]), no},
			"ICMP of the other family":      {ip(f.peer, f.self, protoICMPv4+protoICMPv6-f.icmp, reply[f.head:]), no},
			"about UDP":                     {about(udp), 2*f.head + 8},
			"about UDP, first fragment":     {about(fragment(udp, false)), f.head + 8 + len(fragment(udp, false)) - 8},
			"about UDP, later fragment":     {about(fragment(udp, true)), no},
			"about UDP, short":              {about(udp[:len(udp)-1]), no},
			"about UDP, in a fragment":      {fragment(about(udp), true), no},
			"about an echo":                 {about(echo), 2*f.head + 8},
			"about the start of an echo":    {about(echo[:f.head+8]), 2*f.head + 8},
			"about an echo, short":          {about(echo[:f.head+7]), no},
			"about an echo, later fragment": {about(fragment(echo, true)), no},
			"about a reply":                 {about(ip(f.self, f.peer, f.icmp, reply[f.head:])), no},
			"about nothing":                 {about(nil), no},
			"about no packet":               {about(make([]byte, 60)), no},
			"unknown code":                  {message(f.unreach, 99, append(make([]byte, 4), udp...)...), no},
		} {
			m, ok := Parse(tc.pkt)
			if !ok || tc.l4 == no {
				if ok != (tc.l4 != no) {
					t.Errorf("%s, %s: %v", family, name, ok)
				}
				continue
			}
			if m.Local != f.self || m.Remote != f.peer || &m.L4[0] != &tc.pkt[tc.l4] {
				t.Errorf("%s, %s: %+v", family, name, m)
			}
			if (m.Err == 0) != (m.ICMP[0] == f.reply) {
				t.Errorf("%s, %s: error %v", family, name, m.Err)
			}
		}
	}

	// An error of one family about a packet of the other.
	if m, ok := Parse(ip(peer4, self4, protoICMPv4, append([]byte{unreachable4, 1, 6: 0, 7: 0}, request(self6, key{remote: peer6}, nil)...))); ok {
		t.Errorf("IPv6 quoted by IPv4: %+v", m)
	}
	// A quoted header with options, and one with an impossible length.
	quoted := append(append([]byte{0x46, 9: 17, 19: 2}, 1, 1, 1, 0), 0, 1, 0, 2, 0, 8, 0, 0)
	for ihl, want := range map[byte]bool{4: false, 5: true, 6: true, 7: false} {
		quoted[0] = 0x40 | ihl
		m, ok := Parse(ip(peer4, self4, protoICMPv4, append([]byte{unreachable4, 1, 7: 0}, quoted...)))
		if ok != want || ihl == 6 && m.L4[1] != 1 {
			t.Errorf("quoted header of %d words: %v, %+v", ihl, ok, m)
		}
	}
}

func TestErrnos(t *testing.T) {
	const net, host, port, denied = syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ECONNREFUSED, syscall.EACCES
	for family, want := range map[string][]syscall.Errno{
		"IPv4": {net, host, port, port, 0, host, net, host, host, denied, denied, net, host, denied, host, host, 0},
		"IPv6": {net, denied, host, host, port, denied, denied, 0},
	} {
		f := families[family]
		for code, err := range want {
			msg := append([]byte{f.unreach, byte(code), 7: 0}, request(f.self, key{remote: f.peer}, nil)...)
			if m, ok := Parse(ip(f.peer, f.self, f.icmp, msg)); ok != (err != 0) || m.Err != err {
				t.Errorf("%s, code %d: %v, want %v", family, code, m.Err, err)
			}
		}
	}
}

// No packet causes a failure, and what Error says Parse understands.
func FuzzParse(f *testing.F) {
	for _, fam := range families {
		echo := request(fam.self, key{fam.peer, 1, 2}, []byte("data"))
		f.Add(echo)
		f.Add(Error(echo, Prohibited, 0))
		f.Add(fragment(Error(fragment(echo, false), PortUnreachable, 0), false))
		f.Add(ip(fam.peer, fam.self, fam.icmp, []byte{fam.reply, 0, 0, 0, 0, 1, 0, 2, 'd'}))
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		var p Pings
		p.waiting.Store(1)
		if p.Take(pkt) {
			t.Fatal("taken, without a ping")
		}
		if m, ok := Parse(pkt); ok && (len(m.L4) < 8 || len(m.ICMP) < 8 || !m.Local.IsValid() || !m.Remote.IsValid() || m.Local.Is4() != (pkt[0]>>4 == 4)) {
			t.Fatalf("%+v of %x", m, pkt)
		}
		proto, l4, later, _ := Transport(pkt)
		if e := Error(pkt, HostUnreachable, 0); e != nil && len(l4) >= 8 && len(pkt) < maxError4/2 {
			src, dst := ends(pkt)
			m, ok := Parse(e)
			if !ok || later || m.Err != syscall.EHOSTUNREACH || m.Local != src || m.Remote != dst || m.Proto != proto || !bytes.Equal(m.L4, l4) {
				t.Fatalf("%+v, %v of the error about %x", m, ok, pkt)
			}
		}
	})
}
