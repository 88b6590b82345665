package tunnels

import (
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/mono"
	"weft/overlay/relay"
)

// Which relay connection carries what goes to a peer.

const movedAfter = 15 * time.Second // what was sent or received this short ago may have an answer

// introduced sends what goes to a peer over the connection on which it was
// introduced: it is connected to that relay.
func (t *Table) introduced(q *peer, s *intro.Session) {
	t.setWay(q, t.guests.Of(q.id, s.Number()))
	if s.Initiator && q.way != nil {
		t.cfg.Directory.SetRelay(q.id, q.way.Relay().ID)
	}
}

// setWay decides which relay connection carries what goes to a peer. It is the
// only place that does.
func (t *Table) setWay(q *peer, w homes.Way) {
	if w != nil && !t.guests.Route(q.id, w) {
		w = nil
	}
	q.way = w
	if q.endpoint == nil {
		return
	}
	if w == nil {
		q.endpoint.SetSender(&lostWay{t: t})
		return
	}
	q.endpoint.SetSender(w.Sender())
}

// GuestLost is called when a guest connection has ended.
func (t *Table) GuestLost(c *homes.Guest) {
	t.do(func() {
		for _, q := range t.table {
			if q.dial != nil && q.dial.way == homes.Way(c) {
				q.dial.gone(errNotThere)
			}
			if q.way != homes.Way(c) {
				continue
			}
			if t.guests.IsHome(c) {
				t.setWay(q, t.home)
				continue
			}
			t.setWay(q, nil)
			if s := q.session; s != nil {
				q.session, q.lost = nil, time.Now()
				s.Close()
			}
			if t.sentLately(q) {
				t.call(q, nil)
			}
		}
		t.publish()
	})
}

// HomeMoved is called when the home is another relay than before. Peers that
// were reached through the old one may be here too, having gone the same way;
// the others have to be found.
func (t *Table) HomeMoved() {
	t.hint(func() {
		for _, q := range t.table {
			if q.installed() && q.way == homes.Way(t.home) && t.sentLately(q) {
				t.call(q, nil)
			}
		}
	})
}

// sentLately reports whether somebody may still be waiting for an answer to
// what was sent.
func (t *Table) sentLately(q *peer) bool {
	st, ok := t.forwarder.Stats(q.id)
	return ok && time.Since(latest(st.LastTx, st.LastRx)) < movedAfter
}

// lostWay stands in for a guest connection that ended while its tunnel was
// quiet: the first packet makes the node look for the peer. Packets are lost
// until it is found.
type lostWay struct {
	t  *Table
	at atomic.Int64 // of the last time, by mono.Now
}

var _ bind.Sender = (*lostWay)(nil)

// SendPackets implements bind.Sender.
func (l *lostWay) SendPackets(to cert.NodeID, _ [][]byte) error {
	now, last := mono.Now(), l.at.Load()
	if now-last > int64(time.Second) && l.at.CompareAndSwap(last, now) {
		l.t.hint(func() {
			q := l.t.table[to]
			if q != nil && q.installed() && q.way == nil && q.dial == nil && !time.Now().Before(q.nextRedial) {
				l.t.call(q, nil)
			}
		})
	}
	return relay.ErrOffline
}
