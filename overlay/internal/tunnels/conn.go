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

// Which relay connection carries packets to a peer.

const movedAfter = 15 * time.Second // after this time an answer is no longer expected

// introduced makes packets to a peer use the connection of its introduction, because the
// peer is connected to that relay.
func (t *Table) introduced(q *peer, s *intro.Session) {
	t.setConn(q, t.guests.Of(q.id, s.Number()))
	if s.Initiator && q.conn != nil {
		t.cfg.Directory.SetRelay(q.id, q.conn.Relay().ID)
	}
}

// setConn sets the relay connection for packets to a peer. Nothing else does.
func (t *Table) setConn(q *peer, w homes.RelayConn) {
	if w != nil && !t.guests.SetTunnel(q.id, w) {
		w = nil
	}
	q.conn = w
	if q.endpoint == nil {
		return
	}
	if w == nil {
		q.endpoint.SetSender(&endedConn{t: t})
		return
	}
	q.endpoint.SetSender(w.Sender())
}

// GuestLost is called when a guest connection has ended.
func (t *Table) GuestLost(c *homes.Guest) {
	t.do(func() {
		for _, q := range t.table {
			if q.dial != nil && q.dial.conn == homes.RelayConn(c) {
				q.dial.gone(errNotThere)
			}
			if q.conn != homes.RelayConn(c) {
				continue
			}
			if t.guests.IsHome(c) {
				t.setConn(q, t.home)
				continue
			}
			t.setConn(q, nil)
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

// HomeMoved is called when the home relay has changed. Peers that were reached through
// the old one may have moved to the same relay; the others must be found.
func (t *Table) HomeMoved() {
	t.hint(func() {
		for _, q := range t.table {
			if q.installed() && q.conn == homes.RelayConn(t.home) && t.sentLately(q) {
				t.call(q, nil)
			}
		}
	})
}

// sentLately reports whether an answer may still be expected.
func (t *Table) sentLately(q *peer) bool {
	st, ok := t.forwarder.Stats(q.id)
	return ok && time.Since(latest(st.LastTx, st.LastRx)) < movedAfter
}

// endedConn takes the place of a guest connection that has ended while its tunnel was
// quiet: the first packet makes the node look for the peer. Packets are lost until it is
// found.
type endedConn struct {
	t  *Table
	at atomic.Int64 // when it last looked, by mono.Now
}

var _ bind.Sender = (*endedConn)(nil)

// SendPackets implements bind.Sender.
func (l *endedConn) SendPackets(to cert.NodeID, _ [][]byte) error {
	now, last := mono.Now(), l.at.Load()
	if now-last > int64(time.Second) && l.at.CompareAndSwap(last, now) {
		l.t.hint(func() {
			q := l.t.table[to]
			if q != nil && q.installed() && q.conn == nil && q.dial == nil && !time.Now().Before(q.nextRedial) {
				l.t.call(q, nil)
			}
		})
	}
	return relay.ErrOffline
}
