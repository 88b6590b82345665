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

// Switch holds a node's introduction sessions, both roles.
type Switch struct {
	// Constant after New.
	cfg Config
	log *slog.Logger
	wg  sync.WaitGroup // every goroutine of the package, and Dials

	alter func(*Session, *tls.Config) // for tests of peers that are not like us; nil

	mu sync.Mutex
	// mu guards the following, and the fields of peers and Sessions that say
	// so. It is held for moments only: never across a callback, Send, or TLS.
	// Lock order: peer.cb, mu. Session.wmu is never taken with mu held.
	peers     map[cert.NodeID]*peer
	sessions  int
	halfOpen  int        // in any pool
	places    [pools]int // taken
	crowd     []*Session // with a place in poolOpen, oldest first
	frames    uint64     // delivered so far
	queued    int        // bytes received and not yet read, all sessions
	lists     []*Session // with a revocation list in the middle of arriving
	listless  []*Session // with one for which there is no place yet, oldest first
	turning   bool       // a timer looks at the two
	resets    []reset
	resetting bool // a goroutine is sending resets
	swept     time.Time
	closed    bool
}

// peer is what the Switch keeps per other node, while there is a session or a
// rate to be limited.
type peer struct {
	id cert.NodeID

	// cb is held across established and Accept: keys are handed over in one
	// order.
	cb sync.Mutex

	// Guarded by Switch.mu.
	sessions []*Session // a handful
	current  *Session   // the newest accepted one
	dial     *dial      // in progress
	halfOpen int
	heard    uint64  // id of the last introduction that the peer opened
	opens    float64 // tokens
	opensAt  time.Time
	waste    float64   // introductions of the peer that came to nothing …
	wastedAt time.Time // … as of then
	resetAt  time.Time // last session reset sent without a session
	strayAt  time.Time // last stranger reset sent
}

type reset struct {
	to  cert.NodeID
	sid uint64
}

// New returns a Switch. It starts nothing.
func New(cfg Config) *Switch {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Switch{cfg: cfg, log: cfg.Log, peers: map[cert.NodeID]*peer{}}
}

// Deliver takes one session frame that the relay says comes from a node. The
// frame is borrowed until Deliver returns. It never blocks: what does not fit
// into a bounded queue ends the session. Junk is dropped.
func (sw *Switch) Deliver(from cert.NodeID, b []byte) {
	if from == sw.cfg.ID {
		return // reflected: we have no sessions with ourselves
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
		// A session that we lost or gave up: say so, that the other side
		// need not find out by waiting.
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

// takeLocked queues a frame that is the next of its session.
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
	s.heardAt = sw.frames
	s.in = append(s.in, f.payload...)
	sw.queued += n
	s.eof = f.kind == kindBye
	sw.rouseLocked(s)
}

// rouseLocked makes the session's worker look at its state.
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

// openLocked begins an introduction as callee, within the bounds.
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
	p.heard = f.id
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

// failLocked ends a session because of err; its worker does the rest. Frames
// for it are unknown from here on.
func (sw *Switch) failLocked(s *Session, err error) {
	if s.err != nil {
		return
	}
	s.err = err
	sw.unlinkLocked(s)
	sw.rouseLocked(s)
}

// unlinkLocked takes a session off the table.
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

// settleLocked ends a session's state of being half open.
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

// peerLocked returns the entry of a node, made if need be; nil when the table
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
			// What wasted attention is forgotten last, but makes room as well.
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

// Reset tells a node that there is no WireGuard peer for it here (the stranger
// reset), at most once a second per node. It does not block and may be called
// where packets arrive.
func (sw *Switch) Reset(to cert.NodeID) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.closed || to == sw.cfg.ID {
		return
	}
	if p := sw.peerLocked(to, maxPeers); p != nil && time.Since(p.strayAt) >= time.Second {
		p.strayAt = time.Now()
		sw.resetLocked(to, 0)
	}
}

// resetLocked queues a reset to be sent from a goroutine, as Send may block.
func (sw *Switch) resetLocked(to cert.NodeID, sid uint64) {
	if len(sw.resets) >= maxResets {
		return
	}
	sw.resets = append(sw.resets, reset{to, sid})
	if !sw.resetting {
		sw.resetting = true
		sw.wg.Go(sw.sendResets)
	}
}

func (sw *Switch) sendResets() {
	for {
		sw.mu.Lock()
		if len(sw.resets) == 0 || sw.closed {
			sw.resets, sw.resetting = nil, false
			sw.mu.Unlock()
			return
		}
		r := sw.resets[0]
		sw.resets = sw.resets[1:]
		sw.mu.Unlock()
		sw.sendReset(r.to, r.sid)
	}
}

func (sw *Switch) sendReset(to cert.NodeID, sid uint64) {
	if err := sw.cfg.Send(to, appendFrame(nil, frame{id: sid, kind: kindReset})); err != nil {
		sw.log.Debug("send reset", "to", to, "err", err)
	}
}

// Recheck verifies the certificate behind every session again: call it after
// a newer revocation list, changed CAs, and now and then for certificates that
// run out. Sessions that fail are ended; Closed gets the error of Verify.
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

// Close ends all sessions without a word to the peers (say Bye before, to
// those whose WireGuard peers end too) and waits for every goroutine and Dial.
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

// silent reports whether a session that ends by err ends without a last frame.
func silent(err error) bool {
	for _, e := range []error{ErrClosed, ErrReplaced, ErrReset, ErrEnded, ErrBye, errLostGlare} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// newSessionID returns a random id that is not 0. It is no secret and need
// not be unguessable: every relay on the way sees it.
func newSessionID() uint64 { return max(rand.Uint64(), 1) }

// InProgress reports whether the peer has an introduction to this node under
// way that has not been decided: WireGuard messages from it may then be early
// rather than stray.
func (sw *Switch) InProgress(id cert.NodeID) bool {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	p := sw.peers[id]
	if p == nil {
		return false
	}
	return slices.ContainsFunc(p.sessions, func(s *Session) bool { return !s.live && s.err == nil })
}
