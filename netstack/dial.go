package netstack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialTimeout ends a TCP dial whose context has no earlier end.
const dialTimeout = 30 * time.Second

// DialContext connects to address, "IP:port" (names are not resolved), over
// network: tcp, tcp4, tcp6, udp, udp4 or udp6. The result is a *TCPConn or a
// *UDPConn. A TCP dial ends with ctx, with ETIMEDOUT after 30 s, or at once
// when the peer or the tunnel answers with an RST or an ICMP error.
func (n *Net) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	remote, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.AddrError{Err: "not an IP address and port", Addr: address}}
	}
	return n.DialAddrPort(ctx, network, remote)
}

// DialAddrPort is DialContext for a parsed address.
func (n *Net) DialAddrPort(ctx context.Context, network string, remote netip.AddrPort) (net.Conn, error) {
	remote = unmap(remote)
	proto, family, err := parseNetwork(network)
	if err == nil {
		err = checkFamily(family, remote.Addr())
	}
	if err == nil && n.ctx.Err() != nil {
		err = net.ErrClosed
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: netAddr(proto, remote), Err: err}
	}
	if proto == "udp" {
		c, err := n.dialUDP(remote)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Addr: netAddr(proto, remote), Err: err}
		}
		return c, nil
	}
	c, err := n.dialTCP(ctx, remote)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: netAddr(proto, remote), Err: err}
	}
	return c, nil
}

func (n *Net) dialTCP(ctx context.Context, remote netip.AddrPort) (*TCPConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	share, err := n.memory.take()
	if err != nil {
		return nil, err
	}
	c, err := n.connectTCP(ctx, remote, share)
	if err != nil {
		share.give() // nothing was sent yet
		return nil, err
	}
	return c, nil
}

// connectTCP is dialTCP for a connection that has a share of the memory.
func (n *Net) connectTCP(ctx context.Context, remote netip.AddrPort, share *share) (*TCPConn, error) {
	var wq waiter.Queue
	ep, terr := n.stack.NewEndpoint(tcp.ProtocolNumber, protocolOf(remote.Addr()), &wq)
	if terr != nil {
		return nil, os.NewSyscallError("socket", errno(terr))
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)

	terr = ep.Connect(toFull(remote))
	if _, ok := terr.(*tcpip.ErrConnectStarted); ok {
		timeout := time.NewTimer(dialTimeout)
		defer timeout.Stop()
		select {
		case <-connected:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		case <-timeout.C:
			ep.Close()
			return nil, os.NewSyscallError("connect", syscall.ETIMEDOUT)
		case <-n.ctx.Done():
			ep.Close()
			return nil, net.ErrClosed
		}
	}
	if terr != nil {
		err := errno(terr)
		if local, lerr := ep.GetLocalAddress(); lerr == nil {
			if why := n.link.icmp.reason(flow{protoTCP, fromFull(local), remote}); why != 0 {
				err = why
			}
		}
		ep.Close()
		if n.ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		return nil, os.NewSyscallError("connect", err)
	}
	return newTCPConn(&wq, ep, share, &n.orphans), nil
}

func (n *Net) dialUDP(remote netip.AddrPort) (*UDPConn, error) {
	var wq waiter.Queue
	ep, terr := n.stack.NewEndpoint(udp.ProtocolNumber, protocolOf(remote.Addr()), &wq)
	if terr != nil {
		return nil, os.NewSyscallError("socket", errno(terr))
	}
	if terr := ep.Connect(toFull(remote)); terr != nil {
		ep.Close()
		return nil, os.NewSyscallError("connect", errno(terr))
	}
	c := newUDPConn(n, &wq, ep, remote)
	n.dialled.add(c)
	return c, nil
}

// parseNetwork splits "tcp4" into "tcp" and 4; family 0 means either.
func parseNetwork(network string) (proto string, family int, err error) {
	switch network {
	case "tcp", "udp":
		return network, 0, nil
	case "tcp4", "udp4":
		return network[:3], 4, nil
	case "tcp6", "udp6":
		return network[:3], 6, nil
	}
	return "tcp", 0, net.UnknownNetworkError(network)
}

func checkFamily(family int, a netip.Addr) error {
	switch {
	case !a.IsValid() || a.IsUnspecified():
		return fmt.Errorf("no address: %w", syscall.EINVAL)
	case family == 4 && !a.Is4(), family == 6 && a.Is4():
		return &net.AddrError{Err: "address of the wrong family", Addr: a.String()}
	}
	return nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
