//go:build unix

package link

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func (c *Conn) initRaw(sc syscall.Conn) {
	if raw, err := sc.SyscallConn(); err == nil {
		c.raw, c.readFn = raw, c.tryRead
	}
}

// fill waits until the socket has bytes, and takes a buffer only then.
func (c *Conn) fill() error {
	if err := c.raw.Read(c.readFn); err != nil {
		return err
	}
	return c.readErr
}

// tryRead is a callback of the poller: true means done, false means wait for input.
func (c *Conn) tryRead(fd uintptr) bool {
	from := pool(smallChunk)
	if c.tuned {
		from = pool(readChunk)
	}
	buf := from.Get().(*[]byte)
	for {
		n, err := unix.Read(int(fd), *buf)
		switch {
		case err == unix.EINTR:
			continue
		case n > 0:
			c.in, c.r, c.w, c.readErr = buf, 0, n, nil
			return true
		}
		from.Put(buf)
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			c.readErr = &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.Conn.RemoteAddr(), Err: os.NewSyscallError("read", err)}
		default:
			c.readErr = io.EOF
		}
		return true
	}
}

// abandoned reports whether the other end is known to have closed the socket.
func (c *Conn) abandoned() (gone bool) {
	if c.raw == nil {
		return false
	}
	c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = n <= 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return gone
}
