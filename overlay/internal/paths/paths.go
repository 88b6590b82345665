package paths

import (
	"log/slog"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/gather"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/network"
	"weft/overlay/internal/path"
	"weft/overlay/internal/probe"
	"weft/overlay/relay/lane"
	"weft/overlay/status"
)

// gatherPause is the least time between gatherings because a path was lost.
const gatherPause = 10 * time.Second

// Config configures New.
type Config struct {
	UDP    UDP
	Bind   *bind.Bind
	Held   *network.Holder
	Home   *homes.Home
	Health *status.Warnings
	Log    *slog.Logger

	// Stats returns the counters of a tunnel; ok is false if there is none.
	Stats func(id cert.NodeID) (st dataplane.Stats, ok bool)
	// Session returns the session with a peer, RelayConn its relay connection; nil while
	// there is none.
	Session   func(id cert.NodeID) *intro.Session
	RelayConn func(id cert.NodeID) homes.RelayConn
	// Changed is called when a selected path has changed (Shown).
	Changed func()
	// Name returns the name of a node for users.
	Name func(id cert.NodeID) string

	// Do makes the owner call a function; it waits for room in the queue, not for the
	// call. Hint does the same, or drops the function if there is no room. Go runs a
	// function on a goroutine for which the owner waits at the end.
	Do, Hint, Go func(f func())
}

// Paths holds the paths of all tunnels.
type Paths struct {
	cfg      Config
	gatherer *gather.Gatherer // nil: no direct paths
	nets     netsOf

	peers        map[cert.NodeID]*peer     // one for each tunnel; empty without a gatherer
	next         time.Time                 // when an agent is due, zero for never
	claims       map[bind.Path]cert.NodeID // paths on which messages of the data plane are accepted
	buf          []byte                    // buffer for a probe
	tags         map[probe.Tag]*prober     // as published in byTag
	gatheredAnew time.Time                 // when a path was last lost
	byTag        atomic.Pointer[proberMap] // for the sockets' goroutines
}

// Start starts gathering. Close ends it and removes the port mapping. Close may be called
// without Start, and by any goroutine once there is no owner.
func (ps *Paths) Start() {
	if ps.gatherer != nil {
		ps.gatherer.Start()
	}
}

// Close ends what Start has started.
func (ps *Paths) Close() {
	if ps.gatherer != nil {
		ps.gatherer.Close()
	}
}

// Begin gives a new tunnel an agent, and a continuing one the keys of its new session s.
// restarted says that the peer has restarted and so knows no earlier paths.
func (ps *Paths) Begin(ep *bind.Endpoint, s *intro.Session, restarted bool) {
	if ps.gatherer == nil {
		return
	}
	now := time.Now()
	o := ps.peers[ep.ID()]
	if o == nil || restarted {
		ps.End(ep.ID())
		o = &peer{id: ep.ID(), endpoint: ep, rtt: new(atomic.Int64), agent: path.New(now, path.Config{Refuse: ps.isOverlay, Rand: random})}
		ps.peers[o.id] = o
		o.agent.SetLocal(now, ps.local())
	}
	o.boot = s.Remote.Boot
	o.send = probe.NewKey(s.ProbeSend)
	o.live = s.Initiator // the caller may send at once
	ps.keys(o, newProber(o.id, s.ProbeRecv))
	o.lastSent = intro.Message{} // the peer may have a new agent, too
	o.agent.Open(now)
	ps.act(o, now)
	ps.sendCandidates(o, o.againCalls)
}

// End drops the paths of a tunnel, which then uses the relay connection.
func (ps *Paths) End(id cert.NodeID) {
	o := ps.peers[id]
	if o == nil {
		return
	}
	ps.endLane(o)
	for w, holder := range ps.claims {
		if holder == id {
			ps.cfg.Bind.Unverify(w)
			delete(ps.claims, w)
		}
	}
	for _, s := range o.sockets {
		s.Close()
	}
	o.endpoint.SetPath(bind.Path{}, 0)
	ps.keys(o, nil)
	delete(ps.peers, id)
}

// Shown returns the selected path of a tunnel, and where its round trip is stored and
// updated, in nanoseconds. Without an agent they are the relay connection and nil.
func (ps *Paths) Shown(id cert.NodeID) (path.Selection, *atomic.Int64) {
	if o := ps.peers[id]; o != nil {
		return o.shown, o.rtt
	}
	return path.Selection{}, nil
}

// Next returns when Check is due; zero for never.
func (ps *Paths) Next() time.Time { return ps.next }

// Check steps the agents that are due.
func (ps *Paths) Check(now time.Time) {
	ps.next = time.Time{}
	for _, o := range ps.peers {
		if !o.due.IsZero() && !now.Before(o.due) {
			ps.step(o, now)
		} else {
			ps.at(o.due)
		}
	}
}

// at schedules a Check at t, or earlier.
func (ps *Paths) at(t time.Time) {
	if !t.IsZero() && (ps.next.IsZero() || t.Before(ps.next)) {
		ps.next = t
	}
}

// Resume makes the agents check whether data flow again.
func (ps *Paths) Resume(now time.Time) {
	for _, o := range ps.peers {
		o.due = now
		ps.at(now)
	}
}

// step reports to an agent what has happened to its tunnel, and does what it wants.
func (ps *Paths) step(o *peer, now time.Time) {
	a := o.agent
	st, ok := ps.cfg.Stats(o.id)
	if !ok {
		return
	}
	a.Data(now, st.LastTx)
	if ap := o.shown.Path; ap != (path.Path{}) {
		if received := ps.cfg.Bind.LastReceived(o.inward(ap)); !received.IsZero() {
			a.Received(ap, received)
		}
	}
	if received := o.endpoint.LastRelayed(); !received.IsZero() {
		a.Relayed(received)
	}
	a.Tick(now)
	ps.act(o, now)
}

// due schedules a step of a peer's agent at this time, or earlier.
func (ps *Paths) due(o *peer, at time.Time) {
	if !at.IsZero() && (o.due.IsZero() || at.Before(o.due)) {
		o.due = at
	}
	ps.at(o.due)
}

// act does what a peer's agent wants.
func (ps *Paths) act(o *peer, now time.Time) {
	a := o.agent
	out := a.Take()
	for _, ad := range out.Admit {
		ps.admit(o, ad)
	}
	for _, s := range out.Send {
		ps.sendProbe(o, s)
	}
	for _, ap := range out.Forget {
		ps.forget(o, ap)
	}
	if out.Changed {
		ps.changePath(o, a.Selected())
	}
	o.rtt.Store(int64(a.Selected().RTT))
	o.closeSockets(a.Uses)
	if a.Selected().Kind == path.Direct {
		ps.gatherer.Keep()
	}
	if out.Doubt && now.Sub(ps.gatheredAnew) > gatherPause {
		ps.gatheredAnew = now
		ps.servers()
		ps.gatherer.Wake()
	}
	if out.Gather {
		ps.servers()
		ps.gatherer.Want()
	}
	if out.Gather && ps.gatherer.Snapshot().Complete || out.CallMe {
		ps.sendCandidates(o, out.CallMe)
	}
	ps.keepLane(o, out.Lane, now)
	o.due = time.Time{}
	ps.due(o, a.Next())
	ps.due(o, o.lane.next)
}

// changePath makes the tunnel's packets use another path.
func (ps *Paths) changePath(o *peer, to path.Selection) {
	was := o.shown
	o.shown = to
	bp, limit := o.outward(to.Path), to.Limit
	if to.Kind == path.RelayedUDP {
		limit += lane.HeaderLen
	}
	if err := o.endpoint.SetPath(bp, limit); err != nil {
		ps.cfg.Log.Debug("set path", "peer", o.id, "path", bp, "err", err)
	}
	if was.Path != to.Path {
		ps.cfg.Log.Debug("path", "peer", ps.cfg.Name(o.id), "path", to.Kind, "endpoint", to.Path.Addr, "why", to.Reason)
	}
	ps.cfg.Changed()
}

// sendProbe sends a ping or pong. If it cannot be sent, it is lost.
func (ps *Paths) sendProbe(o *peer, s path.Send) {
	bp := o.outward(s.Path)
	if s.Path.Socket != 0 && bp.Socket == nil {
		sock, err := ps.cfg.Bind.AddSocket()
		if err != nil {
			return
		}
		o.addSocket(s.Path.Socket, sock)
		bp.Socket = sock
	}
	b := ps.buf[:0]
	if s.Kind == probe.Ping {
		b = o.send.AppendPing(b, s.Tx, s.Size)
	} else {
		b = o.send.AppendPong(b, s.Tx, s.To)
	}
	ps.cfg.Bind.SendTo(b, bp)
}

// admit makes messages of the data plane that arrive on a path count as the peer's. A
// mere ping, which may be a replay from a forged address, does not take a path from
// another peer.
func (ps *Paths) admit(o *peer, ad path.Admission) {
	w := o.inward(ad.Path)
	if w == (bind.Path{}) || w.Kind == bind.RelayedUDP { // relayed UDP is admitted when the lane is bound
		return
	}
	if other, ok := ps.claims[w]; ok && other != o.id && !ad.Proven {
		return
	}
	if ps.cfg.Bind.Verify(o.endpoint, w) {
		ps.claims[w] = o.id
	}
}

// forget undoes admit.
func (ps *Paths) forget(o *peer, ap path.Path) {
	w := o.inward(ap)
	if ps.claims[w] == o.id {
		delete(ps.claims, w)
		ps.cfg.Bind.Unverify(w)
	}
}
