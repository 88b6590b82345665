package netstack

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"weft/overlay/limited"
)

// Keepalive of every connection. It detects within a quarter of an hour that a peer has
// vanished, so that a service does not run out of connections. Its idle time is shorter
// than the ten minutes after which a tunnel without data ends: keeping a tunnel costs
// less than making it anew each time.
const (
	keepaliveIdle     = 9 * time.Minute
	keepaliveInterval = 45 * time.Second
	keepaliveCount    = 8
)

// TCPConn is a TCP connection of the user-space network. Like *net.TCPConn it can
// half-close, and io.Copy from and to it uses buffers of its packet size. Read, Write,
// Close and the deadlines may be called concurrently.
type TCPConn struct {
	// Constant after newTCPConn.
	ep            tcpip.Endpoint
	wq            *waiter.Queue
	local, remote netip.AddrPort
	readable      chan struct{} // holds a token when the endpoint may have become readable
	writable      chan struct{}
	entries       [2]waiter.Entry
	done          chan struct{} // closed by Close
	share         *share        // of the memory; nil: gVisor tunes the buffers
	orphans       *orphans

	readDeadline  deadline
	writeDeadline deadline
	closeOnce     sync.Once

	readMu  sync.Mutex // held by the reader in progress; guards receive
	receive tuner
	writeMu sync.Mutex // held by the writer in progress; guards the following
	send    tuner
	payload bytes.Reader
}

var _ net.Conn = (*TCPConn)(nil)

// newTCPConn takes over a connected endpoint and its share of the memory. Close adds
// the connection to orphans.
func newTCPConn(wq *waiter.Queue, ep tcpip.Endpoint, share *share, orphans *orphans) *TCPConn {
	c := &TCPConn{ep: ep, wq: wq, done: make(chan struct{}), share: share, orphans: orphans}
	c.receive = tuner{share: share, receive: true, size: leastReceive}
	c.send = tuner{share: share, size: leastSend}
	if a, err := ep.GetLocalAddress(); err == nil {
		c.local = fromFull(a)
	}
	if a, err := ep.GetRemoteAddress(); err == nil {
		c.remote = fromFull(a)
	}
	// Registered for the life of the connection, so that waiting does not allocate.
	c.entries[0], c.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	c.entries[1], c.writable = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&c.entries[0])
	wq.EventRegister(&c.entries[1])

	c.setKeepalive(keepaliveIdle, keepaliveInterval)
	return c
}

func (c *TCPConn) setKeepalive(idle, interval time.Duration) {
	idleOpt, intervalOpt := tcpip.KeepaliveIdleOption(idle), tcpip.KeepaliveIntervalOption(interval)
	c.ep.SetSockOpt(&idleOpt)
	c.ep.SetSockOpt(&intervalOpt)
	c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	c.ep.SocketOptions().SetKeepAlive(true)
}

// Read implements net.Conn.
func (c *TCPConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		n, wait, err := c.tryRead(b)
		if !wait {
			return n, err
		}
		if err := c.waitReadable(); err != nil {
			return 0, err
		}
	}
}

// tryRead reads the available data. wait reports that there is none yet. The caller
// holds readMu.
func (c *TCPConn) tryRead(b []byte) (n int, wait bool, err error) {
	if expired(c.readDeadline.wait()) {
		return 0, false, c.opError("read", os.ErrDeadlineExceeded)
	}
	w := tcpip.SliceWriter(b)
	res, terr := c.ep.Read(&w, tcpip.ReadOptions{})
	switch terr.(type) {
	case nil:
		if c.share == nil {
			c.ep.ModerateRecvBuf(res.Count)
		} else {
			c.receive.move(c.ep, res.Count)
		}
		return res.Count, false, nil
	case *tcpip.ErrWouldBlock:
		return 0, true, nil
	}
	if expired(c.done) {
		return 0, false, c.opError("read", net.ErrClosed)
	}
	if _, ok := terr.(*tcpip.ErrClosedForReceive); ok {
		return 0, false, io.EOF
	}
	return 0, false, c.opError("read", os.NewSyscallError("read", errno(terr)))
}

func (c *TCPConn) waitReadable() error {
	select {
	case <-c.readable:
		return nil
	case <-c.done:
		return c.opError("read", net.ErrClosed)
	case <-c.readDeadline.wait():
		return c.opError("read", os.ErrDeadlineExceeded)
	}
}

// Write implements net.Conn. Concurrent writes do not interleave.
func (c *TCPConn) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	done := 0
	for done < len(b) {
		passed := c.writeDeadline.wait()
		if expired(passed) {
			return done, c.opError("write", os.ErrDeadlineExceeded)
		}
		c.payload.Reset(b[done:])
		n, terr := c.ep.Write(&c.payload, tcpip.WriteOptions{})
		done += int(n)
		switch terr.(type) {
		case nil:
			c.send.move(c.ep, int(n))
			continue
		case *tcpip.ErrWouldBlock:
		default:
			c.payload.Reset(nil)
			if expired(c.done) {
				return done, c.opError("write", net.ErrClosed)
			}
			return done, c.opError("write", os.NewSyscallError("write", errno(terr)))
		}
		select {
		case <-c.writable:
		case <-c.done:
			c.payload.Reset(nil)
			return done, c.opError("write", net.ErrClosed)
		case <-passed:
			// Passed or moved: the loop checks again.
		}
	}
	c.payload.Reset(nil)
	return done, nil
}

// ReadFrom implements io.ReaderFrom: it sends all of r and reads in pieces that fill
// the largest packet.
func (c *TCPConn) ReadFrom(r io.Reader) (int64, error) {
	return copyPooled(c, r)
}

// WriteTo implements io.WriterTo. It holds no buffer while it waits for data.
func (c *TCPConn) WriteTo(w io.Writer) (total int64, err error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		buf := limited.GetBuffer()
		n, wait, err := c.tryRead(buf)
		if n > 0 {
			var m int
			m, err = w.Write(buf[:n])
			total += int64(m)
		}
		limited.PutBuffer(buf)
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		case wait:
			if err := c.waitReadable(); err != nil {
				return total, err
			}
		}
	}
}

// Close implements net.Conn. Written data is still sent in the background, unless too
// many connections do so. If there is unread data, the peer gets a reset.
func (c *TCPConn) Close() error {
	err := net.ErrClosed
	c.closeOnce.Do(func() {
		err = nil
		close(c.done)
		c.readDeadline.stop()
		c.writeDeadline.stop()
		c.ep.Close()
		c.share.releaseAfterClose(c.wq, c.ep)
		c.orphans.add(c.ep, c.remote.Addr())
	})
	if err != nil {
		return c.opError("close", err)
	}
	return nil
}

// reset closes the connection with an RST and drops unsent data.
func (c *TCPConn) reset() {
	c.SetLinger(0)
	c.Close()
}

// SetLinger is that of *net.TCPConn: with 0, Close discards unsent data and resets the
// connection.
func (c *TCPConn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{
		Enabled: sec >= 0,
		Timeout: time.Duration(max(sec, 0)) * time.Second,
	})
	return nil
}

// CloseWrite ends the sending half: the peer reads EOF after all data.
func (c *TCPConn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

func (c *TCPConn) shutdown(how tcpip.ShutdownFlags) error {
	if terr := c.ep.Shutdown(how); terr != nil {
		return c.opError("close", os.NewSyscallError("shutdown", errno(terr)))
	}
	return nil
}

// LocalAddr implements net.Conn; it is a *net.TCPAddr.
func (c *TCPConn) LocalAddr() net.Addr { return netAddr("tcp", c.local) }

// RemoteAddr implements net.Conn; it is a *net.TCPAddr.
func (c *TCPConn) RemoteAddr() net.Addr { return netAddr("tcp", c.remote) }

// SetDeadline implements net.Conn.
func (c *TCPConn) SetDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.writeDeadline.set(t)
	c.wakeAll()
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *TCPConn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.wakeAll()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *TCPConn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	c.wakeAll()
	return nil
}

// wakeAll makes waiting calls check their deadline again: they may wait on the channel
// of an earlier one.
func (c *TCPConn) wakeAll() {
	c.entries[0].NotifyEvent(waiter.ReadableEvents)
	c.entries[1].NotifyEvent(waiter.WritableEvents)
}

func (c *TCPConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
