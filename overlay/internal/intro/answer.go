package intro

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// glareHold bounds how long an introduction by a peer waits for our own to the
// same peer, unless it takes longer for two answers to come.
const glareHold = 2500 * time.Millisecond

// answer is the callee's side of an introduction, and then the session's first
// worker.
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

// receive runs the introduction up to and with accept.
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

// hold settles glare: both nodes have dialled each other. The introduction
// whose caller has the lower NodeID wins once its callee has sent accept; until
// then the other waits here.
//
//   - The peer is lower: this one wins, decide ends ours.
//   - We are lower, and the peer's hello says that it has seen our attempt:
//     wait for the outcome. Lost if ours is accepted, else go on.
//   - We are lower, our attempt was under way before this introduction came,
//     and the peer has not seen it: it was lost on the way (the peer was not
//     connected yet). Give it up and go on.
//
// A peer that keeps us waiting, or a relay that lets only one of the two
// through, delays by glareHold at most.
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
			sw.failLocked(ours, errUnheard)
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
				sw.failLocked(ours, errUnheard)
			}
			sw.mu.Unlock()
			return nil
		case <-s.ctx.Done():
			return s.expired()
		}
	}
}

// decide asks the policy and makes an accepted introduction the peer's
// session. Our own Dial to the peer, if one runs, is won by it.
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
	return nil, s.write(Message{Type: TypeAccept, Proof: s.proof})
}

func (sw *Switch) accepted(s *Session) error {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	s.told = true // the peer is installed: from here on Closed is due
	if s.err != nil {
		return s.err
	}
	// Older attempts of the peer are abandoned; a relay that delivers the rest
	// of one now must not bring its keys back.
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

// run is the first turn of a live session's worker.
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
