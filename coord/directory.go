package coord

import (
	"context"
	"net/http"

	"weft/coord/api"
	"weft/coord/store"
)

// handleDirectory answers the nodes that policy lets the caller reach, as a
// delta on what it holds where that is possible.
func (s *Service) handleDirectory(ctx context.Context, c *caller, r *http.Request) (any, error) {
	since, err := sinceOf(r)
	if err != nil {
		return nil, err
	}
	// The view is taken before the database is read: the data is at least as
	// new as the version it goes out under.
	v, ok := s.index.view(c.id)
	if !ok {
		return nil, gone(store.ErrNotFound)
	}
	if v.lookup {
		return nil, fail(http.StatusConflict, api.CodeTooLarge, "the directory is too large to hold", "look names up one by one")
	}
	have := v.versions.Directory
	d := &api.Directory{Version: have, Peers: []api.Peer{}, Removed: []string{}}
	if since.Epoch != have.Epoch || since.N < v.fullAfter || since.N > have.N {
		d.Full, since.N = true, 0
	}
	if !v.initiates {
		return d, nil
	}
	err = s.store.Read(ctx, func(rd *store.Reader) error {
		for _, class := range v.classes {
			err := rd.NodesSince(s.network, class, since.N, func(node store.Node) error {
				d.Version.N = max(d.Version.N, node.N)
				if node.ID != c.id {
					d.Peers = append(d.Peers, s.peerOf(&node))
				}
				return nil
			})
			if err != nil {
				return err
			}
			if d.Full {
				continue
			}
			removed, err := rd.RemovedSince(s.network, class, since.N)
			if err != nil {
				return err
			}
			for _, id := range removed {
				d.Removed = append(d.Removed, id.String())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}
