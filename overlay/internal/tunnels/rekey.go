package tunnels

import (
	"time"

	"weft/overlay/internal/dataplane"
)

// When the machine's clock was set back, peers ignore WireGuard's handshakes
// under the key that they know (package wg says why), and this node takes another,
// with another boot id. To its peers it has then started anew. Until they have
// been told, what is sent to them waits and what they send is lost: so the tunnels
// in use are introduced anew at once, the others one after another or when they are
// used.

// rekeyPace is the time between introductions of tunnels that are not in use.
const rekeyPace = 100 * time.Millisecond

// ClockSet is called when the kernel says that the clock was set.
func (t *Table) ClockSet() { t.do(t.checkClock) }

// SetBack is called by the data plane when it has begun a handshake that
// peers may ignore.
func (t *Table) SetBack() { t.hint(t.checkClock) }

// checkClock takes another WireGuard key if that is due. It is called when the
// kernel says that the clock was set, where it does, and when WireGuard finds out
// by itself.
func (t *Table) checkClock() {
	if !t.keys.SetBack() {
		return
	}
	if err := t.keys.Rekey(); err != nil {
		t.log.Warn("the clock was set back, and there is no new WireGuard key: tunnels may stand still until it has caught up", "err", err)
		return
	}
	t.log.Info("the clock was set back: tunnels are made anew, under another WireGuard key")
	now := time.Now()
	later := now
	for _, q := range t.table {
		if !q.installed() {
			continue
		}
		st, _ := t.forwarder.Stats(q.id)
		if q.rekey = now; now.Sub(latest(st.LastTx, st.LastRx)) > recently {
			later = later.Add(rekeyPace)
			q.rekey = later
		}
	}
	t.lookAt(now)
}

// stale reports whether a tunnel is of an earlier key of this node.
func (t *Table) stale(q *peer) bool { return q.installed() && q.local != t.keys.Key().Boot }

// tellKey introduces this node anew to a peer that knows an earlier key of it.
// A peer that was introduced while the key changed is told at once.
func (t *Table) tellKey(q *peer, now time.Time, st dataplane.Stats) {
	if !t.stale(q) {
		return
	}
	t.rekeyed = true
	due := latest(q.rekey, q.nextRedial)
	if now.Sub(st.LastTx) < recently {
		due = q.nextRedial
	}
	switch {
	case q.dial != nil: // then it is looked at again
	case now.Before(due):
		t.lookAt(due)
	default:
		t.call(q, nil)
	}
}
