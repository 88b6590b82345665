package ops

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleRelayReport takes a relay's report of which nodes have connected to it and left.
func (s *Service) handleRelayReport(_ context.Context, c *caller, r *http.Request) (any, error) {
	var req api.RelayReport
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if len(req.Events) > api.MaxRelayEvents || len(req.Run) > 64 {
		return nil, fail(http.StatusBadRequest, api.CodeBadRequest, fmt.Sprintf("%d events in one report, at most %d", len(req.Events), api.MaxRelayEvents), "")
	}
	now := s.now().UTC()
	id := cert.RelayID(c.spki)
	rs := s.relays.of(id, now)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.heard = now
	if rs.run != req.Run {
		rs.run = req.Run
		s.loseRelay(id, rs, now)
	}
	res := &api.RelayReported{Instance: rs.instance}
	for _, e := range req.Events {
		node, err := cert.ParseNodeID(e.Node)
		if err != nil {
			return nil, fail(http.StatusBadRequest, api.CodeBadRequest, "events: not a node id", "")
		}
		if _, ok := s.index.has(node); !ok {
			res.Unknown = append(res.Unknown, e.Node)
			continue
		}
		if e.At.After(now) || now.Sub(e.At) > time.Hour {
			e.At = now
		}
		addr, _ := netip.ParseAddr(e.Addr) // only shown to people, so an invalid one may be ignored
		s.presenceAt(id, node, e.Conn, e.Online, e.At, addr)
		if e.Online {
			rs.members[node] = struct{}{}
		} else if st, ok := s.presence.Get(node); !ok || !st.Online || st.Relay != id {
			delete(rs.members, node)
			delete(rs.sent, node)
		}
	}
	rs.all = rs.all || req.All == rs.instance
	rs.rouse()
	return res, nil
}

// loseRelay forgets which nodes are connected to a relay, and marks them offline. The caller
// holds rs.mu.
func (s *Service) loseRelay(id string, rs *relaySession, now time.Time) {
	rs.all = false
	clear(rs.members)
	clear(rs.sent)
	for _, node := range s.presence.Lose(id, now) {
		s.notePresence(node)
	}
}

// checkRelays marks the nodes of relays offline from which nothing has arrived for relaySilent.
func (s *Service) checkRelays() {
	now := s.now().UTC()
	for id, rs := range s.relays.all() {
		rs.mu.Lock()
		if now.Sub(rs.heard) > relaySilent && len(rs.members) > 0 {
			s.log.Warn("nothing received from a relay for a while", "id", id, "since", rs.heard)
			rs.instance = rand.Text()
			s.loseRelay(id, rs, now)
		}
		rs.mu.Unlock()
	}
}

// RelayHeard returns when something last arrived from a relay, the zero time for not since the
// start of this process, and whether the relay is online.
func (s *Service) RelayHeard(id string) (time.Time, bool) {
	rs := s.relays.all()[id]
	if rs == nil {
		return time.Time{}, false
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.heard, s.now().Sub(rs.heard) < relaySilent
}
