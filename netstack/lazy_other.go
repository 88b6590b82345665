//go:build !unix

package netstack

import (
	"io"
	"net"

	"weft/netstack/loopback"
)

// lazyReader reads from a socket. This system does not report readiness, so it holds a
// buffer while it waits.
type lazyReader struct {
	conn     net.Conn
	datagram bool
	port     uint16 // always 0, the target's own
}

func newLazyReader(src io.Reader) *lazyReader {
	switch c := src.(type) {
	case *net.TCPConn:
		return &lazyReader{conn: c}
	case *loopback.UDP:
		return &lazyReader{conn: c, datagram: true}
	}
	return nil
}

func (r *lazyReader) next() ([]byte, int, error) {
	buf := getBuffer(r.datagram)
	n, err := r.conn.Read(buf)
	if err != nil {
		putBuffer(buf, r.datagram)
		return nil, 0, err
	}
	return buf, n, nil
}
