package ops

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"weft/coord/policy"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handlePresence answers which of the given nodes are online, and when they last were. Nodes ask
// when a person looks at a list, so the answer is made from memory only. Nodes that the policy
// does not let the caller reach are left out, as if they did not exist.
func (s *Service) handlePresence(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.PresenceRequest
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if len(req.IDs) > api.MaxPresence {
		return nil, fail(http.StatusBadRequest, api.CodeBadRequest, fmt.Sprintf("ids: want at most %d", api.MaxPresence), "")
	}
	ids := make([]cert.NodeID, 0, len(req.IDs))
	for _, text := range req.IDs {
		id, err := cert.ParseNodeID(text)
		if err != nil {
			return nil, fail(http.StatusBadRequest, api.CodeBadRequest, "ids: not a node id", "")
		}
		ids = append(ids, id)
	}
	res := &api.PresenceResponse{Peers: []api.Presence{}}
	for _, n := range s.index.reached(c.id, ids) {
		p := api.Presence{ID: n.id.String()}
		state := s.stateOf(n.id, n.seen)
		p.Unknown = s.unsure(n.id)
		if p.Online = state.Online; !state.Since.IsZero() {
			p.LastSeen = &state.Since
		}
		res.Peers = append(res.Peers, p)
	}
	return res, nil
}

// How long a node that is not known to be connected may still be connected somewhere.
const (
	// comesBack is how long nodes and relays take to connect again to a server or a relay that
	// has restarted: idle nodes are told to spread their attempts over at most this time.
	comesBack = 30 * time.Second
	// movesIn is how long it takes until a node has moved to another relay, and that relay has
	// reported it.
	movesIn = 2 * time.Second
)

// unsure reports whether a node that is not known to be online may be connected nevertheless:
// because it may be moving to another relay, or because the server or a relay started a moment
// ago, and not all relays have reported which nodes are connected to them. That ends after some
// time even if a relay never reports.
func (s *Service) unsure(node cert.NodeID) bool {
	st, heard := s.presence.Get(node)
	now, relays := s.now(), s.index.allRelays()
	switch {
	case st.Online:
		return false
	case heard && now.Sub(st.Since) < comesBack && st.Lost,
		heard && now.Sub(st.Since) < movesIn && len(relays) > 0,
		!heard && len(relays) > 0 && !s.index.createdBefore(node, now.Add(-movesIn)): // it has just joined, and its relay may not have reported it yet
		return true
	case s.created || now.Sub(s.started) >= comesBack:
		return false
	case !heard && s.index.createdBefore(node, s.started):
		return true
	}
	for _, rl := range relays {
		if !s.relays.toldAll(rl.ID) {
			return true
		}
	}
	return false
}

// sighted is a node, and when it was last seen as of the start of the server, zero for never.
// Later times are in the presence table.
type sighted struct {
	id   cert.NodeID
	seen time.Time
}

// reached returns those of ids that the policy lets a node reach, without duplicates.
func (x *index) reached(from cert.NodeID, ids []cert.NodeID) []sighted {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var sees policy.Set
	if e, ok := x.nodes[from]; ok {
		sees = x.seenByLocked(e)
	}
	out := make([]sighted, 0, len(ids))
	had := make(map[cert.NodeID]bool, len(ids))
	for _, id := range ids {
		e, ok := x.nodes[id]
		if !ok || !sees.Has(e.class.number) || had[id] {
			continue
		}
		had[id] = true
		n := sighted{id: id}
		if e.seen > 0 {
			n.seen = time.Unix(e.seen, 0)
		}
		out = append(out, n)
	}
	return out
}

// A device that has lost its power counts as online until its relay has pinged it in vain. So
// when people look at a list or a page, the relay first pings the devices on it that have been
// silent.
const (
	lookWait = time.Second // how long a page waits for the answers
	maxLook  = 200         // how many devices of a list are pinged
)

type passiveKey struct{}

// Passive marks requests that nobody makes at this moment: an open page asks again every minute
// and at each change, and pinging would wake the radio of each idle phone on it as often. For
// such requests nothing is pinged.
func Passive(ctx context.Context) context.Context {
	return context.WithValue(ctx, passiveKey{}, true)
}

func isPassive(ctx context.Context) bool { return ctx.Value(passiveKey{}) != nil }

// look pings those of ids that have been silent, unless ctx is Passive. It cannot ping devices
// that are connected to standalone relays.
func (s *Service) look(ctx context.Context, ids []cert.NodeID) {
	if isPassive(ctx) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	s.relay.get().Look(ctx, s.network, ids[:min(len(ids), maxLook)])
}
