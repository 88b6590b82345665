package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// checkPacket verifies the lengths and all checksums of an unfragmented packet, as a
// peer's kernel would.
func checkPacket(pkt []byte) error {
	var src, dst []byte
	var proto uint8
	var l4 []byte
	switch pkt[0] >> 4 {
	case 4:
		ip := header.IPv4(pkt)
		if !ip.IsValid(len(pkt)) || int(ip.TotalLength()) != len(pkt) || !ip.IsChecksumValid() {
			return fmt.Errorf("bad IPv4 header % x", pkt[:20])
		}
		if ip.More() || ip.FragmentOffset() > 0 {
			return nil
		}
		src, dst, proto, l4 = pkt[12:16], pkt[16:20], pkt[9], pkt[ip.HeaderLength():]
	case 6:
		if !header.IPv6(pkt).IsValid(len(pkt)) || int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt)-40 {
			return fmt.Errorf("bad IPv6 header % x", pkt[:40])
		}
		src, dst, proto, l4 = pkt[8:24], pkt[24:40], pkt[6], pkt[40:]
		if proto == 44 {
			return nil
		}
	default:
		return fmt.Errorf("no IP packet: % x", pkt[:20])
	}
	var sum uint16
	if proto != protoICMPv4 {
		sum = checksum.Checksum(src, 0)
		sum = checksum.Checksum(dst, sum)
		sum = checksum.Checksum([]byte{0, proto, byte(len(l4) >> 8), byte(len(l4))}, sum)
	}
	if got := checksum.Checksum(l4, sum); got != 0xffff {
		return fmt.Errorf("protocol %d, %d bytes: checksum gives %#x", proto, len(pkt), got)
	}
	return nil
}

func TestLargeSegmentsHaveChecksums(t *testing.T) {
	for _, seg := range []int{1000, 20 << 10, DefaultMaxSegment} {
		families(t, func(t *testing.T, dst netip.Addr) {
			var largest atomic.Int64
			check := func(_ *Net, pkts [][]byte) [][]byte {
				for _, p := range pkts {
					if err := checkPacket(p); err != nil {
						t.Error(err)
					}
					largest.Store(max(largest.Load(), int64(len(p))))
				}
				return pkts
			}
			p := newPair(t, Config{MaxSegment: seg}, check, check)
			transfer(t, p, dst, 4<<20)
			if n := int(largest.Load()); n > seg+100 && n > DefaultMTU || n > 65535-48 || seg > DefaultMTU && n < seg/2 {
				t.Errorf("largest packet with MaxSegment %d: %d", seg, n)
			}
		})
	}
}

func TestOtherPacketsHaveChecksums(t *testing.T) {
	check := func(_ *Net, pkts [][]byte) [][]byte {
		for _, p := range pkts {
			if err := checkPacket(p); err != nil {
				t.Error(err)
			}
		}
		return pkts
	}
	p := newPair(t, Config{}, check, check)
	for _, dst := range []netip.Addr{addrB4, addrB6} {
		if _, err := p.a.Ping(within(t, 5e9), dst); err != nil {
			t.Error(err)
		}
		c, err := p.a.DialAddrPort(within(t, 5e9), "udp", netip.AddrPortFrom(dst, 9))
		if err != nil {
			t.Fatal(err)
		}
		c.Write(make([]byte, 1001))
		c.Read(make([]byte, 1)) // port unreachable
		c.Close()
		p.a.DialAddrPort(within(t, 5e9), "tcp", netip.AddrPortFrom(dst, 9)) // RST
	}
}

// tcpPacket makes a TCP segment from addrB4 or addrB6 to a.
func tcpPacket(v6 bool, sport, dport uint16, seq, ack uint32, flags uint8, payload []byte) []byte {
	t := make([]byte, 32, 32+len(payload))
	binary.BigEndian.PutUint16(t[0:], sport)
	binary.BigEndian.PutUint16(t[2:], dport)
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12] = 8 << 4
	t[13] = flags
	binary.BigEndian.PutUint16(t[14:], 1000)
	copy(t[20:], []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	t = append(t, payload...)
	return ipPacket(v6, protoTCP, t)
}

// ipPacket makes a packet from b to a and fills in the transport checksum for proto.
func ipPacket(v6 bool, proto uint8, l4 []byte) []byte {
	at := map[uint8]int{protoTCP: 16, protoUDP: 6, protoICMPv4: 2, protoICMPv6: 2}[proto]
	src, dst := addrB4.AsSlice(), addrA4.AsSlice()
	ip := make([]byte, 20)
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(l4)))
	ip[8], ip[9] = 64, proto
	if v6 {
		src, dst = addrB6.AsSlice(), addrA6.AsSlice()
		ip = make([]byte, 40)
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[4:], uint16(len(l4)))
		ip[6], ip[7] = proto, 64
		copy(ip[8:], src)
		copy(ip[24:], dst)
	} else {
		copy(ip[12:], src)
		copy(ip[16:], dst)
		binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
	}
	var sum uint16
	if proto != protoICMPv4 {
		sum = checksum.Checksum(append(append([]byte(nil), src...), dst...), 0)
		sum = checksum.Checksum([]byte{0, proto, byte(len(l4) >> 8), byte(len(l4))}, sum)
	}
	binary.BigEndian.PutUint16(l4[at:], 0)
	binary.BigEndian.PutUint16(l4[at:], ^checksum.Checksum(l4, sum))
	return append(ip, l4...)
}

func TestMerge(t *testing.T) {
	const ack, psh, fin = 0x10, 0x08, 0x01
	pay := func(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
	for _, v6 := range []bool{false, true} {
		seg := func(seq uint32, flags uint8, payload []byte) []byte {
			return tcpPacket(v6, 1, 2, seq, 77, flags, payload)
		}
		other := tcpPacket(v6, 3, 2, 200, 77, ack, pay(100, 9))
		frag := seg(100, ack, pay(100, 2))
		frag[6] |= 0x20
		for name, tc := range map[string]struct {
			pkts [][]byte
			run  int
		}{
			"one":           {[][]byte{seg(0, ack, pay(100, 1))}, 1},
			"three":         {[][]byte{seg(0, ack, pay(100, 1)), seg(100, ack, pay(100, 2)), seg(200, ack|psh, pay(50, 3))}, 3},
			"gap":           {[][]byte{seg(0, ack, pay(100, 1)), seg(101, ack, pay(100, 2))}, 1},
			"wrapped":       {[][]byte{seg(1<<32-100, ack, pay(100, 1)), seg(0, ack, pay(100, 2))}, 2},
			"FIN":           {[][]byte{seg(0, ack, pay(100, 1)), seg(100, ack|fin, pay(100, 2))}, 1},
			"empty":         {[][]byte{seg(0, ack, nil), seg(0, ack, nil)}, 1},
			"other flow":    {[][]byte{seg(0, ack, pay(200, 1)), other}, 1},
			"then other":    {[][]byte{seg(0, ack, pay(100, 1)), seg(100, ack, pay(100, 1)), other}, 2},
			"fragment":      {[][]byte{seg(0, ack, pay(100, 1)), frag}, 1},
			"too large":     {[][]byte{seg(0, ack, pay(40000, 1)), seg(40000, ack, pay(40000, 2))}, 1},
			"cut off":       {[][]byte{seg(0, ack, pay(100, 1)), seg(100, ack, pay(100, 2))[:90]}, 1},
			"header only":   {[][]byte{seg(0, ack, pay(100, 1)), seg(100, ack, pay(100, 2))[:20]}, 1},
			"not even that": {[][]byte{seg(0, ack, pay(100, 1)), {0x45}, {}}, 1},
		} {
			if v6 && name == "fragment" {
				continue
			}
			run, hdr, size := mergeRun(tc.pkts, 0)
			if run != tc.run {
				t.Errorf("%s: run of %d, want %d", name, run, tc.run)
				continue
			}
			if run < 2 {
				continue
			}
			got := make([]byte, hdr+size)
			merge(got[:hdr], got[hdr:], tc.pkts[:run], 0)
			s, ok := parseSegment(got)
			if !ok {
				t.Errorf("%s: merge made an invalid segment", name)
				continue
			}
			var want []byte
			var flags uint8
			for _, p := range tc.pkts[:run] {
				q, _ := parseSegment(p)
				want = append(want, p[q.ip+q.tcp:]...)
				flags |= p[q.ip+13]
			}
			if !bytes.Equal(got[s.ip+s.tcp:], want) || got[s.ip+13] != flags {
				t.Errorf("%s: wrong payload or flags", name)
			}
		}
	}
}

// A peer with a small MTU delivers runs of small segments in one batch. The stack must
// accept the merged segments.
func TestMergedSegmentsArrive(t *testing.T) {
	p := newPair(t, Config{MaxSegment: 1000}, nil, nil)
	transfer(t, p, addrB4, 8<<20)
}

func TestQueueIsFairAndBounded(t *testing.T) {
	q := newTxQueue()
	pkt := func() *stack.PacketBuffer { return stack.NewPacketBuffer(stack.PacketBufferOptions{}) }
	// A bulk flow fills the queue and then loses only its own packets.
	bulk := 0
	for range 2 * txPackets {
		p := pkt()
		if !q.push(p, 1, 60000) {
			p.DecRef()
			break
		}
		bulk++
	}
	if bulk != txBytes/60000 {
		t.Errorf("%d bulk packets in the queue, want %d", bulk, txBytes/60000)
	}
	small := pkt()
	if !q.push(small, 2, 100) {
		t.Fatal("the small flow cannot push")
	}
	// The small flow waits for one turn of the bulk flow, not for its whole queue.
	out := make([]*stack.PacketBuffer, 8)
	n, _ := q.pop(out)
	at := -1
	for i, p := range out[:n] {
		if p == small {
			at = i
		}
		p.DecRef()
	}
	if n != 8 || at < 0 || at > 2 {
		t.Errorf("the small flow's packet came as number %d of %d", at, n)
	}
	// All packets of one flow come out, in order.
	var order []*stack.PacketBuffer
	q = newTxQueue()
	for range 100 {
		p := pkt()
		order = append(order, p)
		q.push(p, 7, 5000)
	}
	for len(order) > 0 {
		n, _ := q.pop(out)
		for _, p := range out[:n] {
			if p != order[0] {
				t.Fatal("out of order")
			}
			order = order[1:]
			p.DecRef()
		}
	}
	if q.bytes != 0 || q.active != 0 || q.first != -1 || q.last != -1 {
		t.Errorf("an empty queue holds %d bytes in %d flows", q.bytes, q.active)
	}
	q.push(pkt(), 1, 1)
	q.close()
	q.close()
	if _, ok := q.pop(out); ok {
		t.Error("pop after close")
	}
	if q.push(pkt(), 1, 1) {
		t.Error("push after close")
	}
}

func TestAllocs(t *testing.T) {
	n := newNet(t, Config{}, addrA4, addrA6)
	const runs = 1000

	q := newTxQueue()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
	out := make([]*stack.PacketBuffer, 8)
	if got := testing.AllocsPerRun(runs, func() {
		q.push(pkt, 1, 100)
		q.pop(out)
	}); got != 0 {
		t.Errorf("queue: %v allocations per packet", got)
	}

	// Incoming: a segment without an endpoint (an RST is dropped silently) and a batch
	// that is merged.
	rst := [][]byte{tcpPacket(false, 1, 2, 3, 4, 0x04, nil)}
	if got := testing.AllocsPerRun(runs, func() { n.Write(rst, 0) }); got > 1 && scale == 1 { // under the race detector pools drop items on purpose
		t.Errorf("write: %v allocations per packet", got)
	}
	a, b := tcpPacket(true, 1, 2, 0, 4, 0x10, make([]byte, 1000)), tcpPacket(true, 1, 2, 1000, 4, 0x10, make([]byte, 1000))
	batch := [][]byte{a, b}
	dst := make([]byte, 4096)
	if got := testing.AllocsPerRun(runs, func() {
		if run, hdr, size := mergeRun(batch, 0); run == 2 {
			merge(dst[:hdr], dst[hdr:hdr+size], batch, 0)
		}
	}); got != 0 {
		t.Errorf("merge: %v allocations per run", got)
	}
}

// WakeRead ends the waiting Read, or else the next one, and loses no packet.
func TestWakeRead(t *testing.T) {
	n := newNet(t, Config{}, addrA4, addrA6)
	c, err := n.DialContext(within(t, 10*time.Second), "udp", netip.AddrPortFrom(addrB4, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	bufs, sizes := [][]byte{make([]byte, 2000)}, make([]int, 1)
	read := func(want int) {
		t.Helper()
		if got, err := n.Read(bufs, sizes, 0); got != want || err != nil {
			t.Fatalf("read %d packets, %v; want %d", got, err, want)
		}
	}
	c.Write([]byte("one"))
	n.WakeRead()
	n.WakeRead() // two calls before a Read count once
	read(0)
	read(1)
	woken := time.AfterFunc(10*time.Millisecond, n.WakeRead) // most likely during the Read
	defer woken.Stop()
	read(0)
}

func TestReadAfterClose(t *testing.T) {
	n := newNet(t, Config{}, addrA4, addrA6)
	errs := make(chan error)
	for range 3 {
		go func() {
			_, err := n.Read([][]byte{make([]byte, 2000)}, []int{0}, 0)
			errs <- err
		}()
	}
	n.Close()
	for range 3 {
		if err := <-errs; !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}
	if _, err := n.Write([][]byte{{1}}, 0); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, ok := <-n.Events(); !ok {
		t.Error("no up event")
	}
	if _, ok := <-n.Events(); ok {
		t.Error("events not closed")
	}
}

func FuzzWrite(f *testing.F) {
	f.Add(tcpPacket(false, 1, 2, 3, 4, 0x02, nil))
	f.Add(tcpPacket(true, 1, 2, 3, 4, 0x10, []byte("data")))
	f.Add(ipPacket(false, protoUDP, append([]byte{0, 1, 0, 2, 0, 9, 0, 0}, 'x')))
	f.Add(ipPacket(false, protoICMPv4, []byte{8, 0, 0, 0, 1, 2, 3, 4, 5}))
	f.Add(ipPacket(true, protoICMPv6, []byte{128, 0, 0, 0, 1, 2, 3, 4, 5}))
	f.Add(ipPacket(true, protoICMPv6, append([]byte{1, 1, 0, 0, 0, 0, 0, 0}, tcpPacket(true, 9, 8, 7, 6, 2, nil)...)))
	f.Add(ipPacket(false, protoICMPv4, append([]byte{3, 13, 0, 0, 0, 0, 0, 0}, tcpPacket(false, 9, 8, 7, 6, 2, nil)...)))
	f.Add([]byte{0x4f, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, pkt []byte) {
		n, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		n.SetAddrs(addrA4, addrA6)
		n.SetInbound(Inbound{
			TCP: func(src, dst netip.AddrPort) (string, bool) { return "127.0.0.1:1", true },
			UDP: func(src, dst netip.AddrPort) (string, bool) { return "127.0.0.1:1", true },
		})
		go func() {
			buf := [][]byte{make([]byte, 65535)}
			sizes := []int{0}
			for {
				if _, err := n.Read(buf, sizes, 0); err != nil {
					return
				}
			}
		}()
		n.Write([][]byte{pkt}, 0)
		n.Write([][]byte{pkt, pkt, append([]byte(nil), pkt...)}, 0)
		half := len(pkt) / 2
		n.Write([][]byte{pkt[:half], pkt[half:]}, min(half, 3))
	})
}
