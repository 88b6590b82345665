// Package pipe joins two stream connections and copies between them until both
// directions have ended. The proxy, the port forwards and the local API's streams use
// it.
// API's streams have in common.
//
// The end of a stream is passed on as a half-close, so that "send, close, read the
// answer" works through any number of hops. An error in either direction closes both
// connections at once, with a reset where the sockets can: it must not look like an
// orderly end.
//
// From a unix socket to TCP the kernel copies the bytes (splice). An idle connection
// holds no large buffer: kernel sockets are read only when they are readable, others
// through a small buffer that grows to limited.LargeBuffer while data flows. Large
// buffers come from package limited and are smaller while many are in use.
//
// Not for embedders: the code that copies between connections shares it.
package pipe

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"weft/overlay/limited"
)

// idleBuffer is the buffer of a direction with little traffic, in bytes.
const idleBuffer = 2 << 10

// Join copies between a and b until both directions have ended or one has failed, then
// closes both. It returns the bytes copied each way and the first error, nil if both
// directions ended orderly. It blocks; to stop it early, close a or b.
func Join(a, b net.Conn) (aToB, bToA int64, err error) {
	var once sync.Once
	end := func(e error) {
		if e != nil {
			once.Do(func() { err = e })
			// The other direction may be blocked in a read that would never end.
			reset(a)
			reset(b)
		}
	}
	defer b.Close() // in any case, so that the other direction ends
	defer a.Close()
	wait := limited.Go(func() {
		e := errCrashed
		defer func() { end(e) }()
		bToA, e = oneWay(a, b)
	})
	var e error
	aToB, e = oneWay(b, a)
	end(e)
	wait()
	return aToB, bToA, err
}

var errCrashed = errors.New("the other direction crashed")

// oneWay copies src to dst and passes on the end of the stream.
func oneWay(dst, src net.Conn) (int64, error) {
	n, err := Copy(dst, src)
	if err != nil {
		return n, err
	}
	if cw, ok := dst.(interface{ CloseWrite() error }); ok {
		err = cw.CloseWrite()
		if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, net.ErrClosed) {
			err = nil // the other side closed in the meantime; nothing is lost
		}
	}
	return n, err
}

// reset closes a connection so that the remote end sees a reset, if the connection can
// do that.
func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}

// Copy copies src to dst until src ends (nil) or either fails.
func Copy(dst io.Writer, src io.Reader) (int64, error) {
	switch s := src.(type) {
	case *net.TCPConn:
		// Do not use splice: it stops for good at an urgent byte, even with
		// SO_OOBINLINE. Between TCP sockets it is slower, too.
		return copySocket(dst, s)
	case *net.UnixConn:
		if d, ok := dst.(*net.TCPConn); ok {
			return d.ReadFrom(s) // splice
		}
		return copySocket(dst, s)
	case io.WriterTo:
		return s.WriteTo(dst)
	}
	switch d := dst.(type) {
	case *net.TCPConn, *net.UnixConn: // their ReadFrom is io.Copy with 32 KB
	case io.ReaderFrom:
		return d.ReadFrom(src)
	}
	return copyAdaptive(dst, src)
}

// copyAdaptive copies from anything but a kernel socket. A read that fills the small
// buffer switches to a large one, a short read switches back.
func copyAdaptive(dst io.Writer, src io.Reader) (total int64, err error) {
	small := make([]byte, idleBuffer)
	var big []byte
	defer func() {
		if big != nil {
			limited.PutBuffer(big)
		}
	}()
	for {
		buf := small
		if big != nil {
			buf = big
		}
		n, rerr := src.Read(buf)
		if n > 0 {
			w, werr := dst.Write(buf[:n])
			total += int64(w)
			if werr != nil {
				return total, werr
			}
			if w < n {
				return total, io.ErrShortWrite
			}
		}
		switch {
		case rerr == io.EOF:
			return total, nil
		case rerr != nil:
			return total, rerr
		case big == nil && n == len(small):
			big = limited.GetBuffer()
		case big != nil && n < len(small):
			limited.PutBuffer(big)
			big = nil
		}
	}
}
