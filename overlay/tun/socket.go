package tun

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"weft/netstack/loopback"
)

// DialContext connects to an overlay "address:port" through the kernel: from the
// overlay address and through the interface, whatever the routes are. It resolves no
// names. Errors are the kernel's: an ICMP unreachable of package wg is
// syscall.EHOSTUNREACH.
func (n *Net) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", address, err)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	a := n.addrs.Load()
	from := a.ip4
	if to.Addr().Is6() {
		from = a.ip6
	}
	if !from.IsValid() {
		return nil, fmt.Errorf("dial %s: %w", to, os.NewSyscallError("connect", syscall.ENETUNREACH))
	}
	d := net.Dialer{KeepAliveConfig: keepalive, Control: n.bind}
	switch network {
	case "tcp", "tcp4", "tcp6":
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	case "udp", "udp4", "udp6":
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if n.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	return d.DialContext(ctx, network, to.String())
}

// keepalive is that of package netstack: it detects within a quarter of an hour that a
// peer has vanished.
var keepalive = net.KeepAliveConfig{Enable: true, Idle: 9 * time.Minute, Interval: 45 * time.Second, Count: 8}

// bind restricts one of our sockets to the interface: neither a neighbour on the LAN
// nor this machine itself reaches it at the overlay address.
func (n *Net) bind(_, _ string, c syscall.RawConn) (err error) {
	if cerr := c.Control(func(fd uintptr) { err = n.link.bind(fd) }); cerr != nil {
		return cerr
	}
	return errors.Join(err, loopback.Inline(c))
}

// ListenTCP listens on an address of the interface for connections through the tunnel;
// port 0 picks a port.
func (n *Net) ListenTCP(addr netip.AddrPort) (net.Listener, error) {
	if err := n.checkListen(addr); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	l := net.ListenConfig{KeepAliveConfig: keepalive, Control: n.bind}
	l.SetMultipathTCP(false) // MPTCP listeners do not pass on what bind sets
	return l.Listen(n.ctx, "tcp", addr.String())
}

// ListenUDP is ListenTCP for UDP.
func (n *Net) ListenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	if err := n.checkListen(addr); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	l := net.ListenConfig{Control: n.bind}
	return l.ListenPacket(n.ctx, "udp", addr.String())
}

// checkListen rejects addresses that are not the interface's.
func (n *Net) checkListen(addr netip.AddrPort) error {
	if n.ctx.Err() != nil {
		return net.ErrClosed
	}
	if !n.addrs.Load().has(addr.Addr().Unmap()) {
		return os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	return nil
}
