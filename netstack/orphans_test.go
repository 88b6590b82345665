package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// has reports whether the connection from a peer's port is an orphan.
func (o *orphans) has(port uint16) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.list {
		if a, err := c.ep.GetRemoteAddress(); err == nil && a.Port == port {
			return true
		}
	}
	return false
}

// A peer that lets connections be closed and never takes their last data keeps only a
// bounded number of them, and connections of other peers are not affected.
func TestOrphans(t *testing.T) {
	checkGoroutines(t)
	page := bytes.Repeat([]byte("weft"), 16<<10)
	l := localServer(t, "127.0.0.1:0", func(c *net.TCPConn) {
		c.Write(page)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	// The peer's windows are much smaller than a page.
	p := &pair{a: newNet(t, small(100), addrA4, addrA6), b: newNet(t, Config{}, addrB4, addrB6)}
	p.wg.Go(func() { carry(p.a, p.b, nil) })
	p.wg.Go(func() { carry(p.b, p.a, nil) })
	t.Cleanup(p.close)
	p.b.orphans.max = 4
	p.b.SetInbound(Inbound{TCP: func(_, _ netip.AddrPort) (string, bool) { return l.Addr().String(), true }})
	fetch := func(from netip.Addr) net.Conn {
		c, err := p.a.DialAddrPort(within(t, 20*time.Second), "tcp", netip.AddrPortFrom(from, 80))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.(*TCPConn).CloseWrite()
		for end := time.Now().Add(20 * time.Second); !p.b.orphans.has(c.(*TCPConn).local.Port()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a closed connection with unsent data is not an orphan")
			}
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	other := fetch(addrB6)
	var conns []net.Conn
	for range 5 {
		conns = append(conns, fetch(addrB4))
	}
	for i, c := range append(conns, other) {
		b, err := io.ReadAll(c)
		if i < 2 {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("connection %d, one of too many, ended with %d bytes and %v", i, len(b), err)
			}
		} else if err != nil || !bytes.Equal(b, page) {
			t.Errorf("connection %d ended with %d bytes and %v", i, len(b), err)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		p.b.orphans.mu.Lock()
		p.b.orphans.sweep()
		n := len(p.b.orphans.list)
		p.b.orphans.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d ended connections are still listed", n)
		}
	}
}
