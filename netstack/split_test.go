package netstack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// With a limit, every TCP packet is valid and at most as long as the limit, and the
// data arrives. The limit changes during the transfer.
func TestLimit(t *testing.T) {
	families(t, func(t *testing.T, dst netip.Addr) {
		var limit, largest, small atomic.Int64
		limit.Store(1300)
		check := func(_ *Net, pkts [][]byte) [][]byte {
			for _, p := range pkts {
				if err := checkPacket(p); err != nil {
					t.Error(err)
				}
				largest.Store(max(largest.Load(), int64(len(p))))
				if n := int64(len(p)); n == limit.Load() {
					small.Add(1)
				}
			}
			return pkts
		}
		p := newPair(t, Config{}, check, check)
		asked := func(pkt []byte) int {
			if protocolOfPacket(pkt) == 0 || transportOf(pkt) != protoTCP {
				t.Errorf("limit was called with % x", pkt)
			}
			return int(limit.Load())
		}
		p.a.SetLimit(asked)
		p.b.SetLimit(asked)
		transfer(t, p, dst, 2<<20)
		if largest.Load() > 1300 || small.Load() < 500 {
			t.Errorf("largest packet %d, %d of the limit's size", largest.Load(), small.Load())
		}
		limit.Store(1425)
		transfer(t, p, dst, 2<<20)
		if largest.Load() != 1425 {
			t.Errorf("largest packet %d", largest.Load())
		}
		limit.Store(0)
		transfer(t, p, dst, 2<<20)
		if largest.Load() < 10<<10 {
			t.Errorf("largest packet without limit %d", largest.Load())
		}
	})
}

// packetBuffer makes a packet as the stack hands it down: headers, then payload in
// views of odd sizes.
func packetBuffer(pkt []byte, headers int, viewSizes ...int) *stack.PacketBuffer {
	var payload buffer.Buffer
	rest := pkt[headers:]
	for i := 0; len(rest) > 0; i++ {
		n := min(viewSizes[i%len(viewSizes)], len(rest))
		payload.Append(buffer.NewViewWithData(rest[:n]))
		rest = rest[n:]
	}
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: payload, ReserveHeaderBytes: headers})
	copy(pb.TransportHeader().Push(headers), pkt[:headers])
	pb.TransportProtocolNumber = header.TCPProtocolNumber
	return pb
}

func TestSplitHeaders(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		payload := make([]byte, 10_001)
		rand.Read(payload)
		whole := tcpPacket(v6, 1, 2, 0xfffffff0, 7, uint8(header.TCPFlagAck|header.TCPFlagPsh|header.TCPFlagFin), payload)
		start := 52
		if v6 {
			start = 72
		} else {
			binary.BigEndian.PutUint16(whole[4:], 0xfffe) // the identification wraps around, too
		}
		for _, views := range [][]int{{20_000}, {1}, {999, 1, 5000}} {
			pb := packetBuffer(whole, start, views...)
			var s split
			if s.begin(pb, len(whole), func([]byte) int { return len(whole) }) {
				t.Error("split although it fits")
			}
			if !s.begin(pb, len(whole), func([]byte) int { return 1200 }) {
				t.Fatal("not split")
			}
			var got []byte
			for i, done := 0, false; !done; i++ {
				var n int
				out := bytes.Repeat([]byte{0xee}, 1300)
				n, done = s.next(out)
				seg := out[:n]
				if n > 1200 || !done && n != 1200 {
					t.Fatalf("segment of %d bytes", n)
				}
				if err := checkPacket(seg); err != nil {
					t.Fatal(err)
				}
				if !v6 && binary.BigEndian.Uint16(seg[4:]) != uint16(0xfffe+i) {
					t.Errorf("identification %d", binary.BigEndian.Uint16(seg[4:]))
				}
				tcp := seg[start-32:]
				if seq := binary.BigEndian.Uint32(tcp[4:]); seq != 0xfffffff0+uint32(len(got)) {
					t.Errorf("sequence %d at %d", seq, len(got))
				}
				want := uint8(header.TCPFlagAck)
				if done {
					want |= uint8(header.TCPFlagPsh | header.TCPFlagFin)
				}
				if tcp[13] != want || !bytes.Equal(tcp[20:32], whole[start-12:start]) {
					t.Errorf("flags %#x, options % x", tcp[13], tcp[20:32])
				}
				got = append(got, seg[start:]...)
			}
			if !bytes.Equal(got, payload) {
				t.Error("payload differs")
			}
			pb.DecRef()
		}
	}
}

// Reading with few buffers keeps the order and loses nothing.
func TestLeftovers(t *testing.T) {
	l := newLink(1420, DefaultMaxSegment)
	limit := func([]byte) int { return 1000 }
	l.limit.Store(&limit)
	var want []byte
	seq := uint32(0)
	for i := range 6 {
		payload := make([]byte, []int{50_000, 100, 3000}[i%3])
		rand.Read(payload)
		pkt := tcpPacket(false, 1, 2, seq, 7, uint8(header.TCPFlagAck), payload)
		l.tx.push(packetBuffer(pkt, 52, 4096), 1, len(pkt))
		want = append(want, payload...)
		seq += uint32(len(payload))
	}
	var got []byte
	for len(got) < len(want) {
		bufs, sizes := make([][]byte, 7), make([]int, 7)
		for i := range bufs {
			bufs[i] = make([]byte, 1016)
		}
		n, err := l.read(bufs, sizes, 16)
		if err != nil || n == 0 {
			t.Fatalf("%d, %v", n, err)
		}
		for i := range n {
			pkt := bufs[i][16 : 16+sizes[i]]
			if err := checkPacket(pkt); err != nil {
				t.Fatal(err)
			}
			if s := binary.BigEndian.Uint32(pkt[24:]); int(s) != len(got) {
				t.Fatalf("sequence %d, want %d", s, len(got))
			}
			got = append(got, pkt[52:]...)
		}
	}
	if !bytes.Equal(got, want) || l.rest.waiting.Load() != 0 {
		t.Error("not what was sent")
	}
}

func BenchmarkSplit(b *testing.B) {
	payload := make([]byte, 60<<10)
	pkt := tcpPacket(false, 1, 2, 1, 7, uint8(header.TCPFlagAck), payload)
	pb := packetBuffer(pkt, 52, 65536)
	out := make([]byte, 1420)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		var s split
		s.begin(pb, len(pkt), func([]byte) int { return 1420 })
		for done := false; !done; {
			_, done = s.next(out)
		}
	}
}
