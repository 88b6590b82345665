package relay

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"weft/overlay/cert"
	"weft/overlay/link"
)

const (
	// readSize is the size of the buffer, in bytes. It has room for the longest frame and
	// at least one more TLS record.
	readSize = 160 << 10
	maxPlain = 16 << 10 // of one TLS record
)

var readPool = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

// Reader cuts a connection's bytes into frames. It holds no buffer while it waits. One
// goroutine uses it:
//
//	for r.Fill() == nil {
//		for frame := r.Next(); frame != nil; frame = r.Next() { … }
//		if !r.More() { flush }
//	}
type Reader struct {
	// constant after NewReader
	c     net.Conn
	ready func() bool
	side  Side

	head [32]byte // read into this while no buffer is held
	pool *[]byte  // the pooled buffer behind buf
	buf  []byte
	r, w int   // unread bytes of buf
	end  int   // end of the complete frames in buf
	err  error // to be returned after these frames
}

// NewReader reads c, preferably a link, as side.
func NewReader(c net.Conn, side Side) *Reader {
	r := &Reader{c: c, side: side, ready: func() bool { return false }}
	if tc, ok := c.(*tls.Conn); ok {
		if lc := link.Of(tc); lc != nil {
			r.ready = lc.Ready
		}
	}
	return r
}

// Fill waits until at least one complete frame is buffered, and then reads what else has
// arrived. Call Next until it returns nil before the next Fill. A malformed frame is an
// error after the frames before it were returned; it wraps ErrFrame.
func (r *Reader) Fill() error {
	if r.err != nil {
		return r.err
	}
	if r.r == r.w && !r.ready() {
		r.release()
		n, err := r.c.Read(r.head[:])
		if err != nil {
			return err
		}
		r.acquire()
		r.w = copy(r.buf, r.head[:n])
	} else {
		r.compact()
	}
	r.end = 0
	for {
		if err := r.scan(); err != nil {
			if r.err = err; r.end == 0 {
				return err
			}
			return nil
		}
		if r.end > 0 && (!r.ready() || len(r.buf)-r.w < maxPlain) {
			return nil
		}
		n, err := r.c.Read(r.buf[r.w:])
		r.w += n
		if err != nil {
			if r.err = err; r.end == 0 {
				return err
			}
			return nil
		}
	}
}

// Next returns the next buffered frame, head included, or nil. The caller may use and
// change the bytes until the next Fill. Consecutive frames are adjacent in memory.
func (r *Reader) Next() []byte {
	if r.r >= r.end {
		return nil
	}
	n := FrameLen(r.buf[r.r:])
	f := r.buf[r.r : r.r+n]
	r.r += n
	return f
}

// More reports whether more input has arrived.
func (r *Reader) More() bool { return r.err == nil && r.ready() }

// Release returns the buffer to its pool. The Reader must not be used after it.
func (r *Reader) Release() { r.release() }

// scan advances end over complete frames. It checks each head as soon as it has arrived.
func (r *Reader) scan() error {
	pos := max(r.end, r.r)
	for r.w-pos >= HeadLen {
		n := FrameLen(r.buf[pos:])
		if err := CheckHead(r.side, Type(r.buf[pos]), n-HeadLen); err != nil {
			return err
		}
		if r.w-pos < n {
			r.reserve(pos, n)
			return nil
		}
		if hasPeer(Type(r.buf[pos])) && Peer(r.buf[pos:]) == (cert.NodeID{}) {
			return fmt.Errorf("%w: no peer", ErrFrame)
		}
		pos += n
		r.end = pos
	}
	return nil
}

// reserve makes room for a frame of n bytes at pos. Only frames of a relay (a CRL) can be
// longer than the pooled buffer; such a frame gets a buffer of its own.
func (r *Reader) reserve(pos, n int) {
	if pos+n <= len(r.buf) || r.end > r.r {
		return // fits, or will after the next compact
	}
	if pos > 0 { // r.r == pos: nothing else is buffered before it
		r.compact()
	}
	if n+maxPlain > len(r.buf) {
		big := make([]byte, n+maxPlain)
		r.w = copy(big, r.buf[:r.w])
		r.release0()
		r.buf = big
	}
}

func (r *Reader) compact() {
	if r.buf == nil {
		r.acquire()
	}
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
}

func (r *Reader) acquire() {
	if r.buf == nil {
		r.pool = readPool.Get().(*[]byte)
		r.buf = *r.pool
	}
	r.r, r.w = 0, 0
}

func (r *Reader) release() {
	r.release0()
	r.r, r.w, r.end = 0, 0, 0
}

func (r *Reader) release0() {
	if r.pool != nil {
		readPool.Put(r.pool)
	}
	r.pool, r.buf = nil, nil
}
