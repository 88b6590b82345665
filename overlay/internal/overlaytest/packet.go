package overlaytest

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// packetBuffer bounds the datagrams that wait to be read, in bytes.
const packetBuffer = 208 << 10

// MaxDatagram is the largest payload of a datagram.
const MaxDatagram = 65507

// datagram is a UDP packet in flight.
type datagram struct {
	from     *Host
	src, dst netip.AddrPort
	payload  []byte
}

func (d *datagram) size() int {
	if d.dst.Addr().Is4() {
		return len(d.payload) + 28
	}
	return len(d.payload) + 48
}

// sendLocked puts a datagram on the sender's link.
func (in *Internet) sendLocked(h *Host, d *datagram) {
	if in.onPacket != nil {
		in.onPacket(Packet{From: h, Network: "udp", Src: d.src, Dst: d.dst, Payload: d.payload})
	}
	if d.dst.Addr().IsLoopback() || slices.Contains(h.addrs, d.dst.Addr()) {
		in.afterLocked(0, func() { h.takeLocked(d) })
		return
	}
	if h.Link.losesLocked(d.size()) {
		return
	}
	queued, ok := h.Link.enterLocked(d.size())
	if !ok {
		return
	}
	at := h.net
	in.afterLocked(queued+h.Link.latency, func() { in.forwardLocked(at, d, nil) })
}

// forwardLocked moves a datagram in n one step further. left is the router from which it
// came, if any.
func (in *Internet) forwardLocked(n *Net, d *datagram, left *NAT) {
	dst := d.dst.Addr()
	if h := n.hosts[dst]; h != nil {
		if !h.Link.losesLocked(d.size()) && !in.parted[[2]*Host{d.from, h}] {
			in.afterLocked(h.Link.latency, func() { h.takeLocked(d) })
		}
		return
	}
	down := n.routers[dst]
	if down == nil {
		down = n.behindLocked(dst)
	}
	if down != nil {
		if down == left && !down.hairpin || down.Link.losesLocked(d.size()) {
			return
		}
		in.afterLocked(down.Link.latency, func() {
			var ok bool
			if d.dst, ok = down.enterLocked(d.src, d.dst); ok {
				in.forwardLocked(down.Net, d, nil)
			}
		})
		return
	}
	up := n.router
	if up == nil || up.Link.losesLocked(d.size()) {
		return
	}
	var ok bool
	if d.src, ok = up.leaveLocked(d.src, d.dst); !ok {
		return
	}
	if queued, ok := up.Link.enterLocked(d.size()); ok {
		in.afterLocked(queued+up.Link.latency, func() { in.forwardLocked(up.outer, d, up) })
	}
}

// takeLocked delivers a datagram to its socket.
func (h *Host) takeLocked(d *datagram) {
	c := h.packets[d.dst.Port()]
	if h.Link.down && d.from != h || c == nil || c.queued+len(d.payload) > packetBuffer {
		return
	}
	if a := c.local.Addr(); !a.IsUnspecified() && a != d.dst.Addr() || !d.dst.Addr().IsLoopback() && !slices.Contains(h.addrs, d.dst.Addr()) {
		return
	}
	c.queued += len(d.payload)
	c.queue = append(c.queue, d)
	c.changed.tell()
}

// PacketConn is a UDP socket. Besides net.PacketConn it has the AddrPort methods of
// net.UDPConn.
type PacketConn struct {
	host  *Host
	local netip.AddrPort

	// Guarded by Internet.mu.
	queue    []*datagram
	queued   int
	err      error
	changed  signal
	deadline time.Time
}

var _ net.PacketConn = (*PacketConn)(nil)

// ReadFromUDPAddrPort waits for a datagram. What does not fit into b is lost.
func (c *PacketConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	in := c.host.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case c.err != nil:
			return 0, netip.AddrPort{}, c.opError("read", c.err)
		case len(c.queue) > 0:
			d := c.queue[0]
			c.queue = c.queue[1:]
			c.queued -= len(d.payload)
			return copy(b, d.payload), d.src, nil
		case expired(c.deadline):
			return 0, netip.AddrPort{}, c.opError("read", os.ErrDeadlineExceeded)
		}
		in.waitLocked(&c.changed, c.deadline)
	}
}

// WriteToUDPAddrPort sends a datagram. It never blocks.
func (c *PacketConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	in := c.host.in
	in.mu.Lock()
	defer in.mu.Unlock()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	src := c.local.Addr()
	if src.IsUnspecified() {
		src = c.host.sourceLocked(to.Addr())
	}
	switch {
	case c.err != nil:
		return 0, c.opError("write", c.err)
	case len(b) > MaxDatagram:
		return 0, c.opError("write", errTooLong)
	case !src.IsValid() || src.Is4() != to.Addr().Is4():
		return 0, c.opError("write", errNoRoute)
	}
	in.sendLocked(c.host, &datagram{
		from: c.host, src: netip.AddrPortFrom(src, c.local.Port()), dst: to, payload: slices.Clone(b),
	})
	return len(b), nil
}

// ReadFrom implements net.PacketConn; the address is a *net.UDPAddr.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo implements net.PacketConn; to is a *net.UDPAddr.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", net.InvalidAddrError("not a *net.UDPAddr"))
	}
	return c.WriteToUDPAddrPort(b, u.AddrPort())
}

// Close closes the socket. Reads in progress return net.ErrClosed.
func (c *PacketConn) Close() error {
	c.host.in.mu.Lock()
	defer c.host.in.mu.Unlock()
	if c.err != nil {
		return c.opError("close", c.err)
	}
	c.endLocked(net.ErrClosed)
	return nil
}

func (c *PacketConn) endLocked(err error) {
	c.err = err
	c.queue, c.queued = nil, 0
	delete(c.host.packets, c.local.Port())
	c.changed.tell()
}

// LocalAddr returns the address that the socket was bound to, with its port.
func (c *PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// SetDeadline is SetReadDeadline, because writes do not block.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	c.host.in.mu.Lock()
	defer c.host.in.mu.Unlock()
	c.deadline = t
	c.changed.tell()
	return nil
}

// SetWriteDeadline does nothing, because writes do not block.
func (c *PacketConn) SetWriteDeadline(time.Time) error { return nil }

func (c *PacketConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Addr: c.LocalAddr(), Err: err}
}
