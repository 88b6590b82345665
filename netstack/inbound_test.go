package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft/netstack/loopback"
)

// toLocal is an Inbound that forwards everything to target.
func toLocal(target string) Inbound {
	f := func(src, dst netip.AddrPort) (string, bool) {
		return target, true
	}
	return Inbound{TCP: f, UDP: f}
}

// localServer runs handle for each connection to a listener of this machine.
func localServer(t testing.TB, addr string, handle func(*net.TCPConn)) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	return l.(*net.TCPListener)
}

func echoTCP(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

func TestInboundTCP(t *testing.T) {
	checkGoroutines(t)
	var sources sync.Map
	l := localServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
		sources.Store(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), true)
		echoTCP(c)
	})
	p := newPair(t, Config{}, nil, nil)
	p.b.SetInbound(toLocal(l.Addr().String()))
	families(t, func(t *testing.T, dst netip.Addr) {
		c, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(dst, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		msg := bytes.Repeat([]byte("0123456789abcdef"), 100<<20/16/scale)
		go func() {
			c.Write(msg)
			c.(*TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c) // ends when the half-close came back
		if err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
		if runtime.GOOS == "linux" {
			want := loopback.Source(c.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
			if _, ok := sources.Load(want); !ok {
				t.Errorf("no connection from %s", want)
			}
		}
	})
}

// A program that listens on ::1 only would take a peer for a local program. A peer
// reaches it only if the target is [::1], and its owner gets a warning.
func TestInboundLoopback6(t *testing.T) {
	l := localServer(t, "[::1]:0", echoTCP)
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	localUDP(t, fmt.Sprintf("[::1]:%d", port), func(b []byte, _ netip.AddrPort) []byte { return b })
	p := newPair(t, Config{}, nil, nil)
	dial := func(network string) error {
		c, err := p.a.DialAddrPort(within(t, 5*time.Second), network, netip.AddrPortFrom(addrB4, port))
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write([]byte("x"))
		_, err = c.Read(make([]byte, 1))
		return err
	}
	for _, network := range []string{"tcp", "udp"} {
		reported := make(chan bool, 10)
		for _, target := range []string{"", fmt.Sprintf("localhost:%d", port)} {
			in := toLocal(target)
			in.Watch = &loopback.Watch{Report: func(p, target uint16, only6 bool) { reported <- p == port && only6 }}
			p.b.SetInbound(in)
			if err := dial(network); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s to %q: %v", network, target, err)
			}
			if runtime.GOOS == "linux" && !<-reported {
				t.Errorf("%s to %q: the report is wrong", network, target)
			}
		}
		p.b.SetInbound(toLocal(l.Addr().String()))
		if err := dial(network); err != nil {
			t.Errorf("%s to [::1]: %v", network, err)
		}
	}
}

func TestInboundOwnAddress(t *testing.T) {
	l := localServer(t, "127.0.0.1:0", echoTCP)
	n := newNet(t, Config{}, addrA4, addrA6)
	n.SetInbound(toLocal(l.Addr().String()))
	for _, own := range []netip.Addr{addrA4, addrA6} {
		c, err := n.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(own, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
}

func TestInboundRefused(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	closed, _ := net.Listen("tcp", "127.0.0.1:0")
	closed.Close()
	for name, in := range map[string]Inbound{
		"nothing listens": toLocal(closed.Addr().String()),
		"policy": {
			TCP: func(src, dst netip.AddrPort) (string, bool) { return "", false },
			UDP: func(src, dst netip.AddrPort) (string, bool) { return "", false },
		},
		"no policy":     {},
		"broken target": toLocal("no target"),
	} {
		t.Run(name, func(t *testing.T) {
			p.b.SetInbound(in)
			families(t, func(t *testing.T, dst netip.Addr) {
				start := time.Now()
				_, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(dst, 80))
				if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > time.Second {
					t.Errorf("tcp: %v after %v", err, time.Since(start))
				}
				c, err := p.a.DialAddrPort(within(t, 5*time.Second), "udp", netip.AddrPortFrom(dst, 80))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(5 * time.Second))
				c.Write([]byte("x"))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("udp: %v", err)
				}
			})
		})
	}
	waitFor(t, func() bool { return p.b.tcpIn.open.count() == 0 && p.b.tcpIn.opening.count() == 0 })
}

// A reset of one side reaches the other as a reset. The last data of a program that
// closes without reading reaches the peer.
func TestInboundReset(t *testing.T) {
	got := make(chan error, 1)
	l := localServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
		b := make([]byte, 1)
		c.Read(b)
		switch b[0] {
		case 'r': // the program resets
			c.SetLinger(0)
		case 'w': // the peer resets
			_, err := c.Read(b)
			got <- err
		case 'l': // the program answers without reading the rest
			c.Write([]byte("last words"))
		}
	})
	p := newPair(t, Config{}, nil, nil)
	p.b.SetInbound(toLocal(l.Addr().String()))
	dial := func() *TCPConn {
		c, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(addrB4, 80))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		t.Cleanup(func() { c.Close() })
		return c.(*TCPConn)
	}
	c := dial()
	c.Write([]byte("r"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the program's reset: %v", err)
	}
	c = dial()
	c.Write([]byte("w"))
	time.Sleep(10 * time.Millisecond) // let the byte through before the reset can overtake it
	c.SetLinger(0)
	c.Close()
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the peer's reset: %v", err)
	}
	c = dial()
	c.Write([]byte("l"))
	c.Write(make([]byte, 1<<20))
	if b, _ := io.ReadAll(c); string(b) != "last words" {
		t.Errorf("got %q", b)
	}
}

// One peer floods with SYNs; other peers still connect quickly.
func TestSYNFlood(t *testing.T) {
	l := localServer(t, "127.0.0.1:0", echoTCP)
	p := newPair(t, Config{}, nil, nil)
	p.b.SetInbound(toLocal(l.Addr().String()))
	stop := make(chan struct{})
	var flood sync.WaitGroup
	var sent atomic.Int64
	flood.Go(func() {
		pkt := tcpPacket(false, 0, 80, 1, 0, 2, nil)
		attacker := netip.MustParseAddr("100.64.0.66")
		copy(pkt[12:], attacker.AsSlice())
		copy(pkt[16:], addrB4.AsSlice())
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			for range 20 { // 20,000 a second
				i++
				binary.BigEndian.PutUint16(pkt[20:], uint16(i))
				binary.BigEndian.PutUint16(pkt[22:], uint16(80+i>>16))
				p.b.Write([][]byte{pkt}, 0)
				sent.Add(1)
			}
		}
	})
	var took []time.Duration
	for range 100 {
		time.Sleep(5 * time.Millisecond)
		start := time.Now()
		c, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(addrB4, 80))
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
		c.Close()
	}
	close(stop)
	flood.Wait()
	slices.Sort(took)
	if p99 := took[98]; p99 > 500*time.Millisecond {
		t.Errorf("p99 of connecting: %v", p99)
	}
	in := &p.b.tcpIn
	if half := in.opening.count(); half > maxOpening*2/3 {
		t.Errorf("one peer holds %d of %d", half, maxOpening)
	}
	if in.dropped.Load() == 0 {
		t.Error("nothing was dropped")
	}
	t.Logf("%d SYNs, %d dropped, connect p50 %v p99 %v", sent.Load(), in.dropped.Load(), took[50], took[98])
}

func TestInboundTCPBound(t *testing.T) {
	l := localServer(t, "127.0.0.1:0", echoTCP)
	p := newPair(t, Config{MaxInbound: 9}, nil, nil)
	p.b.SetInbound(toLocal(l.Addr().String()))
	dial := func() (net.Conn, error) {
		return p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(addrB4, 80))
	}
	var open []net.Conn
	for range 3 {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("beyond the bound: %v", err)
	}
	for _, c := range open {
		c.Close()
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		c, err := dial()
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("slots are not released: ", err)
		}
	}
}

// localUDP answers each datagram with the result of handle; nil means no answer.
func localUDP(t testing.TB, addr string, handle func(b []byte, from netip.AddrPort) []byte) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if out := handle(b[:n], from); out != nil {
				c.WriteToUDPAddrPort(out, from)
			}
		}
	}()
	return c
}

func TestInboundUDP(t *testing.T) {
	checkGoroutines(t)
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(listen, func(t *testing.T) {
			var from atomic.Pointer[netip.AddrPort]
			local := localUDP(t, listen, func(b []byte, src netip.AddrPort) []byte { from.Store(&src); return b })
			p := newPair(t, Config{}, nil, nil)
			p.b.SetInbound(toLocal(local.LocalAddr().String()))
			families(t, func(t *testing.T, dst netip.Addr) {
				c, err := p.a.DialAddrPort(within(t, 5*time.Second), "udp", netip.AddrPortFrom(dst, 53))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(5 * time.Second))
				for _, size := range []int{1, 0, 1200, 5000, 60000} {
					msg := bytes.Repeat([]byte{7}, size)
					c.Write(msg)
					b := make([]byte, 65536)
					if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], msg) {
						t.Fatalf("%d bytes: got %d, %v", size, n, err)
					}
				}
				if runtime.GOOS == "linux" && listen[0] == '1' {
					want := loopback.Source(c.LocalAddr().(*net.UDPAddr).AddrPort().Addr())
					if got := from.Load().Addr().Unmap(); got != want {
						t.Errorf("came from %s, want %s", got, want)
					}
				}
			})
		})
	}
}

func TestInboundUDPIdle(t *testing.T) {
	local := localUDP(t, "127.0.0.1:0", func(b []byte, _ netip.AddrPort) []byte { return b })
	p := newPair(t, Config{}, nil, nil)
	p.b.udpIn.idle = 50 * time.Millisecond
	p.b.SetInbound(toLocal(local.LocalAddr().String()))
	c, _ := p.a.DialAddrPort(within(t, 5*time.Second), "udp", netip.AddrPortFrom(addrB4, 53))
	c.SetDeadline(time.Now().Add(5 * time.Second))
	for range 2 { // a flow that went idle starts anew
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return p.b.udpIn.count() == 0 })
	}
}

func (q *quota) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

func (in *inboundUDP) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.flows)
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// The UDP flows of one peer are bounded; its newest flow and the flows of other peers
// work.
func TestUDPFlowBound(t *testing.T) {
	checkGoroutines(t)
	local := localUDP(t, "127.0.0.1:0", func(_ []byte, from netip.AddrPort) []byte { return []byte(from.String()) })
	const bound = 300
	p := newPair(t, Config{MaxInbound: bound}, nil, nil)
	p.b.SetInbound(toLocal(local.LocalAddr().String()))

	other, err := p.a.DialAddrPort(within(t, 5*time.Second), "udp", netip.AddrPortFrom(addrB6, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	// asks returns the source address that the program saw for a flow. The flood may
	// fill the program's socket, so a lost datagram is sent again.
	asks := func(c net.Conn) string {
		b := make([]byte, 100)
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			c.Write([]byte("x"))
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if n, err := c.Read(b); err == nil {
				return string(b[:n])
			}
		}
		t.Fatal("no answer")
		return ""
	}
	flow := asks(other)

	flows, most := 20_000, 0
	pkt := ipPacket(false, protoUDP, []byte{0, 0, 0, 53, 0, 9, 0, 0, 'x'})
	copy(pkt[12:], netip.MustParseAddr("100.64.0.66").AsSlice())
	copy(pkt[16:], addrB4.AsSlice())
	for i := range flows {
		binary.BigEndian.PutUint16(pkt[20:], uint16(i))
		binary.BigEndian.PutUint16(pkt[22:], uint16(53+i>>16))
		p.b.Write([][]byte{pkt}, 0)
		if i%100 == 0 {
			most = max(most, p.b.udpIn.count())
		}
	}
	if most > bound/3+1 {
		t.Errorf("%d flows at once", most)
	}
	if now := asks(other); now != flow {
		t.Errorf("the other peer's flow comes from %s now, and came from %s", now, flow)
	}
	c, err := p.a.DialAddrPort(within(t, 5*time.Second), "udp", netip.AddrPortFrom(addrB4, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asks(c)
}

// Close under load ends everything and leaves no goroutine, local connection or reader
// behind.
func TestCloseUnderLoad(t *testing.T) {
	checkGoroutines(t)
	localServer(t, "127.0.0.1:0", echoTCP).Close() // with the first socket the runtime opens files of its own
	before := openFiles(t)
	l := localServer(t, "127.0.0.1:0", echoTCP)
	local := localUDP(t, "127.0.0.1:0", func(b []byte, _ netip.AddrPort) []byte { return b })
	for range 3 {
		p := newPair(t, Config{}, nil, nil)
		in := toLocal(l.Addr().String())
		in.UDP = toLocal(local.LocalAddr().String()).UDP
		p.b.SetInbound(in)
		pl, err := p.b.ListenTCP(netip.MustParseAddrPort("100.64.0.2:9000"))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				port := []uint16{80, 9000, 53}[i%3]
				network := []string{"tcp", "tcp", "udp"}[i%3]
				for { // dial, write and read until the network is closed
					c, err := p.a.DialAddrPort(within(t, 5*time.Second), network, netip.AddrPortFrom(addrB4, port))
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err != nil {
						continue
					}
					go io.Copy(io.Discard, c)
					for range 50 {
						if _, err := c.Write(make([]byte, 20000)); err != nil {
							break
						}
					}
					c.Close()
				}
			})
		}
		wg.Go(func() {
			for {
				c, err := pl.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		})
		for range 20 {
			p.b.tcpIn.opening.acquire(addrA4, 80)
			p.b.tcpIn.opening.release(addrA4, 80)
			p.b.Write([][]byte{tcpPacket(false, 1, 80, 1, 0, 2, nil)}, 0)
			time.Sleep(5 * time.Millisecond)
		}
		var closers sync.WaitGroup
		for range 2 { // at the same time from two goroutines
			closers.Go(func() { p.b.Close() })
		}
		closers.Wait()
		p.a.Close()
		wg.Wait()
		p.wg.Wait()
	}
	l.Close()
	local.Close()
	waitFor(t, func() bool { return openFiles(t) <= before })
}

func openFiles(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
