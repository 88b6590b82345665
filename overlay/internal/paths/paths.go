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

// doubtPause is between gatherings because a path was lost.
const doubtPause = 10 * time.Second

// Config is what Paths are made of.
type Config struct {
	UDP    UDP
	Bind   *bind.Bind
	Held   *network.Holder
	Home   *homes.Home
	Health *status.Warnings
	Log    *slog.Logger

	// Stats are the counters of a tunnel, not ok without one.
	Stats func(id cert.NodeID) (st dataplane.Stats, ok bool)
	// Session is the introduction session with a peer, and Way the relay connection
	// that carries what goes there; nil while there is none.
	Session func(id cert.NodeID) *intro.Session
	Way     func(id cert.NodeID) homes.Way
	// Changed is told that traffic goes another way (Shown).
	Changed func()
	// Name is what people call a node.
	Name func(id cert.NodeID) string

	// Do has the owner call a function; it waits for room, not for the call. Hint does
	// the same, or drops the function. Go runs one on a goroutine that the owner waits
	// for in the end.
	Do, Hint, Go func(f func())
}

// Paths are the ways of all tunnels.
type Paths struct {
	cfg      Config
	gatherer *gather.Gatherer // nil: no direct paths
	nets     netsOf

	peers   map[cert.NodeID]*peer     // tunnels; none without a gatherer
	next    time.Time                 // when an agent is due, zero for never
	claims  map[bind.Way]cert.NodeID  // ways on which messages of the data plane are taken
	buf     []byte                    // for a probe
	tags    map[probe.Tag]*prober     // as published below
	doubted time.Time                 // when a path was last lost
	byTag   atomic.Pointer[proberMap] // what the sockets' goroutines read
}

// Start begins gathering, Close ends it and takes the port mapping back. Close may be
// called without Start, by any goroutine once there is no owner any more.
func (ps *Paths) Start() {
	if ps.gatherer != nil {
		ps.gatherer.Start()
	}
}

// Close is the end of Start.
func (ps *Paths) Close() {
	if ps.gatherer != nil {
		ps.gatherer.Close()
	}
}

// Begin gives a new tunnel its agent, and one that goes on new keys: those of the session
// in which it was introduced. A peer that has restarted is one that knows nothing of the
// paths of before.
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
	o.live = s.Initiator // who called may speak at once
	ps.keys(o, newProber(o.id, s.ProbeRecv))
	o.said = intro.Message{} // it may have a new agent, too
	o.agent.Open(now)
	ps.act(o, now)
	ps.tell(o, o.againCalls)
}

// End forgets what a tunnel had of paths, which goes by the relay again.
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
	o.endpoint.SetWay(bind.Way{}, 0)
	ps.keys(o, nil)
	delete(ps.peers, id)
}

// Shown is the path of a tunnel and its round trip, in nanoseconds, which goes on being
// stored there; the relay and nil where it has no agent.
func (ps *Paths) Shown(id cert.NodeID) (path.Path, *atomic.Int64) {
	if o := ps.peers[id]; o != nil {
		return o.shown, o.rtt
	}
	return path.Path{}, nil
}

// Next is when Look is due, zero for never.
func (ps *Paths) Next() time.Time { return ps.next }

// Look steps the agents that are due.
func (ps *Paths) Look(now time.Time) {
	ps.next = time.Time{}
	for _, o := range ps.peers {
		if !o.due.IsZero() && !now.Before(o.due) {
			ps.step(o, now)
		} else {
			ps.at(o.due)
		}
	}
}

// at has the agents looked at, at t at the latest.
func (ps *Paths) at(t time.Time) {
	if !t.IsZero() && (ps.next.IsZero() || t.Before(ps.next)) {
		ps.next = t
	}
}

// Stir has the agents look whether data flow again.
func (ps *Paths) Stir(now time.Time) {
	for _, o := range ps.peers {
		o.due = now
		ps.at(now)
	}
}

// step tells an agent what has happened to its tunnel, and does what it
// wants.
func (ps *Paths) step(o *peer, now time.Time) {
	a := o.agent
	st, ok := ps.cfg.Stats(o.id)
	if !ok {
		return
	}
	a.Data(now, st.LastTx)
	if via := o.shown.Via; via != (path.Via{}) {
		if heard := ps.cfg.Bind.Heard(o.inward(via)); !heard.IsZero() {
			a.Received(via, heard)
		}
	}
	if heard := o.endpoint.RelayHeard(); !heard.IsZero() {
		a.Relayed(heard)
	}
	a.Tick(now)
	ps.act(o, now)
}

// due has a peer's agent stepped then at the latest.
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
	for _, via := range out.Forget {
		ps.forget(o, via)
	}
	if out.Changed {
		ps.changePath(o, a.Path())
	}
	o.rtt.Store(int64(a.Path().RTT))
	o.closeSockets(a.Uses)
	if a.Path().Kind == path.Direct {
		ps.gatherer.Keep()
	}
	if out.Doubt && now.Sub(ps.doubted) > doubtPause {
		ps.doubted = now
		ps.servers()
		ps.gatherer.Wake()
	}
	if out.Gather {
		ps.servers()
		ps.gatherer.Want()
	}
	if out.Gather && ps.gatherer.Snapshot().Complete || out.CallMe {
		ps.tell(o, out.CallMe)
	}
	ps.keepLane(o, out.Lane, now)
	o.due = time.Time{}
	ps.due(o, a.Next())
	ps.due(o, o.lane.next)
}

// changePath has the tunnel's packets go another way.
func (ps *Paths) changePath(o *peer, to path.Path) {
	was := o.shown
	o.shown = to
	way, limit := o.outward(to.Via), to.Limit
	if to.Kind == path.Lane {
		limit += lane.HeaderLen
	}
	if err := o.endpoint.SetWay(way, limit); err != nil {
		ps.cfg.Log.Debug("set path", "peer", o.id, "way", way, "err", err)
	}
	if was.Via != to.Via {
		ps.cfg.Log.Debug("path", "peer", ps.cfg.Name(o.id), "path", to.Kind, "endpoint", to.Via.Addr, "why", to.Reason)
	}
	ps.cfg.Changed()
}

// sendProbe sends a ping or pong. One that cannot be sent is lost.
func (ps *Paths) sendProbe(o *peer, s path.Send) {
	way := o.outward(s.Via)
	if s.Via.Socket != 0 && way.Socket == nil {
		sock, err := ps.cfg.Bind.AddSocket()
		if err != nil {
			return
		}
		o.addSocket(s.Via.Socket, sock)
		way.Socket = sock
	}
	b := ps.buf[:0]
	if s.Kind == probe.Ping {
		b = o.send.AppendPing(b, s.Tx, s.Size)
	} else {
		b = o.send.AppendPong(b, s.Tx, s.To)
	}
	ps.cfg.Bind.SendTo(b, way)
}

// admit has messages of the data plane that come by a way taken as the peer's. A ping
// alone, which may be a replay from a forged address, takes no way from another
// peer.
func (ps *Paths) admit(o *peer, ad path.Admission) {
	w := o.inward(ad.Via)
	if w == (bind.Way{}) || w.Kind == bind.Lane { // lanes are admitted when they are bound
		return
	}
	if other, ok := ps.claims[w]; ok && other != o.id && !ad.Proven {
		return
	}
	if ps.cfg.Bind.Verify(o.endpoint, w) {
		ps.claims[w] = o.id
	}
}

// forget takes back what admit has done.
func (ps *Paths) forget(o *peer, via path.Via) {
	w := o.inward(via)
	if ps.claims[w] == o.id {
		delete(ps.claims, w)
		ps.cfg.Bind.Unverify(w)
	}
}
