// Package link is the one secure dialer and listener between a node and the
// server side (coordination servers and relays).
//
// A link is TLS 1.3 with certificates on both ends and a hybrid ML-KEM key
// exchange, nothing less, chosen by ALPN on the server's one TCP port:
//
//	weft-api/1    HTTP/1.1 to the coordination server
//	weft-relay/1  relay frames (package overlay/relay)
//	weft-site/1   HTTP/1.1 to the public site, for programs that know the server
//	              by a pinned CA; no client certificate is asked for
//	anything else the public site, with its public certificate; no client
//	              certificate is asked for and no node API is reachable
//
// The client believes a server only if its chain ends in a pinned CA; names and validity
// dates are ignored, so a device whose clock says 1970 learns the time. The server
// accepts any client certificate: the API handler and the relay, which know the networks,
// decide what it permits. At join it is a self-signed one over the identity key.
//
// Where a direct TLS connection is not possible (a reverse proxy in front, inspection in
// the middle), the same TLS session runs inside a WebSocket at /weft, and the TLS around
// the WebSocket is not trusted at all. Both ends turn TCP keepalive off; the protocols
// above detect dead connections.
//
// A Dialer can make a link before it is needed (Ahead), while a node that joins waits for its
// disk.
//
// Conn, below TLS, moves many TLS records with few large system calls and holds no buffer
// while idle.
//
// Not for embedders: nodes, relays and servers share it; see package overlay.
package link

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"sync"
	"syscall"
	"time"

	"weft/overlay/limited"
)

// ALPN names of the protocols.
const (
	ProtoAPI   = "weft-api/1"
	ProtoRelay = "weft-relay/1"
	ProtoSite  = "weft-site/1"
)

// Path is the URL path of the WebSocket on the public site.
const Path = "/weft"

const (
	readChunk  = 128 << 10 // one system call reads at most this much
	smallChunk = 4 << 10   // before Tune: there may be many unauthenticated clients, each in the middle of a record
	writeChunk = 128 << 10 // corked writes are flushed when this much waits
	recordHead = 5
	// maxRecord is the longest TLS record including its header.
	maxRecord = recordHead + 16384 + 256
)

var (
	readPool  = sync.Pool{New: func() any { b := make([]byte, readChunk); return &b }}
	smallPool = sync.Pool{New: func() any { b := make([]byte, smallChunk); return &b }}
	writePool = sync.Pool{New: func() any { b := make([]byte, 0, writeChunk+maxRecord); return &b }}
)

// Conn is the byte stream under a link's TLS session.
//
// Reading: a large pooled buffer is held only while it has bytes in it, never while
// waiting. Each Read ends at the end of a TLS record, so crypto/tls buffers one record at
// most. Writing: records between Cork and Uncork are gathered and sent in one system
// call.
//
// Reads come from one goroutine at a time, writes from any.
type Conn struct {
	net.Conn // constant after newConn
	raw      syscall.RawConn
	readFn   func(fd uintptr) bool
	remote   net.Addr // nil: that of Conn
	ws       bool
	plain    bool  // no TLS above
	slot     *slot // server side, until the handshake is done
	tuned    bool
	outer    *Conn         // server side: the stream under a WebSocket, nil when another server accepted it
	trip     time.Duration // how long the handshake took

	// Constant once an HTTP server has it (place.go).
	place   *limited.Place // nil: the connection needs none
	refused error          // why it got no place; the client is told so

	// Only the reading goroutine uses the following.
	in      *[]byte // nil when nothing is buffered
	r, w    int
	readErr error
	head    [recordHead]byte // header of the record being read
	headN   int
	left    int // bytes of the record not yet read

	wmu sync.Mutex
	// wmu guards the following.
	corked bool
	out    *[]byte
	err    error // of an earlier flush
}

func newConn(nc net.Conn) *Conn {
	c := &Conn{Conn: nc}
	if tcp, ok := nc.(*net.TCPConn); ok {
		c.initRaw(tcp)
	}
	return c
}

// Of returns the stream under a link's TLS session, or nil when tc is not a link's.
func Of(tc *tls.Conn) *Conn {
	c, _ := tc.NetConn().(*Conn)
	return c
}

// Trip returns how long the link's handshake took: about one round trip, or more if the
// server is busy. It is 0 for streams without a handshake.
func (c *Conn) Trip() time.Duration { return c.trip }

// WebSocket reports whether the stream runs inside a WebSocket, so that a proxy may close
// it after a long silence.
func (c *Conn) WebSocket() bool { return c.ws }

// RemoteAddr returns the address of the other end; behind a trusted reverse proxy the one
// that the proxy reports.
func (c *Conn) RemoteAddr() net.Addr {
	if c.remote != nil {
		return c.remote
	}
	return c.Conn.RemoteAddr()
}

// Read implements net.Conn. It returns bytes of at most one TLS record.
func (c *Conn) Read(p []byte) (n int, err error) {
	if c.slot != nil {
		return c.slot.read(c, p)
	}
	n, err = c.read(p)
	c.place.Moved()
	return n, err
}

func (c *Conn) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.plain {
		return c.Conn.Read(p)
	}
	if c.raw == nil {
		n, err := c.Conn.Read(p[:min(len(p), c.limit(nil))])
		c.advance(p[:n])
		return n, err
	}
	if c.in == nil {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	avail := (*c.in)[c.r:c.w]
	n := copy(p, avail[:min(len(avail), c.limit(avail))])
	c.advance(p[:n])
	if c.r += n; c.r == c.w {
		pool(len(*c.in)).Put(c.in)
		c.in = nil
	}
	return n, nil
}

// pool is where buffers of a size come from.
func pool(size int) *sync.Pool {
	if size == smallChunk {
		return &smallPool
	}
	return &readPool
}

// betweenRecords reports whether the bytes returned so far end at the end of a record.
func (c *Conn) betweenRecords() bool { return c.left == 0 && c.headN == 0 }

// Ready reports whether a complete record is buffered, so that the next Read of the TLS
// session will not wait. Only the reading goroutine may call it.
func (c *Conn) Ready() bool {
	if c.in == nil || c.left > 0 || c.headN > 0 {
		return false
	}
	avail := (*c.in)[c.r:c.w]
	return len(avail) >= recordHead && len(avail) >= c.limit(avail)
}

// limit returns how many bytes of avail may be returned without passing the end of the
// current record.
func (c *Conn) limit(avail []byte) int {
	switch {
	case c.left > 0:
		return c.left
	case c.headN > 0:
		return recordHead - c.headN
	case len(avail) >= recordHead:
		return recordHead + int(binary.BigEndian.Uint16(avail[3:]))
	}
	return recordHead
}

// advance records that p was returned to the reader.
func (c *Conn) advance(p []byte) {
	if c.left > 0 {
		c.left -= len(p)
		return
	}
	n := copy(c.head[c.headN:], p)
	if c.headN += n; c.headN == recordHead {
		c.headN = 0
		c.left = int(binary.BigEndian.Uint16(c.head[3:])) - (len(p) - n)
	}
}

// Write implements net.Conn. While corked it only gathers.
func (c *Conn) Write(p []byte) (int, error) {
	if s := c.slot; s != nil {
		s.wrote(p)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if !c.corked {
		n, err := c.Conn.Write(p)
		c.place.Moved()
		return n, err
	}
	if c.out == nil {
		c.out = writePool.Get().(*[]byte)
	}
	*c.out = append(*c.out, p...)
	if len(*c.out) >= writeChunk {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Cork starts gathering writes. One goroutine at a time calls Cork, writes and calls
// Uncork.
func (c *Conn) Cork() {
	c.wmu.Lock()
	c.corked = true
	c.wmu.Unlock()
}

// Uncork sends what was gathered since Cork. It waits until the kernel has
// taken all of it.
func (c *Conn) Uncork() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.corked = false
	err := c.flushLocked()
	if c.out != nil {
		if cap(*c.out) <= 2*(writeChunk+maxRecord) {
			writePool.Put(c.out)
		}
		c.out = nil
	}
	return err
}

// WriteAll writes bufs to c. If c is a link, lc is its stream and all leave in one system
// call; else lc is nil. Like Cork it is for one goroutine at a time.
func WriteAll(c net.Conn, lc *Conn, bufs ...[]byte) error {
	if lc != nil {
		lc.Cork()
	}
	var err error
	for _, b := range bufs {
		if len(b) > 0 && err == nil {
			_, err = c.Write(b)
		}
	}
	if lc != nil {
		if uncorkErr := lc.Uncork(); err == nil {
			err = uncorkErr
		}
	}
	return err
}

func (c *Conn) flushLocked() error {
	if c.err != nil {
		return c.err
	}
	if c.out == nil || len(*c.out) == 0 {
		return nil
	}
	_, c.err = c.Conn.Write(*c.out)
	*c.out = (*c.out)[:0]
	return c.err
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.place.Release()
	return c.Conn.Close()
}

// Tune prepares for a long-lived, mostly silent stream of an authenticated client: large
// reads, keepalive off, and at most unsent bytes waiting in the kernel, so that packets
// wait in the caller's queue instead. The limit is ignored on systems that have none.
// Call it before the first read.
func (c *Conn) Tune(unsent int) {
	c.tuned = true
	if c.outer != nil {
		c.outer.tuned = true
	}
	c.limitUnsent(unsent)
}

func (c *Conn) limitUnsent(unsent int) {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetKeepAlive(false)
		tcp.SetNoDelay(true)
		setUnsentLimit(tcp, unsent)
	}
}

// CloseNow closes the stream under a TLS session at once, without a close-notify, which
// would block when the other end does not read.
func CloseNow(tc net.Conn) error {
	if t, ok := tc.(*tls.Conn); ok {
		return t.NetConn().Close()
	}
	return tc.Close()
}
