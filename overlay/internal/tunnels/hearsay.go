package tunnels

import (
	"errors"
	"fmt"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/relay"
)

// What others report about a tunnel: the peer's bye, resets, and the relay's "gone".

const (
	resetSpacing  = 5 * time.Second // introductions made because of resets or lost sessions, per peer
	waitedSpacing = time.Second     // the same while somebody waits for the peer
	recently      = 2 * time.Second // data sent this short ago is traffic
)

// What a relay reports of a peer to which it cannot deliver. errSilent wraps errGone.
var (
	errGone   = errors.New("not connected to the relay")
	errSilent = fmt.Errorf("%w: it did not answer the relay", errGone)
)

// Session takes an introduction frame from a relay. It does not keep frame.
func (t *Table) Session(from cert.NodeID, frame []byte) { t.intro.Deliver(from, frame) }

// sessionClosed is called by package intro when a session has ended. Only an authentic
// bye and an invalid certificate end the tunnel.
func (t *Table) sessionClosed(s *intro.Session, err error) {
	t.do(func() {
		q := t.table[s.Peer.ID]
		if q == nil || q.session != s {
			return
		}
		q.session, q.lost = nil, time.Now()
		t.checkAt(q.lost.Add(time.Second))
		switch {
		case errors.Is(err, intro.ErrBye):
			t.endAndRedial(q, "bye", false)
		case errors.Is(err, cert.ErrRevoked), errors.Is(err, cert.ErrUntrusted), errors.Is(err, cert.ErrExpired):
			t.drop(q, err.Error(), false)
		}
	})
}

// onReset is called for a reset: the peer, or perhaps only the relay, says that the peer
// has no tunnel with us.
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

// Gone takes a relay's report that a peer is not connected to it, or silent.
func (t *Table) Gone(w homes.RelayConn, id cert.NodeID, reason relay.GoneReason) {
	t.hint(func() {
		if reason == relay.GoneSilent {
			t.reportedSilent(w, id)
		} else {
			t.goneAt(w, id, errGone)
		}
	})
}

// goneAt takes a relay's report that a peer is gone. It counts only if this node reaches
// the peer through that relay connection.
func (t *Table) goneAt(w homes.RelayConn, id cert.NodeID, why error) {
	alone := t.alone()
	q := t.table[id]
	if alone && (q == nil || q.dial == nil) { // otherwise the outcome of the introduction says more
		t.cfg.Directory.SetPresence(directory.Presence{ID: id, Online: false})
	}
	if q == nil || q.dial != nil && q.dial.conn != w || q.dial == nil && q.conn != w {
		return
	}
	q.gone = time.Now()
	t.checkAt(q.gone.Add(time.Second)) // check then whether data still arrive
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

// alone reports whether the network has only one relay, so that a peer that is not
// connected to it is offline.
func (t *Table) alone() bool {
	s, ok := t.cfg.Held.Get()
	return !ok || len(s.Config.Relays) <= 1
}

// findAgain introduces this node anew to a peer that is no longer at its relay.
func (t *Table) findAgain(q *peer) {
	now := time.Now()
	if q.dial != nil || now.Before(latest(q.nextHint, q.nextRedial)) || !t.hasTraffic(q, now) {
		return
	}
	q.nextHint = now.Add(resetSpacing)
	t.call(q, nil)
}

// hasTraffic reports whether data were sent or received a moment ago.
func (t *Table) hasTraffic(q *peer, now time.Time) bool {
	st, ok := t.forwarder.Stats(q.id)
	return ok && now.Sub(st.LastTx) < recently
}
