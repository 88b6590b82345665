package tunnels

import (
	"fmt"
	"time"
)

// drop ends the tunnel with a peer, and an introduction to it that is in progress. With
// bye it also sends the peer a bye.
func (t *Table) drop(q *peer, why string, bye bool) {
	if q.dial != nil {
		q.dial.cancel(fmt.Errorf("tunnel dropped: %s", why))
	}
	t.endTunnel(q, why, bye)
	if t.table[q.id] == q {
		delete(t.table, q.id)
	}
	t.publish()
}

// endAndRedial ends a tunnel that the peer has ended or whose time is over. If there is
// traffic, this node introduces itself anew. An introduction in progress makes the next
// tunnel and continues.
func (t *Table) endAndRedial(q *peer, why string, bye bool) {
	redial := t.hasTraffic(q, time.Now())
	t.endTunnel(q, why, bye)
	switch {
	case q.dial != nil:
	case redial:
		t.call(q, nil)
	default:
		delete(t.table, q.id)
	}
	t.publish()
}

// endTunnel removes the tunnel and the session. Except for the filter, q is then as
// before its first introduction.
func (t *Table) endTunnel(q *peer, why string, bye bool) {
	if s := q.session; s != nil {
		if bye {
			s.Bye()
		} else {
			s.Close()
		}
	}
	if q.installed() {
		t.log.Info("tunnel ended", "peer", t.cfg.Name(q.id), "why", why)
		t.paths.End(q.id)
		t.removePeer(q.id)
		t.cfg.Filters.Release(q.id, t.forwarder.Now())
		t.bind.Drop(q.id)
		t.guests.SetTunnel(q.id, nil)
	}
	*q = peer{
		id: q.id, node: q.node, filter: q.filter, dial: q.dial, ours: q.ours,
		failures: q.failures, nextRedial: q.nextRedial, nextHint: q.nextHint,
		watchers: q.watchers, renewed: q.renewed, trip: q.trip,
	}
}
