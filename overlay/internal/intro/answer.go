package intro

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// glareHold bounds how long an introduction by a peer waits for our own to the same peer,
// unless two answers take longer.
const glareHold = 2500 * time.Millisecond

// answer runs the callee's side of an introduction, and then the session's worker for the
// first time.
func (s *Session) answer() {
	deny, err := s.receive()
	switch {
	case deny != nil:
		s.sw.log.Debug("introduction denied", "peer", s.id, "reason", deny.Reason, "text", deny.Text)
		s.end(&Message{Type: TypeDeny, Reason: deny.Reason, Text: clip(deny.Text, 200)})
		s.finish(ErrClosed)
	case err != nil:
		err = s.finish(err)
		s.sw.log.Debug("introduction failed", "peer", s.id, "err", err)
	default:
		s.run()
	}
}

// receive runs the introduction up to the sending of accept.
func (s *Session) receive() (*Deny, error) {
	if err := s.secure(); err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := s.tls.Handshake(); err != nil {
		return nil, err
	}
	if err := s.takeKeys(); err != nil {
		return nil, err
	}
	m, err := s.read()
	if err != nil {
		return nil, err
	}
	if s.Remote, err = m.hello(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	s.Trip = time.Since(begun)
	s.limit.Reset(HandshakeTimeout)
	s.sw.deciding(s)
	if deny := s.agreeSuite(); deny != nil {
		return deny, nil
	}
	err = s.agree()
	if err == nil {
		err = s.checkProof(m.Proof)
	}
	switch {
	case errors.Is(err, ErrKey):
		return &Deny{Reason: DenyConflict, Text: err.Error()}, nil
	case err != nil:
		return nil, err
	}
	if err := s.hold(m.Glare); err != nil {
		return nil, err
	}
	return s.decide()
}

// hold resolves glare: both nodes have dialled each other. The introduction whose caller
// has the lower NodeID wins once its callee has sent accept; until then the other one
// waits here.
//
//   - The peer is lower: its introduction wins, and decide ends ours.
//   - We are lower, and the peer's hello says that it has received our attempt: wait for
//     the outcome. The peer's introduction fails if ours is accepted, and otherwise
//     continues.
//   - We are lower, our attempt began before this introduction arrived, and the peer has
//     not received it: it was lost (the peer was not connected yet). Give ours up and
//     continue.
//
// A peer that does not answer, or a relay that delivers only one of the two, causes a
// delay of glareHold at most.
func (s *Session) hold(seen uint64) error {
	sw := s.sw
	var late <-chan time.Time
	for {
		sw.mu.Lock()
		var ours *Session
		if s.peer.dial != nil {
			ours = s.peer.dial.attempt
		}
		switch {
		case s.err != nil:
			err := s.err
			sw.mu.Unlock()
			return err
		case ours == nil || s.id.Less(sw.cfg.ID):
			s.held = false
			sw.mu.Unlock()
			return nil
		case ours.sid == s.sawAttempt && ours.sid != seen:
			s.held = false
			sw.failLocked(ours, errNotReceived)
			sw.mu.Unlock()
			return nil
		}
		s.held = true
		sw.mu.Unlock()
		if late == nil {
			t := time.NewTimer(max(glareHold, 2*s.Trip))
			defer t.Stop()
			late = t.C
		}
		select {
		case <-s.wake:
		case <-late:
			sw.mu.Lock()
			s.held = false
			if s.peer.dial != nil && s.peer.dial.attempt == ours {
				sw.failLocked(ours, errNotReceived)
			}
			sw.mu.Unlock()
			return nil
		case <-s.ctx.Done():
			return s.expired()
		}
	}
}

// decide asks Config.Accept, and makes an accepted introduction the peer's session. Our
// own Dial to the peer, if one is running, returns that session.
func (s *Session) decide() (*Deny, error) {
	s.peer.cb.Lock()
	defer s.peer.cb.Unlock()
	if err := s.Err(); err != nil {
		return nil, err
	}
	if deny := s.sw.cfg.Accept(s); deny != nil {
		return deny, nil
	}
	if err := s.sw.accepted(s); err != nil {
		return nil, err
	}
	accept := Message{Type: TypeAccept, Proof: s.proof}
	if s.Suite != SuiteWireGuard {
		accept.Suite = s.Suite
	}
	return nil, s.write(accept)
}

func (sw *Switch) accepted(s *Session) error {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	s.reported = true // the peer is installed: from now on the end must be reported to Closed
	if s.err != nil {
		return s.err
	}
	// The peer has abandoned its older attempts; a relay that delivers the rest of one
	// later must not bring its keys back.
	for _, o := range slices.Clone(s.peer.sessions) {
		if o == s {
			break
		}
		if o.halfOpen {
			sw.failLocked(o, ErrReplaced)
		}
	}
	if d := s.peer.dial; d != nil {
		d.finishLocked(s)
		if d.attempt != nil {
			sw.failLocked(d.attempt, errLostGlare)
		}
	}
	sw.goLiveLocked(s)
	return nil
}

// run handles what has arrived when a session becomes live.
func (s *Session) run() {
	s.cancel()
	if s.sw.cfg.Live != nil {
		s.sw.cfg.Live(s)
	}
	if err := s.offerCRL(); err != nil {
		s.finish(err)
		return
	}
	s.pump()
}
