package coord

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// handlePresence says which of the nodes asked for are online, and when they were
// last. It is asked when somebody looks, so it reads memory only. A node that
// policy does not let the caller reach is left out, as if it did not exist.
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
		if p.Online = state.Online; !state.Since.IsZero() {
			p.LastSeen = &state.Since
		}
		res.Peers = append(res.Peers, p)
	}
	return res, nil
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
	sees := map[*class]bool{}
	if e, ok := x.nodes[from]; ok {
		for _, c := range e.class.sees {
			sees[c] = true
		}
	}
	out := make([]sighted, 0, len(ids))
	had := make(map[cert.NodeID]bool, len(ids))
	for _, id := range ids {
		e, ok := x.nodes[id]
		if !ok || !sees[e.class] || had[id] {
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
