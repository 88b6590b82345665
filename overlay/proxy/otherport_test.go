package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// allPorts is like a connection of package netstack: connected, but it receives from
// all ports of its remote address.
type allPorts struct {
	*net.UDPConn
	to netip.AddrPort
}

func (c *allPorts) AcceptAllPorts() {}

func (c *allPorts) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	return c.ReadFromUDPAddrPort(b)
}

func (c *allPorts) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteToUDPAddrPort(b, to)
}

func (c *allPorts) Read(b []byte) (int, error)  { n, _, err := c.ReadFromAddrPort(b); return n, err }
func (c *allPorts) Write(b []byte) (int, error) { return c.WriteToAddrPort(b, c.to) }
func (c *allPorts) RemoteAddr() net.Addr        { return net.UDPAddrFromAddrPort(c.to) }

type allPortsNode struct {
	fakeNode
	to netip.AddrPort
}

func (n *allPortsNode) DialContext(context.Context, string, string) (net.Conn, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return &allPorts{c, n.to}, nil
}

// An answer from another port reaches the client with the port that it came from; what
// the client sends to that port leaves from the same port as the question.
func TestAssociateOtherPort(t *testing.T) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	asked, other := listen(), listen()
	addrOf := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	_, addr := start(t, Config{Node: &allPortsNode{to: addrOf(asked)}})
	tc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	io.WriteString(tc, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
	reply := make([]byte, 2+10)
	if _, err := io.ReadFull(tc, reply); err != nil || reply[3] != 0 {
		t.Fatalf("%x, %v", reply, err)
	}
	uc, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(binary.BigEndian.Uint16(reply[10:]))})
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	uc.SetDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 2000)
	question := func(to *net.UDPConn, msg []byte) netip.AddrPort {
		t.Helper()
		uc.Write(msg)
		n, from, err := to.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != "question" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		return from
	}
	answer := func(c *net.UDPConn, to netip.AddrPort) {
		t.Helper()
		c.WriteToUDPAddrPort([]byte("answer"), to)
		want := append(appendSOCKSAddr([]byte{0, 0, 0}, c.LocalAddr()), "answer"...)
		if n, err := uc.Read(buf); err != nil || !bytes.Equal(buf[:n], want) {
			t.Fatalf("%q, %v; want %q", buf[:n], err, want)
		}
	}
	name := append([]byte{0, 0, 0, socksName, 10}, "kitchen-pi\x00\x45question"...)
	from := question(asked, name)
	for range 3 {
		answer(other, from)
		answer(asked, from)
		if again := question(other, append(appendSOCKSAddr([]byte{0, 0, 0}, other.LocalAddr()), "question"...)); again != from {
			t.Fatalf("the client is at %s and at %s", from, again)
		}
		if again := question(asked, name); again != from {
			t.Fatalf("the client is at %s and at %s", from, again)
		}
	}
}
