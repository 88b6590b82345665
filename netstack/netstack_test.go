package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

func families(t *testing.T, f func(t *testing.T, dst netip.Addr)) {
	t.Run("IPv4", func(t *testing.T) { f(t, addrB4) })
	t.Run("IPv6", func(t *testing.T) { f(t, addrB6) })
}

func TestTCPBothWays(t *testing.T) {
	families(t, func(t *testing.T, dst netip.Addr) {
		checkGoroutines(t)
		p := newPair(t, Config{}, nil, nil)
		transfer(t, p, dst, 100<<20/scale)
	})
}

func TestTCPLossAndReorder(t *testing.T) {
	for _, tc := range []struct {
		name       string
		drop, swap float64
		cfg        Config
		size       int
	}{
		{"loss", 0.01, 0, Config{}, 4 << 20},
		{"reorder", 0, 0.05, Config{}, 8 << 20},
		{"both", 0.02, 0.05, Config{}, 2 << 20},
		{"both, small packets", 0.005, 0.02, Config{MaxSegment: 1000}, 4 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t, tc.cfg, lossy(1, tc.drop, tc.swap), lossy(2, tc.drop, tc.swap))
			transfer(t, p, addrB4, tc.size)
		})
	}
}

// transfer sends size bytes each way at the same time over one connection and
// compares hashes; each side half-closes when done.
func transfer(t *testing.T, p *pair, dst netip.Addr, size int) {
	t.Helper()
	l, err := p.b.ListenTCP(netip.AddrPortFrom(dst, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	exchange := func(c net.Conn, seed uint64) (sent, got [32]byte, err error) {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
		var wg sync.WaitGroup
		var werr error
		wg.Go(func() {
			rng := rand.NewChaCha8([32]byte{byte(seed)})
			h := sha256.New()
			_, werr = c.(io.ReaderFrom).ReadFrom(io.TeeReader(io.LimitReader(rng, int64(size)), h))
			if werr == nil {
				werr = c.(interface{ CloseWrite() error }).CloseWrite()
			}
			h.Sum(sent[:0])
		})
		h := sha256.New()
		n, rerr := io.Copy(h, c)
		wg.Wait()
		if rerr == nil && n != int64(size) {
			rerr = io.ErrUnexpectedEOF
		}
		h.Sum(got[:0])
		return sent, got, errors.Join(werr, rerr)
	}
	type result struct {
		sent, got [32]byte
		err       error
	}
	server := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			server <- result{err: err}
			return
		}
		defer c.Close()
		s, g, err := exchange(c, 1)
		server <- result{s, g, err}
	}()
	c, err := p.a.DialContext(within(t, 10*time.Second), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent, got, err := exchange(c, 2)
	if err != nil {
		t.Fatal(err)
	}
	r := <-server
	if r.err != nil {
		t.Fatal(r.err)
	}
	if sent != r.got || got != r.sent {
		t.Fatal("what arrived is not what was sent")
	}
	d := time.Since(start)
	t.Logf("%d MB each way in %v: %.0f Mbit/s", size>>20, d.Round(time.Millisecond), float64(size)*16/d.Seconds()/1e6)
}

func TestHalfClose(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	l, err := p.b.ListenTCP(netip.MustParseAddrPort("[::]:7"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c) // ends with the client's CloseWrite
			c.Write(bytes.ToUpper(b))
			c.Close()
		}
	}()
	families(t, func(t *testing.T, dst netip.Addr) {
		c, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(dst, 7))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write([]byte("hello"))
		c.(*TCPConn).CloseWrite()
		b, err := io.ReadAll(c)
		if string(b) != "HELLO" || err != nil {
			t.Fatalf("got %q, %v", b, err)
		}
	})
}

func TestUDP(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	pc, err := p.b.ListenUDP(netip.MustParseAddrPort("[::]:5000"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:n], from)
		}
	}()
	families(t, func(t *testing.T, dst netip.Addr) {
		c, err := p.a.DialAddrPort(context.Background(), "udp", netip.AddrPortFrom(dst, 5000))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		for _, size := range []int{0, 1, 1200, 1400, 9000, 60000} { // fragments from 1400 on
			msg := bytes.Repeat([]byte{byte(size)}, size)
			if _, err := c.Write(msg); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 65536)
			n, err := c.Read(b)
			if err != nil || !bytes.Equal(b[:n], msg) {
				t.Fatalf("%d bytes: got %d, %v", size, n, err)
			}
		}
	})
}

func TestPing(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	for _, dst := range []netip.Addr{addrB4, addrB6} {
		rtt, err := p.a.Ping(within(t, 5*time.Second), dst)
		if err != nil || rtt <= 0 || rtt > time.Second {
			t.Errorf("ping %s: %v, %v", dst, rtt, err)
		}
	}
	for _, own := range []netip.Addr{addrA4, addrA6} {
		if _, err := p.a.Ping(within(t, 5*time.Second), own); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.a.Ping(within(t, 50*time.Millisecond), netip.MustParseAddr("100.64.9.9")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping of nobody: %v", err)
	}
}

func TestRefused(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	families(t, func(t *testing.T, dst netip.Addr) {
		start := time.Now()
		_, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(dst, 81))
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > time.Second {
			t.Errorf("tcp: %v after %v", err, time.Since(start))
		}
		c, err := p.a.DialAddrPort(context.Background(), "udp", netip.AddrPortFrom(dst, 81))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("udp: %v", err)
		}
	})
}

func TestDialEndsWithContext(t *testing.T) {
	n := newNet(t, Config{}, addrA4, addrA6) // nobody reads the packets: all are lost
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err := n.DialContext(ctx, "tcp", "100.64.0.9:80")
	var nerr net.Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &nerr) || !nerr.Timeout() {
		t.Errorf("got %v", err)
	}
	for _, bad := range []struct{ network, addr string }{
		{"tcp", "kitchen-pi:80"}, {"tcp", "100.64.0.9"}, {"tcp4", "[fd7a::1]:80"}, {"tcp6", "100.64.0.9:80"},
		{"sctp", "100.64.0.9:80"}, {"tcp", "0.0.0.0:80"},
	} {
		if c, err := n.DialContext(context.Background(), bad.network, bad.addr); err == nil {
			c.Close()
			t.Errorf("dial %s %s succeeded", bad.network, bad.addr)
		}
	}
}

func TestDeadlines(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	l, _ := p.b.ListenTCP(netip.AddrPort{})
	c, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(addrB4, l.Addr().(*net.TCPAddr).AddrPort().Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A deadline set while a call waits ends it.
	errs := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
	go func() { // fills the buffers, then blocks
		b := make([]byte, 1<<20)
		for {
			if _, err := c.Write(b); err != nil {
				errs <- err
				return
			}
		}
	}()
	c.SetDeadline(time.Now().Add(10 * time.Millisecond))
	for range 2 {
		if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
	c.SetReadDeadline(time.Time{})
	go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
	c.Close()
	if err := <-errs; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestSetAddrs(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	next := netip.MustParseAddr("100.64.0.7")
	for range 2 { // repeatable
		if err := p.b.SetAddrs(next, addrB6); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.a.Ping(within(t, 5*time.Second), next); err != nil {
		t.Error(err)
	}
	if _, err := p.a.Ping(within(t, 50*time.Millisecond), addrB4); err == nil {
		t.Error("the old address still answers")
	}
	if err := p.b.SetAddrs(netip.Addr{}, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.b.DialContext(within(t, 5*time.Second), "tcp", "100.64.0.1:80"); !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("dial without address: %v", err)
	}
	if err := p.b.SetAddrs(addrB6, addrB4); err == nil {
		t.Error("families exchanged: no error")
	}
}

// oneway sends size bytes from a to b.
func oneway(t testing.TB, p *pair, size int) {
	t.Helper()
	l, err := p.b.ListenTCP(netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- -1
			return
		}
		n, _ := io.Copy(io.Discard, c)
		c.Close()
		done <- n
	}()
	c, err := p.a.DialContext(within(t, 10*time.Second), "tcp", net.JoinHostPort(addrB4.String(), portOf(l.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(c, io.LimitReader(rand.NewChaCha8([32]byte{}), int64(size)))
	c.Close()
	if n := <-done; n != int64(size) {
		t.Fatalf("%d of %d bytes arrived", n, size)
	}
}
