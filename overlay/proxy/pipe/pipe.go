// Package pipe joins two stream connections and copies between them until
// both directions have ended: what the proxy, the port forwards and the local
// API's streams have in common.
//
// End of stream in one direction is passed on as a half-close, so that
// "send, close, read the answer" works through any number of hops. An error in
// either direction closes both connections at once: a reset must not look like
// an orderly end, as far as the sockets can say so.
//
// From a unix socket to TCP the bytes never leave the kernel (splice). An
// idle connection holds no large buffer: kernel sockets are read only when
// they are readable, others through a small buffer that grows to limited.LargeBuffer
// while data flows. Those come from package limited: with many in use they are
// smaller.
//
// Not for embedders: what copies between connections shares it.
package pipe

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"weft/overlay/limited"
)

// idleBuffer is what a direction holds while nothing much happens on it.
const idleBuffer = 2 << 10

// Join copies between a and b until both directions have ended or one has
// failed, then closes both. It returns the bytes copied each way and the first
// error; an orderly end of both directions is nil. It blocks; to stop it
// early, close a or b.
func Join(a, b net.Conn) (aToB, bToA int64, err error) {
	var once sync.Once
	end := func(e error) {
		if e != nil {
			once.Do(func() { err = e })
			// The other direction may be blocked in a read that would never
			// end: nobody is left to talk to.
			reset(a)
			reset(b)
		}
	}
	defer b.Close() // whatever happens: the other direction ends with them
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

// oneWay copies src to dst and passes the end of the stream on.
func oneWay(dst, src net.Conn) (int64, error) {
	n, err := Copy(dst, src)
	if err != nil {
		return n, err
	}
	if cw, ok := dst.(interface{ CloseWrite() error }); ok {
		err = cw.CloseWrite()
		if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, net.ErrClosed) {
			err = nil // the other side has gone in the meantime, nothing is lost
		}
	}
	return n, err
}

// reset closes a connection so that the other end sees a reset rather than an
// orderly end, where the connection can do that.
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
		// Not by splice: it stops for good at an urgent byte, wherever that is
		// kept. Between TCP sockets it is slower, too.
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

// copyAdaptive copies from anything else than a kernel socket. A read that fills the small buffer
// switches to a large one, a short read switches back.
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
