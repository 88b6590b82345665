package tunnels

import (
	"slices"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/gather"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/path"
	"weft/overlay/internal/probe"
	"weft/overlay/relay/lane"
)

// How traffic gets from the relay to a better way. Each tunnel has an agent
// (package path) that decides; this file tells it what happens and does what it
// wants: probes out, ways into the bind, candidates to the peer. All of it is
// run's, but for what paths_probe.go says.
//
//	paths.go        agents: made with a tunnel, stepped, obeyed
//	paths_probe.go  datagrams in: probes, STUN, lanes
//	paths_net.go    sockets, this node's candidates, what it tells its peers
//	paths_lane.go   lanes
const (
	// doubtPause is between gatherings because a path was lost.
	doubtPause = 10 * time.Second
	maxProbe   = probe.MaxLen
)

// paths is what all agents share.
type paths struct {
	t        *Table
	gatherer *gather.Gatherer // nil: no direct paths
	nets     netsOf

	// run's:
	next    time.Time                 // when an agent is due
	claims  map[bind.Way]cert.NodeID  // ways on which WireGuard messages are taken
	buf     []byte                    // for a probe
	tags    map[probe.Tag]*prober     // as published below
	doubted time.Time                 // when a path was last lost
	byTag   atomic.Pointer[proberMap] // what the sockets' goroutines read
}

// pathOf is a peer's half.
type pathOf struct {
	agent   *path.Agent
	send    *probe.Key
	probers [2]*prober // the session's, and the one before
	due     time.Time  // of the agent; zero for never
	shown   path.Path
	rtt     *atomic.Int64 // of the way in use, for status

	sockets map[uint16]*bind.Socket
	numbers map[*bind.Socket]uint16

	lane laneOf

	told              bool          // candidates are on their way to the peer
	again, againCalls bool          // … and newer ones have to follow
	live              bool          // the session takes messages
	said              intro.Message // the last one
}

// startAgent gives a new tunnel its agent, and an old one new keys.
func (t *Table) startAgent(q *peer, s *intro.Session, restarted bool) {
	ps := t.paths
	if ps.gatherer == nil {
		return
	}
	now := time.Now()
	if q.path.agent == nil || restarted {
		t.endAgent(q)
		q.path.agent = path.New(now, path.Config{Refuse: t.isOverlay, Rand: random})
		q.path.rtt = new(atomic.Int64)
		q.path.agent.SetLocal(now, ps.local())
	}
	q.path.send = probe.NewKey(s.ProbeSend)
	q.path.live = s.Initiator // who called may speak at once
	ps.keys(q, newProber(q.id, s.ProbeRecv))
	q.path.said = intro.Message{} // it may have a new agent, too
	q.path.agent.Open(now)
	t.act(q, now)
	t.tell(q, q.path.againCalls)
}

// endAgent forgets what a tunnel had of paths.
func (t *Table) endAgent(q *peer) {
	ps := t.paths
	if q.path.agent == nil {
		return
	}
	t.endLane(q)
	for w, id := range ps.claims {
		if id == q.id {
			t.bind.Unverify(w)
			delete(ps.claims, w)
		}
	}
	for _, s := range q.path.sockets {
		s.Close()
	}
	if q.endpoint != nil {
		q.endpoint.SetWay(bind.Way{}, 0)
	}
	ps.keys(q, nil)
	q.path = pathOf{}
}

// lookPaths steps the agents that are due.
func (t *Table) lookPaths(now time.Time) {
	t.paths.next = time.Time{}
	for _, q := range t.table {
		switch {
		case q.path.agent == nil:
		case !q.path.due.IsZero() && !now.Before(q.path.due):
			t.stepPath(q, now)
		default:
			t.paths.at(q.path.due)
		}
	}
}

// at has the agents looked at, at t at the latest.
func (ps *paths) at(t time.Time) {
	if !t.IsZero() && (ps.next.IsZero() || t.Before(ps.next)) {
		ps.next = t
	}
}

// stir has the agents look whether data flow again.
func (t *Table) stirPaths(now time.Time) {
	for _, q := range t.table {
		if q.path.agent != nil {
			q.path.due = now
			t.paths.at(now)
		}
	}
}

// stepPath tells an agent what has happened to its tunnel, and does what it
// wants.
func (t *Table) stepPath(q *peer, now time.Time) {
	a := q.path.agent
	st, ok := t.forwarder.Stats(q.id)
	if !ok {
		return
	}
	a.Data(now, st.LastTx)
	if via := q.path.shown.Via; via != (path.Via{}) {
		if heard := t.bind.Heard(q.path.inward(via)); !heard.IsZero() {
			a.Received(via, heard)
		}
	}
	if heard := q.endpoint.RelayHeard(); !heard.IsZero() {
		a.Relayed(heard)
	}
	a.Tick(now)
	t.act(q, now)
}

// due has a peer's agent stepped at t at the latest.
func (t *Table) due(q *peer, at time.Time) {
	if !at.IsZero() && (q.path.due.IsZero() || at.Before(q.path.due)) {
		q.path.due = at
	}
	t.paths.at(q.path.due)
}

// act does what a peer's agent wants.
func (t *Table) act(q *peer, now time.Time) {
	ps, a := t.paths, q.path.agent
	out := a.Take()
	for _, ad := range out.Admit {
		ps.admit(q, ad)
	}
	for _, s := range out.Send {
		t.sendProbe(q, s)
	}
	for _, via := range out.Forget {
		ps.forget(q, via)
	}
	if out.Changed {
		t.changePath(q, a.Path())
	}
	q.path.rtt.Store(int64(a.Path().RTT))
	q.path.closeSockets(a.Uses)
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
		t.tell(q, out.CallMe)
	}
	t.keepLane(q, out.Lane, now)
	q.path.due = time.Time{}
	t.due(q, a.Next())
	t.due(q, q.path.lane.next)
}

// changePath has the tunnel's packets go another way.
func (t *Table) changePath(q *peer, to path.Path) {
	was := q.path.shown
	q.path.shown = to
	way, limit := q.path.outward(to.Via), to.Limit
	if to.Kind == path.Lane {
		limit += lane.HeaderLen
	}
	if err := q.endpoint.SetWay(way, limit); err != nil {
		t.log.Debug("set path", "peer", q.id, "way", way, "err", err)
	}
	if was.Via != to.Via {
		t.log.Debug("path", "peer", t.cfg.Name(q.id), "path", to.Kind, "endpoint", to.Via.Addr, "why", to.Reason)
	}
	t.publish()
	t.cfg.Health.Notify()
}

// sendProbe sends a ping or pong. One that cannot be sent is lost.
func (t *Table) sendProbe(q *peer, s path.Send) {
	way := q.path.outward(s.Via)
	if s.Via.Socket != 0 && way.Socket == nil {
		sock, err := t.bind.AddSocket()
		if err != nil {
			return
		}
		q.path.addSocket(s.Via.Socket, sock)
		way.Socket = sock
	}
	b := t.paths.buf[:0]
	if s.Kind == probe.Ping {
		b = q.path.send.AppendPing(b, s.Tx, s.Size)
	} else {
		b = q.path.send.AppendPong(b, s.Tx, s.To)
	}
	t.bind.SendTo(b, way)
}

// admit has WireGuard messages that come by a way taken as the peer's. A ping
// alone, which may be a replay from a forged address, takes no way from another
// peer.
func (ps *paths) admit(q *peer, ad path.Admission) {
	w := q.path.inward(ad.Via)
	if w == (bind.Way{}) || w.Kind == bind.Lane { // lanes are admitted when they are bound
		return
	}
	if other, ok := ps.claims[w]; ok && other != q.id && !ad.Proven {
		return
	}
	if ps.t.bind.Verify(q.endpoint, w) {
		ps.claims[w] = q.id
	}
}

func (ps *paths) forget(q *peer, via path.Via) {
	w := q.path.inward(via)
	if ps.claims[w] == q.id {
		delete(ps.claims, w)
		ps.t.bind.Unverify(w)
	}
}

// inward is the way by which datagrams of via come in, outward that by which
// they go. They differ for lanes only.
func (o *pathOf) inward(via path.Via) bind.Way {
	w := o.outward(via)
	if via.Lane {
		w.Lane = o.lane.info.Recv
	}
	return w
}

func (o *pathOf) outward(via path.Via) bind.Way {
	switch {
	case via.Lane && o.lane.addr.IsValid():
		return bind.Way{Kind: bind.Lane, Addr: o.lane.addr, Lane: o.lane.info.Send}
	case via.Addr.IsValid():
		return bind.Way{Kind: bind.Direct, Addr: via.Addr, Socket: o.sockets[via.Socket]}
	}
	return bind.Way{}
}

// via is the agent's name for a way by which something came in.
func (o *pathOf) via(w bind.Way) (path.Via, bool) {
	switch {
	case w.Kind == bind.Lane:
		return path.Via{Lane: true}, o.lane.addr == w.Addr && o.lane.bound
	case w.Socket == nil:
		return path.Via{Addr: w.Addr}, true
	}
	n, ok := o.numbers[w.Socket]
	return path.Via{Addr: w.Addr, Socket: n}, ok
}

func (o *pathOf) addSocket(n uint16, s *bind.Socket) {
	if o.sockets == nil {
		o.sockets, o.numbers = map[uint16]*bind.Socket{}, map[*bind.Socket]uint16{}
	}
	o.sockets[n], o.numbers[s] = s, n
}

// closeSockets closes the extra sockets that are not used.
func (o *pathOf) closeSockets(uses func(uint16) bool) {
	for n, s := range o.sockets {
		if !uses(n) {
			delete(o.sockets, n)
			delete(o.numbers, s)
			s.Close()
		}
	}
}

// pathsChanged hands every agent what this node has learnt about itself. moved
// says that its addresses are other ones.
func (t *Table) pathsChanged(moved bool) {
	now, local := time.Now(), t.paths.local()
	for _, q := range t.table {
		if q.path.agent == nil {
			continue
		}
		q.path.agent.SetLocal(now, local)
		t.laneHeard(q)
		if moved {
			t.endLane(q)
			q.path.agent.NetworkChanged(now)
		} else if !q.path.shown.Quiet {
			t.tell(q, q.path.againCalls)
		}
		t.act(q, now)
	}
}

// tell sends a peer this node's candidates; with callMe it is to probe now.
// What changes while a message is on its way is sent after it.
func (t *Table) tell(q *peer, callMe bool) {
	s := q.session
	if s == nil || !q.path.live || q.path.told || t.paths.gatherer.Snapshot().Started.IsZero() {
		q.path.again, q.path.againCalls = true, q.path.againCalls || callMe
		return
	}
	m := t.paths.message(callMe)
	if !callMe && m.NAT4 == q.path.said.NAT4 && m.NAT6 == q.path.said.NAT6 && slices.Equal(m.Candidates, q.path.said.Candidates) {
		q.path.again = false
		return
	}
	q.path.said = m
	q.path.told, q.path.again, q.path.againCalls = true, false, false
	t.wg.Go(func() {
		err := s.Send(m)
		if err != nil {
			t.log.Debug("tell candidates", "peer", q.id, "err", err)
		}
		t.do(func() {
			q.path.told = false
			if err != nil { // the next session has to say it
				q.path.again, q.path.againCalls = true, q.path.againCalls || callMe
				return
			}
			if q.path.again && q.path.agent != nil {
				t.tell(q, q.path.againCalls)
			}
		})
	})
}

// tellAgain is called when the relay is there again. What was said meanwhile may
// be lost, and its lanes are.
func (t *Table) tellAgain(q *peer) {
	if q.path.agent == nil || q.way != homes.Way(t.home) {
		return
	}
	t.endLane(q)
	q.path.lane.ask = time.Time{}
	if q.path.shown.Kind != path.Direct && !q.path.shown.Quiet {
		t.tell(q, true)
	}
	t.act(q, time.Now())
}

// sessionLive is told by intro that the other side is ready for messages.
func (t *Table) sessionLive(s *intro.Session) {
	t.do(func() {
		q := t.table[s.Peer.ID]
		if q == nil || q.path.agent == nil || q.session != s {
			return
		}
		q.path.live = true
		if q.path.again {
			t.tell(q, q.path.againCalls)
		}
	})
}

// message is told by intro what a peer says beyond introductions.
func (t *Table) message(s *intro.Session, m intro.Message) {
	if m.Type != intro.TypeCandidates && m.Type != intro.TypeCallMe {
		return
	}
	r := path.Remote{NAT: path.NAT{IPv4: mapping(m.NAT4), IPv6: mapping(m.NAT6)}}
	for _, c := range m.Candidates {
		r.Candidates = append(r.Candidates, path.Candidate{Addr: c.Addr, Type: path.Type(c.Kind)})
	}
	t.do(func() {
		q := t.table[s.Peer.ID]
		if q == nil || q.path.agent == nil || q.hello.Boot != s.Remote.Boot {
			return
		}
		now := time.Now()
		q.path.agent.SetRemote(now, r)
		if m.Type == intro.TypeCallMe {
			q.path.agent.CallMe(now)
		}
		t.act(q, now)
	})
}

// mapping takes a word of a peer.
func mapping(s string) path.Mapping {
	m := path.Mapping(s)
	if slices.Contains([]path.Mapping{path.MappingNone, path.MappingEasy, path.MappingHard, path.MappingBlocked}, m) {
		return m
	}
	return path.MappingUnknown
}
