package paths

import (
	"slices"
	"time"

	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/path"
)

// Peers tell each other in their session at which addresses they may be reached.

// changed hands every agent what this node has learnt about itself. moved
// says that its addresses are other ones.
func (ps *Paths) changed(moved bool) {
	now, local := time.Now(), ps.local()
	for _, o := range ps.peers {
		o.agent.SetLocal(now, local)
		ps.laneHeard(o)
		if moved {
			ps.endLane(o)
			o.agent.NetworkChanged(now)
		} else if !o.shown.Quiet {
			ps.tell(o, o.againCalls)
		}
		ps.act(o, now)
	}
}

// tell sends a peer this node's candidates; with callMe it is to probe now.
// What changes while a message is on its way is sent after it.
func (ps *Paths) tell(o *peer, callMe bool) {
	s := ps.cfg.Session(o.id)
	if s == nil || !o.live || o.told || ps.gatherer.Snapshot().Started.IsZero() {
		o.again, o.againCalls = true, o.againCalls || callMe
		return
	}
	m := ps.message(callMe)
	if !callMe && m.NAT4 == o.said.NAT4 && m.NAT6 == o.said.NAT6 && slices.Equal(m.Candidates, o.said.Candidates) {
		o.again = false
		return
	}
	o.said = m
	o.told, o.again, o.againCalls = true, false, false
	ps.cfg.Go(func() {
		err := s.Send(m)
		if err != nil {
			ps.cfg.Log.Debug("tell candidates", "peer", o.id, "err", err)
		}
		ps.cfg.Do(func() {
			o.told = false
			if err != nil { // the next session has to say it
				o.again, o.againCalls = true, o.againCalls || callMe
				return
			}
			if o.again && ps.peers[o.id] == o {
				ps.tell(o, o.againCalls)
			}
		})
	})
}

// message is what peers are told.
func (ps *Paths) message(callMe bool) intro.Message {
	snap := ps.gatherer.Snapshot()
	m := intro.Message{Type: intro.TypeCandidates, NAT4: string(snap.IPv4.Mapping), NAT6: string(snap.IPv6.Mapping)}
	if callMe {
		m.Type = intro.TypeCallMe
	}
	for _, c := range snap.Candidates {
		m.Candidates = append(m.Candidates, intro.Candidate{Addr: c.Addr, Kind: string(c.Type)})
	}
	return m
}

// RelayBack is called when the home relay is there again. What was said through it
// meanwhile may be lost, and its lanes are.
func (ps *Paths) RelayBack() {
	now := time.Now()
	for _, o := range ps.peers {
		if ps.cfg.Way(o.id) != homes.Way(ps.cfg.Home) {
			continue
		}
		ps.endLane(o)
		o.lane.ask = time.Time{}
		if o.shown.Kind != path.Direct && !o.shown.Quiet {
			ps.tell(o, true)
		}
		ps.act(o, now)
	}
}

// Live is told by intro that the other side is ready for messages, by any goroutine.
func (ps *Paths) Live(s *intro.Session) {
	ps.cfg.Do(func() {
		o := ps.peers[s.Peer.ID]
		if o == nil || ps.cfg.Session(o.id) != s {
			return
		}
		o.live = true
		if o.again {
			ps.tell(o, o.againCalls)
		}
	})
}

// Message is told by intro what a peer says beyond introductions, by any goroutine.
func (ps *Paths) Message(s *intro.Session, m intro.Message) {
	if m.Type != intro.TypeCandidates && m.Type != intro.TypeCallMe {
		return
	}
	r := path.Remote{NAT: path.NAT{IPv4: mapping(m.NAT4), IPv6: mapping(m.NAT6)}}
	for _, c := range m.Candidates {
		r.Candidates = append(r.Candidates, path.Candidate{Addr: c.Addr, Type: path.Type(c.Kind)})
	}
	ps.cfg.Do(func() {
		o := ps.peers[s.Peer.ID]
		if o == nil || o.boot != s.Remote.Boot {
			return
		}
		now := time.Now()
		o.agent.SetRemote(now, r)
		if m.Type == intro.TypeCallMe {
			o.agent.CallMe(now)
		}
		ps.act(o, now)
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
