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

// What others say about a tunnel: the peer's bye, resets, and the relay's word that a
// peer is gone.

const (
	resetSpacing  = 5 * time.Second // introductions made because of resets or lost sessions, per peer
	waitedSpacing = time.Second     // the same while somebody waits for the peer
	recently      = 2 * time.Second // data sent this short ago is traffic
)

// What a relay says of a peer that it cannot deliver to. errSilent is an errGone.
var (
	errGone   = errors.New("not connected to the relay")
	errSilent = fmt.Errorf("%w: it did not answer the relay", errGone)
)

// Session takes what a relay brings of an introduction. It keeps no part of frame.
func (t *Table) Session(from cert.NodeID, frame []byte) { t.intro.Deliver(from, frame) }

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

// alone reports whether the network has but one relay: who is not there is
// offline.
func (t *Table) alone() bool {
	s, ok := t.cfg.Held.Get()
	return !ok || len(s.Config.Relays) <= 1
}

// findAgain introduces the node anew to a peer that is no longer where it was.
func (t *Table) findAgain(q *peer) {
	now := time.Now()
	if q.dial != nil || now.Before(latest(q.nextHint, q.nextRedial)) || !t.hasTraffic(q, now) {
		return
	}
	q.nextHint = now.Add(resetSpacing)
	t.call(q, nil)
}

// hasTraffic reports whether data went either way a moment ago.
func (t *Table) hasTraffic(q *peer, now time.Time) bool {
	st, ok := t.forwarder.Stats(q.id)
	return ok && now.Sub(st.LastTx) < recently
}
