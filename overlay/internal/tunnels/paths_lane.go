package tunnels

import (
	"net/netip"
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/path"
	"weft/overlay/relay/lane"
)

// Lanes: a relay forwards datagrams between two nodes that cannot reach each
// other directly. Who needs one asks the relay through which the tunnel goes;
// both then bind their side to the UDP address that their datagrams have there.

const (
	laneRetry = 30 * time.Second // after a relay that gave none, or whose UDP does not answer
	laneWait  = 5 * time.Second  // for the relay's answer
)

// laneOf is a peer's lane.
type laneOf struct {
	binder *lane.Binder // nil: there is none
	way    homes.Way    // whose relay it is
	info   lane.Info
	addr   netip.AddrPort // of the relay
	bound  bool
	next   time.Time // when something is due; zero for never
	ask    time.Time // not before
	// unheard says that there is a lane, and the relay's UDP has not answered this
	// node yet.
	unheard bool
}

// keepLane asks for a lane when one is wanted, and goes on with binding it.
func (t *Table) keepLane(q *peer, want bool, now time.Time) {
	l := &q.path.lane
	if l.binder != nil && l.way != q.way {
		t.endLane(q)
	}
	switch {
	case l.binder == nil && want && !now.Before(l.ask):
		l.ask = now.Add(laneWait)
		l.next = l.ask
		if q.way == nil || q.way.RequestLane(q.id) != nil {
			l.ask = now.Add(laneRetry)
			l.next = l.ask
		}
	case l.binder == nil && want:
		l.next = l.ask
	case l.binder == nil:
		l.next = time.Time{}
	case !want && l.bound && q.path.shown.Kind == path.Direct:
		t.endLane(q) // it is not needed any more
	case !l.bound:
		t.bindLane(q, now)
	}
}

// LaneCame is told by a relay connection that there is a lane.
func (t *Table) LaneCame(w homes.Way, id cert.NodeID, info lane.Info) {
	t.hint(func() {
		q := t.table[id]
		if q == nil || q.path.agent == nil || q.way != w || q.path.lane.binder != nil && q.path.lane.info == info {
			return
		}
		addr := t.paths.udpOf(w)
		if !addr.IsValid() {
			q.path.lane.ask, q.path.lane.unheard = time.Now().Add(laneRetry), true
			t.paths.servers()
			t.paths.gatherer.Want()
			return
		}
		t.endLane(q)
		l := &q.path.lane
		l.way, l.info, l.addr, l.binder = w, info, addr, lane.NewBinder(info)
		t.bindLane(q, time.Now())
		t.due(q, l.next)
	})
}

// LaneWent is told that there is no lane, or no more.
func (t *Table) LaneWent(w homes.Way, id cert.NodeID) {
	t.hint(func() {
		q := t.table[id]
		if q == nil || q.path.agent == nil || q.way != w {
			return
		}
		now := time.Now()
		t.endLane(q)
		q.path.lane.ask = now.Add(laneRetry)
		t.act(q, now)
	})
}

// LaneMoved is told that the relay gets our datagrams from another address than
// the one that is bound.
func (t *Table) LaneMoved(w homes.Way, id cert.NodeID) {
	t.hint(func() {
		q := t.table[id]
		if q == nil || q.path.agent == nil || q.way != w || q.path.lane.binder == nil {
			return
		}
		q.path.lane.bound = false
		q.path.lane.binder.Restart()
		t.bindLane(q, time.Now())
		t.due(q, q.path.lane.next)
	})
}

// laneHeard asks once more for a lane that came before the relay's UDP had answered
// this node: the peer may have been faster, or the list of relays was not known yet.
func (t *Table) laneHeard(q *peer) {
	if l := &q.path.lane; l.unheard && q.way != nil && t.paths.udpOf(q.way).IsValid() {
		l.unheard, l.ask = false, time.Time{}
	}
}

// bindLane sends what is due to bind a lane.
func (t *Table) bindLane(q *peer, now time.Time) {
	l := &q.path.lane
	out, wake := l.binder.Poll(now)
	l.next = wake
	if out != nil {
		t.bind.SendTo(out, bind.Way{Kind: bind.Direct, Addr: l.addr})
	}
	if l.binder.State() == lane.Blocked {
		t.endLane(q)
		q.path.lane.ask = now.Add(laneRetry)
	}
}

// endLane forgets a lane.
func (t *Table) endLane(q *peer) {
	l := &q.path.lane
	if l.binder == nil {
		return
	}
	t.bind.Unverify(bind.Way{Kind: bind.Lane, Addr: l.addr, Lane: l.info.Recv})
	*l = laneOf{ask: l.ask}
	if q.path.agent != nil {
		q.path.agent.SetLane(time.Now(), false)
	}
}

// LaneSaid takes what a relay says about a lane, on a socket's goroutine.
func (t *Table) LaneSaid(pkt []byte, from bind.Way) {
	_, id, ok := lane.Parse(pkt)
	if !ok || from.Socket != nil {
		return
	}
	b := slices.Clone(pkt) // 60 bytes
	t.hint(func() { t.laneControl(id, b, from.Addr) })
}

func (t *Table) laneControl(id lane.ID, b []byte, from netip.AddrPort) {
	for _, q := range t.table {
		l := &q.path.lane
		if l.binder == nil || l.info.Send != id || l.addr != from || l.bound {
			continue
		}
		if out := l.binder.Handle(b); out != nil {
			t.bind.SendTo(out, bind.Way{Kind: bind.Direct, Addr: from})
		}
		if l.binder.State() == lane.IsBound {
			now := time.Now()
			l.bound, l.next = true, time.Time{}
			t.bind.Verify(q.endpoint, bind.Way{Kind: bind.Lane, Addr: l.addr, Lane: l.info.Recv})
			q.path.agent.SetLane(now, true)
			t.act(q, now)
		}
		return
	}
}

// udpOf is the UDP address of the relay at the other end of w, as far as STUN
// has found it to answer.
func (ps *paths) udpOf(w homes.Way) netip.AddrPort {
	if ps.gatherer == nil {
		return netip.AddrPort{}
	}
	answers := ps.gatherer.Snapshot().Answers
	for _, server := range w.Relay().STUN { // those with lanes come first
		for _, a := range answers {
			if a.Seen.IsValid() && a.Server == server {
				return a.Addr
			}
		}
	}
	return netip.AddrPort{}
}
