package intro

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"weft/overlay/cert"
)

// Session is one introduction with another node and the signalling after it.
// The exported fields are set before the first callback and never change. Its
// methods may be used from any goroutine.
type Session struct {
	// Peer is the other node, verified.
	Peer *cert.Node
	// Initiator says that this node was the caller.
	Initiator bool
	// Own is what this node said of itself, Remote the other node's hello.
	Own, Remote Hello
	// Trip is how long the peer took to answer in the introduction.
	Trip time.Duration
	// PSK is the preshared key of the pair's WireGuard tunnel: secret.
	PSK [32]byte
	// ProbeSend and ProbeRecv are the keys of path probes to and from the
	// peer: secret.
	ProbeSend, ProbeRecv [32]byte

	// Constant after the session is made.
	sw   *Switch
	peer *peer
	id   cert.NodeID // who the relay says the frames come from, and Peer.ID once verified
	sid  uint64
	wake chan struct{} // capacity 1: the worker waits on it during the introduction

	// Owned by the worker: the goroutine in answer or attempt during the
	// introduction, in pump after it.
	tls    *tls.Conn
	rest   []byte // a message that has not arrived completely
	crl    crlTransfer
	ctx    context.Context
	cancel context.CancelFunc
	limit  *time.Timer // ends ctx; see patient

	// For the proofs of WireGuard keys: the session's part, what this side shows
	// and what the peer has to. The worker's, too.
	keyContext       [32]byte
	proof, wantProof []byte

	// Guarded by Switch.mu.
	in             []byte // received, not yet read
	inSeq          uint32 // of the next frame
	opened         uint64 // Switch.frames when it was made
	heardAt        uint64 // Switch.frames when the last frame came
	handshakeBytes int
	eof            bool // the last frame has come
	live           bool // introduction done; conn.Read does not wait any more
	working        bool // there is a worker
	halfOpen       bool // as callee, not yet decided
	place          pool
	proven         bool                 // the peer holds Remote.Key
	held           bool                 // the worker waits for our own introduction to the same peer
	told           bool                 // the user knows the session: Closed is due at its end
	local          bool                 // ended by Bye or Close
	list           *list                // the revocation list that is arriving, if any
	offered        uint64               // number of the one that waits for a place
	sawAttempt     uint64               // our own attempt in progress when this one was opened
	err            error                // why it ended; the session is off the table
	pings          map[uint64]chan Pong // each with room for one

	wmu sync.Mutex
	// wmu guards the following and keeps frames in order: it is held across
	// Config.Send.
	out      []byte
	outSeq   uint32
	lastSent bool
}

// ID returns the peer's NodeID.
func (s *Session) ID() cert.NodeID { return s.id }

// Number returns the session's id, as FrameSession returns it for its frames.
func (s *Session) Number() uint64 { return s.sid }

// flush sends what was written as frames; with last set, the final one says
// bye.
func (s *Session) flush(last bool) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.lastSent {
		s.out = nil
		return nil
	}
	for len(s.out) > 0 || last && !s.lastSent {
		f := frame{id: s.sid, seq: s.outSeq, kind: kindData, payload: s.out}
		if len(f.payload) > maxPayload {
			f.payload = f.payload[:maxPayload]
		}
		switch {
		case s.Initiator && s.outSeq == 0:
			f.kind = kindOpen
			s.lastSent = last
		case last && len(f.payload) == len(s.out):
			f.kind = kindBye
			s.lastSent = true
		}
		b := appendFrame(make([]byte, 0, headerLen+len(f.payload)), f)
		if err := s.sw.cfg.Send(s.id, b); err != nil {
			return fmt.Errorf("send session frame: %w", err)
		}
		s.outSeq++
		s.out = s.out[len(f.payload):]
	}
	s.out = nil // idle sessions hold no buffer
	return nil
}

// write sends one message during the introduction.
func (s *Session) write(m Message) error {
	b, err := appendMessage(nil, m)
	if err != nil {
		return err
	}
	if _, err := s.tls.Write(b); err != nil {
		return err
	}
	return s.flush(false)
}

// Send sends a message to the peer. It returns an error when the session has
// ended or the message is too long; it does not wait for an answer, but it may
// wait for the relay's backpressure.
func (s *Session) Send(m Message) error {
	if err := s.Err(); err != nil {
		return fmt.Errorf("send %s to %v: %w", m.Type, s.id, err)
	}
	err := s.write(m)
	if err != nil && !errors.Is(err, errUnsendable) {
		s.sw.fail(s, err)
	}
	return err
}

// Err returns why the session has ended, or nil.
func (s *Session) Err() error {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	return s.err
}

// Bye tells the peer that this side has dropped its WireGuard peer, and ends
// the session. Closed is not called.
func (s *Session) Bye() { s.end(&Message{Type: TypeBye}) }

// Close ends the session and says nothing about the WireGuard peer, which the
// other side keeps. Closed is not called.
func (s *Session) Close() { s.end(nil) }

func (s *Session) end(m *Message) {
	s.sw.mu.Lock()
	if s.err != nil {
		s.sw.mu.Unlock()
		return
	}
	s.local = true
	s.sw.failLocked(s, ErrClosed)
	s.sw.mu.Unlock()
	if m != nil {
		b, err := appendMessage(nil, *m)
		if err == nil {
			s.tls.Write(b)
		}
	}
	s.sendLast()
}

// sendLast sends close_notify in a bye frame, after whatever was written.
func (s *Session) sendLast() {
	s.tls.CloseWrite() // refused when the handshake is not complete
	if err := s.flush(true); err != nil {
		s.sw.log.Debug("end of session not sent", "peer", s.id, "err", err)
	}
}

// Pong is the answer to a ping.
type Pong struct {
	RTT time.Duration
	// Heard is how long ago data of this node last came out of the tunnel at
	// the peer's; below zero: never, zero: it does not say.
	Heard time.Duration
}

// HeardWithin reports whether the peer has heard this node within d. One that
// does not say is believed.
func (p Pong) HeardWithin(d time.Duration) bool { return p.Heard >= 0 && p.Heard <= d }

// pong answers a ping.
func (s *Session) pong(nonce uint64) Message {
	m := Message{Type: TypePong, Nonce: nonce}
	if s.sw.cfg.Heard != nil {
		m.Heard = -1
		if at := s.sw.cfg.Heard(s.id); !at.IsZero() {
			m.Heard = max(time.Since(at), 0).Milliseconds() + 1
		}
	}
	return m
}

// Ping asks the peer's daemon through the session whether it is there, and
// whether it hears this node through the tunnel.
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

// read waits for the next message during the introduction.
func (s *Session) read() (Message, error) {
	buf := make([]byte, 4096)
	for {
		m, rest, err := cutMessage(s.rest)
		if err == nil {
			s.rest = rest
			return m, nil
		}
		if !errors.Is(err, errMoreBytes) {
			return Message{}, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		n, err := s.tls.Read(buf)
		s.rest = append(s.rest, buf[:n]...)
		if err != nil && n == 0 {
			return Message{}, err
		}
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
	s.live, s.told = true, true
}

// pump is the worker of a live session: it reads what has come, handles it,
// and goes away.
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
			ch <- Pong{Heard: time.Duration(m.Heard) * time.Millisecond}
		}
		s.sw.mu.Unlock()
	case TypeBye:
		return ErrBye
	case TypeCRL:
		return s.takeCRL(m)
	case TypeCRLNext:
		return s.sendCRL(m.Number, m.Offset)
	case TypeHello, TypeAccept, TypeDeny: // out of place
		return fmt.Errorf("%w: %s in the middle of a session", ErrBroken, m.Type)
	default:
		if s.sw.cfg.Message != nil {
			s.sw.cfg.Message(s, m)
		}
	}
	return nil
}

// finish is the last act of a session's worker: it tells the peer if that is
// of use, and the user if they know the session. It returns why the session
// ended, which is not err if something else came first.
func (s *Session) finish(err error) error {
	sw := s.sw
	sw.mu.Lock()
	if s.err == nil {
		s.err = s.reason(err)
		sw.unlinkLocked(s)
	}
	err = s.err
	live, told, local := s.live, s.told, s.local
	sw.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
	switch {
	case silent(err):
	case !live && s.tls != nil && s.pending():
		s.sendLast() // an alert, a deny: it says why
	case live && !errors.Is(err, ErrBroken):
		s.sendLast()
	case s.known():
		sw.sendReset(s.id, s.sid)
	}
	if told && !local {
		sw.log.Debug("session ended", "peer", s.id, "err", err)
		if sw.cfg.Closed != nil {
			sw.cfg.Closed(s, err)
		}
	}
	return err
}

// known reports whether the peer may know of the session.
func (s *Session) known() bool {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return s.outSeq > 0 || !s.Initiator
}

func (s *Session) pending() bool {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	return len(s.out) > 0
}

// reason turns an error of crypto/tls into one of this package's.
func (s *Session) reason(err error) error {
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return ErrEnded
	case s.live && remoteAlert(err):
		return fmt.Errorf("%w: %w", ErrEnded, err)
	case s.live && !errors.Is(err, ErrBye):
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return err
}

// patient gives the introduction its context, which ends when the first wait takes
// longer than that, or a later one than limit is set to.
func (s *Session) patient(ctx context.Context, wait time.Duration) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.ctx, s.limit = ctx, time.AfterFunc(wait, func() { cancel(context.DeadlineExceeded) })
	s.cancel = func() { s.limit.Stop(); cancel(nil) }
}

// expired returns why the introduction's context ended.
func (s *Session) expired() error {
	if err := context.Cause(s.ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return ErrTimeout
}
