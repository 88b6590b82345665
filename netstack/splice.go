package netstack

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"weft/overlay/limited"
)

// copySize is how much of a buffer is used to read TCP: exactly one large packet.
// Buffers come from package limited and are held only while data flows, never while
// waiting for it.
const copySize = DefaultMaxSegment

// maxDatagram is the size of a datagram buffer; a smaller one would cut datagrams off.
// A buffer is held only while its datagram is passed on.
const maxDatagram = 64 << 10

var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// getBuffer returns a buffer to read one datagram or part of a stream into. putBuffer
// returns it.
func getBuffer(datagram bool) []byte {
	if datagram {
		return datagrams.Get().(*[maxDatagram]byte)[:]
	}
	b := limited.GetBuffer()
	return b[:min(len(b), copySize)]
}

func putBuffer(b []byte, datagram bool) {
	if datagram {
		datagrams.Put((*[maxDatagram]byte)(b[:maxDatagram]))
		return
	}
	limited.PutBuffer(b)
}

// drainTime is how long a peer's data is still accepted, and dropped, after the local
// program has closed. An RST during that time could overtake the program's last data.
const drainTime = 5 * time.Second

// splice copies both ways between a peer and a local program until both halves
// have ended, passing on a half-close as a half-close and a reset as a reset.
// It owns and closes both.
func (n *Net) splice(peer *TCPConn, local net.Conn) {
	stop := context.AfterFunc(n.ctx, func() { peer.reset(); reset(local) })
	defer stop()

	up := make(chan struct{}) // local to peer
	go func() {
		defer close(up)
		switch rerr, werr := pump(peer, local); {
		case werr != nil:
			reset(local)
		case rerr != nil:
			peer.reset()
		default:
			peer.CloseWrite()
		}
	}()

	switch rerr, werr := pump(local, peer); {
	case werr != nil:
		peer.SetReadDeadline(time.Now().Add(drainTime))
		pump(io.Discard, peer)
	case rerr != nil:
		reset(local)
	default:
		closeWrite(local)
	}
	<-up
	peer.Close()
	local.Close()
}

// pump copies until EOF (no error), or until one side fails.
func pump(dst io.Writer, src io.Reader) (readErr, writeErr error) {
	w := errWriter{Writer: dst}
	switch s := src.(type) {
	case *TCPConn:
		_, readErr = s.WriteTo(&w)
	default:
		_, readErr = copyPooled(&w, src)
	}
	if w.err != nil {
		return nil, w.err
	}
	return readErr, nil
}

// errWriter records that the error came from the writer.
type errWriter struct {
	io.Writer
	err error
}

func (w *errWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		w.err = err
	}
	return n, err
}

// copyPooled copies src to dst until EOF. Where the system allows it, no buffer is held
// while src has no data.
func copyPooled(dst io.Writer, src io.Reader) (total int64, err error) {
	lazy := newLazyReader(src)
	for {
		var buf []byte
		var n int
		if lazy != nil {
			buf, n, err = lazy.next()
		} else {
			buf = getBuffer(false)
			n, err = src.Read(buf)
		}
		if n > 0 {
			m, werr := dst.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				err = werr
			}
		}
		if buf != nil {
			putBuffer(buf, false)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// reset closes a connection with an RST if it can.
func reset(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	c.Close()
}

func closeWrite(c net.Conn) {
	if t, ok := c.(interface{ CloseWrite() error }); ok {
		t.CloseWrite()
		return
	}
	c.Close()
}
