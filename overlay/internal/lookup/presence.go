package lookup

import (
	"cmp"
	"context"
	"slices"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
)

// A change of presence raises no version: nodes are not notified, and what is known here
// is as old as the last report about the peer. So the server is asked when a user wants
// to see it.
const (
	presenceWait    = 2 * time.Second // bounds the request; after that the last report is shown, with its age
	presenceSpacing = 5 * time.Second // least time between requests, answered or not
	// maxLookups is how many peers are looked up one by one at a server that does not
	// answer for all at once.
	maxLookups = 4
)

// Presence asks which nodes are online. Any goroutine may use it; one at a time asks.
type Presence struct {
	r      *Resolver
	server Server
	tunnel func(id cert.NodeID) bool
	turn   chan struct{} // capacity 1: whoever has put a value in it asks
	asked  time.Time     // when the server was last asked; guarded by turn
}

// NewPresence makes a Presence that asks server and records the answers in r's Directory.
// tunnel reports whether there is a tunnel with a peer.
func (r *Resolver) NewPresence(server Server, tunnel func(id cert.NodeID) bool) *Presence {
	return &Presence{r: r, server: server, tunnel: tunnel, turn: make(chan struct{}, 1)}
}

// Ask asks the server which of the peers in the status are online, and also about the
// peer also, unless that is zero. It waits for presenceWait at most. A call while another
// one asks waits for that one's answer.
func (p *Presence) Ask(ctx context.Context, also cert.NodeID) {
	cfg := &p.r.cfg
	s, ok := cfg.Held.Get()
	if !ok || !s.Config.Directory {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, presenceWait)
	defer cancel()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return
	}
	if !p.asked.IsZero() && time.Since(p.asked) < presenceSpacing {
		return
	}
	ids := whom(cfg.Directory.All(), s.Self.ID, also, p.tunnel)
	if len(ids) == 0 {
		return
	}
	p.asked = time.Now()
	seen, err := p.of(ctx, ids)
	if err != nil {
		cfg.Log.Debug("ask which peers are online", "err", err)
	}
	p.r.whileIn(s, func(*network.Network) { cfg.Directory.SetPresence(seen...) })
}

// whom returns the nodes of known to ask about, at most api.MaxPresence, the most
// important ones first.
func whom(known []*directory.Entry, self, also cert.NodeID, tunnel func(id cert.NodeID) bool) []cert.NodeID {
	type asked struct {
		*directory.Entry
		rank int
	}
	var list []*asked
	for _, k := range known {
		a := &asked{k, 3}
		switch {
		case k.Node.ID == also:
			a.rank = 0
		case tunnel(k.Node.ID):
			a.rank = 1
		case k.Online:
			a.rank = 2
		}
		if k.Node.ID != self && !k.CallerOnly && (k.Listed || a.rank <= 1) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *asked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Node.Name, b.Node.Name))
	})
	ids := make([]cert.NodeID, 0, len(list))
	for _, a := range list[:min(len(list), api.MaxPresence)] {
		ids = append(ids, a.Node.ID)
	}
	return ids
}

// of asks for the presence of nodes. At a server that does not support that, it looks the
// first few up. Its result is valid even if there is an error.
func (p *Presence) of(ctx context.Context, ids []cert.NodeID) ([]directory.Presence, error) {
	of := make(map[string]cert.NodeID, len(ids))
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, id.String())
		of[id.String()] = id
	}
	var seen []directory.Presence
	note := func(name string, online bool, at *time.Time) {
		if id, ok := of[name]; ok {
			delete(of, name)
			seen = append(seen, directory.Presence{ID: id, Online: online})
			if at != nil {
				seen[len(seen)-1].LastSeen = *at
			}
		}
	}
	peers, err := p.server.Presence(ctx, names)
	for _, got := range peers {
		if got.Online || !got.Unknown {
			note(got.ID, got.Online, got.LastSeen)
		}
	}
	if !notFound(err) {
		return seen, err
	}
	for _, name := range names[:min(len(names), maxLookups)] {
		got, err := p.server.Lookup(ctx, "id", name)
		if err != nil {
			return seen, err
		}
		if got.Online || !got.Unknown {
			note(name, got.Online, got.LastSeen)
		}
	}
	return seen, nil
}
