package netstack

import (
	"net"
	"net/netip"
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections may wait for Accept; further clients retry (with SYN
// cookies).
const backlog = 256

// ListenTCP listens on an address of this node, or on all of them if addr is zero or
// unspecified: netip.AddrPort{} and :: mean both families, 0.0.0.0 IPv4 only. Port 0
// picks a free port. A listener takes precedence over Inbound. Its connections are
// *TCPConn.
func (n *Net) ListenTCP(addr netip.AddrPort) (net.Listener, error) {
	l, err := n.listenTCP(unmap(addr))
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: netAddr("tcp", addr), Err: err}
	}
	return l, nil
}

func (n *Net) listenTCP(addr netip.AddrPort) (*listener, error) {
	if n.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	l := &listener{memory: n.memory, orphans: &n.orphans, wq: new(waiter.Queue), done: make(chan struct{})}
	var terr tcpip.Error
	l.ep, terr = n.stack.NewEndpoint(tcp.ProtocolNumber, listenProtocol(addr), l.wq)
	if terr != nil {
		return nil, os.NewSyscallError("socket", errno(terr))
	}
	if terr := l.ep.Bind(toFull(addr)); terr != nil {
		l.ep.Close()
		return nil, os.NewSyscallError("bind", errno(terr))
	}
	if terr := l.ep.Listen(n.memory.most(backlog)); terr != nil {
		l.ep.Close()
		return nil, os.NewSyscallError("listen", errno(terr))
	}
	l.addr = addr
	if a, terr := l.ep.GetLocalAddress(); terr == nil {
		l.addr = netip.AddrPortFrom(addr.Addr(), a.Port)
	}
	return l, nil
}

// listenProtocol returns IPv6 for any address but an IPv4 one: an IPv6 endpoint bound
// to the unspecified address accepts both families.
func listenProtocol(addr netip.AddrPort) tcpip.NetworkProtocolNumber {
	if addr.Addr().Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

type listener struct {
	// Constant after listenTCP.
	memory  *memory
	orphans *orphans
	ep      tcpip.Endpoint
	wq      *waiter.Queue
	addr    netip.AddrPort
	done    chan struct{} // closed by Close

	closeOnce sync.Once
}

// Accept implements net.Listener. It resets connections for which there is no memory.
func (l *listener) Accept() (net.Conn, error) {
	for {
		ep, wq, err := l.accept()
		if err != nil {
			return nil, err
		}
		share, err := l.memory.take()
		if err == nil {
			return newTCPConn(wq, ep, share, l.orphans), nil
		}
		ep.Abort()
		ep.Close()
	}
}

func (l *listener) accept() (tcpip.Endpoint, *waiter.Queue, error) {
	ep, wq, terr := l.ep.Accept(nil)
	if _, ok := terr.(*tcpip.ErrWouldBlock); ok {
		entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
		l.wq.EventRegister(&entry)
		defer l.wq.EventUnregister(&entry)
		for {
			ep, wq, terr = l.ep.Accept(nil)
			if _, ok := terr.(*tcpip.ErrWouldBlock); !ok {
				break
			}
			select {
			case <-ready:
			case <-l.done:
				return nil, nil, l.opError("accept", net.ErrClosed)
			}
		}
	}
	if terr != nil {
		// A listening endpoint fails only when it, or the network, is closed.
		return nil, nil, l.opError("accept", net.ErrClosed)
	}
	return ep, wq, nil
}

// Close implements net.Listener. Accepted connections stay open.
func (l *listener) Close() error {
	err := net.ErrClosed
	l.closeOnce.Do(func() {
		err = nil
		close(l.done)
		l.ep.Close()
	})
	if err != nil {
		return l.opError("close", err)
	}
	return nil
}

// Addr implements net.Listener; it is a *net.TCPAddr.
func (l *listener) Addr() net.Addr { return netAddr("tcp", l.addr) }

func (l *listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: err}
}

// ListenUDP opens a UDP socket on an address of this node, with the rules of
// ListenTCP. The result is a *UDPConn.
func (n *Net) ListenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	c, err := n.listenUDP(unmap(addr))
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: netAddr("udp", addr), Err: err}
	}
	return c, nil
}

func (n *Net) listenUDP(addr netip.AddrPort) (*UDPConn, error) {
	if n.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	var wq waiter.Queue
	ep, terr := n.stack.NewEndpoint(udp.ProtocolNumber, listenProtocol(addr), &wq)
	if terr != nil {
		return nil, os.NewSyscallError("socket", errno(terr))
	}
	if terr := ep.Bind(toFull(addr)); terr != nil {
		ep.Close()
		return nil, os.NewSyscallError("bind", errno(terr))
	}
	return newUDPConn(n, &wq, ep, netip.AddrPort{}), nil
}
