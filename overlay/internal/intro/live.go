package intro

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Pong is the answer to a ping.
type Pong struct {
	RTT time.Duration
	// LastReceived is how long ago the peer last received data of this node through the tunnel;
	// negative: never; zero: the peer does not say.
	LastReceived time.Duration
}

// ReceivedWithin reports whether the peer has received data of this node within d, or does
// not say.
func (p Pong) ReceivedWithin(d time.Duration) bool { return p.LastReceived >= 0 && p.LastReceived <= d }

// pong makes the answer to a ping.
func (s *Session) pong(nonce uint64) Message {
	m := Message{Type: TypePong, Nonce: nonce}
	if s.sw.cfg.LastReceived != nil {
		m.Heard = -1
		if at := s.sw.cfg.LastReceived(s.id); !at.IsZero() {
			m.Heard = max(time.Since(at), 0).Milliseconds() + 1
		}
	}
	return m
}

// Ping asks the peer's daemon, through the session, for a sign of life and whether it
// receives data of this node through the tunnel. It waits until ctx ends.
func (s *Session) Ping(ctx context.Context) (Pong, error) {
	nonce, ch := rand.Uint64(), make(chan Pong, 1)
	s.sw.mu.Lock()
	if s.err != nil {
		s.sw.mu.Unlock()
		return Pong{}, fmt.Errorf("ping %v: %w", s.id, s.err)
	}
	if s.pings == nil {
		s.pings = map[uint64]chan Pong{}
	}
	s.pings[nonce] = ch
	s.sw.mu.Unlock()
	defer func() {
		s.sw.mu.Lock()
		delete(s.pings, nonce)
		s.sw.mu.Unlock()
	}()
	start := time.Now()
	if err := s.Send(Message{Type: TypePing, Nonce: nonce}); err != nil {
		return Pong{}, err
	}
	select {
	case p, ok := <-ch:
		if !ok {
			return Pong{}, fmt.Errorf("ping %v: %w", s.id, s.Err())
		}
		p.RTT = time.Since(start)
		return p, nil
	case <-ctx.Done():
		return Pong{}, fmt.Errorf("ping %v: %w", s.id, context.Cause(ctx))
	}
}

// goLiveLocked ends the introduction: from here on there is a worker only
// while there is something to read.
func (sw *Switch) goLiveLocked(s *Session) {
	sw.settleLocked(s)
	p := s.peer
	if old := p.current; old != nil {
		sw.failLocked(old, ErrReplaced)
	}
	p.current = s
	s.live, s.reported = true, true
}

// pump is the worker of a live session: it reads what has arrived, handles it, and ends.
func (s *Session) pump() {
	sw := s.sw
	for {
		err := s.drain()
		if err == nil {
			err = s.flush(false) // answers of crypto/tls itself
		}
		if err != nil {
			s.finish(err)
			return
		}
		sw.mu.Lock()
		if len(s.in) == 0 && !s.eof && s.err == nil {
			s.working = false
			sw.mu.Unlock()
			return
		}
		sw.mu.Unlock()
	}
}

// readBuffers holds *[4096]byte for drain.
var readBuffers = sync.Pool{New: func() any { return new([4096]byte) }}

func (s *Session) drain() error {
	buf := readBuffers.Get().(*[4096]byte)
	defer readBuffers.Put(buf)
	for {
		m, rest, err := cutMessage(s.rest)
		if err == nil {
			s.rest = rest
			if err := s.handle(m); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, errMoreBytes) {
			return fmt.Errorf("%w: %w", ErrBroken, err)
		}
		n, err := s.tls.Read(buf[:])
		s.rest = append(s.rest, buf[:n]...)
		switch {
		case n > 0:
		case errors.Is(err, errWouldBlock):
			if len(s.rest) == 0 {
				s.rest = nil
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// handle acts on one message of a live session.
func (s *Session) handle(m Message) error {
	switch m.Type {
	case TypePing:
		return s.write(s.pong(m.Nonce))
	case TypePong:
		s.sw.mu.Lock()
		if ch := s.pings[m.Nonce]; ch != nil {
			delete(s.pings, m.Nonce)
			ch <- Pong{LastReceived: time.Duration(m.Heard) * time.Millisecond}
		}
		s.sw.mu.Unlock()
	case TypeBye:
		return ErrBye
	case TypeCRL:
		return s.takeCRL(m)
	case TypeCRLNext:
		return s.sendCRL(m.Number, m.Offset)
	case TypeHello, TypeHelloAES, TypeAccept, TypeDeny: // only valid in an introduction
		return fmt.Errorf("%w: %s in the middle of a session", ErrBroken, m.Type)
	default:
		if s.sw.cfg.Message != nil {
			s.sw.cfg.Message(s, m)
		}
	}
	return nil
}
