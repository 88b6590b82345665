package overlay

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/status"
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

// Look implements localapi.Node.
func (n *Node) Look(ctx context.Context, name string) (status.Status, error) {
	var also cert.NodeID
	if name != "" {
		s, ok := n.held.Get()
		if !ok {
			return status.Status{}, errNotJoined
		}
		k, err := n.resolve(ctx, s, name)
		if err != nil {
			return status.Status{}, err
		}
		also = k.Node.ID
	}
	n.askPresence(ctx, also)
	return n.statusOf(also), nil
}

// askPresence asks the server which of the peers in the status are online, and also
// one that may not be. Who asks while somebody else does waits for that answer.
func (n *Node) askPresence(ctx context.Context, also cert.NodeID) {
	r, s, err := n.runs()
	if err != nil || !s.Config.Directory {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, presenceWait)
	defer cancel()
	select {
	case r.asking <- struct{}{}:
		defer func() { <-r.asking }()
	case <-ctx.Done():
		return
	}
	if !r.asked.IsZero() && time.Since(r.asked) < presenceSpacing {
		return
	}
	ids := n.lookedAt(r, s, also)
	if len(ids) == 0 {
		return
	}
	r.asked = time.Now()
	seen, err := n.presenceOf(ctx, r, ids)
	if err != nil {
		n.log.Debug("ask who is online", "err", err)
	}
	n.whileIn(s, func(*network.Network) { n.dir.SetPresence(seen...) })
}

// lookedAt returns the peers to ask for, at most api.MaxPresence: first those of whom
// it matters most.
func (n *Node) lookedAt(r *running, s *network.Network, also cert.NodeID) []cert.NodeID {
	tunnels := r.peers.Views()
	rank := func(k *directory.Known) int {
		_, tunnel := tunnels[k.Node.ID]
		switch {
		case k.Node.ID == also:
			return 0
		case tunnel:
			return 1
		case k.Online:
			return 2
		}
		return 3
	}
	list := slices.DeleteFunc(n.dir.All(), func(k *directory.Known) bool {
		return k.Node.ID == s.Self.ID || k.Stranger || !k.Listed && rank(k) > 1
	})
	slices.SortFunc(list, func(a, b *directory.Known) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Node.Name, b.Node.Name))
	})
	ids := make([]cert.NodeID, 0, len(list))
	for _, k := range list[:min(len(list), api.MaxPresence)] {
		ids = append(ids, k.Node.ID)
	}
	return ids
}

// presenceOf asks for the presence of nodes. Of a server that does not know the
// question the first few are looked up.
func (n *Node) presenceOf(ctx context.Context, r *running, ids []cert.NodeID) ([]directory.Sighting, error) {
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
	peers, err := r.client.Presence(ctx, names)
	for _, p := range peers {
		if p.Online || !p.Unknown {
			note(p.ID, p.Online, p.LastSeen)
		}
	}
	if e := (*api.Error)(nil); !errors.As(err, &e) || e.Status != http.StatusNotFound {
		return seen, err
	}
	for _, name := range names[:min(len(names), maxLookups)] {
		p, err := r.client.Lookup(ctx, "id", name)
		if err != nil {
			return seen, err
		}
		if p.Online || !p.Unknown {
			note(name, p.Online, p.LastSeen)
		}
	}
	return seen, nil
}
