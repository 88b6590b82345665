package link

import (
	"bytes"
	"container/list"
	"errors"
	"net"
	"sync"
	"time"
)

// lateAfter is how long a handshake waits for a slot in order of arrival. After that,
// later arrivals go first. It is well below the time after which clients give up
// (directTimeout).
const lateAfter = time.Second

// slots bounds how many handshakes compute at once and decides which is next. While waits
// are short the first to arrive is next. When a whole fleet connects at once, that order
// would make every client wait until it gives up, and the work would be wasted. So once
// the first has waited for lateAfter, the last to arrive is next, and those that have
// waited long get the slots that are left.
type slots struct {
	mu      sync.Mutex
	free    int
	waiting list.List // of *turn, oldest first
}

type turn struct {
	since time.Time
	mine  chan struct{} // closed, with mu held, when the turn is taken off the list
}

var errTooMany = errors.New("too many handshakes")

// take waits for a slot. It returns an error when there was none for handshakeTimeout, or
// done is closed.
func (s *slots) take(done <-chan struct{}) error {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	t := &turn{time.Now(), make(chan struct{})}
	elem := s.waiting.PushBack(t)
	s.mu.Unlock()
	timer := time.NewTimer(handshakeTimeout)
	defer timer.Stop()
	var err error
	select {
	case <-t.mine:
		return nil
	case <-timer.C:
		err = errTooMany
	case <-done:
		err = net.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-t.mine: // it came at the same moment
		s.nextLocked()
	default:
		s.waiting.Remove(elem)
	}
	return err
}

func (s *slots) release() {
	s.mu.Lock()
	s.nextLocked()
	s.mu.Unlock()
}

// nextLocked gives a free slot to the next handshake.
func (s *slots) nextLocked() {
	next := s.waiting.Front()
	if next == nil {
		s.free++
		return
	}
	if time.Since(next.Value.(*turn).since) > lateAfter {
		next = s.waiting.Back()
	}
	close(s.waiting.Remove(next).(*turn).mine)
}

// helloLimit bounds the bytes that a client sends in a handshake, in all.
const helloLimit = 32 << 10

var errLongHandshake = errors.New("the client sent too many bytes in the handshake")

// slot is the right of one handshake to compute. It is taken when the ClientHello has
// arrived and given back when the answer is sent. So clients that send nothing have none,
// and a flood of valid ClientHellos cannot take the CPU from live connections. Nothing is
// computed for a client that has given up waiting.
//
// When the answer is a HelloRetryRequest, the expensive part follows the second
// ClientHello. crypto/tls has no callback for that one, so the stream watches for it: it
// takes a slot before it returns a record that follows a HelloRetryRequest. If the record
// is not the whole ClientHello, the slot is given back until the rest arrives.
type slot struct {
	cpu  *slots
	done <-chan struct{}

	// The handshake's goroutine uses the following.
	held  bool
	retry bool // the last message sent was a HelloRetryRequest
	n     int  // bytes read
}

func (s *slot) take(c *Conn) error {
	if s.held {
		return nil
	}
	if err := s.cpu.take(s.done); err != nil {
		return err
	}
	s.held = true
	if c.abandoned() {
		s.release()
		return errors.New("the client gave up")
	}
	return nil
}

func (s *slot) release() {
	if s.held {
		s.held = false
		s.cpu.release()
	}
}

// read is Conn.Read during the handshake.
func (s *slot) read(c *Conn, p []byte) (int, error) {
	if s.retry {
		s.release()
	}
	if s.n >= helloLimit {
		return 0, errLongHandshake
	}
	n, err := c.read(p)
	s.n += n
	if err == nil && s.retry && c.betweenRecords() && c.head[0] == recordHandshake {
		err = s.take(c)
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

// wrote looks at what is sent to the client in one call.
func (s *slot) wrote(p []byte) {
	s.release()
	if len(p) > 0 && p[0] == recordHandshake {
		s.retry = isHelloRetry(p)
	}
}

const (
	recordHandshake    = 22
	messageServerHello = 2
)

// retryRandom is the random value of a ServerHello that is a HelloRetryRequest: SHA-256
// of "HelloRetryRequest" (RFC 8446, 4.1.3).
var retryRandom = []byte{
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
	0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
}

// isHelloRetry reports whether records begin with a HelloRetryRequest: record
// header 5 B, message type 1 B and length 3 B, version 2 B, random value.
func isHelloRetry(p []byte) bool {
	const random = recordHead + 4 + 2
	return len(p) >= random+len(retryRandom) && p[recordHead] == messageServerHello && bytes.Equal(p[random:][:len(retryRandom)], retryRandom)
}
