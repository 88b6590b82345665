package dataplane

import (
	"net/netip"
	"testing"
)

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
