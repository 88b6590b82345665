package tun

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"weft/netstack/icmp"
)

// cut makes segments of a TCP payload, as they arrive from a peer.
func cut(from, to netip.Addr, sport uint16, seq uint32, flags byte, data []byte, size int) (pkts [][]byte) {
	for i := 0; i < len(data); i += size {
		f := byte(tcpACK)
		end := min(i+size, len(data))
		if end == len(data) {
			f = flags
		}
		pkts = append(pkts, tcp(from, to, sport, 80, seq+uint32(i), f, 12, data[i:end]))
	}
	return pkts
}

// whole gives a merged packet the checksum that the kernel does not verify.
func whole(t testing.TB, p kernelPacket) []byte {
	t.Helper()
	pkt := bytes.Clone(p.pkt)
	if p.off.partial && !complete(pkt, p.off.start, p.off.offset) {
		t.Fatal("the offsets are wrong")
	}
	valid(t, pkt)
	return pkt
}

func TestWriteMerges(t *testing.T) {
	for _, f := range []struct{ self, peer netip.Addr }{{self4, peer4}, {self6, peer6}} {
		n, d, _ := newTestNet(t, Config{})
		data, other := payload(20*1368+100), payload(3*1368)
		a := cut(f.peer, f.self, 1000, 1<<32-5000, tcpACK|tcpPSH, data, 1368)
		b := cut(f.peer, f.self, 2000, 7, tcpACK, other, 1368)
		var pkts [][]byte // two flows and a datagram, mixed
		for i, p := range a {
			pkts = append(pkts, p)
			if i < len(b) {
				pkts = append(pkts, b[i])
			}
			if i == 2 {
				pkts = append(pkts, udp(f.peer, f.self, 1, 2, []byte("datagram")))
			}
		}
		var bufs [][]byte
		for _, p := range pkts {
			bufs = append(bufs, append(make([]byte, 16), p...))
		}
		if k, err := n.Write(bufs, 16); k != len(bufs) || err != nil {
			t.Fatal(k, err)
		}
		in := d.written()
		if len(in) != 3 {
			t.Fatalf("%d packets, want 3", len(in))
		}
		for i, want := range [][]byte{nil, data, other} {
			pkt := whole(t, in[i])
			if want == nil {
				if in[i].off != (offload{}) {
					t.Error("the datagram has an offload")
				}
				continue
			}
			s, _ := shapeOf(pkt)
			if !bytes.Equal(pkt[s.head:], want) || in[i].off.segment != 1368 || in[i].off.v6 != f.self.Is6() {
				t.Errorf("flow %d: %d bytes, want %d; %+v", i, len(pkt)-s.head, len(want), in[i].off)
			}
			if psh := pkt[s.ip+13]&tcpPSH != 0; psh != (i == 1) {
				t.Errorf("flow %d: PSH %v", i, psh)
			}
		}
	}
}

// A segment that does not continue the run exactly is not merged, and the order within
// a flow is kept.
func TestWriteKeepsApart(t *testing.T) {
	base := func(seq uint32, flags byte, size int) []byte {
		return tcp(peer4, self4, 1000, 80, seq, flags, 12, bytes.Repeat([]byte{byte(seq)}, size))
	}
	change := func(p []byte, f func([]byte)) []byte { f(p); return p }
	for name, c := range map[string]struct {
		pkts [][]byte
		want int
	}{
		"follows":        {[][]byte{base(0, tcpACK, 100), base(100, tcpACK, 100)}, 1},
		"gap":            {[][]byte{base(0, tcpACK, 100), base(101, tcpACK, 100)}, 2},
		"twice":          {[][]byte{base(0, tcpACK, 100), base(0, tcpACK, 100)}, 2},
		"longer":         {[][]byte{base(0, tcpACK, 100), base(100, tcpACK, 101)}, 2},
		"after shorter":  {[][]byte{base(0, tcpACK, 100), base(100, tcpACK, 50), base(150, tcpACK, 50)}, 2},
		"after PSH":      {[][]byte{base(0, tcpACK|tcpPSH, 100), base(100, tcpACK, 100)}, 2},
		"FIN":            {[][]byte{base(0, tcpACK, 100), base(100, tcpACK|tcpFIN, 100)}, 2},
		"URG":            {[][]byte{base(0, tcpACK|32, 100), base(100, tcpACK|32, 100)}, 2},
		"SYN":            {[][]byte{base(0, tcpSYN, 100), base(100, tcpACK, 100)}, 2},
		"pure ACKs":      {[][]byte{base(0, tcpACK, 0), base(0, tcpACK, 0)}, 2},
		"ACK then data":  {[][]byte{base(0, tcpACK, 0), base(0, tcpACK, 10)}, 2},
		"acknowledgment": {[][]byte{base(0, tcpACK, 100), change(base(100, tcpACK, 100), func(p []byte) { p[31]++ })}, 2},
		"window":         {[][]byte{base(0, tcpACK, 100), change(base(100, tcpACK, 100), func(p []byte) { p[35]++ })}, 2},
		"options":        {[][]byte{base(0, tcpACK, 100), change(base(100, tcpACK, 100), func(p []byte) { p[45]++ })}, 2},
		"TTL":            {[][]byte{base(0, tcpACK, 100), change(base(100, tcpACK, 100), func(p []byte) { p[8]-- })}, 2},
		"ECN":            {[][]byte{base(0, tcpACK, 100), change(base(100, tcpACK, 100), func(p []byte) { p[1] = 3 })}, 2},
		"fragment":       {[][]byte{base(0, tcpACK, 100), change(base(100, tcpACK, 100), func(p []byte) { p[6] = 0x20 })}, 2},
		"too long":       {[][]byte{base(0, tcpACK, 40000), base(40000, tcpACK, 40000)}, 2},
	} {
		n, d, _ := newTestNet(t, Config{})
		want := make([]byte, 0, 1<<17)
		for _, p := range c.pkts {
			want = append(want, p[52:]...)
		}
		if _, err := n.Write(c.pkts, 0); err != nil {
			t.Fatal(err)
		}
		in := d.written()
		if len(in) != c.want {
			t.Errorf("%s: %d packets, want %d", name, len(in), c.want)
		}
		var got []byte
		for _, p := range in {
			got = append(got, p.pkt[52:]...)
		}
		if name != "fragment" && !bytes.Equal(got, want) {
			t.Errorf("%s: the order is lost", name)
		}
	}
}

// A packet that its sender did not segment is passed on as segments of the MTU.
func TestWriteWhole(t *testing.T) {
	n, d, _ := newTestNet(t, Config{})
	pkt := tcp(peer4, self4, 1, 2, 3, tcpACK, 12, payload(50000))
	want := bytes.Clone(pkt)
	n.Write([][]byte{pkt}, 0)
	in := d.written()
	if len(in) != 1 || !bytes.Equal(whole(t, in[0]), want) || in[0].off.segment != 1420-52 {
		t.Errorf("%d packets, %+v", len(in), in[0].off)
	}
}

func TestWriteMakesNoGarbage(t *testing.T) {
	n, d, _ := newTestNet(t, Config{})
	d.mut = true
	pkts := cut(peer4, self4, 1000, 0, tcpACK, payload(40*1368), 1368)
	head := bytes.Clone(pkts[0][:20])
	if got := testing.AllocsPerRun(100, func() {
		copy(pkts[0], head)
		pkts[0][33] = tcpACK
		n.Write(pkts, 0)
	}); got != 0 && !raceEnabled { // under the race detector a sync.Pool drops items at random
		t.Errorf("%v allocations", got)
	}
	if got := n.Stats().NotTaken; got != 0 {
		t.Errorf("%d not taken", got)
	}
}

// No input from a peer or from the kernel causes a failure.
func FuzzPackets(f *testing.F) {
	f.Add(tcp(peer4, self4, 1, 2, 3, tcpACK, 12, []byte("hello")), tcp(peer4, self4, 1, 2, 8, tcpACK, 12, []byte("world")), uint16(20), uint16(16), uint16(2))
	f.Add(tcp(peer6, self6, 1, 2, 3, tcpSYN, 0, nil), udp(peer6, self6, 1, 2, nil), uint16(40), uint16(6), uint16(0))
	f.Add(icmp.Error(udp(self4, peer4, 1, 2, []byte("x")), icmp.PortUnreachable, 0), []byte{0x60}, uint16(65535), uint16(65535), uint16(1))
	n, d, _ := newTestNet(f, Config{Inbound: Inbound{Limited: true, Ports: []uint16{80}}})
	n.SetLimit(func([]byte) int { return 60 })
	bufs, sizes := buffers(8)
	ctx, cancel := context.WithCancel(f.Context())
	var wg sync.WaitGroup
	f.Cleanup(wg.Wait)
	f.Cleanup(cancel)
	wg.Go(func() { n.Ping(ctx, peer4) }) // so that Write inspects what may be replies
	for k := 0; k == 0; {
		k, _ = n.Read(bufs, sizes, 16)
	}
	f.Fuzz(func(t *testing.T, a, b []byte, start, offset, segment uint16) {
		if len(a) > 60000 || len(b) > 60000 {
			return
		}
		n.Write([][]byte{bytes.Clone(a), bytes.Clone(b)}, 0)
		for _, p := range d.written() {
			if p.off.partial {
				whole(t, p)
			}
		}
		d.out <- kernelPacket{offload{partial: segment&1 != 0, start: int(start), offset: int(offset), segment: int(segment)}, a}
		d.out <- kernelPacket{pkt: udp(self4, peer4, 1, 2, nil)}
		for seen := false; !seen; {
			k, err := n.Read(bufs, sizes, 16)
			if err != nil {
				t.Fatal(err)
			}
			for i := range k {
				seen = seen || bytes.Equal(bufs[i][16:16+sizes[i]], udp(self4, peer4, 1, 2, nil))
			}
		}
	})
}

func TestGate(t *testing.T) {
	n, d, _ := newTestNet(t, Config{Inbound: Inbound{Limited: true, Ports: []uint16{22}, Maps: map[uint16]string{}}})
	in := func(pkt []byte) bool {
		n.Write([][]byte{pkt}, 0)
		return len(d.written()) == 1
	}
	bufs, sizes := buffers(4)
	out := func(pkt []byte) {
		d.out <- kernelPacket{pkt: pkt}
		for k := 0; k == 0; { // an earlier wake may still be pending
			k, _ = n.Read(bufs, sizes, 0)
		}
	}
	for _, f := range []struct{ self, peer netip.Addr }{{self4, peer4}, {self6, peer6}} {
		for _, c := range []struct {
			name string
			pkt  []byte
			want bool
		}{
			{"SYN to an open port", tcp(f.peer, f.self, 1, 22, 0, tcpSYN, 0, nil), true},
			{"SYN to a closed port", tcp(f.peer, f.self, 1, 80, 0, tcpSYN, 0, nil), false},
			{"SYN-ACK", tcp(f.peer, f.self, 22, 3000, 0, tcpSYN|tcpACK, 0, nil), true},
			{"ACK", tcp(f.peer, f.self, 22, 3000, 0, tcpACK, 0, nil), true},
			{"UDP to an open port", udp(f.peer, f.self, 1, 22, nil), true},
			{"UDP to a closed port", udp(f.peer, f.self, 1, 53, nil), false},
			{"another protocol", ip(f.peer, f.self, 132, 0, make([]byte, 20)), false},
		} {
			if got := in(c.pkt); got != c.want {
				t.Errorf("%s, %v: %v", c.name, f.self, got)
			}
		}
		// The refusals wait for Read.
		n.WakeRead()
		k, _ := n.Read(bufs, sizes, 0)
		if k != 2 {
			t.Fatalf("%d refusals, want 2", k)
		}
		for i := range k {
			valid(t, bufs[i][:sizes[i]])
		}
		out(udp(f.self, f.peer, 5353, 53, nil))
		if !in(udp(f.peer, f.self, 53, 5353, nil)) {
			t.Error("an answer is refused")
		}
	}
	if got := n.Stats().Closed; got != 6 {
		t.Errorf("counted %d", got)
	}
	// The answer has the correct sequence numbers.
	rst := icmp.Reset(tcp(peer4, self4, 1234, 80, 99, tcpSYN, 0, nil))
	if binary.BigEndian.Uint16(rst[22:]) != 1234 || binary.BigEndian.Uint32(rst[28:]) != 100 {
		t.Errorf("reset %x", rst)
	}
}
