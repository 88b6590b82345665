package tun

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"weft/netstack/icmp"
)

func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestSum(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 8, 9, 63, 64, 65, 1419, 1420, 65535} {
		for _, b := range [][]byte{payload(n), bytes.Repeat([]byte{0xff}, n), make([]byte, n)} {
			var got, want [2]byte
			binary.NativeEndian.PutUint16(got[:], fold(sum(b, 0)))
			binary.BigEndian.PutUint16(want[:], slowSum(b, 0))
			if got != want {
				t.Errorf("%d bytes: %x, want %x", n, got, want)
			}
		}
	}
}

// A large TCP packet arrives whole, whatever the MTU, with its checksum.
func TestReadWhole(t *testing.T) {
	n, d, _ := newTestNet(t, Config{})
	bufs, sizes := buffers(4)
	for _, want := range [][]byte{
		tcp(self4, peer4, 1, 2, 100, tcpACK|tcpPSH, 12, payload(50000)),
		tcp(self6, peer6, 1, 2, 100, tcpACK, 12, payload(50001)),
		tcp(self4, peer4, 1, 2, 100, tcpSYN, 20, nil),
		udp(self4, peer4, 1, 2, payload(1000)),
		udp(self6, peer6, 1, 2, payload(1001)),
	} {
		segment := 0
		if len(want) > 1420 {
			segment = 1368
		}
		d.out <- partial(want, segment)
		k, err := n.Read(bufs, sizes, 16)
		if err != nil || k != 1 || !bytes.Equal(bufs[0][16:16+sizes[0]], want) {
			t.Fatalf("%d packets, %v; size %d, want %d", k, err, sizes[0], len(want))
		}
	}
}

// Where the path cannot carry it, it arrives in segments, even if there are more of
// them than buffers.
func TestReadCut(t *testing.T) {
	n, d, _ := newTestNet(t, Config{})
	limit := 1420
	n.SetLimit(func(pkt []byte) int { return limit })
	for _, c := range []struct {
		limit, bufs int
		from, to    netip.Addr
	}{{1420, 64, self4, peer4}, {1420, 3, self4, peer4}, {1280, 64, self6, peer6}, {9000, 2, self6, peer6}, {600, 64, self4, peer4}} {
		limit = c.limit
		data := payload(50001)
		whole := tcp(c.from, c.to, 5, 6, 1<<32-1000, tcpACK|tcpPSH|tcpFIN, 12, data)
		d.out <- partial(whole, 1368)
		if c.limit < 1420 { // the connection's own segment size is too large
			d.out <- partial(tcp(c.from, c.to, 5, 6, 50001-1000, tcpACK|tcpPSH|tcpFIN, 12, data[:1368]), 0)
			data = append(data, data[:1368]...)
		}
		d.out <- partial(udp(c.from, c.to, 1, 2, []byte("after")), 0)
		bufs, sizes := buffers(c.bufs)
		var got []byte
		for {
			k, err := n.Read(bufs, sizes, 16)
			if err != nil {
				t.Fatal(err)
			}
			done := false
			for i := range k {
				pkt := bufs[i][16 : 16+sizes[i]]
				valid(t, pkt)
				s, ok := shapeOf(pkt)
				if !ok {
					done = true
					continue
				}
				if len(pkt) > c.limit {
					t.Errorf("limit %d: packet of %d", c.limit, len(pkt))
				}
				if seq := binary.BigEndian.Uint32(pkt[s.ip+4:]); seq != uint32(len(got))-1000 {
					t.Errorf("sequence %d after %d bytes", seq, len(got))
				}
				got = append(got, pkt[s.head:]...)
				if last := len(got) == len(data) || len(got) == 50001; last != (pkt[s.ip+13]&(tcpPSH|tcpFIN) == tcpPSH|tcpFIN) {
					t.Errorf("flags %x after %d bytes", pkt[s.ip+13], len(got))
				}
			}
			if done {
				break
			}
		}
		if !bytes.Equal(got, data) {
			t.Errorf("limit %d: %d bytes, want %d", c.limit, len(got), len(data))
		}
	}
}

// A packet with a foreign source is dropped and counted.
func TestReadDropsForeignSource(t *testing.T) {
	n, d, _ := newTestNet(t, Config{})
	foreign := []netip.Addr{peer4, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("127.0.0.1"),
		netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255")}
	for _, from := range foreign {
		d.out <- kernelPacket{pkt: udp(from, peer4, 1, 2, []byte("x"))}
	}
	for _, from := range []netip.Addr{peer6, netip.MustParseAddr("::"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("::1")} {
		d.out <- kernelPacket{pkt: udp(from, peer6, 1, 2, []byte("x"))}
		foreign = append(foreign, from)
	}
	d.out <- kernelPacket{pkt: []byte{0x45}} // an invalid packet
	foreign = append(foreign, netip.Addr{})
	d.out <- kernelPacket{pkt: udp(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::2"), 1, 2, nil)}
	want := udp(self4, peer4, 1, 2, []byte("ours"))
	d.out <- kernelPacket{pkt: want}
	bufs, sizes := buffers(4)
	k, err := n.Read(bufs, sizes, 0)
	if err != nil || k != 1 || !bytes.Equal(bufs[0][:sizes[0]], want) {
		t.Fatalf("%d packets, %v", k, err)
	}
	if got := n.Stats().ForeignSource; got != uint64(len(foreign)) {
		t.Errorf("counted %d, want %d", got, len(foreign))
	}
}

func TestWakeRead(t *testing.T) {
	n, _, _ := newTestNet(t, Config{})
	bufs, sizes := buffers(1)
	go n.WakeRead()
	if k, err := n.Read(bufs, sizes, 0); k != 0 || err != nil {
		t.Errorf("%d, %v", k, err)
	}
}

// answer reads one packet that Net sends and returns the peer's answer.
func answer(n *Net, f func(pkt []byte) []byte) {
	bufs, sizes := buffers(1)
	for {
		k, err := n.Read(bufs, sizes, 0)
		if err != nil {
			return
		}
		if k > 0 {
			n.Write([][]byte{f(bytes.Clone(bufs[0][:sizes[0]]))}, 0)
			return
		}
	}
}

func TestPing(t *testing.T) {
	for _, to := range []netip.Addr{peer4, peer6} {
		n, d, _ := newTestNet(t, Config{})
		go answer(n, func(pkt []byte) []byte {
			valid(t, pkt)
			proto, msg, _, _ := icmp.Transport(pkt)
			msg[0] = 0
			self := self4
			if to.Is6() {
				msg[0], self = 129, self6
			}
			return ip(to, self, proto, 2, msg)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := n.Ping(ctx, to); err != nil {
			t.Error(err)
		}
		if in := d.written(); len(in) != 0 {
			t.Errorf("the kernel got the reply: %x", in[0].pkt)
		}
		go answer(n, func(pkt []byte) []byte {
			return icmp.Error(pkt, icmp.Prohibited, 0)
		})
		if _, err := n.Ping(ctx, to); !errors.Is(err, syscall.EACCES) {
			t.Errorf("prohibited: %v", err)
		}
		if in := d.written(); len(in) != 0 {
			t.Errorf("the kernel got the error: %x", in[0].pkt)
		}
	}
	n, _, _ := newTestNet(t, Config{})
	if rtt, err := n.Ping(t.Context(), self4); rtt != 0 || err != nil {
		t.Errorf("self: %v, %v", rtt, err)
	}
	n.Close()
	if _, err := n.Write(nil, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestReadMakesNoGarbage(t *testing.T) {
	n, d, _ := newTestNet(t, Config{})
	n.SetLimit(func(pkt []byte) int { return 1420 })
	p := partial(tcp(self4, peer4, 5, 6, 1, tcpACK, 12, payload(50001)), 1368)
	bufs, sizes := buffers(batchSize)
	if got := testing.AllocsPerRun(100, func() {
		d.out <- p
		if k, err := n.Read(bufs, sizes, 16); err != nil || k < 36 {
			t.Fatal(k, err)
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
