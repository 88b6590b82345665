package loopback

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// UDP is the socket through which a peer's datagrams reach a UDP target. On Linux, if
// the target is a literal address in 127.0.0.0/8, it also receives what that address
// sends from other ports: no other machine can send from there.
type UDP struct {
	*net.UDPConn
	to netip.AddrPort // target of a socket that is not connected; zero if it is connected
}

// DialUDP is Dial for UDP.
func DialUDP(ctx context.Context, target string, port uint16, peer netip.Addr, timeout time.Duration) (*UDP, error) {
	address, err := Target(target, port)
	if err != nil {
		return nil, err
	}
	to, err := netip.ParseAddrPort(address)
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if source := Source(peer); takesOthers && err == nil && to.Addr().Is4() && to.Addr().IsLoopback() && source.IsValid() {
		return open(ctx, to, source)
	}
	c, err := Dial(ctx, "udp", target, port, peer, timeout)
	if err != nil {
		return nil, err
	}
	return &UDP{UDPConn: c.(*net.UDPConn)}, nil
}

// Send sends a datagram to a port of the target's address; 0 means the target's own.
// syscall.ECONNREFUSED refers to an earlier datagram.
func (u *UDP) Send(b []byte, port uint16) (err error) {
	switch {
	case u.to.IsValid():
		if port == 0 {
			port = u.to.Port()
		}
		_, err = u.WriteToUDPAddrPort(b, netip.AddrPortFrom(u.to.Addr(), port))
	case port == 0:
		_, err = u.Write(b)
	}
	return err
}
