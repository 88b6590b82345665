package tunnels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// How nodes come to have a tunnel, in the order in which it happens: a packet
// finds no peer (miss) or somebody dials (ensure); this node calls (call,
// established, called) or is called (accept); the tunnel is made or
// refreshed (install). Then what others say about it: the peer's bye, resets,
// the relay's gone, and messages that came too early (stranger).

// Miss has the node introduce itself to who has an address, for which packets are held.
func (t *Table) Miss(dst netip.Addr) {
	// The caller is the forwarder's reader: it must not wait for us, and we may
	// be waiting for it.
	t.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, dialTimeout)
		defer cancel()
		// Answers to whoever called us go there whatever the directory says.
		k, _ := t.cfg.Directory.Find(dst.String())
		if k == nil {
			var err error
			if k, err = t.cfg.Find(ctx, dst.String()); err != nil {
				t.forwarder.Fail(dst, failReason(err))
				return
			}
		}
		if err := t.Ensure(ctx, k.Node.ID); err != nil {
			t.forwarder.Fail(dst, failReason(err))
		}
	})
}

func failReason(err error) dataplane.Reason {
	if status.KindOf(err) == status.KindDenied {
		return dataplane.Prohibited
	}
	return dataplane.Unreachable
}

// Ensure returns once there is a tunnel to the node, introducing it
// if need be. A peer that exists already costs nothing.
func (t *Table) Ensure(ctx context.Context, id cert.NodeID) error {
	if _, ok := t.Views()[id]; ok {
		return nil
	}
	done := make(chan error, 1)
	ok := t.do(func() {
		q := t.table[id]
		if q != nil && q.installed() && q.dial == nil {
			done <- nil
			return
		}
		if q == nil {
			q = &peer{id: id}
			t.table[id] = q
		}
		t.call(q, done)
	})
	if !ok {
		return ErrDown
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ctx.Done():
		return ErrDown
	}
}

// ErrDown is the answer of a node that is down.
var ErrDown = &status.Error{Kind: status.KindFailed, Message: "weft is down", Hint: "run: weft up"}

// call starts an introduction as the caller, or joins the one in progress.
// result, when not nil, gets what becomes of it. Packets flow one round trip
// earlier, as soon as the keys are known (install).
func (t *Table) call(q *peer, result chan<- error) {
	if q.dial != nil {
		if result != nil {
			q.dial.waiters = append(q.dial.waiters, waiter{time.Now(), result})
		}
		return
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	d := &dialing{id: q.id, cancel: cancel, tried: time.Now()}
	if result != nil {
		d.waiters = []waiter{{d.tried, result}}
	}
	q.dial = d
	t.log.Debug("introduce", "peer", q.id)
	t.wg.Go(func() {
		defer cancel(nil)
		ctx, stop := context.WithTimeout(ctx, dialTimeout)
		defer stop()
		s, err := t.reach(ctx, q, d)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil && !errors.Is(cause, context.DeadlineExceeded) {
				err = cause
			}
		}
		t.do(func() { t.called(q, d, s, err) })
	})
}

// established takes the keys of an introduction that this node started, before
// the peer has accepted it.
func (t *Table) established(q *peer, d *dialing, s *intro.Session) error {
	d.heard = true
	q.spoke(s.Trip)
	if d.late = q.installed() && q.hello.Key == s.Remote.Key; d.late {
		return nil
	}
	err := t.install(q, s, true, dataplane.Tentative)
	if err == nil {
		d.session = s
	}
	d.late = errors.Is(err, dataplane.ErrTaken)
	return err
}

// acceptedBy makes the tunnel of an introduction that this node started what it
// should be once the peer has accepted.
func (t *Table) acceptedBy(q *peer, d *dialing, s *intro.Session) error {
	if t.table[q.id] != q {
		return errors.New("the tunnel was ended meanwhile")
	}
	claim := claimOf(s)
	if !d.late && q.installed() && (claim < dataplane.Proven || t.plane.Prove(q.id, s.Remote.Key)) {
		return nil
	}
	return t.install(q, s, true, claim)
}

// claimOf says how good the claim of an introduced node to its key is.
func claimOf(s *intro.Session) dataplane.Claim {
	if s.Proven() {
		return dataplane.Proven
	}
	return dataplane.Claimed
}

// called takes the result of an introduction that this node started.
func (t *Table) called(q *peer, d *dialing, s *intro.Session, err error) {
	if q.dial == d {
		q.dial = nil
	}
	var denied *intro.DenyError
	switch {
	case err == nil:
		q.failures = 0
		q.gone = time.Time{}
		if s.Initiator && !d.overtaken && s.Err() == nil {
			ierr := t.acceptedBy(q, d, s)
			if errors.Is(ierr, dataplane.ErrKeyGone) && q.dial == nil && t.ctx.Err() == nil {
				// It was told the key that we had before: once more.
				s.Close()
				t.table[q.id] = q
				t.call(q, nil)
				q.dial.waiters, d.waiters = d.waiters, nil
				return
			}
			if ierr != nil {
				t.log.Warn("cannot make or renew a tunnel", "peer", q.id, "err", ierr)
				if !q.installed() {
					s.Bye()
					err = &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("no tunnel with %s: %v", t.cfg.Name(q.id), ierr)}
				}
			}
		}
		if s.Err() == nil {
			q.session = s // installed before; it may have ended since
		}
		t.cfg.Directory.SetPresence(directory.Sighting{ID: q.id, Online: true})
		t.publish()
	case errors.As(err, &denied):
		if q.installed() && q.ours {
			t.drop(q, "denied", false)
		}
		err = t.deniedError(q, denied)
	case errors.Is(err, intro.ErrKey):
		if d.session != nil && q.installed() && q.hello.Key == d.session.Remote.Key {
			t.drop(q, "its WireGuard key is another's", false)
		}
		err = &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("no tunnel with %s: %v", t.cfg.Name(q.id), err)}
	case errors.Is(err, intro.ErrReplaced):
		// The peer called at the same time and its call counts.
		if q.installed() {
			err = nil
		}
	}
	if err != nil && !d.overtaken && q.session != nil && (d.late || q.session.Err() != nil) {
		// The peer may have accepted all the same. Then it has newer keys, for
		// the next handshake, and knows the old session no more.
		q.session.Close()
		q.session, q.lost = nil, time.Now()
		t.lookAt(q.lost.Add(time.Second))
	}
	if err != nil {
		if errors.Is(err, errGone) {
			t.cfg.Directory.SetPresence(directory.Sighting{ID: q.id, Online: false})
		}
		q.failures++
		q.nextRedial = time.Now().Add(min(time.Second<<min(q.failures, 5), redialMax))
		t.log.Debug("introduction failed", "peer", q.id, "err", err)
		if status.KindOf(err) == status.KindFailed {
			err = t.unreachable(q, err)
		}
	}
	waiters := d.waiters
	d.waiters = nil
	if err != nil && q.dial == nil && denied == nil && t.ctx.Err() == nil && (t.table[q.id] == q || t.table[q.id] == nil) {
		// The peer may have come back after the last attempt began: once more
		// for those who came since.
		i := slices.IndexFunc(waiters, func(w waiter) bool { return w.came.After(d.tried) })
		if i >= 0 {
			t.table[q.id] = q
			t.call(q, nil)
			q.dial.waiters = slices.Clone(waiters[i:])
			waiters = waiters[:i]
		}
	}
	if t.stale(q) {
		t.lookAt(time.Now())
	}
	for _, w := range waiters {
		w.result <- err
	}
	if !q.installed() && q.dial == nil && q.session == nil && t.table[q.id] == q {
		delete(t.table, q.id)
	}
}

func (t *Table) deniedError(q *peer, e *intro.DenyError) error {
	name := t.cfg.Name(q.id)
	msg := fmt.Sprintf("%s does not let this device in: %s", name, e.Reason)
	if e.Text != "" {
		msg += ": " + e.Text
	}
	hint := "the network's policy decides; ask its owner"
	if e.Reason == intro.DenyConflict {
		hint = "restart weft here; it makes another WireGuard key then"
	}
	return &status.Error{Kind: status.KindDenied, Message: msg, Hint: hint}
}

func (t *Table) unreachable(q *peer, err error) error {
	name := t.cfg.Name(q.id)
	if errors.Is(err, errUnsure) {
		return &status.Error{Kind: status.KindUnreachable,
			Message: name + " is at none of the relays, and the server does not know yet where it is", Hint: "try again in half a minute"}
	}
	if !q.gone.IsZero() {
		return &status.Error{Kind: status.KindUnreachable, Message: name + " is offline"}
	}
	return &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("%s does not answer: %v", name, err), Hint: "see: weft status"}
}

// install makes or refreshes the tunnel with a session's keys: before
// accept goes out on the called side, as soon as the keys are known on the
// calling side.
func (t *Table) install(q *peer, s *intro.Session, ours bool, claim dataplane.Claim) error {
	snap, ok := t.cfg.Held.Get()
	if !ok {
		return ErrDown
	}
	if s.Own.Key != t.keys.Key().Public {
		return dataplane.ErrKeyGone // the peer was told the one before
	}
	node := s.Peer
	addrs := []netip.Addr{node.IPv4, node.IPv6}
	q.filter = t.cfg.Filters.Of(q.id, []netip.Addr{snap.Self.IPv4, snap.Self.IPv6}, addrs, filter.Compile(snap.Config.Rules, node))
	restarted := q.hello.Boot != s.Remote.Boot || q.local != s.Own.Boot
	if q.endpoint == nil {
		q.endpoint = bind.NewEndpoint(q.id, node.IPv4)
	}
	t.introduced(q, s)
	err := t.setPeer(dataplane.Peer{
		ID: q.id, Key: s.Remote.Key, Claim: claim, Secret: s.PSK, IPs: addrs, Trip: s.Trip,
		Endpoint: q.endpoint, Filter: q.filter, Initiate: s.Initiator,
	})
	if err != nil {
		if !q.installed() {
			t.setWay(q, nil)
			t.cfg.Filters.Release(q.id, t.forwarder.Now())
		}
		return fmt.Errorf("install peer %s: %w", node.Name, err)
	}
	t.bind.Admit(q.endpoint)
	if !q.installed() || restarted {
		t.log.Info("tunnel", "peer", node.Name, "id", q.id, "called", ours)
		q.nextHint = time.Time{} // whoever said that it started anew was right, and may say so again
		for _, w := range q.renewed {
			close(w)
		}
		q.renewed = nil
	}
	q.node, q.hello, q.local, q.ours, q.session = node, s.Remote, s.Own.Boot, ours, s
	q.gone = time.Time{} // whatever the relay said
	delete(t.silent, q.id)
	q.unanswered, q.pinging, q.proved = time.Time{}, time.Time{}, time.Now()
	if !q.installed() {
		q.made = time.Now()
		t.lookAt(q.made.Add(min(silentAfter, t.cfg.Idle)))
	}
	t.lookAt(t.renewal(node))
	if t.stale(q) {
		t.lookAt(time.Now())
	}
	t.startAgent(q, s, restarted)
	t.cfg.Directory.Learn(&directory.Known{Node: node, Online: true, LastSeen: t.cfg.Clock.Now(), Stranger: !ours})
	t.publish()
	t.releaseHeld(q.id)
	return nil
}

// setPeer is Plane.SetPeer, for which a node has to give up a key that it has
// never shown to hold.
func (t *Table) setPeer(cfg dataplane.Peer) error {
	err := t.plane.SetPeer(cfg)
	if taken, ok := errors.AsType[*dataplane.TakenError](err); ok && taken.Yields {
		t.evict(taken.Holder)
		err = t.plane.SetPeer(cfg)
	}
	return err
}

// evict ends the tunnel of a node whose key is another's, as far as is
// known. The node may introduce itself anew. An introduction to it that is under
// way goes on, and makes a tunnel if the node accepts.
func (t *Table) evict(id cert.NodeID) {
	q := t.table[id]
	if q == nil || !q.installed() {
		t.plane.RemovePeer(id)
		return
	}
	if q.dial != nil && q.session == q.dial.session {
		q.session = nil // of what is under way
	}
	t.endTunnel(q, "its WireGuard key is another's", true)
	if q.dial == nil {
		delete(t.table, id)
	}
	t.publish()
}

// accept is asked by intro for each introduction by another node.
func (t *Table) accept(s *intro.Session) *intro.Deny {
	t.waitOnce.Do(func() { time.AfterFunc(numbersWait, t.UpToDate) })
	select {
	case <-t.current:
	case <-t.ctx.Done():
		return &intro.Deny{Reason: intro.DenyBusy, Text: "going down"}
	}
	var deny *intro.Deny
	err := t.inLoop(func() error {
		snap, ok := t.cfg.Held.Get()
		q := t.table[s.Peer.ID]
		// A list that came while we waited may have revoked the caller.
		if !ok || snap.CRL.Check(s.Peer) != nil {
			deny = &intro.Deny{Reason: intro.DenyCertificate, Text: "revoked"}
			return nil
		}
		// Policy may let a device say nothing first, and yet it has the answer to
		// what this node asked: after minutes, when the tunnel has ended.
		known := q != nil && (q.installed() || q.dial != nil) || t.cfg.Filters.Began(s.Peer.ID, t.forwarder.Now())
		if !known && !filter.Compile(snap.Config.Rules, s.Peer).Any() {
			deny = &intro.Deny{Reason: intro.DenyPolicy, Text: fmt.Sprintf("nothing on %s is open to %s", snap.Self.Name, s.Peer.Name)}
			return nil
		}
		if q == nil {
			q = &peer{id: s.Peer.ID}
			t.table[q.id] = q
		}
		q.spoke(s.Trip)
		if err := t.install(q, s, q.installed() && q.ours, claimOf(s)); err != nil {
			if !q.installed() && q.dial == nil {
				delete(t.table, q.id)
			}
			return err
		}
		q.failures, q.gone = 0, time.Time{}
		if q.dial != nil {
			q.dial.overtaken = true
		}
		return nil
	})
	if errors.Is(err, dataplane.ErrKeyGone) {
		s.Close() // the caller tries again
		return nil
	}
	if err != nil {
		t.log.Warn("cannot accept an introduction", "peer", s.Peer.Name, "err", err)
		return &intro.Deny{Reason: intro.DenyConflict, Text: err.Error()}
	}
	if deny != nil {
		t.forgetHeld(s.Peer.ID)
	}
	return deny
}

// knows reports whether a node is one to let in, as far as can be known before it
// shows its certificate: it has a tunnel, or it has shown one before that policy
// lets in, or the server has. It does not block.
func (t *Table) knows(id cert.NodeID) bool {
	if _, ok := t.Views()[id]; ok {
		return true
	}
	snap, ok := t.cfg.Held.Get()
	k := t.cfg.Directory.Peek(id)
	return ok && k != nil && filter.Compile(snap.Config.Rules, k.Node).Any()
}

// sessionClosed is told by intro that a session ended. Only a proven bye and
// a certificate that no longer holds end the tunnel.
func (t *Table) sessionClosed(s *intro.Session, err error) {
	t.do(func() {
		q := t.table[s.Peer.ID]
		if q == nil || q.session != s {
			return
		}
		q.session, q.lost = nil, time.Now()
		t.lookAt(q.lost.Add(time.Second))
		switch {
		case errors.Is(err, intro.ErrBye):
			t.endAndRedial(q, "bye", false)
		case errors.Is(err, cert.ErrRevoked), errors.Is(err, cert.ErrUntrusted), errors.Is(err, cert.ErrExpired):
			t.drop(q, err.Error(), false)
		}
	})
}

// hasTraffic reports whether data went either way a moment ago.
func (t *Table) hasTraffic(q *peer, now time.Time) bool {
	st, ok := t.forwarder.Stats(q.id)
	return ok && now.Sub(st.LastTx) < recently
}

// onReset: the peer, or only the relay, says that it has no tunnel with us.
func (t *Table) onReset(from cert.NodeID) {
	t.hint(func() {
		q := t.table[from]
		if q == nil || !q.installed() || q.dial != nil {
			return
		}
		now, due := time.Now(), q.nextHint
		if len(q.watchers) > 0 { // somebody waits for its answer
			due = due.Add(waitedSpacing - resetSpacing)
		}
		if now.Before(due) {
			return
		}
		q.nextHint = now.Add(resetSpacing)
		t.call(q, nil)
	})
}

// goneHint: a relay says that a peer is not connected to it, or silent.
func (t *Table) Gone(w homes.Way, id cert.NodeID, reason relay.GoneReason) {
	t.hint(func() {
		if reason == relay.GoneSilent {
			t.doubt(w, id)
		} else {
			t.goneAt(w, id, errGone)
		}
	})
}

// goneAt takes a relay's word that a peer is not there. It is of interest where
// the peer was believed to be.
func (t *Table) goneAt(w homes.Way, id cert.NodeID, why error) {
	alone := t.alone()
	q := t.table[id]
	if alone && (q == nil || q.dial == nil) { // else what comes of that says more
		t.cfg.Directory.SetPresence(directory.Sighting{ID: id, Online: false})
	}
	if q == nil || q.dial != nil && q.dial.way != w || q.dial == nil && q.way != w {
		return
	}
	q.gone = time.Now()
	t.lookAt(q.gone.Add(time.Second)) // is it, when data still come?
	for _, w := range q.watchers {
		close(w)
	}
	q.watchers = nil
	if q.dial != nil {
		q.dial.gone(why)
	} else if !alone {
		t.findAgain(q)
	}
	t.publish()
}

// What a relay says of a peer that it cannot deliver to. errSilent is an errGone.
var (
	errGone   = errors.New("not connected to the relay")
	errSilent = fmt.Errorf("%w: it did not answer the relay", errGone)
)

// Session takes what a relay brings of an introduction. It keeps no part of frame.
func (t *Table) Session(from cert.NodeID, frame []byte) { t.intro.Deliver(from, frame) }

// Stranger is called by the bind for a message of the data plane from a node that has
// no endpoint: held while that node is being introduced, answered with a
// reset otherwise.
func (t *Table) Stranger(from cert.NodeID, pkt []byte) {
	if !t.intro.InProgress(from) {
		t.intro.Reset(from)
		return
	}
	t.holdEarly(from, pkt)
	if t.bind.Find(from) != nil { // admitted meanwhile
		t.releaseHeld(from)
	}
}

// Early is called for each message of the data plane from a node that has a tunnel.
// The node may have started anew and be introducing itself with another key:
// then its first handshake message may be ahead of our answer, and the plane
// will know it only once that was given. What the plane does know already it
// refuses the second time, as a replay.
func (t *Table) Early(from cert.NodeID, pkt []byte) {
	if t.plane.Begins(pkt) && t.bind.Find(from) != nil && t.intro.InProgress(from) {
		t.holdEarly(from, pkt)
		if !t.intro.InProgress(from) { // decided meanwhile
			t.releaseHeld(from)
		}
	}
}

// holdEarly keeps a message until install.
func (t *Table) holdEarly(from cert.NodeID, pkt []byte) {
	if len(pkt) > heldPacketSize {
		return
	}
	t.held.Lock()
	defer t.held.Unlock()
	q := t.held.from[from]
	if q == nil && len(t.held.from) >= heldStrangers {
		// Introductions that came to nothing leave theirs behind.
		maps.DeleteFunc(t.held.from, func(id cert.NodeID, _ [][]byte) bool { return !t.intro.InProgress(id) })
	}
	if len(q) < heldPerSender && (q != nil || len(t.held.from) < heldStrangers) {
		t.held.from[from] = append(q, bytes.Clone(pkt))
	}
}

// releaseHeld hands the messages that came too early to the data plane.
func (t *Table) releaseHeld(id cert.NodeID) {
	t.held.Lock()
	pkts := t.held.from[id]
	delete(t.held.from, id)
	t.held.Unlock()
	for _, pkt := range pkts {
		t.bind.Deliver(id, pkt)
	}
}

func (t *Table) forgetHeld(id cert.NodeID) {
	t.held.Lock()
	delete(t.held.from, id)
	t.held.Unlock()
}
