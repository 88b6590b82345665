package relayserver

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/overlay/mmsg"
	"weft/overlay/relay/lane"
)

// gsoSender sends datagrams as nodes do: consecutive ones of equal length in one call.
type gsoSender struct {
	t   testing.TB
	raw syscall.RawConn
	seg int
	n   int
	buf []byte
	end bool
	to  netip.AddrPort // for a socket that is not connected
}

func newGSOSender(t testing.TB, c *net.UDPConn) *gsoSender {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return &gsoSender{t: t, raw: raw}
}

func (s *gsoSender) add(d []byte) {
	if s.n > 0 && (s.end || len(d) > s.seg || s.n == maxSegments || len(s.buf)+len(d) > maxGather) {
		s.flush()
	}
	if s.n == 0 {
		s.seg = len(d)
	}
	s.end = len(d) < s.seg
	s.buf = append(s.buf, d...)
	s.n++
}

func (s *gsoSender) flush() {
	if s.n == 0 {
		return
	}
	ctl := make([]byte, mmsg.SegmentSpace)
	ctl = ctl[:mmsg.PutSegment(ctl, s.seg)]
	if s.n == 1 {
		ctl = nil
	}
	var sent error
	err := s.raw.Write(func(fd uintptr) bool {
		var to unix.Sockaddr
		if s.to.IsValid() {
			to = &unix.SockaddrInet4{Port: int(s.to.Port()), Addr: s.to.Addr().As4()}
		}
		sent = unix.Sendmsg(int(fd), s.buf, ctl, to, 0)
		return sent != unix.EAGAIN
	})
	if err != nil || sent != nil {
		s.t.Fatal(err, sent)
	}
	s.n, s.buf, s.end = 0, s.buf[:0], false
}

// Datagrams of many lanes and sizes, in one burst from few sockets, all arrive at the
// right node, unchanged and in order.
func TestLanesInOneBurst(t *testing.T) {
	w := newWorld(t, Config{})
	udp := serveUDP(t, w.relay, "udp4", "127.0.0.1:0")
	a := w.end("a", udp)
	var infos []lane.Info
	var ends []*laneEnd
	for i := range 4 {
		b := w.end(fmt.Sprint("b", i), udp)
		w.pair(a, b)
		infos, ends = append(infos, a.info), append(ends, b)
	}
	const each = 300
	want := make([][][]byte, len(ends))
	var sent uint64
	out := newGSOSender(t, a.udp)
	for i := range each {
		k := i / 3 % len(ends) // short runs of one lane
		if i > each/2 {
			k = i % len(ends)
		}
		size := 1200
		if i%7 == 0 {
			size = 100 + i
		}
		d := append(lane.AppendHeader(nil, infos[k].Send), packet(uint32(i), size)...)
		want[k] = append(want[k], d)
		out.add(d)
		sent += uint64(len(d))
		if i%50 == 49 {
			out.flush()
			for since := time.Now(); w.relay.Stats().LaneBytes < sent && time.Since(since) < patient; {
				time.Sleep(time.Millisecond / 10) // more than the buffers hold
			}
		}
	}
	var buf [2000]byte
	for k, e := range ends {
		e.udp.SetReadDeadline(time.Now().Add(patient))
		for i, d := range want[k] {
			n, err := e.udp.Read(buf[:])
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(buf[:n], d) {
				t.Fatalf("lane %d, datagram %d: %d bytes, want %d; or changed", k, i, n, len(d))
			}
		}
		e.udp.SetReadDeadline(time.Time{})
		e.nothing()
	}
}

// served returns a relay's loop with a lane between two sockets. The test calls its
// steps.
func served(t testing.TB) (u *udpLoop, relay netip.AddrPort, a, b *net.UDPConn, from *laneSide) {
	s := New(Config{})
	open := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := open()
	relay = c.LocalAddr().(*net.UDPAddr).AddrPort()
	sock, err := newUDPSocket(c)
	if err != nil {
		t.Fatal(err)
	}
	u = newUDPLoop(s, sock)
	x, _, _ := s.lanes.get(newClient(s, nil, id(1), false), newClient(s, nil, id(2), false), 1)
	t.Cleanup(s.lanes.stop)
	a, b = open(), open()
	b.SetReadBuffer(4 << 20)
	for side, conn := range map[*laneSide]*net.UDPConn{x: a, x.other: b} {
		// Bind as a datagram would, for the sake of its source information.
		conn.WriteToUDPAddrPort(lane.AppendControl(nil, lane.Bind, side.id, lane.Cookie{}, side.key), relay)
		if err := u.step(); err != nil {
			t.Fatal(err)
		}
		from := u.rx.name[0].AddrPort()
		if u.rx.n != 1 || from != conn.LocalAddr().(*net.UDPAddr).AddrPort() {
			t.Fatalf("%d messages from %v", u.rx.n, from)
		}
		side.at.Store(&binding{remote: from, sock: sock, wire: u.source(0)})
		var challenge [lane.ControlLen + 1]byte
		if n, _ := conn.Read(challenge[:]); n != lane.ControlLen {
			t.Fatalf("challenge of %d bytes", n)
		}
	}
	return u, relay, a, b, x
}

func TestForwardingMakesNoGarbage(t *testing.T) {
	u, relay, a, b, from := served(t)
	d := append(lane.AppendHeader(nil, from.id), make([]byte, 1200)...)
	junk := append(lane.AppendHeader(nil, lane.ID{1}), 1)
	var buf [2000]byte
	n := testing.AllocsPerRun(200, func() {
		a.WriteToUDPAddrPort(d, relay)
		u.step()
		b.ReadFromUDPAddrPort(buf[:])
		b.WriteToUDPAddrPort(junk, relay)
		u.step()
	})
	if n != 0 {
		t.Fatalf("%v allocations per datagram", n)
	}
}

// Where the kernel or the interface cannot segment, each datagram is sent by itself.
func TestWithoutGSO(t *testing.T) {
	for name, f := range map[string]func(u *udpLoop, to *binding, run []byte, seg int){
		"kernel": func(u *udpLoop, to *binding, run []byte, seg int) {
			u.sock.gso.Store(false)
			u.forward(to, run, seg)
			u.flush()
		},
		"interface": func(u *udpLoop, to *binding, run []byte, seg int) {
			u.forward(to, run, seg)
			u.prepare()
			u.single(0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			u, _, _, b, from := served(t)
			const seg, segs = 500, 150 // the last one shorter, and more than the kernel segments at once
			run := packet(1, seg*segs-100)
			if name == "interface" {
				run = run[:seg*50-100]
			}
			f(u, from.other.at.Load(), run, seg)
			b.SetReadDeadline(time.Now().Add(patient))
			var buf [2000]byte
			for len(run) > 0 {
				n, err := b.Read(buf[:])
				if want := min(seg, len(run)); err != nil || !bytes.Equal(buf[:n], run[:want]) {
					t.Fatalf("%d bytes, want %d, or changed; %v; %d are left", n, want, err, len(run))
				}
				run = run[n:]
			}
		})
	}
}

// Datagrams that were received one by one are sent in one call if they have one
// destination.
func TestGather(t *testing.T) {
	u, _, a, b, from := served(t)
	to, back := from.other.at.Load(), from.at.Load()
	p := func(n int) []byte { return packet(1, n) }
	for _, x := range []struct {
		to  *binding
		len int
	}{{to, 900}, {back, 100}, {to, 900}, {to, 900}, {back, 100}, {to, 300}, {to, 900}, {back, 200}} {
		u.forward(x.to, p(x.len), x.len)
	}
	var got []string
	for _, m := range u.tx.msg[:u.tx.n] {
		got = append(got, fmt.Sprintf("%v %dx%d=%d", m.to == to, m.segs, m.seg, m.bytes))
	}
	if want := "[true 4x900=3000 false 2x100=200 true 1x900=900 false 1x200=200]"; fmt.Sprint(got) != want {
		t.Fatalf("%v, want %s", got, want)
	}
	u.flush()
	for c, want := range map[*net.UDPConn][]int{b: {900, 900, 900, 300, 900}, a: {100, 100, 200}} {
		var buf [2000]byte
		c.SetReadDeadline(time.Now().Add(patient))
		for _, w := range want {
			if n, err := c.Read(buf[:]); err != nil || n != w {
				t.Fatalf("%d bytes, want %d; %v", n, w, err)
			}
		}
	}
}

// stepBlind is step without parsing what it forwards.
func (u *udpLoop) stepBlind(to *binding) error {
	if err := u.receive(); err != nil {
		return err
	}
	for i := range u.rx.n {
		b := u.rx.buf[i*maxUDP:][:u.rx.msg[i].Len()]
		seg := len(b)
		if n := u.rx.msg[i].Segment(); n > 0 {
			seg = n
		}
		u.forward(to, b, seg)
	}
	u.flush()
	return nil
}

// BenchmarkLane sends over loopback UDP: without a relay, through a forwarder that moves
// datagrams as this one does but does not parse them, and through a lane. gso: the sender
// gives the kernel 44 datagrams at once, as busy nodes do.
func BenchmarkLane(b *testing.B) {
	const size = 1452
	for _, how := range []string{"direct", "forwarder", "lane"} {
		for _, gso := range []int{1, 44} {
			b.Run(fmt.Sprintf("%s/gso=%d", how, gso), func(b *testing.B) {
				u, relay, from, to, side := served(b)
				self := relay
				end, ended := make(chan struct{}), make(chan struct{})
				step := u.step
				switch how {
				case "forwarder":
					step = func() error { return u.stepBlind(side.other.at.Load()) }
				case "direct":
					relay = to.LocalAddr().(*net.UDPAddr).AddrPort()
				}
				go func() {
					defer close(ended)
					for step() == nil {
						select {
						case <-end:
							return
						default:
						}
					}
				}()
				var got atomic.Int64
				more, late := make(chan struct{}, 1), time.NewTimer(0)
				received := make(chan struct{})
				sock, err := newUDPSocket(to) // large buffers, GRO
				if err != nil {
					b.Fatal(err)
				}
				go func() {
					defer close(received)
					rx := newUDPLoop(u.s, sock)
					for rx.receive() == nil {
						n := 0
						for i := range rx.rx.n {
							n += rx.rx.msg[i].Len()
						}
						got.Add(int64(n / size))
						select {
						case more <- struct{}{}:
						default:
						}
					}
				}()
				d := append(lane.AppendHeader(nil, side.id), make([]byte, size-lane.HeaderLen)...)
				out := newGSOSender(b, from)
				out.to = relay
				b.SetBytes(size)
				b.ReportAllocs()
				start := cpu()
				b.ResetTimer()
				var lost int64
				for i := range int64(b.N) {
					if out.add(d); i%int64(gso) == int64(gso)-1 {
						out.flush()
						// Keep as many in flight as the buffers hold.
						for i-got.Load()-lost > 1500 {
							late.Reset(time.Second)
							select {
							case <-more:
							case <-late.C:
								lost = i - got.Load()
							}
						}
					}
				}
				b.StopTimer()
				b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(lost), "lost")
				out.flush()
				close(end)
				from.WriteToUDPAddrPort([]byte{0}, self)
				<-ended
				to.SetReadDeadline(time.Unix(1, 0))
				<-received
			})
		}
	}
}
