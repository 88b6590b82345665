package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"
)

// Bounds of a TCP connection (RFC 7766).
const (
	tcpIdle    = 10 * time.Second // between questions
	tcpWrite   = 5 * time.Second  // to write an answer
	tcpPending = 128              // questions in progress
	tcpBuffer  = 16 << 10
	maxMessage = 2 + 1<<16 // including the length
)

// serveTCP accepts connections until l is closed.
func (s *Server) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if s.ctx.Err() == nil && !isClosed(err) {
				// For example, no file descriptors are left: that passes.
				s.cfg.Log.Warn("dns: accept", "err", err)
				select {
				case <-time.After(100 * time.Millisecond):
					continue
				case <-s.ctx.Done():
				}
			}
			return
		}
		if !s.serve(func() { s.serveConn(c) }, func(error) { c.Close() }) {
			c.Close()
			return
		}
	}
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

// conn is one client's connection. Answers are written as soon as they are ready, not
// in the order of the questions.
type conn struct {
	net.Conn
	pending chan struct{} // a slot per question that waits for the server or an upstream

	mu sync.Mutex // held while answers are written
}

// serveConn answers the questions of one connection.
func (s *Server) serveConn(nc net.Conn) {
	c := &conn{Conn: nc, pending: make(chan struct{}, tcpPending)}
	var rests sync.WaitGroup
	defer rests.Wait()
	defer c.Close()
	// After Close nothing more is read; answers in progress are still written.
	defer context.AfterFunc(s.ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	from, ok := addrPortOf(c.RemoteAddr())
	if !ok || !s.current().mayAsk(from.Addr()) || !s.limits.connect(from.Addr()) {
		return
	}
	defer s.limits.disconnect(from.Addr())

	in := make([]byte, 0, 2048)
	var out, one []byte
	for {
		// Handle all complete messages in the buffer; their answers leave together.
		st, now := s.current(), time.Now()
		rest := in
		for len(rest) >= 2 {
			n := int(binary.BigEndian.Uint16(rest))
			if len(rest) < 2+n {
				break
			}
			i := incoming{st: st, from: from.Addr(), tcp: true, now: now}
			b, later := s.answer(&i, rest[2:2+n], one[:0])
			if b != nil {
				out = append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
				one = b[:0]
			} else if later != nil {
				c.pending <- struct{}{} // when full, the client waits
				rests.Add(1)
				done := func() { <-c.pending; rests.Done() }
				if !s.startRest(later, func(b []byte) {
					defer done()
					c.write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
				}) {
					done()
				}
			}
			rest = rest[2+n:]
			if len(out) > tcpBuffer {
				if c.write(out) != nil {
					return
				}
				out = out[:0]
			}
		}
		if len(out) > 0 {
			if c.write(out) != nil {
				return
			}
			out = out[:0]
		}
		in = in[:copy(in, rest)]
		if cap(in)-len(in) < 512 && cap(in) < maxMessage {
			// A longer message, or several.
			in = append(make([]byte, 0, min(max(4*cap(in), tcpBuffer), maxMessage)), in...)
		}
		c.SetReadDeadline(time.Now().Add(tcpIdle))
		if s.ctx.Err() != nil {
			return
		}
		n, err := c.Read(in[len(in):cap(in)])
		if err != nil {
			return
		}
		in = in[:len(in)+n]
	}
}

// write sends complete messages.
func (c *conn) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.SetWriteDeadline(time.Now().Add(tcpWrite))
	_, err := c.Write(b)
	return err
}
