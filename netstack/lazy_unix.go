//go:build unix

package netstack

import (
	"io"
	"net"
	"syscall"

	"weft/netstack/loopback"
)

// lazyReader reads from a socket of the system. It takes a pooled buffer only when
// there is data to read, so thousands of idle connections hold no buffers.
type lazyReader struct {
	raw      syscall.RawConn
	udp      *loopback.UDP // nil for other sockets
	datagram bool          // whether it is a UDP socket
	try      func(fd uintptr) bool

	// The result of try.
	buf  []byte
	n    int
	port uint16 // source port of the datagram, 0 for the target's own
	err  error
}

// newLazyReader returns nil if src is not a socket.
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

// next waits for data (for a datagram socket: one datagram) and returns it in a buffer
// that the caller has to put back; the buffer is nil with an error.
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
