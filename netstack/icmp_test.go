package netstack

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// An ICMP error that comes back for a dial, a datagram or a ping ends it at once with
// the error of its code.
func TestUnreachable(t *testing.T) {
	for _, tc := range []struct {
		name string
		v6   bool
		code uint8
		want syscall.Errno
	}{
		{"net", false, 0, syscall.ENETUNREACH},
		{"host", false, 1, syscall.EHOSTUNREACH},
		{"port", false, 3, syscall.ECONNREFUSED},
		{"prohibited", false, 13, syscall.EACCES},
		{"route 6", true, 0, syscall.ENETUNREACH},
		{"prohibited 6", true, 1, syscall.EACCES},
		{"address 6", true, 3, syscall.EHOSTUNREACH},
		{"port 6", true, 4, syscall.ECONNREFUSED},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNet(t, Config{}, addrA4, addrA6)
			go answerUnreachable(n, tc.v6, tc.code)
			remote := netip.AddrPortFrom(addrB4, 80)
			if tc.v6 {
				remote = netip.AddrPortFrom(addrB6, 80)
			}
			start := time.Now()
			if _, err := n.DialAddrPort(within(t, 5*time.Second), "tcp", remote); !errors.Is(err, tc.want) {
				t.Errorf("tcp: %v, want %v", err, tc.want)
			}
			if _, err := n.Ping(within(t, 5*time.Second), remote.Addr()); !errors.Is(err, tc.want) {
				t.Errorf("ping: %v, want %v", err, tc.want)
			}
			c, err := n.DialAddrPort(context.Background(), "udp", remote)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			c.Write([]byte("x"))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, tc.want) {
				t.Errorf("udp: %v, want %v", err, tc.want)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// answerUnreachable answers each packet that n sends with an ICMP error.
func answerUnreachable(n *Net, v6 bool, code uint8) {
	buf, sizes := [][]byte{make([]byte, 65535)}, []int{0}
	for {
		if _, err := n.Read(buf, sizes, 0); err != nil {
			return
		}
		proto, typ := uint8(protoICMPv4), byte(3)
		if v6 {
			proto, typ = protoICMPv6, 1
		}
		msg := append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, buf[0][:min(sizes[0], 500)]...)
		n.Write([][]byte{ipPacket(v6, proto, msg)}, 0)
	}
}

// An ICMP error about an unknown connection changes nothing.
func TestUnreachableForOthers(t *testing.T) {
	p := newPair(t, Config{}, nil, nil)
	for range 3 * icmpErrors {
		quoted := tcpPacket(false, 1000, 80, 0, 0, 2, nil)
		p.a.Write([][]byte{ipPacket(false, protoICMPv4, append([]byte{3, 13, 0, 0, 0, 0, 0, 0}, quoted...))}, 0)
	}
	if _, err := p.a.DialAddrPort(within(t, 5*time.Second), "tcp", netip.AddrPortFrom(addrB4, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}
