package tunnels

import (
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/homes"
)

// A relay says that a peer is silent when that did not answer it for two seconds.
// It may sit behind an uplink that its own uploads keep full, where each answer
// waits for three. So a peer counts as silent only silentFor after it was asked,
// and not at all if it has answered meanwhile, whatever the relay says.
const (
	silentFor   = 5 * time.Second
	silentKnown = time.Minute // who was found silent is believed to be so at once, and has not been heard since
	maxSilent   = 256
)

// silence is a relay's word that a peer is silent: to which introduction, nil for
// none, and over which relay connection.
type silence struct {
	dial *dialing
	way  homes.Way
}

// doubt takes a relay's word that a peer is silent.
func (t *Table) doubt(w homes.Way, id cert.NodeID) {
	q := t.table[id]
	if q == nil || q.dial != nil && q.dial.way != w || q.dial == nil && q.way != w {
		return
	}
	now, d := time.Now(), q.dial
	asked := q.asked
	if asked.IsZero() || now.Sub(asked) > answerMost {
		asked = now
		if d != nil {
			asked = d.tried
		}
	}
	wait := silentFor - now.Sub(asked)
	if now.Sub(t.silent[id]) < silentKnown {
		wait = 0
	}
	decide := func() {
		if t.table[id] != q || q.dial != d || d != nil && (d.heard || d.tried.After(now)) {
			return // it has answered, or this is another introduction
		}
		if d == nil && (q.asked.IsZero() || q.way != w) || d != nil && d.way != w {
			return
		}
		if st, ok := t.forwarder.Stats(id); ok && st.LastIn.After(asked) {
			return
		}
		if len(t.silent) >= maxSilent {
			clear(t.silent)
		}
		t.silent[id] = time.Now()
		t.goneAt(w, id, errSilent)
	}
	if wait <= 0 {
		decide()
		return
	}
	if said := (silence{d, w}); q.await(said) {
		time.AfterFunc(wait, func() {
			t.do(func() {
				if q.silence == said {
					q.silence = silence{}
				}
				decide()
			})
		})
	}
}

// await reports whether it is to be waited for whether said counts: once for each,
// however often a relay says so.
func (q *peer) await(said silence) bool {
	if q.silence == said {
		return false
	}
	q.silence = said
	return true
}
