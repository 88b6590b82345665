package intro

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"weft/overlay/cert"
)

// Switch holds a node's sessions, as caller and as callee.
type Switch struct {
	// Constant after New.
	cfg Config
	log *slog.Logger
	wg  sync.WaitGroup // every goroutine of the package, and Dials

	alter func(*Session, *tls.Config) // for tests of other implementations; else nil

	mu sync.Mutex
	// mu guards the following, and the fields of peers and Sessions that say so. It is
	// held for moments only: never during a callback (but Known), Send, or TLS. Lock
	// order: peer.cb, mu. Session.wmu is never taken with mu held.
	peers     map[cert.NodeID]*peer
	sessions  int
	halfOpen  int        // half-open sessions in any pool
	places    [pools]int // taken places of each pool
	crowd     []*Session // with a place in poolOpen, oldest first
	frames    uint64     // frames delivered so far
	queued    int        // bytes received and not yet read, all sessions
	lists     []*Session // those receiving a revocation list
	listless  []*Session // those whose list waits for a place, oldest first
	turning   bool       // a timer is set for turnLocked
	resets    []reset
	resetting bool // a goroutine is sending resets
	swept     time.Time
	closed    bool
}

// peer is the table entry of another node. It exists while there is a session or a rate
// to limit.
type peer struct {
	id cert.NodeID

	// cb is held during established and Accept, so that keys are passed on in order.
	cb sync.Mutex

	// Guarded by Switch.mu.
	sessions []*Session // a few
	current  *Session   // the newest accepted one
	dial     *dial      // in progress
	halfOpen int
	opened   uint64  // id of the last introduction that the peer opened
	opens    float64 // tokens for opening introductions
	opensAt  time.Time
	waste    float64   // count of the peer's failed introductions …
	wastedAt time.Time // … at this time
	resetAt  time.Time // when a reset for an unknown session was last sent
	strayAt  time.Time // when a reset with id 0 was last sent
}

// New returns a Switch. It starts no goroutine.
func New(cfg Config) *Switch {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Switch{cfg: cfg, log: cfg.Log, peers: map[cert.NodeID]*peer{}}
}

// Deliver takes one session frame; from is its sender as the relay says. It copies b and
// does not block: a frame that does not fit in the session's bounded queue ends the
// session. Malformed frames are dropped.
func (sw *Switch) Deliver(from cert.NodeID, b []byte) {
	if from == sw.cfg.ID {
		return // reflected: a node has no session with itself
	}
	f, err := parseFrame(b)
	if err != nil {
		sw.log.Debug("session frame dropped", "from", from, "err", err)
		return
	}
	if f.kind == kindReset && f.id == 0 {
		if sw.cfg.OnReset != nil {
			sw.cfg.OnReset(from)
		}
		return
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.closed {
		return
	}
	sw.frames++
	s := sw.findLocked(from, f.id)
	switch {
	case s != nil:
		sw.deliverLocked(s, f)
	case f.kind == kindOpen:
		sw.openLocked(from, f)
	case f.kind == kindData:
		// We have lost or given up this session: send a reset, so that the other side
		// need not wait for a timeout.
		if p := sw.peerLocked(from, maxPeers); p != nil && time.Since(p.resetAt) >= time.Second {
			p.resetAt = time.Now()
			sw.resetLocked(from, f.id)
		}
	}
}

func (sw *Switch) deliverLocked(s *Session, f frame) {
	switch {
	case f.kind == kindReset:
		sw.failLocked(s, ErrReset)
		return
	case f.kind == kindOpen || f.seq != s.inSeq || s.eof:
		sw.failLocked(s, fmt.Errorf("%w: frame %d (kind %d) in place of %d", ErrBroken, f.seq, f.kind, s.inSeq))
		return
	}
	sw.takeLocked(s, f)
}

// takeLocked queues the next frame of a session.
func (sw *Switch) takeLocked(s *Session, f frame) {
	n := len(f.payload)
	s.handshakeBytes += n
	room := maxHandshakeBytes
	if !s.Initiator {
		room = maxOpeningBytes
	}
	switch {
	case !s.live && s.handshakeBytes > room,
		len(s.in)+n > maxQueue,
		sw.queued+n > maxQueueAll:
		sw.failLocked(s, fmt.Errorf("%w: queue of received frames is full", ErrBroken))
		return
	}
	s.inSeq++
	s.receivedAt = sw.frames
	s.in = append(s.in, f.payload...)
	sw.queued += n
	s.eof = f.kind == kindBye
	sw.rouseLocked(s)
}

// rouseLocked wakes the session's worker.
func (sw *Switch) rouseLocked(s *Session) {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if !s.working {
		s.working = true
		sw.wg.Go(s.pump)
	}
}

// openLocked starts an introduction as callee, within the bounds.
func (sw *Switch) openLocked(from cert.NodeID, f frame) {
	limit := maxPeers
	if len(sw.peers) >= limit && sw.cfg.Known != nil && sw.cfg.Known(from) {
		limit += ownRoom
	}
	p := sw.peerLocked(from, limit)
	if p == nil {
		return
	}
	now := time.Now()
	p.opens = min(openBurst, p.opens+now.Sub(p.opensAt).Seconds()*openPerSec)
	p.opensAt = now
	place := poolNone
	if p.opens >= 1 && p.halfOpen < maxHalfOpenPerPeer && sw.sessions < maxSessions {
		place = sw.placeLocked(p, now)
	}
	if place == poolNone {
		sw.log.Debug("introduction refused: too many", "from", from, "half_open", sw.halfOpen, "sessions", sw.sessions)
		if now.Sub(p.resetAt) >= time.Second {
			p.resetAt = now
			sw.resetLocked(from, f.id)
		}
		return
	}
	p.opens--
	p.opened = f.id
	s := sw.newSessionLocked(p, f.id)
	s.halfOpen = true
	sw.moveLocked(s, place)
	p.halfOpen++
	sw.halfOpen++
	if p.dial != nil && p.dial.attempt != nil {
		s.sawAttempt = p.dial.attempt.sid
	}
	wait := HandshakeTimeout
	if place == poolKnown {
		wait *= 2
	}
	s.patient(context.Background(), wait)
	s.working = true
	sw.takeLocked(s, f)
	sw.wg.Go(s.answer)
}

func (sw *Switch) newSessionLocked(p *peer, sid uint64) *Session {
	s := &Session{sw: sw, peer: p, id: p.id, sid: sid, wake: make(chan struct{}, 1), opened: sw.frames}
	p.sessions = append(p.sessions, s)
	sw.sessions++
	return s
}

// failLocked ends a session because of err; its worker does the rest. Later frames for it
// count as frames of an unknown session.
func (sw *Switch) failLocked(s *Session, err error) {
	if s.err != nil {
		return
	}
	s.err = err
	sw.unlinkLocked(s)
	sw.rouseLocked(s)
}

// unlinkLocked removes a session from the table.
func (sw *Switch) unlinkLocked(s *Session) {
	p := s.peer
	p.sessions = slices.DeleteFunc(p.sessions, func(o *Session) bool { return o == s })
	sw.sessions--
	if s.halfOpen {
		p.wastes(time.Now())
	}
	sw.settleLocked(s)
	if p.current == s {
		p.current = nil
	}
	sw.queued -= len(s.in)
	s.in = nil
	sw.dropListLocked(s)
	for _, ch := range s.pings {
		close(ch)
	}
	s.pings = nil
}

// settleLocked says that a session is no longer half open, and frees its place.
func (sw *Switch) settleLocked(s *Session) {
	if s.halfOpen {
		s.halfOpen = false
		sw.moveLocked(s, poolNone)
		s.peer.halfOpen--
		sw.halfOpen--
	}
}

func (sw *Switch) findLocked(from cert.NodeID, sid uint64) *Session {
	if p := sw.peers[from]; p != nil {
		for _, s := range p.sessions {
			if s.sid == sid {
				return s
			}
		}
	}
	return nil
}

// peerLocked returns the entry of a node, and makes it if necessary; nil when the table
// has limit entries.
func (sw *Switch) peerLocked(id cert.NodeID, limit int) *peer {
	if p := sw.peers[id]; p != nil {
		return p
	}
	now := time.Now()
	if len(sw.peers) >= 64 && now.Sub(sw.swept) >= time.Second {
		sw.swept = now
		for id, p := range sw.peers {
			used := slices.MaxFunc([]time.Time{p.opensAt, p.resetAt, p.strayAt}, time.Time.Compare)
			// Entries with failed introductions are dropped last.
			if p.wasteAt(now) > 0.5 && len(sw.peers) < maxPeers {
				continue
			}
			if len(p.sessions) == 0 && p.dial == nil && now.Sub(used) > openBurst/openPerSec*time.Second {
				delete(sw.peers, id)
			}
		}
	}
	if len(sw.peers) >= limit {
		return nil
	}
	p := &peer{id: id, opens: openBurst, opensAt: now}
	sw.peers[id] = p
	return p
}

// Recheck verifies the certificates of all sessions again. Call it after a newer
// revocation list or a change of CAs, and now and then for certificates that expire. It
// ends sessions that fail; Closed gets the error of Verify.
func (sw *Switch) Recheck() {
	type open struct {
		s    *Session
		node *cert.Node
	}
	var all []open
	sw.mu.Lock()
	for _, p := range sw.peers {
		for _, s := range p.sessions {
			if s.Peer != nil {
				all = append(all, open{s, s.Peer})
			}
		}
	}
	sw.mu.Unlock()
	for _, o := range all {
		if _, err := sw.cfg.Verify(o.node.Raw); err != nil {
			sw.fail(o.s, fmt.Errorf("introduction: %w", err))
		}
	}
}

func (sw *Switch) fail(s *Session, err error) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.failLocked(s, err)
}

// Close ends all sessions without sending anything and waits for every goroutine and
// Dial. Call Bye before for sessions whose WireGuard peer ends too.
func (sw *Switch) Close() {
	sw.mu.Lock()
	sw.closed = true
	for _, p := range sw.peers {
		if p.dial != nil {
			p.dial.finishLocked(nil)
		}
		for _, s := range slices.Clone(p.sessions) {
			sw.failLocked(s, ErrClosed)
		}
	}
	sw.mu.Unlock()
	sw.wg.Wait()
}

// silent reports whether a session that ends with err sends no last frame.
func silent(err error) bool {
	for _, e := range []error{ErrClosed, ErrReplaced, ErrReset, ErrEnded, ErrBye} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// newSessionID returns a random id that is not 0. It is not secret and may be guessable,
// because relays see it anyway.
func newSessionID() uint64 { return max(rand.Uint64(), 1) }

// InProgress reports whether an introduction by the peer is pending here: its WireGuard
// messages may then be early, and need no reset.
func (sw *Switch) InProgress(id cert.NodeID) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	p := sw.peers[id]
	if p == nil {
		return false
	}
	return slices.ContainsFunc(p.sessions, func(s *Session) bool { return !s.live && s.err == nil })
}
