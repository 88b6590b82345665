package link

import (
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
