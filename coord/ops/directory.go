package ops

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleDirectory answers with the nodes that policy lets the caller reach: as a delta
// on the directory that it holds, where that is possible.
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
	d := &api.Directory{Version: v.versions.Directory, Peers: []api.Peer{}, Removed: []string{}}
	if !v.reaches(since) {
		d.Full, since.N = true, 0
	}
	err = s.readDirectory(ctx, v, d, since.N, func(node *store.Node) error {
		if node.ID != c.id {
			d.Peers = append(d.Peers, s.peerOf(node))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// reaches reports whether there is a delta on a version.
func (v *view) reaches(since api.Version) bool {
	have := v.versions.Directory
	return since.Epoch == have.Epoch && since.N >= v.fullAfter && since.N <= have.N
}

// readDirectory completes d for who has this view, and hands over the nodes
// that changed.
func (s *Service) readDirectory(ctx context.Context, v view, d *api.Directory, since uint64, each func(*store.Node) error) error {
	if !v.initiates {
		return nil
	}
	return s.store.Read(ctx, func(rd *store.Reader) error {
		for _, class := range v.classes {
			err := rd.NodesSince(s.network, class, since, func(node store.Node) error {
				d.Version.N = max(d.Version.N, node.N)
				return each(&node)
			})
			if err != nil {
				return err
			}
			if d.Full {
				continue
			}
			removed, err := rd.RemovedSince(s.network, class, since)
			if err != nil {
				return err
			}
			for _, id := range removed {
				d.Removed = append(d.Removed, id.String())
			}
		}
		return nil
	})
}

// maxChanges is how many changed nodes a nudge lists at most.
const maxChanges = 4

// changesCache holds the changes that were sent last: a rename is the same for all nodes
// that see the device and hold the same directory.
type changesCache struct {
	mu   sync.Mutex
	last map[changesKey]*changes // of one version; mu guards it
	of   api.Version
}

type changesKey struct {
	class string
	since uint64
}

// changes is what a nudge brings along. What it holds is never changed.
type changes struct {
	api.Changes
	about []cert.NodeID
	long  bool
}

var errLong = errors.New("more changes than a nudge holds")

// Changes returns what leads a node from the directory that it holds to the
// current one, or nil when that is not short: then the node fetches it.
func (s *Service) Changes(ctx context.Context, node cert.NodeID, held api.Version) *api.Changes {
	v, ok := s.index.view(node)
	if !ok || v.lookup || !v.initiates || !v.reaches(held) || held == v.versions.Directory {
		return nil
	}
	c, err := s.changesFor(ctx, v, held)
	if err != nil {
		s.log.Error("read changes of the directory", "err", err)
		return nil
	}
	// A node's own row is not in its directory.
	if c.long || slices.Contains(c.about, node) {
		return nil
	}
	return &c.Changes
}

func (s *Service) changesFor(ctx context.Context, v view, held api.Version) (*changes, error) {
	key := changesKey{v.class, held.N}
	s.told.mu.Lock()
	defer s.told.mu.Unlock()
	if s.told.of != v.versions.Directory || s.told.last == nil {
		s.told.of, s.told.last = v.versions.Directory, map[changesKey]*changes{}
	}
	if c := s.told.last[key]; c != nil {
		return c, nil
	}
	c := &changes{Changes: api.Changes{Since: held, Directory: api.Directory{Version: v.versions.Directory, Peers: []api.Peer{}, Removed: []string{}}}}
	err := s.readDirectory(ctx, v, &c.Directory, held.N, func(node *store.Node) error {
		if len(c.Peers) == maxChanges {
			return errLong
		}
		c.Peers, c.about = append(c.Peers, s.peerOf(node)), append(c.about, node.ID)
		return nil
	})
	switch {
	case errors.Is(err, errLong) || len(c.Removed) > maxChanges:
		c = &changes{long: true}
	case err != nil:
		return nil, err
	}
	s.told.last[key] = c
	return c, nil
}
