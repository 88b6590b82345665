package tunnels

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/intro"
	"weft/overlay/status"
)

// How this node introduces itself to another: a packet has no peer (Miss), or a program
// dials (Ensure). The peer answers in two steps: first its keys (established), then that
// it has accepted (called).

const (
	dialTimeout = 22 * time.Second // four times intro.HandshakeTimeout, and a little
	redialMax   = 30 * time.Second
)

// Miss introduces this node to the node with an address for which packets are held.
func (t *Table) Miss(dst netip.Addr) {
	// The caller is the goroutine that reads from the forwarder: it must not wait for the
	// owner, which may be waiting for it.
	t.missing.Lock()
	defer t.missing.Unlock()
	if t.down {
		return // as are all tunnels: what is held is dropped with them
	}
	t.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, dialTimeout)
		defer cancel()
		// Answers to a peer that has called us are sent to it, whatever the directory
		// says.
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

// Refused returns why this node makes no tunnel with anybody, nil if it does.
func (t *Table) Refused() error {
	if t.cfg.Refused != nil {
		return t.cfg.Refused
	}
	return nil
}

// Ensure returns once there is a tunnel with the node, and makes one if necessary. It is
// cheap if there is one already.
func (t *Table) Ensure(ctx context.Context, id cert.NodeID) error {
	if _, ok := t.Views()[id]; ok {
		return nil
	}
	if err := t.Refused(); err != nil {
		return err
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

// CallAnew introduces this node to a peer, even if there is a tunnel, and returns the
// result. It does nothing if ctx has ended.
func (t *Table) CallAnew(ctx context.Context, id cert.NodeID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := t.Refused(); err != nil {
		return err
	}
	done := make(chan error, 1)
	if !t.do(func() {
		q := t.table[id]
		if q == nil {
			q = &peer{id: id}
			t.table[id] = q
		}
		t.call(q, done)
	}) {
		return ErrDown
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ErrDown is returned while the node is down.
var ErrDown = &status.Error{Kind: status.KindFailed, Message: "weft is down", Hint: "run: weft up"}

// call starts an introduction as the caller, or joins the one in progress. result, if not
// nil, gets its outcome. Packets flow one round trip before that, as soon as the keys are
// known (install).
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

// errEnded says that a tunnel was dropped while the introduction for it was in progress.
var errEnded = errors.New("the tunnel has ended meanwhile")

// established takes the keys of an introduction that this node started, before the peer
// has accepted it. The tunnel may have been dropped since the session was made: drop ends
// the introduction, but not this call that waited for the owner. A dropped peer, such as
// a revoked one, must not get another tunnel, which nothing would end.
func (t *Table) established(q *peer, d *dialing, s *intro.Session) error {
	if t.table[q.id] != q {
		return errEnded
	}
	// What was accepted of the peer's own introductions before is older: this attempt
	// began after that, or would have ended with it. The peer takes this attempt's keys.
	d.answered, d.overtaken = true, false
	q.answeredIn(s.Trip)
	if d.late = q.installed() && q.sameKeys(s); d.late {
		if s.Suite == intro.SuiteAES {
			// So that nothing is lost which the peer sends as soon as it has accepted.
			return t.aes.SetPeer(q.result(s, dataplane.Tentative))
		}
		return nil
	}
	err := t.install(q, s, true, dataplane.Tentative)
	if err == nil {
		d.session = s
	}
	d.late = errors.Is(err, dataplane.ErrTaken)
	return err
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
		// With AES nothing is sent before the plane knows that the peer has accepted.
		waits := s.Suite == intro.SuiteAES && d.session == s
		if s.Initiator && !d.overtaken && (waits || s.Err() == nil) {
			ierr := t.acceptedBy(q, d, s)
			if errors.Is(ierr, dataplane.ErrKeyGone) && q.dial == nil && t.ctx.Err() == nil {
				// It has our previous key: introduce once more.
				s.Close()
				t.table[q.id] = q
				t.call(q, nil)
				q.dial.waiters, d.waiters = d.waiters, nil
				return
			}
			if ierr != nil {
				t.log.Warn("cannot make or renew a tunnel", "peer", q.id, "err", ierr)
				if waits && !q.accepted && q.installed() {
					t.endTunnel(q, "not accepted", false)
				}
				if !q.installed() {
					s.Bye()
					err = &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("no tunnel with %s: %v", t.cfg.Name(q.id), ierr)}
				}
			}
			if ierr == nil {
				t.claim(s, false)
			}
			if s.Err() == nil {
				q.session = s // it was installed earlier and may have ended since
			}
		}
		t.cfg.Directory.SetPresence(directory.Presence{ID: q.id, Online: true})
		t.publish()
	case errors.As(err, &denied):
		if q.installed() && q.ours {
			t.drop(q, "denied", false)
		}
		err = t.deniedError(q, denied)
	case errors.Is(err, intro.ErrKey):
		if d.session != nil && q.installed() && q.hello.Key == d.session.Remote.Key {
			t.drop(q, "its WireGuard key belongs to another device", false)
		}
		err = &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("no tunnel with %s: %v", t.cfg.Name(q.id), err)}
	case errors.Is(err, intro.ErrReplaced):
		// The peer called at the same time and its call won.
		if q.installed() {
			err = nil
		}
	}
	if err != nil && !d.overtaken && q.session != nil && (d.late || q.session.Err() != nil) {
		// The peer may have accepted nevertheless. Then it has newer keys, for the next
		// handshake, and has dropped the old session.
		q.session.Close()
		q.session, q.lost = nil, time.Now()
		t.checkAt(q.lost.Add(time.Second))
	}
	if err != nil && !d.overtaken && d.session != nil && d.session.Suite == intro.SuiteAES && q.installed() && !q.accepted {
		// Only WireGuard tries by itself to use a tunnel that the peer has not accepted.
		t.endTunnel(q, "not accepted", false)
		t.publish()
	}
	if err != nil {
		if errors.Is(err, errGone) {
			t.cfg.Directory.SetPresence(directory.Presence{ID: q.id, Online: false})
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
		// The peer may have reconnected after the last attempt began: try once more for
		// waiters that joined late.
		i := slices.IndexFunc(waiters, func(w waiter) bool { return w.since.After(d.tried) })
		if i >= 0 {
			t.table[q.id] = q
			t.call(q, nil)
			q.dial.waiters = slices.Clone(waiters[i:])
			waiters = waiters[:i]
		}
	}
	if t.stale(q) {
		t.checkAt(time.Now())
	}
	for _, w := range waiters {
		w.result <- err
	}
	if !q.installed() && q.dial == nil && q.session == nil && t.table[q.id] == q {
		delete(t.table, q.id)
	}
}

// acceptedBy completes the tunnel of an introduction that this node started, once the
// peer has accepted.
func (t *Table) acceptedBy(q *peer, d *dialing, s *intro.Session) error {
	if t.table[q.id] != q {
		return errEnded
	}
	claim := claimOf(s)
	if !d.late && q.installed() {
		if s.Suite == intro.SuiteAES {
			err := t.aes.SetPeer(q.result(s, claim))
			q.accepted = err == nil
			return err
		}
		if claim < dataplane.Proven || t.plane.Prove(q.id, s.Remote.Key) {
			return nil
		}
	}
	return t.install(q, s, true, claim)
}

// sameKeys reports whether the keys of a session are further keys for the tunnel that there
// is: the peer has not restarted since.
func (q *peer) sameKeys(s *intro.Session) bool {
	if q.suite != s.Suite {
		return false
	}
	if s.Suite == intro.SuiteAES {
		return q.hello.Boot == s.Remote.Boot
	}
	return q.hello.Key == s.Remote.Key
}

// claimOf returns how certain the key of an introduced node is.
func claimOf(s *intro.Session) dataplane.Claim {
	if s.Proven() {
		return dataplane.Proven
	}
	return dataplane.Claimed
}

func (t *Table) deniedError(q *peer, e *intro.DenyError) error {
	name := t.cfg.Name(q.id)
	msg := fmt.Sprintf("%s does not accept this device: %s", name, e.Reason)
	if e.Text != "" {
		msg += ": " + e.Text
	}
	hint := "the network's policy decides; ask its owner"
	switch e.Reason {
	case intro.DenyConflict:
		hint = "restart weft here; it then makes another WireGuard key"
	case intro.DenySuite:
		msg = fmt.Sprintf("no tunnel with %s: %s", name, e.Text)
		hint = "weft run --suite and FIPS mode decide what a device may use; weft before 2026-11-30 has no AES"
	}
	return &status.Error{Kind: status.KindDenied, Message: msg, Hint: hint}
}

func (t *Table) unreachable(q *peer, err error) error {
	name := t.cfg.Name(q.id)
	if errors.Is(err, errUnsure) {
		return &status.Error{Kind: status.KindUnreachable,
			Message: name + "is connected to none of the relays, and the server does not know yet where it is", Hint: "try again in half a minute"}
	}
	if !q.gone.IsZero() {
		return &status.Error{Kind: status.KindUnreachable, Message: name + " is offline"}
	}
	return &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("%s does not answer: %v", name, err), Hint: "see: weft status"}
}
