//go:build !unix

package netstack

import (
	"io"
	"net"

	"weft/netstack/loopback"
)

// lazyReader reads from a socket; this system does not tell readiness, so a
// buffer is held while it waits.
type lazyReader struct {
	conn     net.Conn
	datagram bool
	port     uint16 // always 0, that of the target
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
