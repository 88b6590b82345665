//go:build unix

package netstack

import (
	"io"
	"net"
	"syscall"

	"weft/netstack/loopback"
)

// lazyReader reads from a socket of the system into a pooled buffer that it
// takes only when there is something to read: thousands of idle connections
// then hold no buffers.
type lazyReader struct {
	raw      syscall.RawConn
	udp      *loopback.UDP // nil for others
	datagram bool          // it is one of those
	try      func(fd uintptr) bool

	// The result of try.
	buf  []byte
	n    int
	port uint16 // that a datagram came from, 0 for the one of the target
	err  error
}

// newLazyReader returns nil for what is no socket.
func newLazyReader(src io.Reader) *lazyReader {
	r := &lazyReader{}
	var err error
	switch c := src.(type) {
	case *net.TCPConn:
		r.raw, err = c.SyscallConn()
	case *loopback.UDP:
		r.raw, err = c.SyscallConn()
		r.udp, r.datagram = c, true
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
// buffer that is the caller's to put back; nil with an error.
func (r *lazyReader) next() ([]byte, int, error) {
	r.buf, r.n, r.err = nil, 0, nil
	if err := r.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	buf := r.buf
	r.buf = nil
	if r.err == nil && r.n == 0 && !r.datagram {
		r.err = io.EOF
	}
	if r.err != nil {
		putBuffer(buf, r.datagram)
		return nil, 0, r.err
	}
	return buf, r.n, nil
}

func (r *lazyReader) tryRead(fd uintptr) bool {
	r.buf = getBuffer(r.datagram)
	for {
		if r.udp != nil {
			r.n, r.port, r.err = r.udp.Receive(fd, r.buf)
		} else {
			r.n, r.err = syscall.Read(int(fd), r.buf)
		}
		if r.err != syscall.EINTR {
			break
		}
	}
	if r.err == syscall.EAGAIN {
		putBuffer(r.buf, r.datagram)
		r.buf = nil
		return false
	}
	return true
}
