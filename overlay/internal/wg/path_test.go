package wg

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
)

// direct gives n a direct path to m, and verifies it at m.
func (n *node) direct(m *node, limit int) {
	n.t.Helper()
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	to := bind.Path{Kind: bind.Direct, Addr: netip.AddrPortFrom(loopback, m.bind.Port())}
	from := bind.Path{Kind: bind.Direct, Addr: netip.AddrPortFrom(loopback, n.bind.Port())}
	if !m.bind.Verify(m.bind.Find(n.id), from) {
		n.t.Fatal("not verified")
	}
	if err := n.bind.Find(m.id).SetPath(to, limit); err != nil {
		n.t.Fatal(err)
	}
}

func udpWire() *wire {
	w := newWire()
	w.listen = bind.Listen
	return w
}

// Traffic moves from the relay to UDP and back without losing a packet.
func TestPathChangesUnderTraffic(t *testing.T) {
	w := udpWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	a.introduce(b, 1)
	a.ping(b, 1)
	var relayed atomic.Int64
	w.lose(func(cert.NodeID, cert.NodeID, []byte) bool { relayed.Add(1); return false })
	const rounds, each = 40, 50
	for round := range rounds {
		if round%2 == 0 {
			a.direct(b, 1472)
		} else {
			a.bind.Find(b.id).SetPath(bind.Path{}, 0)
		}
		before := relayed.Load()
		seen := map[uint32]bool{}
		for i := range each {
			a.net.Out <- a.udp(b, uint32(round*each+i))
		}
		for range each {
			seen[number(b.recv())] = true
		}
		for i := range each {
			if !seen[uint32(round*each+i)] {
				t.Fatalf("round %d: packet %d is missing", round, i)
			}
		}
		if by := relayed.Load() - before; round%2 == 0 && by != 0 || round%2 == 1 && by < each {
			t.Errorf("round %d: %d messages by the relay", round, by)
		}
	}
}

// A tunnel may start on UDP: the handshake uses the selected path, too.
func TestHandshakeByUDP(t *testing.T) {
	w := udpWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	w.lose(func(cert.NodeID, cert.NodeID, []byte) bool { return true })
	endpoint(a.bind, b.id, b.v4)
	endpoint(b.bind, a.id, a.v4)
	a.direct(b, 1280)
	b.direct(a, 1280)
	a.introduce(b, 1)
	a.ping(b, 1)
	b.ping(a, 2)
}

// The limit follows the path of the packet's peer. A longer packet goes through the
// relay, and after a while is answered with "packet too big".
func TestLongPackets(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(t *testing.T) {
			t.Parallel()
			testLongPackets(t, v6)
		})
	}
}

func testLongPackets(t *testing.T, v6 bool) {
	const settles = 3 * time.Second // how long a path is the same before "packet too big" is sent
	w := udpWire()
	a, b := newNode(t, w, 1), newNode(t, w, 2)
	s := a.net
	a.introduce(b, 1)
	a.ping(b, 1)
	short, foreign := a.udp(b, 1), udpPacket(a.v4, netip.MustParseAddr("100.64.0.9"), 1)
	if s.Limit(short) != 0 || s.Limit(foreign) != 0 || s.Limit([]byte{1}) != 0 {
		t.Error("a limit without a UDP path")
	}
	begun := time.Now()
	a.direct(b, 1332)
	if n := s.Limit(short); n != 1296 || s.Limit(foreign) != 0 { // 1280 and 16 more
		t.Errorf("limit %d", n)
	}
	var relayed atomic.Int64
	w.lose(func(cert.NodeID, cert.NodeID, []byte) bool { relayed.Add(1); return false })
	src, dst := a.v4, b.v4
	if v6 {
		src, dst = a.v6, b.v6
	}
	long := ipPacket(src, dst, 17, make([]byte, 1350))
	udp := long[len(long)-1350:]
	udp[1], udp[3] = 7, 9
	binary.BigEndian.PutUint16(udp[4:], 1350)
	if !v6 {
		long[6] = 0x40
	}
	waitFor(t, "packet too big", func() bool {
		before := relayed.Load()
		a.net.Out <- long
		if got := b.recv(); len(got) != len(long) || relayed.Load() == before {
			t.Fatalf("%d bytes, %d by the relay", len(got), relayed.Load())
		}
		select {
		case icmp := <-a.net.In:
			checkTooBig(t, icmp, long, 1296)
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	// Not again so soon.
	a.net.Out <- long
	b.recv()
	a.silent(50 * time.Millisecond)
	if took := time.Since(begun); took < settles {
		t.Errorf("answered after %v", took)
	}
}

func checkTooBig(t *testing.T, icmp, about []byte, mtu int) {
	t.Helper()
	if icmp[0]>>4 == 4 {
		ip := header.IPv4(icmp)
		body := header.ICMPv4(ip.Payload())
		if !ip.IsValid(len(icmp)) || !ip.IsChecksumValid() || checksum.Checksum(body, 0) != 0xffff ||
			body.Type() != header.ICMPv4DstUnreachable || body.Code() != header.ICMPv4FragmentationNeeded || int(body.MTU()) != mtu {
			t.Errorf("bad answer % x", icmp[:40])
		}
		if string(body[8:]) != string(about[:len(body)-8]) || string(icmp[12:16]) != string(about[16:20]) || string(icmp[16:20]) != string(about[12:16]) {
			t.Error("quotes wrongly")
		}
		return
	}
	ip := header.IPv6(icmp)
	body := header.ICMPv6(ip.Payload())
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, tcpip.AddrFrom16([16]byte(icmp[8:24])), tcpip.AddrFrom16([16]byte(icmp[24:40])), uint16(len(body)))
	if !ip.IsValid(len(icmp)) || checksum.Checksum(body, sum) != 0xffff || body.Type() != header.ICMPv6PacketTooBig || int(body.MTU()) != mtu {
		t.Errorf("bad answer % x", icmp[:56])
	}
	if string(body[8:]) != string(about[:len(body)-8]) {
		t.Error("quotes wrongly")
	}
}
