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

// Presence raises no version: nobody is told who comes and goes, and what is known
// of it here is as old as the last word about the peer. So the server is asked when
// somebody looks.
const (
	presenceWait    = 2 * time.Second // bounds the question; what is known is shown then, with its age
	presenceSpacing = 5 * time.Second // at most one in this time, answered or not
	// maxLookups is how many peers a server that cannot be asked for all at once is
	// asked for.
	maxLookups = 4
)

// Presence asks who is online. Any goroutine may use it; one at a time asks.
type Presence struct {
	r      *Resolver
	server Server
	tunnel func(id cert.NodeID) bool
	turn   chan struct{} // capacity 1: who holds its place asks
	asked  time.Time     // when that was last done; theirs
}

// NewPresence makes what asks a server who is online, and has r's Directory know. tunnel
// reports whether there is a tunnel with a peer.
func (r *Resolver) NewPresence(server Server, tunnel func(id cert.NodeID) bool) *Presence {
	return &Presence{r: r, server: server, tunnel: tunnel, turn: make(chan struct{}, 1)}
}

// Ask asks the server which of the peers in the status are online, and also one that
// may not be; the zero NodeID is none. It waits a moment at most. Who asks while
// somebody else does waits for that answer.
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
		cfg.Log.Debug("ask who is online", "err", err)
	}
	p.r.whileIn(s, func(*network.Network) { cfg.Directory.SetPresence(seen...) })
}

// whom returns which of the nodes known to ask for, at most api.MaxPresence: first those
// of whom it matters most.
func whom(known []*directory.Known, self, also cert.NodeID, tunnel func(id cert.NodeID) bool) []cert.NodeID {
	type asked struct {
		*directory.Known
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
		if k.Node.ID != self && !k.Stranger && (k.Listed || a.rank <= 1) {
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

// of asks for the presence of nodes. Of a server that does not know the question the
// first few are looked up. What it returns counts also when there is an error.
func (p *Presence) of(ctx context.Context, ids []cert.NodeID) ([]directory.Sighting, error) {
	of := make(map[string]cert.NodeID, len(ids))
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, id.String())
		of[id.String()] = id
	}
	var seen []directory.Sighting
	note := func(name string, online bool, at *time.Time) {
		if id, ok := of[name]; ok {
			delete(of, name)
			seen = append(seen, directory.Sighting{ID: id, Online: online})
			if at != nil {
				seen[len(seen)-1].LastSeen = *at
			}
		}
	}
	peers, err := p.server.Presence(ctx, names)
	for _, said := range peers {
		if said.Online || !said.Unknown {
			note(said.ID, said.Online, said.LastSeen)
		}
	}
	if !notFound(err) {
		return seen, err
	}
	for _, name := range names[:min(len(names), maxLookups)] {
		said, err := p.server.Lookup(ctx, "id", name)
		if err != nil {
			return seen, err
		}
		if said.Online || !said.Unknown {
			note(name, said.Online, said.LastSeen)
		}
	}
	return seen, nil
}
