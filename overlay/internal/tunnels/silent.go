package tunnels

import (
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/homes"
)

// A relay reports a peer as silent when it has not answered a ping for two seconds. But
// the peer may be behind a full uplink, where each answer takes three. So a peer counts
// as silent only silentFor after it was asked, and not at all if it has answered
// meanwhile, whatever the relay reports.
const (
	silentFor        = 5 * time.Second
	silentRemembered = time.Minute // for this long after a peer counted as silent, a new report counts at once, if nothing was received from it since
	maxSilent        = 256
)

// silence is a relay's report that a peer is silent: the introduction that has no answer,
// nil for none, and the relay connection.
type silence struct {
	dial *dialing
	conn homes.RelayConn
}

// reportedSilent takes a relay's report that a peer is silent.
func (t *Table) reportedSilent(w homes.RelayConn, id cert.NodeID) {
	q := t.table[id]
	if q == nil || q.dial != nil && q.dial.conn != w || q.dial == nil && q.conn != w {
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
	if now.Sub(t.silent[id]) < silentRemembered {
		wait = 0
	}
	decide := func() {
		if t.table[id] != q || q.dial != d || d != nil && (d.answered || d.tried.After(now)) {
			return // it has answered, or this is another introduction
		}
		if d == nil && (q.asked.IsZero() || q.conn != w) || d != nil && d.conn != w {
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
	if report := (silence{d, w}); q.await(report) {
		time.AfterFunc(wait, func() {
			t.do(func() {
				if q.silence == report {
					q.silence = silence{}
				}
				decide()
			})
		})
	}
}

// await reports whether to wait until a report counts: once for each, however often the
// relay repeats it.
func (q *peer) await(report silence) bool {
	if q.silence == report {
		return false
	}
	q.silence = report
	return true
}
