package netstack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"weft/overlay/limited"
)

// small is the configuration of a machine whose memory bound fits the minimum shares of
// this many connections.
func small(conns int64) Config { return Config{Memory: conns * leastConn * memoryShare} }

// inUse returns the bytes of the bound in use and the number of connections.
func (m *memory) inUse() (used int64, conns int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used, m.conns
}

// given waits until ended connections have returned everything.
func given(t *testing.T, nets ...*Net) {
	t.Helper()
	for _, n := range nets {
		m := n.memory
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			m.mu.Lock()
			used, conns, closing := m.used, m.conns, len(m.closing)
			if time.Now().After(end) {
				for s := range m.closing {
					t.Errorf("%s still has %d bytes", tcp.EndpointState(s.ep.State()), s.size)
				}
				t.Errorf("%d bytes of %d connections are left", used, conns)

				used = 0
			}
			m.mu.Unlock()
			if used < 0 || conns < 0 || closing > conns {
				t.Fatalf("%d bytes of %d connections are left, %d are closing", used, conns, closing)
			}
			if used == 0 {
				break
			}
		}
	}
}

func TestMemoryBound(t *testing.T) {
	for _, c := range []struct{ machine, want int64 }{
		{-1, 0}, {0, 0}, {1 << 10, leastConn}, {48 << 20, 12 << 20}, {64 << 20, 16 << 20}, {512 << 20, 128 << 20},
		{1<<30 - 4, 1<<28 - 1}, {1 << 30, 0}, {24 << 30, 0},
	} {
		if got := memoryBound(c.machine); got != c.want {
			t.Errorf("%d bytes of memory: %d, want %d", c.machine, got, c.want)
		}
	}
	for _, c := range []struct {
		machine int64
		conns   int // the most at one time
		buffer  int64
	}{
		{48 << 20, 170, 768 << 10}, {64 << 20, 227, 1 << 20}, {256 << 20, 910, 4 << 20}, {512 << 20, 1820, tcpSendBufferMax},
		{1<<30 - 4, shortMaxInbound, tcpSendBufferMax},
	} {
		n := newNet(t, Config{Memory: c.machine}, addrA4, addrA6)
		s := share{m: n.memory}
		if got := n.tcpIn.open.max; got != min(c.conns, limited.ToFiles(shortMaxInbound)) || s.most(false) != c.buffer {
			t.Errorf("%d bytes of memory: %d connections with buffers of at most %d, want %d with %d", c.machine, got, s.most(false), c.conns, c.buffer)
		}
		if got, want := n.link.tx.maxBytes, int(min(txBytes, c.machine/32)); got != want {
			t.Errorf("%d bytes of memory: %d wait for the tunnel, want %d", c.machine, got, want)
		}
	}
}

// Where memory is not short, connections have no common bound and gVisor tunes their
// buffers.
func TestMemoryPlenty(t *testing.T) {
	n := newNet(t, Config{Memory: 4 << 30}, addrA4, addrA6)
	var receive tcpip.TCPReceiveBufferSizeRangeOption
	var send tcpip.TCPSendBufferSizeRangeOption
	n.stack.TransportProtocolOption(6, &receive)
	n.stack.TransportProtocolOption(6, &send)
	if n.memory != nil || receive.Default != tcpReceiveBuffer || receive.Max != tcpReceiveBufferMax ||
		send.Default != tcpSendBuffer || send.Max != tcpSendBufferMax || n.tcpIn.open.max != limited.ToFiles(DefaultMaxInbound) || n.link.tx.maxBytes != txBytes {
		t.Errorf("bounded by %v: %+v, %+v, %d connections", n.memory, receive, send, n.tcpIn.open.max)
	}
	// One laptop may have 1,500 connections to one device, and leaves room for others
	// even when it uses both of its addresses.
	q := newQuota(DefaultMaxInbound, 0)
	if each := q.perAddr(); each < 1500 || q.max-2*each < 1500 {
		t.Errorf("%d of %d for one address", each, q.max)
	}
}

// In whatever order connections act, the sum stays within the bound and every share is
// returned once.
func TestMemorySum(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		total := rng.Int64N(40*leastConn) + leastConn
		n := newNet(t, Config{Memory: total * memoryShare}, addrA4, addrA6)
		m := n.memory
		var shares []*share
		var sum int64
		for range 2000 {
			i := 0
			if len(shares) > 0 {
				i = rng.IntN(len(shares))
			}
			switch op := rng.IntN(6); {
			case op < 2 || len(shares) == 0:
				s, err := m.take()
				if err == nil {
					shares = append(shares, s)
					sum += leastConn
				} else if sum+leastConn <= m.total {
					t.Fatalf("refused with %d of %d", sum, m.total)
				}
			case op < 4:
				by := rng.Int64N(4*leastConn) + 1
				if shares[i].grow(by) {
					sum += by
					if sum > m.total-m.total/growShare {
						t.Fatalf("grown to %d of %d", sum, m.total)
					}
				}
			default:
				sum -= shares[i].size
				for range rng.IntN(3) + 1 {
					shares[i].give()
				}
				if shares[i].grow(1) {
					t.Fatal("a returned share grows")
				}
				shares = append(shares[:i], shares[i+1:]...)
			}
			if used, conns := m.inUse(); used != sum || conns != len(shares) || used > m.total {
				t.Fatalf("%d of %d used by %d, want %d by %d", used, m.total, conns, sum, len(shares))
			}
		}
		for _, s := range shares {
			s.give()
		}
		given(t, n)
	}
}

// However a connection ends, its share is returned once.
func TestMemoryGivenBack(t *testing.T) {
	checkGoroutines(t)
	l := localServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
		b := make([]byte, 1)
		io.ReadFull(c, b)
		switch b[0] {
		case 'e':
			echoTCP(c)
		case 'r':
			c.SetLinger(0)
		case 'h': // sends everything, and keeps reading
			c.CloseWrite()
			io.Copy(io.Discard, c)
		}
	})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	p := newPair(t, small(100), nil, nil)
	p.b.SetInbound(Inbound{TCP: func(_, dst netip.AddrPort) (string, bool) {
		if dst.Port() == 81 {
			return closed.Addr().String(), true
		}
		return l.Addr().String(), dst.Port() == 80
	}})
	own, err := p.b.ListenTCP(netip.AddrPortFrom(addrB4, 7))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := own.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	dial := func(port uint16) (*TCPConn, error) {
		c, err := p.a.DialAddrPort(within(t, 20*time.Second), "tcp", netip.AddrPortFrom(addrB4, port))
		if err != nil {
			return nil, err
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c.(*TCPConn), nil
	}
	for _, c := range []struct {
		name string
		port uint16
		do   func(c *TCPConn)
	}{
		{"orderly", 80, func(c *TCPConn) { c.Write([]byte("ehello")); c.CloseWrite(); io.ReadAll(c); c.Close() }},
		{"closed twice", 80, func(c *TCPConn) { c.Close(); c.Close() }},
		{"reset by us", 80, func(c *TCPConn) { c.Write([]byte("e")); c.reset() }},
		{"reset by the peer", 80, func(c *TCPConn) { c.Write([]byte("r")); io.ReadAll(c); c.Close() }},
		{"half-closed by the peer", 80, func(c *TCPConn) { c.Write([]byte("h")); io.ReadAll(c); c.Close() }},
		{"half-closed by us", 80, func(c *TCPConn) { c.Write([]byte("e")); c.CloseWrite(); c.Close() }},
		{"unread data", 80, func(c *TCPConn) {
			c.Write(bytes.Repeat([]byte("e"), 10000))
			io.ReadFull(c, make([]byte, 1))
			c.Close()
		}},
		{"data still to be sent", 80, func(c *TCPConn) {
			c.SetWriteDeadline(time.Now().Add(time.Millisecond))
			c.Write(make([]byte, 1<<20))
			c.Close()
		}},
		{"refused", 81, nil},
		{"forbidden", 82, nil},
		{"a listener of our own", 7, func(c *TCPConn) { io.ReadAll(c); c.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := dial(c.port)
			if (err == nil) != (c.do != nil) {
				t.Fatal(err)
			}
			if err == nil {
				if used, _ := p.a.memory.inUse(); used < leastConn {
					t.Errorf("%d bytes are used", used)
				}
				c.do(conn)
			}
			given(t, p.a, p.b)
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		if c, err := p.a.DialAddrPort(within(t, 20*time.Millisecond), "tcp", netip.MustParseAddrPort("100.64.0.9:80")); err == nil {
			c.Close()
			t.Error("connected")
		}
		given(t, p.a, p.b)
	})
	t.Run("the network ends", func(t *testing.T) {
		var open []*TCPConn
		for range 10 {
			c, err := dial(80)
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("e"))
			open = append(open, c)
		}
		p.close()
		for _, c := range open {
			c.Close()
		}
		given(t, p.a, p.b)
	})
}

// buffered returns how much connections hold unread and how large their buffers may be,
// in bytes.
func buffered(conns []*TCPConn) (unread, may int64) {
	for _, c := range conns {
		n, _ := c.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
		unread += int64(n)
		o := c.ep.SocketOptions()
		may += o.GetReceiveBufferSize() + o.GetSendBufferSize()
	}
	return unread, may
}

// Many connections send and receive as much as they can over a network that loses and
// reorders packets, with programs that start reading late. Together they stay within
// the bound, and all data arrives.
func TestMemoryTransfers(t *testing.T) {
	checkGoroutines(t)
	const conns, size = 16, 1 << 20
	for _, c := range []struct {
		name       string
		drop, late float64
		size       int
	}{{"well", 0, 0, size}, {"loss and reorder", 0.005, 0.02, size / 4}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := small(conns + conns/2)
			data := make([]byte, c.size)
			rng := rand.NewChaCha8([32]byte{1})
			rng.Read(data)
			want := sha256.Sum256(data)

			full := make(chan struct{}) // nobody reads before it is closed
			transfer := func(c net.Conn) error {
				defer c.Close()
				sent := make(chan error, 1)
				go func() {
					_, err := io.Copy(c, bytes.NewReader(data))
					sent <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
				}()
				<-full
				sum := sha256.New()
				n, err := io.Copy(sum, c)
				if err == nil && [32]byte(sum.Sum(nil)) != want {
					err = fmt.Errorf("%d bytes arrived, or other bytes than were sent", n)
				}
				return errors.Join(err, <-sent)
			}
			errs := make(chan error, 2*conns)
			p := newPair(t, cfg, lossy(1, c.drop, c.late), lossy(2, c.drop, c.late))
			l, err := p.b.ListenTCP(netip.AddrPortFrom(addrB4, 80))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() { errs <- transfer(c) }()
				}
			}()

			var open []*TCPConn
			inside := func() {
				for _, n := range []*Net{p.a, p.b} {
					if used, _ := n.memory.inUse(); used > n.memory.total {
						t.Errorf("%d of %d used", used, n.memory.total)
					}
				}
			}
			for range conns {
				c, err := p.a.DialAddrPort(within(t, 20*time.Second), "tcp", netip.AddrPortFrom(addrB4, 80))
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, c.(*TCPConn))
				go func() { errs <- transfer(c) }()
				inside()
			}
			waitFor(t, func() bool { // until all are as full as they get without a reader
				inside()
				unread, may := buffered(open)
				if used, _ := p.a.memory.inUse(); may > used {
					t.Errorf("%d bytes may be held, %d are accounted for", may, used)
				}
				return unread >= conns*leastReceive/3
			})
			close(full)
			end := time.After(2 * time.Minute)
			for left := 2 * conns; left > 0; {
				select {
				case err := <-errs:
					left--
					if err != nil {
						t.Error(err)
					}
				case <-time.After(5 * time.Millisecond):
					inside()
				case <-end:
					t.Fatalf("%d transfers still wait", left)
				}
			}
			given(t, p.a, p.b)
		})
	}
}

// Buffers grow when a connection uses them fully, and a health message says when they
// no longer can.
func TestMemoryGrows(t *testing.T) {
	cfg := small(40)
	var health sync.Map
	cfg.Health = func(code, message string) { health.Store(code, message) }
	p := newPair(t, cfg, nil, nil)
	l, err := p.b.ListenTCP(netip.AddrPortFrom(addrB4, 7))
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan *TCPConn, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c.(*TCPConn)
		}
	}()
	connect := func() (c, s *TCPConn) {
		t.Helper()
		conn, err := p.a.DialAddrPort(within(t, 20*time.Second), "tcp", netip.AddrPortFrom(addrB4, 7))
		if err != nil {
			t.Fatal(err)
		}
		return conn.(*TCPConn), <-accepted
	}
	// move sends until the sender's and the receiver's buffers reach this size.
	move := func(c, s *TCPConn, send, receive int64) {
		t.Helper()
		go io.Copy(io.Discard, s)
		buf := make([]byte, 16<<10)
		waitFor(t, func() bool {
			for range 20 {
				if _, err := c.Write(buf); err != nil {
					t.Fatal(err)
				}
			}
			return c.ep.SocketOptions().GetSendBufferSize() >= send && s.ep.SocketOptions().GetReceiveBufferSize() >= receive
		})
	}
	c, s := connect()
	if got := c.ep.SocketOptions().GetSendBufferSize(); got != leastSend {
		t.Errorf("it begins with %d bytes", got)
	}
	if got := s.ep.SocketOptions().GetReceiveBufferSize(); got != leastReceive {
		t.Errorf("the other begins with %d bytes", got)
	}
	move(c, s, 4*leastSend, 4*leastReceive)
	if _, reported := health.Load("memory"); reported {
		t.Error("one connection raises the health warning")
	}
	// Take the rest.
	for _, n := range []*Net{p.a, p.b} {
		n.memory.mu.Lock()
		n.memory.used = n.memory.total - 2*leastConn
		n.memory.mu.Unlock()
	}
	c, s = connect()
	move(c, s, leastSend, leastReceive)
	go io.Copy(c, rand.NewChaCha8([32]byte{}))
	waitFor(t, func() bool {
		message, _ := health.Load("memory")
		text, _ := message.(string)
		return strings.Contains(text, "memory is short") && strings.Contains(text, "slower")
	})
	if got := c.ep.SocketOptions().GetSendBufferSize(); got != leastSend {
		t.Errorf("a buffer has grown to %d bytes", got)
	}
}

// A connection for which there is no memory fails at once on both sides. It can be made
// after another has ended.
func TestMemoryFull(t *testing.T) {
	l := localServer(t, "127.0.0.1:0", echoTCP)
	var health sync.Map
	cfg := small(3)
	cfg.Health = func(code, message string) { health.Store(code, message) }
	p := newPair(t, cfg, nil, nil)
	p.b.SetInbound(toLocal(l.Addr().String()))
	p.b.tcpIn.open.max = 100
	dial := func() (net.Conn, error) {
		return p.a.DialAddrPort(within(t, 20*time.Second), "tcp", netip.AddrPortFrom(addrB4, 80))
	}
	var open []net.Conn
	for range 3 {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := dial(); !errors.Is(err, syscall.ENOBUFS) || !strings.Contains(err.Error(), "memory is short") {
		t.Errorf("a fourth: %v", err)
	}
	waitFor(t, func() bool {
		message, _ := health.Load("memory")
		text, _ := message.(string)
		return strings.Contains(text, "were refused")
	})
	// The caller has room, the device does not.
	p.a.memory.mu.Lock()
	p.a.memory.used -= 2 * leastConn
	p.a.memory.mu.Unlock()
	if _, err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a fourth for the device: %v", err)
	}
	open[0].Close()
	waitFor(t, func() bool {
		c, err := dial()
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		c.Write([]byte("x"))
		_, err = io.ReadFull(c, make([]byte, 1))
		return err == nil
	})
}

// Moving data over a connection with room to grow does not allocate.
func TestTunerAllocates(t *testing.T) {
	n := newNet(t, small(10), addrA4, addrA6)
	s, err := n.memory.take()
	if err != nil {
		t.Fatal(err)
	}
	tune := tuner{share: s, size: 1 << 40}
	if n := testing.AllocsPerRun(100, func() { tune.move(nil, 1000) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
