package link

import (
	"bytes"
	"container/list"
	"errors"
	"net"
	"sync"
	"time"
)

// lateAfter is how long a handshake waits for its turn before those that came
// later have theirs first. It is well below the time after which clients give up
// (directTimeout).
const lateAfter = time.Second

// slots bounds how many handshakes compute at once, and says who is next. As
// long as everybody has their turn soon, that is who came first. When a whole
// fleet comes at once, first come first served would have each wait for as long
// as clients do, and the work would be spent on those who give up just then:
// beyond lateAfter the latest comer is next, and those who wait long already get
// what is left.
type slots struct {
	mu      sync.Mutex
	free    int
	waiting list.List // of *turn, oldest first
}

type turn struct {
	since time.Time
	mine  chan struct{} // closed, by who holds mu, when it was taken off the list
}

var errTooMany = errors.New("too many handshakes")

// take waits for a slot: an error when there was none for handshakeTimeout, or
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
	case <-t.mine: // just now
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

// nextLocked hands a slot on.
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

// helloLimit is how many bytes of a client the handshake takes, in all.
const helloLimit = 32 << 10

var errLongHandshake = errors.New("the client's half of the handshake is too long")

// slot is a place among the handshakes that compute. It is taken when the
// ClientHello is there and given back when the answer leaves, so strangers
// who say nothing hold none, and a flood of real ClientHellos cannot take the
// CPU from live connections. Nothing is computed for who gave up waiting.
//
// When the answer is a HelloRetryRequest, everything that costs comes after the
// second ClientHello. crypto/tls tells nobody of that one, so the stream watches
// for it: a record that came after a HelloRetryRequest is handed up with a slot.
// If it was not the whole ClientHello, the slot is given back while the rest is
// waited for.
type slot struct {
	cpu  *slots
	done <-chan struct{}

	// The handshake's goroutine uses the following.
	held  bool
	retry bool // a HelloRetryRequest left last
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

// wrote notes what leaves to the client in one piece.
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

// retryRandom is what a ServerHello that is a HelloRetryRequest has for its random
// value: SHA-256 of "HelloRetryRequest" (RFC 8446, 4.1.3).
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
