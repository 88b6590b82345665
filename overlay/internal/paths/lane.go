package paths

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
func (ps *Paths) keepLane(o *peer, want bool, now time.Time) {
	l, way := &o.lane, ps.cfg.Way(o.id)
	if l.binder != nil && l.way != way {
		ps.endLane(o)
	}
	switch {
	case l.binder == nil && want && !now.Before(l.ask):
		l.ask = now.Add(laneWait)
		l.next = l.ask
		if way == nil || way.RequestLane(o.id) != nil {
			l.ask = now.Add(laneRetry)
			l.next = l.ask
		}
	case l.binder == nil && want:
		l.next = l.ask
	case l.binder == nil:
		l.next = time.Time{}
	case !want && l.bound && o.shown.Kind == path.Direct:
		ps.endLane(o) // it is not needed any more
	case !l.bound:
		ps.bindLane(o, now)
	}
}

// LaneCame is told by a relay connection that there is a lane. It and those that follow
// may be called by any goroutine.
func (ps *Paths) LaneCame(w homes.Way, id cert.NodeID, info lane.Info) {
	ps.cfg.Hint(func() {
		o := ps.peers[id]
		if o == nil || ps.cfg.Way(o.id) != w || o.lane.binder != nil && o.lane.info == info {
			return
		}
		addr := ps.udpOf(w)
		if !addr.IsValid() {
			o.lane.ask, o.lane.unheard = time.Now().Add(laneRetry), true
			ps.servers()
			ps.gatherer.Want()
			return
		}
		ps.endLane(o)
		l := &o.lane
		l.way, l.info, l.addr, l.binder = w, info, addr, lane.NewBinder(info)
		ps.bindLane(o, time.Now())
		ps.due(o, l.next)
	})
}

// LaneWent is told that there is no lane, or no more.
func (ps *Paths) LaneWent(w homes.Way, id cert.NodeID) {
	ps.cfg.Hint(func() {
		o := ps.peers[id]
		if o == nil || ps.cfg.Way(o.id) != w {
			return
		}
		now := time.Now()
		ps.endLane(o)
		o.lane.ask = now.Add(laneRetry)
		ps.act(o, now)
	})
}

// LaneMoved is told that the relay gets our datagrams from another address than
// the one that is bound.
func (ps *Paths) LaneMoved(w homes.Way, id cert.NodeID) {
	ps.cfg.Hint(func() {
		o := ps.peers[id]
		if o == nil || ps.cfg.Way(o.id) != w || o.lane.binder == nil {
			return
		}
		o.lane.bound = false
		o.lane.binder.Restart()
		ps.bindLane(o, time.Now())
		ps.due(o, o.lane.next)
	})
}

// laneHeard asks once more for a lane that came before the relay's UDP had answered
// this node: the peer may have been faster, or the list of relays was not known yet.
func (ps *Paths) laneHeard(o *peer) {
	l := &o.lane
	if !l.unheard {
		return
	}
	if w := ps.cfg.Way(o.id); w != nil && ps.udpOf(w).IsValid() {
		l.unheard, l.ask = false, time.Time{}
	}
}

// bindLane sends what is due to bind a lane.
func (ps *Paths) bindLane(o *peer, now time.Time) {
	l := &o.lane
	out, wake := l.binder.Poll(now)
	l.next = wake
	if out != nil {
		ps.cfg.Bind.SendTo(out, bind.Way{Kind: bind.Direct, Addr: l.addr})
	}
	if l.binder.State() == lane.Blocked {
		ps.endLane(o)
		o.lane.ask = now.Add(laneRetry)
	}
}

// endLane forgets a lane.
func (ps *Paths) endLane(o *peer) {
	l := &o.lane
	if l.binder == nil {
		return
	}
	ps.cfg.Bind.Unverify(bind.Way{Kind: bind.Lane, Addr: l.addr, Lane: l.info.Recv})
	*l = laneOf{ask: l.ask}
	o.agent.SetLane(time.Now(), false)
}

// LaneSaid takes what a relay says about a lane, on a socket's goroutine.
func (ps *Paths) LaneSaid(pkt []byte, from bind.Way) {
	_, id, ok := lane.Parse(pkt)
	if !ok || from.Socket != nil {
		return
	}
	b := slices.Clone(pkt) // 60 bytes
	ps.cfg.Hint(func() { ps.laneControl(id, b, from.Addr) })
}

// laneControl goes on with binding a lane.
func (ps *Paths) laneControl(id lane.ID, b []byte, from netip.AddrPort) {
	for _, o := range ps.peers {
		l := &o.lane
		if l.binder == nil || l.info.Send != id || l.addr != from || l.bound {
			continue
		}
		if out := l.binder.Handle(b); out != nil {
			ps.cfg.Bind.SendTo(out, bind.Way{Kind: bind.Direct, Addr: from})
		}
		if l.binder.State() == lane.IsBound {
			now := time.Now()
			l.bound, l.next = true, time.Time{}
			ps.cfg.Bind.Verify(o.endpoint, bind.Way{Kind: bind.Lane, Addr: l.addr, Lane: l.info.Recv})
			o.agent.SetLane(now, true)
			ps.act(o, now)
		}
		return
	}
}

// udpOf is the UDP address of the relay at the other end of w, as far as STUN
// has found it to answer.
func (ps *Paths) udpOf(w homes.Way) netip.AddrPort {
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
