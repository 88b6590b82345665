package icmp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// ip makes a packet whose IPv4 header has no checksum.
func ip(src, dst netip.Addr, proto uint8, l4 []byte) []byte {
	pkt, b := packet(src.AsSlice(), dst.AsSlice(), proto, len(l4))
	copy(b, l4)
	if src.Is4() {
		pkt[10], pkt[11] = 0, 0
	}
	return pkt
}

// answers are the possible answers to a packet.
func answers(pkt []byte, why Reason) (all [][]byte) {
	for _, answer := range [][]byte{Error(pkt, why, 0), Reset(pkt)} {
		if answer != nil {
			all = append(all, answer)
		}
	}
	return all
}

func segment(flags byte, seq, ack uint32, data int) []byte {
	b := make([]byte, 20+data)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 80)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	return b
}

// The whole answers to a SYN, byte by byte.
func TestAnswerBytes(t *testing.T) {
	src4, dst4 := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	src6, dst6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	syn := segment(tcpSYN, 0x01020304, 0, 0)
	for name, tc := range map[string]struct {
		pkt  []byte
		why  Reason
		want []string
	}{
		"IPv4, prohibited": {ip(src4, dst4, 6, syn), Prohibited, []string{
			"45000044 0000 0000 40 01 b236 64400002 64400001" + "03 0d bea7 00000000" +
				"45000028 0000 0000 40 06 0000 64400001 64400002" + "9c40 0050 01020304 00000000 5002 0000 0000 0000",
			"45000028 0000 0000 40 06 b24d 64400002 64400001" + "0050 9c40 00000000 01020305 5014 0000 46b6 0000",
		}},
		"IPv6, unreachable": {ip(src6, dst6, 6, syn), HostUnreachable, []string{
			"60000000 0044 3a 40 fd000000000000000000000000000002 fd000000000000000000000000000001" + "01 03 b387 00000000" +
				"60000000 0014 06 40 fd000000000000000000000000000001 fd000000000000000000000000000002" + "9c40 0050 01020304 00000000 5002 0000 0000 0000",
			"60000000 0014 06 40 fd000000000000000000000000000002 fd000000000000000000000000000001" + "0050 9c40 00000000 01020305 5014 0000 1535 0000",
		}},
	} {
		got := answers(tc.pkt, tc.why)
		if len(got) != len(tc.want) {
			t.Fatalf("%s: %d answers, want %d", name, len(got), len(tc.want))
		}
		for i := range got {
			want, err := hex.DecodeString(strings.ReplaceAll(tc.want[i], " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got[i], want) {
				t.Errorf("%s, answer %d:\n got %x\nwant %x", name, i, got[i], want)
			}
		}
	}
}

// Checksums and lengths are right for another implementation, for odd sizes too.
func TestAnswersAreValid(t *testing.T) {
	for _, pair := range [][2]string{{"100.64.0.1", "100.64.0.2"}, {"fd00::1", "fd00::2"}} {
		src, dst := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
		for _, data := range []int{0, 1, 2, 333, 1001, 60000} {
			for _, flags := range []byte{tcpSYN, tcpACK, tcpSYN | tcpFIN, 0} {
				pkt := ip(src, dst, 6, segment(flags, 0xfffffffe, 77, data))
				for _, why := range []Reason{HostUnreachable, Prohibited, PortUnreachable} {
					got := answers(pkt, why)
					if len(got) != 2 {
						t.Fatalf("%d answers", len(got))
					}
					icmp, rst := got[0], got[1]
					if src.Is4() {
						h, r := header.IPv4(icmp), header.IPv4(rst)
						if !h.IsValid(len(icmp)) || !h.IsChecksumValid() || !r.IsValid(len(rst)) || !r.IsChecksumValid() || len(icmp) > 576 {
							t.Fatal("bad IPv4 header")
						}
						if checksum.Checksum(h.Payload(), 0) != 0xffff {
							t.Fatal("bad ICMP checksum")
						}
						if c := header.ICMPv4(h.Payload()); c.Type() != header.ICMPv4DstUnreachable ||
							c.Code() != map[Reason]header.ICMPv4Code{HostUnreachable: header.ICMPv4HostUnreachable, Prohibited: header.ICMPv4AdminProhibited, PortUnreachable: header.ICMPv4PortUnreachable}[why] ||
							!bytes.HasPrefix(pkt, c.Payload()) {
							t.Fatal("bad ICMP")
						}
						checkReset(t, header.TCP(r.Payload()), r.SourceAddress(), r.DestinationAddress(), flags, data)
					} else {
						h, r := header.IPv6(icmp), header.IPv6(rst)
						if !h.IsValid(len(icmp)) || !r.IsValid(len(rst)) || len(icmp) > 1280 {
							t.Fatal("bad IPv6 header")
						}
						c := header.ICMPv6(h.Payload())
						if header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: c, Src: h.SourceAddress(), Dst: h.DestinationAddress()}) != c.Checksum() {
							t.Fatal("bad ICMPv6 checksum")
						}
						if c.Type() != header.ICMPv6DstUnreachable ||
							c.Code() != map[Reason]header.ICMPv6Code{HostUnreachable: header.ICMPv6AddressUnreachable, Prohibited: header.ICMPv6Prohibited, PortUnreachable: header.ICMPv6PortUnreachable}[why] ||
							!bytes.HasPrefix(pkt, c.Payload()) {
							t.Fatal("bad ICMPv6")
						}
						checkReset(t, header.TCP(r.Payload()), r.SourceAddress(), r.DestinationAddress(), flags, data)
					}
				}
			}
		}
	}
}

func checkReset(t *testing.T, h header.TCP, src, dst tcpip.Address, flags byte, data int) {
	t.Helper()
	if !h.IsChecksumValid(src, dst, 0, 0) || h.SourcePort() != 80 || h.DestinationPort() != 40000 {
		t.Fatal("bad reset")
	}
	want, seq, ack := header.TCPFlagRst, uint32(77), uint32(0)
	if flags&tcpACK == 0 {
		seq = 0
		ack = 0xfffffffe
		ack += uint32(data)
		for _, f := range []byte{tcpSYN, tcpFIN} {
			if flags&f != 0 {
				ack++
			}
		}
		want |= header.TCPFlagAck
	}
	if h.Flags() != want || h.SequenceNumber() != seq || h.AckNumber() != ack {
		t.Fatalf("reset for %x with %d bytes: flags %v, seq %x, ack %x", flags, data, h.Flags(), h.SequenceNumber(), h.AckNumber())
	}
}

func TestWhatIsNotAnswered(t *testing.T) {
	src, dst := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	src6, dst6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	later := ip(src, dst, 17, make([]byte, 16))
	later[7] = 9
	for name, tc := range map[string]struct {
		pkt  []byte
		want int
	}{
		"udp":                {ip(src, dst, 17, make([]byte, 9)), 1},
		"echo":               {ip(src, dst, 1, []byte{8, 0, 0, 0, 0, 0, 0, 0}), 1},
		"echo6":              {ip(src6, dst6, 58, []byte{128, 0, 0, 0, 0, 0, 0, 0}), 1},
		"echo reply":         {ip(src, dst, 1, make([]byte, 8)), 0},
		"error":              {ip(src, dst, 1, []byte{3, 1, 0, 0, 0, 0, 0, 0}), 0},
		"error6":             {ip(src6, dst6, 58, []byte{1, 3, 0, 0, 0, 0, 0, 0}), 0},
		"later fragment":     {later, 0},
		"later fragment6":    {ip(src6, dst6, 44, []byte{17, 0, 0, 8, 0, 0, 0, 1, 0, 0}), 0},
		"error in fragment6": {ip(src6, dst6, 44, []byte{58, 0, 0, 1, 0, 0, 0, 1, 1, 3, 0, 0, 0, 0, 0, 0}), 0},
		"first fragment6":    {ip(src6, dst6, 44, []byte{17, 0, 0, 1, 0, 0, 0, 1, 0, 0}), 1},
		"reset":              {ip(src, dst, 6, segment(tcpRST, 1, 2, 0)), 1},
		"cut tcp":            {ip(src, dst, 6, segment(tcpSYN, 1, 2, 0)[:12]), 1},
		"empty":              {nil, 0},
		"version 7":          {[]byte{0x70, 19: 0}, 0},
	} {
		if got := len(answers(tc.pkt, HostUnreachable)); got != tc.want {
			t.Errorf("%s: %d answers, want %d", name, got, tc.want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	src, dst := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	f.Add(ip(src, dst, 6, segment(tcpSYN, 1, 2, 3)))
	f.Add(ip(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 6, segment(tcpACK, 1, 2, 3)))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		for _, a := range answers(pkt, Prohibited) {
			if len(a) > 1280 || len(a) < 40 || a[0]>>4 != pkt[0]>>4 {
				t.Fatalf("answer %x to %x", a, pkt)
			}
		}
	})
}
