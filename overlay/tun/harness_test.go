package tun

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"weft/netstack/icmp"
	"weft/overlay"
)

var (
	_ overlay.Net = (*Net)(nil)
)

var (
	self4, peer4 = netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	self6, peer6 = netip.MustParseAddr("fd00:1:2::1"), netip.MustParseAddr("fd00:1:2::2")
)

// kernelPacket is a packet to or from a fakeDevice.
type kernelPacket struct {
	off offload
	pkt []byte
}

// fakeDevice plays the kernel.
type fakeDevice struct {
	out   chan kernelPacket
	woken chan struct{}

	mu  sync.Mutex
	in  []kernelPacket // written packets, guarded by mu
	err error
	mut bool // do not keep written packets
}

func newFakeDevice() *fakeDevice {
	return &fakeDevice{out: make(chan kernelPacket, 256), woken: make(chan struct{}, 1)}
}

func (d *fakeDevice) read(h *offload, buf, rest []byte, wait bool) (int, error) {
	var p kernelPacket
	if wait {
		select {
		case p = <-d.out:
		case <-d.woken:
			return 0, errWoken
		}
	} else {
		select {
		case p = <-d.out:
		default:
			return 0, errNothing
		}
	}
	*h = p.off
	k := copy(buf, p.pkt)
	return k + copy(rest, p.pkt[k:]), nil
}

func (d *fakeDevice) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

func (d *fakeDevice) write(w *vector) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mut {
		d.in = append(d.in, kernelPacket{w.off, bytes.Join(w.parts, nil)})
	}
	return d.err
}

func (d *fakeDevice) close() error { d.wake(); return nil }

func (d *fakeDevice) written() []kernelPacket {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.in
	d.in = nil
	return in
}

// fakeLink records the requested state.
type fakeLink struct {
	mu     sync.Mutex
	want   hostState
	report report
	err    error
}

func (l *fakeLink) apply(want hostState) (report, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = want
	return l.report, l.err
}

func (l *fakeLink) watch(ctx context.Context, changed func()) { <-ctx.Done() }
func (l *fakeLink) bind(uintptr) error                        { return nil }
func (l *fakeLink) clean()                                    {}

func newTestNet(t testing.TB, cfg Config) (*Net, *fakeDevice, *fakeLink) {
	t.Helper()
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	cfg.Name = "weft0"
	d, l := newFakeDevice(), &fakeLink{}
	n := newNet(cfg, d, l)
	t.Cleanup(func() { n.Close() })
	if err := n.SetAddrs(self4, self6); err != nil {
		t.Fatal(err)
	}
	return n, d, l
}

// tcp makes a TCP packet with checksums.
func tcp(from, to netip.Addr, sport, dport uint16, seq uint32, flags byte, options int, payload []byte) []byte {
	l4 := make([]byte, 20+options+len(payload))
	binary.BigEndian.PutUint16(l4[0:], sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	binary.BigEndian.PutUint32(l4[4:], seq)
	binary.BigEndian.PutUint32(l4[8:], 77)
	l4[12], l4[13] = byte(20+options)/4<<4, flags
	binary.BigEndian.PutUint16(l4[14:], 500)
	for i := range options {
		l4[20+i] = 1
	}
	copy(l4[20+options:], payload)
	return ip(from, to, protoTCP, 16, l4)
}

func udp(from, to netip.Addr, sport, dport uint16, payload []byte) []byte {
	l4 := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint16(l4[0:], sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	copy(l4[8:], payload)
	return ip(from, to, protoUDP, 6, l4)
}

func ip(from, to netip.Addr, proto uint8, sumAt int, l4 []byte) []byte {
	var b []byte
	if from.Is4() {
		b = make([]byte, 20, 20+len(l4))
		b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
		binary.BigEndian.PutUint16(b[4:], 9)
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^slowSum(b, 0))
	} else {
		b = make([]byte, 40, 40+len(l4))
		b[0], b[6], b[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(l4)))
		copy(b[8:], from.AsSlice())
		copy(b[24:], to.AsSlice())
	}
	binary.BigEndian.PutUint16(l4[sumAt:], 0)
	binary.BigEndian.PutUint16(l4[sumAt:], ^slowSum(l4, slowPseudo(b, proto, len(l4))))
	return append(b, l4...)
}

func slowPseudo(head []byte, proto uint8, length int) uint32 {
	addrs := head[12:20]
	if head[0]>>4 == 6 {
		addrs = head[8:40]
	}
	return uint32(slowSum(addrs, uint32(proto)+uint32(length)))
}

// slowSum is the checksum as defined in RFC 1071.
func slowSum(b []byte, acc uint32) uint16 {
	s := uint64(acc)
	for i, c := range b {
		if i%2 == 0 {
			s += uint64(c) << 8
		} else {
			s += uint64(c)
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// valid fails unless the packet's checksums and lengths are correct.
func valid(t testing.TB, pkt []byte) {
	t.Helper()
	proto, l4, _, ok := icmp.Transport(pkt)
	if !ok {
		t.Fatalf("no packet: %x", pkt[:min(len(pkt), 40)])
	}
	if pkt[0]>>4 == 4 {
		if binary.BigEndian.Uint16(pkt[2:]) != uint16(len(pkt)) || slowSum(pkt[:int(pkt[0]&15)*4], 0) != 0xffff {
			t.Errorf("IPv4 header of a packet of %d bytes: %x", len(pkt), pkt[:20])
		}
	} else if binary.BigEndian.Uint16(pkt[4:]) != uint16(len(pkt)-40) {
		t.Errorf("IPv6 header of a packet of %d bytes: %x", len(pkt), pkt[:40])
	}
	start := slowPseudo(pkt, proto, len(l4))
	if proto == protoICMP {
		start = 0
	}
	if slowSum(l4, start) != 0xffff {
		t.Errorf("checksum of protocol %d, %d bytes", proto, len(pkt))
	}
}

// partial turns a packet into what the kernel passes to an interface that completes
// checksums itself.
func partial(pkt []byte, segment int) kernelPacket {
	pkt = bytes.Clone(pkt)
	proto, l4, _, _ := icmp.Transport(pkt)
	at := 16
	if proto == protoUDP {
		at = 6
	}
	binary.BigEndian.PutUint16(l4[at:], slowSum(nil, slowPseudo(pkt, proto, len(l4))))
	return kernelPacket{offload{partial: true, start: len(pkt) - len(l4), offset: at, segment: segment, v6: pkt[0]>>4 == 6}, pkt}
}

func buffers(n int) ([][]byte, []int) {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	return bufs, make([]int, n)
}
