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

// Lanes, for relayed UDP: a relay forwards datagrams between two nodes that cannot reach
// each other directly. A node that needs a lane asks the relay of the tunnel. Both nodes
// then bind their side to the UDP address from which the relay receives them.

const (
	laneRetry = 30 * time.Second // after a relay that gave no lane, or whose UDP does not answer
	laneWait  = 5 * time.Second  // for the relay's answer
)

// laneOf is a peer's lane.
type laneOf struct {
	binder *lane.Binder    // nil: there is none
	conn   homes.RelayConn // connection to its relay
	info   lane.Info
	addr   netip.AddrPort // of the relay
	bound  bool
	next   time.Time // when to bind again; zero for never
	ask    time.Time // earliest next request
	// unconfirmed says that there is a lane, but the relay's UDP address has not answered
	// this node yet.
	unconfirmed bool
}

// keepLane requests a lane when one is wanted, and continues to bind it.
func (ps *Paths) keepLane(o *peer, want bool, now time.Time) {
	l, conn := &o.lane, ps.cfg.RelayConn(o.id)
	if l.binder != nil && l.conn != conn {
		ps.endLane(o)
	}
	switch {
	case l.binder == nil && want && !now.Before(l.ask):
		l.ask = now.Add(laneWait)
		l.next = l.ask
		if conn == nil || conn.RequestLane(o.id) != nil {
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

// LaneOpened is called by a relay connection when there is a lane. Any goroutine may call
// it and the next two.
func (ps *Paths) LaneOpened(w homes.RelayConn, id cert.NodeID, info lane.Info) {
	ps.cfg.Hint(func() {
		o := ps.peers[id]
		if o == nil || ps.cfg.RelayConn(o.id) != w || o.lane.binder != nil && o.lane.info == info {
			return
		}
		addr := ps.udpOf(w)
		if !addr.IsValid() {
			o.lane.ask, o.lane.unconfirmed = time.Now().Add(laneRetry), true
			ps.servers()
			ps.gatherer.Want()
			return
		}
		ps.endLane(o)
		l := &o.lane
		l.conn, l.info, l.addr, l.binder = w, info, addr, lane.NewBinder(info)
		ps.bindLane(o, time.Now())
		ps.due(o, l.next)
	})
}

// LaneEnded is called when there is no lane, or when it has ended.
func (ps *Paths) LaneEnded(w homes.RelayConn, id cert.NodeID) {
	ps.cfg.Hint(func() {
		o := ps.peers[id]
		if o == nil || ps.cfg.RelayConn(o.id) != w {
			return
		}
		now := time.Now()
		ps.endLane(o)
		o.lane.ask = now.Add(laneRetry)
		ps.act(o, now)
	})
}

// LaneRebind is called when the relay gets our datagrams from another address than the
// bound one.
func (ps *Paths) LaneRebind(w homes.RelayConn, id cert.NodeID) {
	ps.cfg.Hint(func() {
		o := ps.peers[id]
		if o == nil || ps.cfg.RelayConn(o.id) != w || o.lane.binder == nil {
			return
		}
		o.lane.bound = false
		o.lane.binder.Restart()
		ps.bindLane(o, time.Now())
		ps.due(o, o.lane.next)
	})
}

// relayUDPAnswered requests again a lane that came before the relay's UDP address had
// answered this node: the peer was faster, or this node did not have the list of relays
// yet.
func (ps *Paths) relayUDPAnswered(o *peer) {
	l := &o.lane
	if !l.unconfirmed {
		return
	}
	if w := ps.cfg.RelayConn(o.id); w != nil && ps.udpOf(w).IsValid() {
		l.unconfirmed, l.ask = false, time.Time{}
	}
}

// bindLane sends the datagrams that are due to bind a lane.
func (ps *Paths) bindLane(o *peer, now time.Time) {
	l := &o.lane
	out, wake := l.binder.Poll(now)
	l.next = wake
	if out != nil {
		ps.cfg.Bind.SendTo(out, bind.Path{Kind: bind.Direct, Addr: l.addr})
	}
	if l.binder.State() == lane.Blocked {
		ps.endLane(o)
		o.lane.ask = now.Add(laneRetry)
	}
}

// endLane drops a lane.
func (ps *Paths) endLane(o *peer) {
	l := &o.lane
	if l.binder == nil {
		return
	}
	ps.cfg.Bind.Unverify(bind.Path{Kind: bind.RelayedUDP, Addr: l.addr, Lane: l.info.Recv})
	*l = laneOf{ask: l.ask}
	o.agent.SetLane(time.Now(), false)
}

// LaneControl takes a control datagram about a lane, on a socket's goroutine.
func (ps *Paths) LaneControl(pkt []byte, from bind.Path) {
	_, id, ok := lane.Parse(pkt)
	if !ok || from.Socket != nil {
		return
	}
	b := slices.Clone(pkt) // 60 bytes
	ps.cfg.Hint(func() { ps.laneControl(id, b, from.Addr) })
}

// laneControl continues to bind a lane.
func (ps *Paths) laneControl(id lane.ID, b []byte, from netip.AddrPort) {
	for _, o := range ps.peers {
		l := &o.lane
		if l.binder == nil || l.info.Send != id || l.addr != from || l.bound {
			continue
		}
		if out := l.binder.Handle(b); out != nil {
			ps.cfg.Bind.SendTo(out, bind.Path{Kind: bind.Direct, Addr: from})
		}
		if l.binder.State() == lane.IsBound {
			now := time.Now()
			l.bound, l.next = true, time.Time{}
			ps.cfg.Bind.Verify(o.endpoint, bind.Path{Kind: bind.RelayedUDP, Addr: l.addr, Lane: l.info.Recv})
			o.agent.SetLane(now, true)
			ps.act(o, now)
		}
		return
	}
}

// udpOf returns the UDP address of the relay at the other end of w, if it has answered
// STUN.
func (ps *Paths) udpOf(w homes.RelayConn) netip.AddrPort {
	answers := ps.gatherer.Snapshot().Answers
	for _, server := range w.Relay().STUN { // those that offer relayed UDP come first
		for _, a := range answers {
			if a.Seen.IsValid() && a.Server == server {
				return a.Addr
			}
		}
	}
	return netip.AddrPort{}
}
