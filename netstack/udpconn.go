package netstack

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxStrays bounds the datagrams from other ports that wait to be read, in bytes; each
// counts strayCost more than its payload.
const (
	maxStrays = 256 << 10
	strayCost = 256
)

// UDPConn is a UDP socket of the user-space network, connected (DialContext) or not
// (ListenUDP). It is a net.Conn and a net.PacketConn. On a connected one, the next Read
// or Write returns an ICMP error that came back. A connected one receives only from the
// address and port that it is connected to; after AcceptAllPorts, from all ports of
// that address, and WriteToAddrPort can send to them.
type UDPConn struct {
	// Constant after newUDPConn.
	ep       tcpip.Endpoint
	wq       *waiter.Queue
	net      *Net
	local    netip.AddrPort
	remote   netip.AddrPort // zero when not connected
	readable chan struct{}
	entry    waiter.Entry
	done     chan struct{} // closed by Close

	readDeadline  deadline
	writeDeadline deadline
	closeOnce     sync.Once

	// mu guards the following.
	mu         sync.Mutex
	strays     []stray
	strayBytes int // counted as maxStrays says
}

// stray is a datagram from another port of the address that a socket is connected to.
type stray struct {
	from    netip.AddrPort
	payload []byte
}

// strayKey identifies a connected socket, without the remote port.
type strayKey struct {
	local  netip.AddrPort
	remote netip.Addr
}

func (c *UDPConn) strayKey() strayKey { return strayKey{c.local, c.remote.Addr()} }

// dialledUDP are the program's connected sockets. A closed one is remembered for as
// long as the packet filter may still take its peer's datagrams for answers: they must
// not reach a program that listens on the same port of this machine's loopback, a port
// that no rule opens.
type dialledUDP struct {
	mu sync.Mutex
	by map[strayKey]*dialled // by strayKey; guarded by mu
}

type dialled struct {
	conn     *UDPConn      // nil when closed
	allPorts bool          // see AcceptAllPorts
	last     time.Duration // time of the close or of the last datagram after it, by elapsed
}

const (
	closedLife = 2 * time.Minute // longer than any filter remembers a UDP flow
	maxDialled = 4096            // including closed ones; only those are evicted
)

func (d *dialledUDP) add(c *UDPConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.by) >= maxDialled {
		now := elapsed()
		var oldest *dialled
		var at strayKey
		for key, s := range d.by {
			if s.conn != nil {
				continue
			}
			if now-s.last >= closedLife {
				delete(d.by, key)
			} else if oldest == nil || s.last < oldest.last {
				oldest, at = s, key
			}
		}
		if oldest != nil && len(d.by) >= maxDialled {
			delete(d.by, at)
		}
	}
	d.by[c.strayKey()] = &dialled{conn: c}
}

func (d *dialledUDP) close(c *UDPConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.by[c.strayKey()]; s != nil && s.conn == c {
		s.conn, s.last = nil, elapsed()
	}
}

// find looks up the program's socket for a datagram that belongs to no endpoint. ours
// reports whether there is or was one; c is the open socket that accepts the datagram,
// nil for none.
func (d *dialledUDP) find(key strayKey) (c *UDPConn, ours bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.by[key]
	switch {
	case s == nil:
		return nil, false
	case s.conn != nil && s.allPorts:
		return s.conn, true
	case s.conn != nil:
		return nil, true
	case elapsed()-s.last >= closedLife:
		delete(d.by, key)
		return nil, false
	}
	s.last = elapsed()
	return nil, true
}

// AcceptAllPorts makes a connected socket receive datagrams from all ports of the
// address that it is connected to: some protocols answer from another port.
// ReadFromAddrPort distinguishes them.
func (c *UDPConn) AcceptAllPorts() {
	d := &c.net.dialled
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.by[c.strayKey()]; s != nil && s.conn == c {
		s.allPorts = true
	}
}

// queueStray queues a datagram from another port.
func (c *UDPConn) queueStray(from netip.AddrPort, payload []byte) {
	c.mu.Lock()
	if cost := len(payload) + strayCost; c.strayBytes+cost <= maxStrays {
		c.strayBytes += cost
		c.strays = append(c.strays, stray{from, bytes.Clone(payload)})
	}
	c.mu.Unlock()
	c.entry.NotifyEvent(waiter.ReadableEvents)
}

// takeStray removes the oldest stray.
func (c *UDPConn) takeStray() (s stray, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.strays) == 0 {
		return s, false
	}
	s = c.strays[0]
	c.strayBytes -= len(s.payload) + strayCost
	if c.strays = c.strays[1:]; len(c.strays) == 0 {
		c.strays = nil
	}
	return s, true
}

var (
	_ net.Conn       = (*UDPConn)(nil)
	_ net.PacketConn = (*UDPConn)(nil)
)

func newUDPConn(n *Net, wq *waiter.Queue, ep tcpip.Endpoint, remote netip.AddrPort) *UDPConn {
	c := &UDPConn{ep: ep, wq: wq, net: n, remote: remote, done: make(chan struct{})}
	if a, err := ep.GetLocalAddress(); err == nil {
		c.local = fromFull(a)
	}
	c.entry, c.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&c.entry)
	return c
}

// ReadFromAddrPort reads one datagram into b, truncated to len(b), and returns its size
// and sender.
func (c *UDPConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		passed := c.readDeadline.wait()
		if expired(passed) {
			return 0, netip.AddrPort{}, c.opError("read", nil, os.ErrDeadlineExceeded)
		}
		w := tcpip.SliceWriter(b)
		res, terr := c.ep.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch terr.(type) {
		case nil:
			return res.Count, fromFull(res.RemoteAddr), nil
		case *tcpip.ErrWouldBlock:
			if s, ok := c.takeStray(); ok {
				return copy(b, s.payload), s.from, nil
			}
		case *tcpip.ErrBadBuffer: // len(b) == 0
			return 0, fromFull(res.RemoteAddr), nil
		default:
			if expired(c.done) {
				return 0, netip.AddrPort{}, c.opError("read", nil, net.ErrClosed)
			}
			return 0, netip.AddrPort{}, c.opError("read", nil, os.NewSyscallError("recvfrom", c.errno(terr)))
		}
		select {
		case <-c.readable:
		case <-passed:
		case <-c.done:
			return 0, netip.AddrPort{}, c.opError("read", nil, net.ErrClosed)
		}
	}
}

// WriteToAddrPort sends b as one datagram; the zero address means the connected one. It
// does not wait: what the network cannot take is lost, as datagrams are.
func (c *UDPConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if expired(c.writeDeadline.wait()) {
		return 0, c.opError("write", nil, os.ErrDeadlineExceeded)
	}
	var opts tcpip.WriteOptions
	if to = unmap(to); to.IsValid() {
		full := toFull(to)
		opts.To = &full
	}
	var r bytes.Reader
	r.Reset(b)
	n, terr := c.ep.Write(&r, opts)
	switch terr.(type) {
	case nil:
		return int(n), nil
	case *tcpip.ErrNoBufferSpace, *tcpip.ErrWouldBlock:
		return len(b), nil
	}
	var addr net.Addr
	if to.IsValid() {
		addr = netAddr("udp", to)
	}
	if expired(c.done) {
		return 0, c.opError("write", addr, net.ErrClosed)
	}
	return 0, c.opError("write", addr, os.NewSyscallError("sendto", c.errno(terr)))
}

// errno returns the reason why a connected socket failed, from the ICMP error if one
// came.
func (c *UDPConn) errno(terr tcpip.Error) syscall.Errno {
	if _, ok := terr.(*tcpip.ErrConnectionRefused); ok && c.remote.IsValid() {
		if why := c.net.link.icmp.reason(flow{protoUDP, c.local, c.remote}); why != 0 {
			return why
		}
	}
	return errno(terr)
}

// Read implements net.Conn.
func (c *UDPConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFromAddrPort(b)
	return n, err
}

// Write implements net.Conn.
func (c *UDPConn) Write(b []byte) (int, error) {
	return c.WriteToAddrPort(b, netip.AddrPort{})
}

// ReadFrom implements net.PacketConn; the address is a *net.UDPAddr.
func (c *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, netAddr("udp", from), nil
}

// WriteTo implements net.PacketConn; addr must be a *net.UDPAddr.
func (c *UDPConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	ua, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", addr, syscall.EINVAL)
	}
	to := ua.AddrPort()
	if !to.IsValid() {
		return 0, c.opError("write", addr, syscall.EDESTADDRREQ)
	}
	return c.WriteToAddrPort(b, to)
}

// Close implements net.Conn.
func (c *UDPConn) Close() error {
	err := net.ErrClosed
	c.closeOnce.Do(func() {
		err = nil
		close(c.done)
		if c.remote.IsValid() {
			c.net.dialled.close(c)
		}
		c.readDeadline.stop()
		c.writeDeadline.stop()
		c.ep.Close()
	})
	if err != nil {
		return c.opError("close", nil, err)
	}
	return nil
}

// LocalAddr implements net.Conn; it is a *net.UDPAddr.
func (c *UDPConn) LocalAddr() net.Addr { return netAddr("udp", c.local) }

// RemoteAddr implements net.Conn; nil for a socket that is not connected.
func (c *UDPConn) RemoteAddr() net.Addr {
	if !c.remote.IsValid() {
		return nil
	}
	return netAddr("udp", c.remote)
}

// SetDeadline implements net.Conn.
func (c *UDPConn) SetDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return c.SetReadDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *UDPConn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.entry.NotifyEvent(waiter.ReadableEvents)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *UDPConn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return nil
}

func (c *UDPConn) opError(op string, to net.Addr, err error) error {
	if to == nil {
		to = c.RemoteAddr()
	}
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: to, Err: err}
}
