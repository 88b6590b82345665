package tunnels

import (
	"time"

	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/intro"
)

// After the machine's clock was set back, peers ignore WireGuard handshakes under the key
// that they know (package wg says why). So this node takes another key, with another boot
// id, as if it had restarted. Until a peer has the new key, packets to it wait and
// packets from it are lost. So this node introduces itself at once to peers whose tunnels
// are in use, and to the others one after another or when they are used.

// A tunnel of intro.SuiteAES loses its keys for sending when the clock is set either way, or
// the machine has slept (package gcm says why), and needs fresh ones, in the same order.

// rekeyPace is the time between introductions for tunnels that are not in use.
const rekeyPace = 100 * time.Millisecond

// ClockSet is called when the kernel says that the clock was set.
func (t *Table) ClockSet() { t.do(t.checkClock) }

// SetBack is called by the data plane when it has started a handshake that peers may
// ignore.
func (t *Table) SetBack() { t.hint(t.checkClock) }

// checkClock takes another WireGuard key if the clock was set back. It is called when the
// kernel reports that the clock was set, on systems that do, and when WireGuard finds
// out.
func (t *Table) checkClock() {
	if t.aes != nil && t.aes.CheckClock() {
		t.keysDropped()
	}
	if !t.keys.SetBack() {
		return
	}
	if err := t.keys.Rekey(); err != nil {
		t.log.Warn("the clock was set back, and no new WireGuard key could be made: tunnels may stall until the clock has caught up", "err", err)
		return
	}
	t.log.Info("the clock was set back: tunnels are made anew, under another WireGuard key")
	t.renewAll(intro.SuiteWireGuard)
}

// Jumped is called by the plane of intro.SuiteAES when it has dropped its keys. It waits
// for room in the owner's queue.
func (t *Table) Jumped() { t.do(t.keysDropped) }

func (t *Table) keysDropped() {
	t.log.Info("the machine has slept, or its clock was set: tunnels get fresh keys")
	for _, q := range t.table {
		q.keyless = q.installed() && q.suite == intro.SuiteAES
	}
	t.renewAll(intro.SuiteAES)
}

// renewAll schedules another introduction for each tunnel of a suite.
func (t *Table) renewAll(suite intro.Suite) {
	now := time.Now()
	later := now
	for _, q := range t.table {
		if !q.installed() || q.suite != suite {
			continue
		}
		st, _ := t.forwarder.Stats(q.id)
		if q.rekey = now; now.Sub(latest(st.LastTx, st.LastRx)) > recently {
			later = later.Add(rekeyPace)
			q.rekey = later
		}
	}
	t.checkAt(now)
}

// stale reports whether a tunnel is of an earlier key of this node, or has none to send
// with.
func (t *Table) stale(q *peer) bool {
	return q.installed() && (q.keyless || q.suite == intro.SuiteWireGuard && q.local != t.keys.Key().Boot)
}

// sendKey introduces this node anew to a peer that has an earlier key of it. A peer that
// was introduced while the key changed gets the new key at once.
func (t *Table) sendKey(q *peer, now time.Time, st dataplane.Stats) {
	if !t.stale(q) {
		return
	}
	t.rekeyed = true
	due := latest(q.rekey, q.nextRedial)
	if now.Sub(st.LastTx) < recently {
		due = q.nextRedial
	}
	switch {
	case q.dial != nil: // it is checked again after that
	case now.Before(due):
		t.checkAt(due)
	default:
		t.call(q, nil)
	}
}
