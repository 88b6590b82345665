package intro

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode"

	"weft/overlay/cert"
)

// retryPause is the mean pause before a second attempt. Meanwhile an introduction by the
// peer may win.
const retryPause = 75 * time.Millisecond

// errLostGlare ends our introduction when the peer's has won, errGaveWay the peer's when
// ours has. In the first case a reset tells the peer, besides our accept: when the two
// introductions go by different relays they may cross, so that the peer has given up its
// own and accepted ours.
var (
	errLostGlare = errors.New("the peer's own introduction was used instead")
	errGaveWay   = errors.New("our own introduction was used instead")
)

// errNotReceived ends an attempt that the peer has evidently never received.
var errNotReceived = fmt.Errorf("%w: the peer has not received it", ErrTimeout)

// dial is one Dial in progress.
type dial struct {
	done  chan struct{} // closed once something else than an attempt has decided the dial
	ended chan struct{} // closed when the Dial returns

	// Guarded by Switch.mu.
	attempt *Session // in progress
	decided bool
	winner  *Session // an introduction by the peer that was accepted here; nil with decided: the Switch was closed
}

// finishLocked decides the dial: winner is an introduction by the peer, nil for Close.
func (d *dial) finishLocked(winner *Session) {
	if !d.decided {
		d.decided, d.winner = true, winner
		close(d.done)
	}
}

// Dial introduces this node to a peer and returns the session once the peer has accepted.
// established, if not nil, is called once the peer is verified and our hello is sent,
// with all keys of the session set: the caller then installs the WireGuard peer and
// starts its handshake. It may be called again for a second attempt; the latest keys
// count.
//
// When both sides dial at once, both Dials return the same session: the one whose caller
// has the lower NodeID (Config.Accept replaces the keys that the other passed to
// established). If that one fails, the other is used.
//
// While another Dial to the same peer runs, such as one whose context has just ended,
// Dial waits until it has returned.
//
// Errors: *DenyError; ErrClosed; the cause of ctx; an error of Verify, or ErrIdentity
// when another node answered; ErrKey when the peer names a WireGuard key that is not its
// own; ErrSuite; otherwise, after two attempts, ErrTimeout, ErrReset, ErrBroken or an error of
// Send.
func (sw *Switch) Dial(ctx context.Context, peer cert.NodeID, established func(*Session)) (*Session, error) {
	if peer == sw.cfg.ID {
		return nil, fmt.Errorf("introduce to %v: that is this node: %w", peer, ErrIdentity)
	}
	p, d, err := sw.beginDial(ctx, peer)
	if err != nil {
		return nil, fmt.Errorf("introduce to %v: %w", peer, err)
	}
	defer sw.wg.Done()

	s, err := sw.dial(ctx, p, d, established)
	if err != nil {
		return nil, fmt.Errorf("introduce to %v: %w", peer, err)
	}
	return s, nil
}

// beginDial registers a dial to a node, and first waits until there is no other.
func (sw *Switch) beginDial(ctx context.Context, id cert.NodeID) (*peer, *dial, error) {
	for {
		sw.mu.Lock()
		p := sw.peerLocked(id, maxPeers+2*ownRoom)
		switch {
		case sw.closed:
			sw.mu.Unlock()
			return nil, nil, ErrClosed
		case p == nil || sw.sessions >= maxSessions+ownRoom:
			sw.mu.Unlock()
			return nil, nil, ErrTooMany
		case p.dial == nil:
			d := &dial{done: make(chan struct{}), ended: make(chan struct{})}
			p.dial = d
			sw.wg.Add(1)
			sw.mu.Unlock()
			return p, d, nil
		}
		ended := p.dial.ended
		sw.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

func (sw *Switch) dial(ctx context.Context, p *peer, d *dial, established func(*Session)) (*Session, error) {
	defer func() {
		sw.mu.Lock()
		p.dial = nil
		close(d.ended)
		sw.mu.Unlock()
	}()
	for try := 1; ; try++ {
		s, err := sw.attempt(ctx, p, d, time.Duration(try)*HandshakeTimeout, established)
		if err == nil {
			return s, nil
		}
		if try == 1 && d.undecided(sw) && retry(ctx, err) {
			sw.log.Debug("introduction failed, trying once more", "peer", p.id, "err", err)
			pause := time.NewTimer(retryPause/2 + rand.N(retryPause))
			select {
			case <-pause.C:
			case <-d.done:
			case <-ctx.Done():
			}
			pause.Stop()
			if d.undecided(sw) && ctx.Err() == nil {
				continue
			}
		}
		sw.mu.Lock()
		decided, winner := d.decided, d.winner
		sw.mu.Unlock()
		switch {
		case winner != nil:
			return winner, nil
		case decided:
			return nil, ErrClosed
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
}

func (d *dial) undecided(sw *Switch) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return !d.decided
}

// retry reports whether an attempt that failed with err is worth another one.
func retry(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if _, denied := errors.AsType[*DenyError](err); denied {
		return false
	}
	for _, final := range []error{ErrIdentity, ErrKey, ErrSuite, cert.ErrUntrusted, cert.ErrExpired, cert.ErrRevoked, ErrClosed} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// attempt runs one introduction as caller. It waits at most wait for the callee's first
// flight.
func (sw *Switch) attempt(ctx context.Context, p *peer, d *dial, wait time.Duration, established func(*Session)) (*Session, error) {
	s := sw.begin(ctx, p, d, wait)
	if s == nil {
		return nil, ErrClosed
	}
	err := s.call(established)
	if err == nil && sw.won(s, d) {
		sw.wg.Go(s.run)
		return s, nil
	}
	err = s.finish(err)
	sw.mu.Lock()
	d.attempt = nil
	for _, o := range p.sessions {
		if o.held {
			sw.rouseLocked(o)
		}
	}
	sw.mu.Unlock()
	return nil, err
}

// begin makes the session of an attempt, or returns nil when the dial is decided. It
// waits while an introduction by the peer is being decided here, so that our first frame
// never overtakes its accept.
func (sw *Switch) begin(ctx context.Context, p *peer, d *dial, wait time.Duration) *Session {
	p.cb.Lock()
	defer p.cb.Unlock()
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if d.decided || sw.closed {
		return nil
	}
	s := sw.newSessionLocked(p, newSessionID())
	s.Initiator = true
	s.patient(ctx, wait)
	s.working = true
	d.attempt = s
	return s
}

// call runs the caller's side, up to the callee's verdict.
func (s *Session) call(established func(*Session)) error {
	if err := s.secure(); err != nil {
		return err
	}
	begun := time.Now()
	if err := s.tls.Handshake(); err != nil {
		return err
	}
	s.Trip = time.Since(begun)
	s.limit.Reset(HandshakeTimeout)
	if err := s.takeKeys(); err != nil {
		return err
	}
	hello, err := s.calleeHello()
	if err != nil {
		return err
	}
	s.Remote, s.Own = hello, s.sw.cfg.Hello()
	if deny := s.agreeSuite(); deny != nil {
		return &DenyError{*deny}
	}
	if err := s.agree(); err != nil {
		return err
	}
	own := s.Own.message()
	own.Glare, own.Proof = s.lastOpened(), s.proof
	if err := s.write(own); err != nil {
		return err
	}
	if err := s.establish(established); err != nil {
		return err
	}
	m, err := s.read()
	switch {
	case certificateAlert(err):
		// The alert came inside the TLS session, so it is the peer that refuses our
		// certificate.
		return &DenyError{Deny{Reason: DenyCertificate, Text: err.Error()}}
	case err != nil:
		return err
	}
	if err := verdict(m); err != nil {
		return err
	}
	if err := s.checkSuite(m); err != nil {
		return err
	}
	return s.checkProof(m.Proof)
}

// verdict returns nil for accept only, and an error for any other message of a callee.
func verdict(m Message) error {
	switch m.Type {
	case TypeAccept:
		return nil
	case TypeDeny:
		return &DenyError{Deny{Reason: clip(m.Reason, 32), Text: clip(m.Text, 200)}}
	}
	return fmt.Errorf("%w: %.20q in place of a verdict", ErrBroken, m.Type)
}

// establish calls established, unless an introduction by the peer has won meanwhile.
func (s *Session) establish(established func(*Session)) error {
	s.peer.cb.Lock()
	defer s.peer.cb.Unlock()
	if err := s.Err(); err != nil {
		return err
	}
	if established != nil {
		established(s)
	}
	return nil
}

// lastOpened returns the id of the last introduction that the peer opened. It tells the
// peer whether its own has arrived.
func (s *Session) lastOpened() uint64 {
	s.sw.mu.Lock()
	defer s.sw.mu.Unlock()
	return s.peer.opened
}

// won makes an accepted attempt the peer's session, and ends the peer's introductions
// that it has beaten: the peer has given up all that were in progress when it sent
// accept.
func (sw *Switch) won(s *Session, d *dial) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if s.err != nil {
		return false
	}
	d.attempt = nil
	for _, o := range slices.Clone(s.peer.sessions) {
		if o.halfOpen && o.opened < s.receivedAt {
			sw.failLocked(o, errGaveWay)
		}
	}
	sw.goLiveLocked(s)
	return true
}

// clip shortens a peer's text to n characters and makes it safe to print.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
