//go:build !unix

package netstack

import (
	"io"
	"net"

	"weft/netstack/loopback"
)

// lazyReader reads from a socket; this system does not tell readiness, so a
// block is held while it waits.
type lazyReader struct {
	conn net.Conn
	size int
	port uint16 // always 0, that of the target
}

func newLazyReader(src io.Reader) *lazyReader {
	switch c := src.(type) {
	case *net.TCPConn:
		return &lazyReader{conn: c, size: copySize}
	case *loopback.UDP:
		return &lazyReader{conn: c, size: len(block{})}
	}
	return nil
}

func (r *lazyReader) next() (*block, int, error) {
	buf := getBlock()
	n, err := r.conn.Read(buf[:r.size])
	if err != nil {
		putBlock(buf)
		return nil, 0, err
	}
	return buf, n, nil
}
