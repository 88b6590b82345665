package dataplane

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

func segment(flags byte, seq, ack uint32, data int) []byte {
	b := make([]byte, 20+data)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 80)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	return b
}

// The whole answer to a SYN, byte by byte.
func TestRefusalBytes(t *testing.T) {
	src4, dst4 := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	src6, dst6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	syn := segment(tcpSYN, 0x01020304, 0, 0)
	for name, tc := range map[string]struct {
		pkt    []byte
		reason Reason
		want   []string
	}{
		"IPv4, prohibited": {ipPacket(src4, dst4, 6, syn), Prohibited, []string{
			"45000044 0000 0000 40 01 b236 64400002 64400001" + "03 0d bea7 00000000" +
				"45000028 0000 0000 40 06 0000 64400001 64400002" + "9c40 0050 01020304 00000000 5002 0000 0000 0000",
			"45000028 0000 0000 40 06 b24d 64400002 64400001" + "0050 9c40 00000000 01020305 5014 0000 46b6 0000",
		}},
		"IPv6, unreachable": {ipPacket(src6, dst6, 6, syn), Unreachable, []string{
			"60000000 0044 3a 40 fd000000000000000000000000000002 fd000000000000000000000000000001" + "01 03 b387 00000000" +
				"60000000 0014 06 40 fd000000000000000000000000000001 fd000000000000000000000000000002" + "9c40 0050 01020304 00000000 5002 0000 0000 0000",
			"60000000 0014 06 40 fd000000000000000000000000000002 fd000000000000000000000000000001" + "0050 9c40 00000000 01020305 5014 0000 1535 0000",
		}},
	} {
		got := refusals(tc.pkt, tc.reason)
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
func TestRefusalsAreValid(t *testing.T) {
	for _, pair := range [][2]string{{"100.64.0.1", "100.64.0.2"}, {"fd00::1", "fd00::2"}} {
		src, dst := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
		for _, data := range []int{0, 1, 2, 333, 1001, 60000} {
			for _, flags := range []byte{tcpSYN, tcpACK, tcpSYN | tcpFIN, 0} {
				pkt := ipPacket(src, dst, 6, segment(flags, 0xfffffffe, 77, data))
				for _, reason := range []Reason{Unreachable, Prohibited} {
					answers := refusals(pkt, reason)
					if len(answers) != 2 {
						t.Fatalf("%d answers", len(answers))
					}
					icmp, rst := answers[0], answers[1]
					if src.Is4() {
						h, r := header.IPv4(icmp), header.IPv4(rst)
						if !h.IsValid(len(icmp)) || !h.IsChecksumValid() || !r.IsValid(len(rst)) || !r.IsChecksumValid() || len(icmp) > 576 {
							t.Fatal("bad IPv4 header")
						}
						if checksum.Checksum(h.Payload(), 0) != 0xffff {
							t.Fatal("bad ICMP checksum")
						}
						if c := header.ICMPv4(h.Payload()); c.Type() != header.ICMPv4DstUnreachable ||
							c.Code() != map[Reason]header.ICMPv4Code{Unreachable: header.ICMPv4HostUnreachable, Prohibited: header.ICMPv4AdminProhibited}[reason] ||
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
							c.Code() != map[Reason]header.ICMPv6Code{Unreachable: header.ICMPv6AddressUnreachable, Prohibited: header.ICMPv6Prohibited}[reason] ||
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

func TestWhatIsNotRefused(t *testing.T) {
	src, dst := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	src6, dst6 := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	later := ipPacket(src, dst, 17, make([]byte, 16))
	later[7] = 9
	for name, tc := range map[string]struct {
		pkt  []byte
		want int
	}{
		"udp":             {udpPacket(src, dst, 1), 1},
		"echo":            {ipPacket(src, dst, 1, []byte{8, 0, 0, 0, 0, 0, 0, 0}), 1},
		"echo6":           {ipPacket(src6, dst6, 58, []byte{128, 0, 0, 0, 0, 0, 0, 0}), 1},
		"echo reply":      {ipPacket(src, dst, 1, make([]byte, 8)), 0},
		"error":           {ipPacket(src, dst, 1, []byte{3, 1, 0, 0, 0, 0, 0, 0}), 0},
		"error6":          {ipPacket(src6, dst6, 58, []byte{1, 3, 0, 0, 0, 0, 0, 0}), 0},
		"later fragment":  {later, 0},
		"later fragment6": {ipPacket(src6, dst6, 44, []byte{17, 0, 0, 8, 0, 0, 0, 1, 0, 0}), 0},
		"first fragment6": {ipPacket(src6, dst6, 44, []byte{17, 0, 0, 1, 0, 0, 0, 1, 0, 0}), 1},
		"reset":           {ipPacket(src, dst, 6, segment(tcpRST, 1, 2, 0)), 1},
		"cut tcp":         {ipPacket(src, dst, 6, segment(tcpSYN, 1, 2, 0)[:12]), 1},
		"empty":           {nil, 0},
		"version 7":       {[]byte{0x70, 19: 0}, 0},
	} {
		if got := len(refusals(tc.pkt, Unreachable)); got != tc.want {
			t.Errorf("%s: %d answers, want %d", name, got, tc.want)
		}
	}
}

func FuzzRefusals(f *testing.F) {
	src, dst := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	f.Add(ipPacket(src, dst, 6, segment(tcpSYN, 1, 2, 3)))
	f.Add(ipPacket(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 6, segment(tcpACK, 1, 2, 3)))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		for _, a := range refusals(pkt, Prohibited) {
			if len(a) > 1280 || len(a) < 40 || a[0]>>4 != pkt[0]>>4 {
				t.Fatalf("answer %x to %x", a, pkt)
			}
		}
	})
}

func TestWhatIsNotTooBig(t *testing.T) {
	v4, v6 := ipPacket(netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2"), 17, make([]byte, 1400)), ipPacket(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 17, make([]byte, 1400))
	may := append([]byte(nil), v4...)
	v4[6] = 0x40
	icmp := append([]byte(nil), v4...)
	icmp[9] = 1
	icmp6 := append([]byte(nil), v6...)
	icmp6[6] = 58
	for name, pkt := range map[string][]byte{
		"may be fragmented": may, "ICMP": icmp, "ICMPv6": icmp6, "nothing": nil, "cut": v4[:19], "cut IPv6": v6[:1280],
		"bad length": append([]byte{0x4f}, v4[1:30]...),
	} {
		if packetTooBig(pkt, 1280) != nil {
			t.Errorf("%s: answered", name)
		}
	}
	if packetTooBig(v6, 1200) != nil {
		t.Error("IPv6 told of a link that it may not have")
	}
	if packetTooBig(v4, 1200) == nil || packetTooBig(v6, 1280) == nil {
		t.Error("not answered")
	}
}

func FuzzPacketTooBig(f *testing.F) {
	f.Add(ipPacket(netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2"), 17, make([]byte, 1400)), 1280)
	f.Add(ipPacket(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 17, make([]byte, 1400)), 1280)
	f.Fuzz(func(t *testing.T, pkt []byte, mtu int) {
		if len(pkt) <= MaxPacket {
			packetTooBig(pkt, mtu&0xffff)
		}
	})
}
