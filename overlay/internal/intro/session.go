package intro

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"weft/overlay/cert"
)

// Session is one introduction with another node and the messages after it. The exported
// fields are constant from the first callback on. Its methods may be called from any
// goroutine.
type Session struct {
	// Peer is the other node, verified.
	Peer *cert.Node
	// Initiator says that this node was the caller.
	Initiator bool
	// Own is this node's hello, Remote the other node's.
	Own, Remote Hello
	// Trip is how long the peer took to answer in the introduction.
	Trip time.Duration
	// Suite is how the pair's packets are encrypted, and KeyExchange how both sides agreed
	// on the keys: the name of a TLS group.
	Suite       Suite
	KeyExchange string
	// PSK is the preshared key of the pair's WireGuard tunnel: secret. See Secret.
	PSK [32]byte
	// ProbeSend and ProbeRecv are the keys of probes to and from the peer: secret.
	ProbeSend, ProbeRecv [32]byte

	// Constant after the session is made.
	sw   *Switch
	peer *peer
	id   cert.NodeID // sender of the frames as the relay says; equal to Peer.ID once verified
	sid  uint64
	wake chan struct{} // capacity 1: the worker waits on it during the introduction

	// Owned by the worker: the goroutine in answer or attempt during the
	// introduction, in pump after it.
	tls    *tls.Conn
	rest   []byte // a message that has arrived in part
	crl    crlTransfer
	ctx    context.Context
	cancel context.CancelFunc
	limit  *time.Timer // ends ctx; see patient

	// For the proofs of WireGuard keys: the session's context, this side's proof and the
	// one that the peer must send. Owned by the worker, too.
	keyContext       [32]byte
	proof, wantProof []byte
	aes              [32]byte // for SuiteAES

	// Guarded by Switch.mu.
	in             []byte // received, not yet read
	inSeq          uint32 // sequence number of the next frame
	opened         uint64 // Switch.frames when it was made
	receivedAt     uint64 // Switch.frames when the last frame arrived
	handshakeBytes int
	eof            bool // the last frame has arrived
	live           bool // the introduction is complete; conn.Read no longer blocks
	working        bool // there is a worker
	halfOpen       bool // as callee: not yet decided
	place          pool
	proven         bool                 // the peer has proven Remote.Key
	held           bool                 // the worker waits for our own introduction to the same peer
	reported       bool                 // Config's callbacks have got the session: call Closed at its end
	local          bool                 // ended by Bye or Close
	list           *list                // the revocation list being received, if any
	offered        uint64               // number of the list that waits for a place
	sawAttempt     uint64               // id of our own attempt in progress when this one was opened
	err            error                // why it ended; the session is no longer in the table
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

// flush sends what was written as frames; with last set, the final frame is a bye.
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

// Send sends a message to the peer. It returns an error when the session has ended or the
// message is too long. It does not wait for an answer, but it may block while the relay
// connection is full.
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

// Bye sends that this side has dropped its WireGuard peer, and ends the session. Closed
// is not called.
func (s *Session) Bye() { s.end(&Message{Type: TypeBye}) }

// Close ends the session without ending the WireGuard peer, which the other side keeps.
// Closed is not called.
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

// finish is the end of a session's worker. It sends the last frame if that is useful, and
// calls Closed if it is due. It returns why the session ended, which differs from err if
// something else came first.
func (s *Session) finish(err error) error {
	sw := s.sw
	sw.mu.Lock()
	if s.err == nil {
		s.err = s.reason(err)
		sw.unlinkLocked(s)
	}
	err = s.err
	live, reported, local := s.live, s.reported, s.local
	sw.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
	switch {
	case silent(err):
	case !live && !errors.Is(err, errLostGlare) && s.tls != nil && s.pending():
		s.sendLast() // an alert or a deny with the reason
	case live && !errors.Is(err, ErrBroken):
		s.sendLast()
	case s.known():
		sw.sendReset(s.id, s.sid)
	}
	if reported && !local {
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

// patient makes the introduction's context. It ends when the first wait takes longer than
// wait, or a later one longer than limit is set to.
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
