//go:build unix

package netstack

import (
	"io"
	"net"
	"syscall"

	"weft/netstack/loopback"
)

// lazyReader reads from a socket of the system into a pooled block that it
// takes only when there is something to read: thousands of idle connections
// then hold no buffers.
type lazyReader struct {
	raw  syscall.RawConn
	size int
	udp  *loopback.UDP // nil for others
	try  func(fd uintptr) bool

	// The result of try.
	buf  *block
	n    int
	port uint16 // that a datagram came from, 0 for the one of the target
	err  error
}

// newLazyReader returns nil for what is no socket.
func newLazyReader(src io.Reader) *lazyReader {
	r := &lazyReader{size: copySize}
	var err error
	switch c := src.(type) {
	case *net.TCPConn:
		r.raw, err = c.SyscallConn()
	case *loopback.UDP:
		r.raw, err = c.SyscallConn()
		r.size, r.udp = len(block{}), c
	case *net.UnixConn:
		r.raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	r.try = r.tryRead
	return r
}

// next waits for data (for a datagram socket: one datagram) and returns it in a
// block that is the caller's to put back; nil with an error.
func (r *lazyReader) next() (*block, int, error) {
	r.buf, r.n, r.err = nil, 0, nil
	if err := r.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	buf := r.buf
	r.buf = nil
	if r.err == nil && r.n == 0 && r.size == copySize {
		r.err = io.EOF
	}
	if r.err != nil {
		putBlock(buf)
		return nil, 0, r.err
	}
	return buf, r.n, nil
}

func (r *lazyReader) tryRead(fd uintptr) bool {
	r.buf = getBlock()
	for {
		if r.udp != nil {
			r.n, r.port, r.err = r.udp.Receive(fd, r.buf[:])
		} else {
			r.n, r.err = syscall.Read(int(fd), r.buf[:r.size])
		}
		if r.err != syscall.EINTR {
			break
		}
	}
	if r.err == syscall.EAGAIN {
		putBlock(r.buf)
		r.buf = nil
		return false
	}
	return true
}
