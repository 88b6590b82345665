package paths

import (
	"slices"
	"time"

	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/path"
)

// Peers send each other their candidates in their session.

// changed gives every agent what this node has found out about itself. moved says that
// its addresses have changed.
func (ps *Paths) changed(moved bool) {
	now, local := time.Now(), ps.local()
	for _, o := range ps.peers {
		o.agent.SetLocal(now, local)
		ps.relayUDPAnswered(o)
		if moved {
			ps.endLane(o)
			o.agent.NetworkChanged(now)
		} else if !o.shown.Quiet {
			ps.sendCandidates(o, o.againCalls)
		}
		ps.act(o, now)
	}
}

// sendCandidates sends a peer this node's candidates; with callMe it also asks the peer
// to probe now. Changes while a message is being sent are sent after it.
func (ps *Paths) sendCandidates(o *peer, callMe bool) {
	s := ps.cfg.Session(o.id)
	if s == nil || !o.live || o.sending || ps.gatherer.Snapshot().Started.IsZero() {
		o.again, o.againCalls = true, o.againCalls || callMe
		return
	}
	m := ps.message(callMe)
	if !callMe && m.NAT4 == o.lastSent.NAT4 && m.NAT6 == o.lastSent.NAT6 && slices.Equal(m.Candidates, o.lastSent.Candidates) {
		o.again = false
		return
	}
	o.lastSent = m
	o.sending, o.again, o.againCalls = true, false, false
	ps.cfg.Go(func() {
		err := s.Send(m)
		if err != nil {
			ps.cfg.Log.Debug("send candidates", "peer", o.id, "err", err)
		}
		ps.cfg.Do(func() {
			o.sending = false
			if err != nil { // the next session must send them
				o.again, o.againCalls = true, o.againCalls || callMe
				return
			}
			if o.again && ps.peers[o.id] == o {
				ps.sendCandidates(o, o.againCalls)
			}
		})
	})
}

// message returns the message with this node's candidates.
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

// RelayBack is called when the home connection is back. Messages through it may have been
// lost meanwhile, and its lanes have ended.
func (ps *Paths) RelayBack() {
	now := time.Now()
	for _, o := range ps.peers {
		if ps.cfg.RelayConn(o.id) != homes.RelayConn(ps.cfg.Home) {
			continue
		}
		ps.endLane(o)
		o.lane.ask = time.Time{}
		if o.shown.Kind != path.Direct && !o.shown.Quiet {
			ps.sendCandidates(o, true)
		}
		ps.act(o, now)
	}
}

// Live is called by package intro when the other side is ready for messages. Any
// goroutine may call it.
func (ps *Paths) Live(s *intro.Session) {
	ps.cfg.Do(func() {
		o := ps.peers[s.Peer.ID]
		if o == nil || ps.cfg.Session(o.id) != s {
			return
		}
		o.live = true
		if o.again {
			ps.sendCandidates(o, o.againCalls)
		}
	})
}

// Message is called by package intro with a message of a peer. Any goroutine may call it.
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

// mapping parses a Mapping of a peer; unknown values become MappingUnknown.
func mapping(s string) path.Mapping {
	m := path.Mapping(s)
	if slices.Contains([]path.Mapping{path.MappingNone, path.MappingEasy, path.MappingHard, path.MappingBlocked}, m) {
		return m
	}
	return path.MappingUnknown
}
