package netstack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tftp is a program that answers each client from a new port, as TFTP does, and then
// continues from there: it echoes what it receives.
func tftp(t testing.TB, addr string) (at string) {
	main, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open, wg := []net.PacketConn{main}, sync.WaitGroup{} // open is guarded by mu
	t.Cleanup(func() {
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	echo := func(c net.PacketConn, first []byte, from net.Addr) {
		c.WriteTo(first, from)
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}
	wg.Go(func() {
		for {
			b := make([]byte, 65536)
			n, from, err := main.ReadFrom(b)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(addr)
			c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { echo(c, b[:n], from) })
		}
	})
	return main.LocalAddr().String()
}

// A program's answer from another port reaches the peer from that port. What the peer
// then sends there from the same socket reaches the program. Other sockets do not reach
// it, and nothing does after the flow's end.
func TestAnswerFromAnotherPort(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // the socket receives only from the original port
	}
	checkGoroutines(t)
	p := newPair(t, Config{}, nil, nil)
	in := toLocal(tftp(t, "127.0.0.1:0"))
	policy := in.UDP
	in.UDP = func(src, dst netip.AddrPort) (string, bool) { // only one port is open
		target, ok := policy(src, dst)
		return target, ok && dst.Port() == 69
	}
	p.b.SetInbound(in)
	families(t, func(t *testing.T, dst netip.Addr) {
		dial := func() *UDPConn {
			t.Helper()
			c, err := p.a.DialAddrPort(within(t, 5*time.Second), "udp", netip.AddrPortFrom(dst, 69))
			if err != nil {
				t.Fatal(err)
			}
			u := c.(*UDPConn)
			t.Cleanup(func() { u.Close() })
			u.AcceptAllPorts()
			u.SetDeadline(time.Now().Add(10 * time.Second))
			return u
		}
		read := func(c *UDPConn, want string) netip.AddrPort {
			t.Helper()
			b := make([]byte, 65536)
			n, from, err := c.ReadFromAddrPort(b)
			if err != nil || string(b[:n]) != want || from.Addr() != dst {
				t.Fatalf("got %q from %s, %v; want %q", b[:n], from, err, want)
			}
			return from
		}
		c := dial()
		c.Write([]byte("read"))
		from := read(c, "read")
		if from.Port() == 69 {
			t.Fatal("the answer comes from the original port")
		}
		big := string(make([]byte, 30000))
		for _, s := range []string{"1", "2", big} {
			c.WriteToAddrPort([]byte(s), from)
			if again := read(c, s); again != from {
				t.Fatalf("answers from %s and %s", from, again)
			}
		}
		// Another socket of the peer must not reach that port.
		other := dial()
		other.Write([]byte("read"))
		if theirs := read(other, "read"); theirs == from {
			t.Fatal("two sockets got the same port")
		}
		other.WriteToAddrPort([]byte("x"), from)
		other.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, at, err := other.ReadFromAddrPort(make([]byte, 10)); err == nil {
			t.Errorf("%d bytes from %s", n, at)
		} else if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		c.Close()
		other.Close()
	})
	for _, f := range p.b.udpIn.snapshot() {
		p.b.udpIn.mu.Lock()
		p.b.udpIn.remove(f)
		p.b.udpIn.mu.Unlock()
	}
	p.b.udpIn.mu.Lock()
	defer p.b.udpIn.mu.Unlock()
	if n := len(p.b.udpIn.others); n != 0 {
		t.Errorf("%d ports are open without a flow", n)
	}
	for _, s := range p.a.dialled.by {
		if s.conn != nil {
			t.Errorf("%s is held after Close", s.conn.local)
		}
	}
}

func (in *inboundUDP) snapshot() (out []*udpFlow) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, f := range in.flows {
		out = append(out, f)
	}
	return out
}

// A flow has a bounded number of other ports. If two flows claim one port, the later
// flow gets it.
func TestOtherPortsAreBounded(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	in := &p.b.udpIn
	peer := netip.AddrPortFrom(addrA4, 5000)
	flow := func(port uint16) *udpFlow {
		f := &udpFlow{key: udpKey{peer, netip.AddrPortFrom(addrB4, port)}}
		in.flows[f.key] = f
		in.byPeer[peer.Addr()]++
		return f
	}
	a, b := flow(1), flow(2)
	for port := range uint16(1000) {
		in.addPort(a, 10+port)
		in.addPort(a, 10+port)
	}
	in.addPort(b, 1009)
	if len(in.others) != udpOthers || len(a.others) != udpOthers-1 || len(b.others) != 1 || in.others[b.keyOf(1009)] != b || in.others[a.keyOf(1008)] != a {
		t.Errorf("%d ports, %d of one, %d of the other", len(in.others), len(a.others), len(b.others))
	}
	in.remove(a)
	in.remove(b)
	in.addPort(a, 7)
	if len(in.others) != 0 {
		t.Errorf("%d ports after the end", len(in.others))
	}
}

// The datagrams waiting on a socket that accepts all ports are bounded.
func TestStraysAreBounded(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	c, err := p.a.dialUDP(netip.AddrPortFrom(addrB4, 69))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	from := netip.AddrPortFrom(addrB4, 70)
	for _, size := range []int{0, 60000} {
		for range 5000 {
			c.queueStray(from, make([]byte, size))
		}
		if c.strayBytes > maxStrays || len(c.strays) > maxStrays/strayCost {
			t.Errorf("%d bytes, %d datagrams", c.strayBytes, len(c.strays))
		}
		for len(c.strays) > 0 {
			if n, at, err := c.ReadFromAddrPort(make([]byte, 65536)); n != size || at != from || err != nil {
				t.Fatal(n, at, err)
			}
		}
		if c.strayBytes != 0 {
			t.Errorf("%d bytes are counted for an empty queue", c.strayBytes)
		}
	}
}

// What a peer sends to the port of one of our sockets, from any port and even after the
// socket's end, does not reach a program that listens on the same port of loopback.
func TestOurPortIsNoService(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	reached := make(chan netip.AddrPort, 100)
	p.a.SetInbound(Inbound{UDP: func(src, dst netip.AddrPort) (string, bool) {
		reached <- dst
		return "", false
	}})
	ours, err := p.a.dialUDP(netip.AddrPortFrom(addrB4, 69))
	if err != nil {
		t.Fatal(err)
	}
	send := func(to netip.AddrPort) {
		t.Helper()
		c, err := p.b.ListenUDP(netip.AddrPortFrom(addrB4, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.(*UDPConn).WriteToAddrPort([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
	}
	send(ours.local)
	ours.Close()
	send(ours.local)
	service := netip.AddrPortFrom(addrA4, 7)
	send(service) // after the others, on the same path
	if got := <-reached; got != service {
		t.Errorf("the policy was asked for %s", got)
	}
}

// Closed sockets are remembered, but their number is bounded.
func TestDialledAreBounded(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	var last *UDPConn
	for range 2 * maxDialled {
		c, err := p.a.dialUDP(netip.AddrPortFrom(addrB4, 69))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		last = c
	}
	if n := len(p.a.dialled.by); n > maxDialled {
		t.Errorf("%d are remembered", n)
	}
	if _, ours := p.a.dialled.find(last.strayKey()); !ours {
		t.Error("the last one is not remembered")
	}
	p.a.dialled.by[last.strayKey()].last -= closedLife
	if _, ours := p.a.dialled.find(last.strayKey()); ours {
		t.Error("a closed socket is never forgotten")
	}
}
