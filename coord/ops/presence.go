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

// handlePresence says which of the given nodes are online, and when they last were.
// Nodes ask when a person looks at a list, so the answer comes from memory only. A node
// that policy does not let the caller reach is left out, as if it did not exist.
func (s *Service) handlePresence(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.PresenceRequest
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if len(req.IDs) > api.MaxPresence {
		return nil, fail(http.StatusBadRequest, api.CodeBadRequest, fmt.Sprintf("ids: more than %d", api.MaxPresence), "")
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
	// comesBack is how long nodes and relays take to come back to a server or a relay
	// that started anew: idle nodes are told to spread over at most this time.
	comesBack = 30 * time.Second
	// movesIn is how long a node that has a choice takes from one relay to another
	// and that one to say so.
	movesIn = 2 * time.Second
)

// unsure reports whether a node that is not online may be connected all the same: the
// relay that would know has started a moment ago, and has not reported who is
// connected. That ends by itself, even if the relay never reports again.
func (s *Service) unsure(node cert.NodeID) bool {
	st, heard := s.presence.Get(node)
	now, relays := s.now(), s.index.allRelays()
	switch {
	case st.Online:
		return false
	case heard && now.Sub(st.Since) < comesBack && st.Lost,
		heard && now.Sub(st.Since) < movesIn && len(relays) > 0,
		!heard && len(relays) > 0 && !s.index.createdBefore(node, now.Add(-movesIn)): // its relay has not told yet
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

// sighted is a node, and when it was last seen as of the start of the server, zero
// for never. What came later is in the presence table.
type sighted struct {
	id   cert.NodeID
	seen time.Time
}

// reached returns those of ids that policy lets a node reach, each once.
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

// Presence says of a device that has lost its power that it is online until the
// relay has pinged it in vain, so when people look at a list or a page the silent
// ones on it are asked first.
const (
	lookWait = time.Second // what a page waits for their answers
	maxLook  = 200         // how many of a list are asked
)

type passiveKey struct{}

// Passive marks what nobody asks for at this moment: a page left open asks again
// every minute and at each change, which would have every idle phone on it wake its
// radio as often. Such a request says what is known.
func Passive(ctx context.Context) context.Context {
	return context.WithValue(ctx, passiveKey{}, true)
}

func isPassive(ctx context.Context) bool { return ctx.Value(passiveKey{}) != nil }

// look asks the silent ones of ids whether they are there, unless nobody looks
// (Passive). Those at a relay of its own cannot be asked from here.
func (s *Service) look(ctx context.Context, ids []cert.NodeID) {
	if isPassive(ctx) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	s.relay.get().Look(ctx, s.network, ids[:min(len(ids), maxLook)])
}
