package intro

import (
	"io"
	"net"
	"time"
)

// conn is a session as the net.Conn under its tls.Conn.
//
// Writes are corked: they gather in the session's out buffer until the session flushes
// them or a Read must wait, so that a whole flight is one frame.
//
// Read blocks while the introduction is in progress. Once the session is live it returns
// errWouldBlock instead, which crypto/tls treats as temporary, so that an idle session
// needs no goroutine.
type conn struct{ s *Session }

var _ net.Conn = conn{}

// wouldBlock is a temporary net.Error.
type wouldBlock struct{}

var errWouldBlock net.Error = wouldBlock{}

func (wouldBlock) Error() string   { return "no more frames yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

func (c conn) Read(p []byte) (int, error) {
	s, sw := c.s, c.s.sw
	for {
		sw.mu.Lock()
		switch {
		case s.err != nil:
			err := s.err
			sw.mu.Unlock()
			return 0, err
		case len(s.in) > 0:
			n := copy(p, s.in)
			s.in = s.in[n:]
			if len(s.in) == 0 {
				s.in = nil // idle sessions hold no buffer
			}
			sw.queued -= n
			sw.mu.Unlock()
			return n, nil
		case s.eof:
			sw.mu.Unlock()
			return 0, io.EOF
		case s.live:
			sw.mu.Unlock()
			return 0, errWouldBlock
		}
		sw.mu.Unlock()
		if err := s.flush(false); err != nil {
			return 0, err
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return 0, s.expired()
		}
	}
}

func (c conn) Write(p []byte) (int, error) {
	s := c.s
	s.wmu.Lock()
	s.out = append(s.out, p...)
	s.wmu.Unlock()
	return len(p), nil
}

// Close does nothing: sessions end in Session.finish, which decides whether to send the
// peer anything.
func (conn) Close() error { return nil }

type sessionAddr string

func (sessionAddr) Network() string  { return "weft-intro" }
func (a sessionAddr) String() string { return string(a) }

func (c conn) LocalAddr() net.Addr  { return sessionAddr(c.s.sw.cfg.ID.String()) }
func (c conn) RemoteAddr() net.Addr { return sessionAddr(c.s.id.String()) }

// There are no deadlines: the session's context takes their place, and writes never
// block.
func (conn) SetDeadline(time.Time) error      { return nil }
func (conn) SetReadDeadline(time.Time) error  { return nil }
func (conn) SetWriteDeadline(time.Time) error { return nil }
