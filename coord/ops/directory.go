package ops

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"sync"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleDirectory answers with the nodes that the policy lets the caller reach, if possible as
// a delta to the directory that the caller has.
func (s *Service) handleDirectory(ctx context.Context, c *caller, r *http.Request) (any, error) {
	since, err := sinceOf(r)
	if err != nil {
		return nil, err
	}
	// Take the view before reading the database, so that the data are at least as new as the
	// version with which they are sent.
	v, ok := s.index.view(c.id)
	if !ok {
		return nil, gone(store.ErrNotFound)
	}
	if v.lookup {
		return nil, fail(http.StatusConflict, api.CodeTooLarge, "the directory is too large to be sent as a whole", "look names up one by one")
	}
	return s.directory(ctx, c.id, v, since, math.MaxInt)
}

// directory returns what a node sees that has this view and holds the directory as of
// since; errLong if that is more than most nodes.
func (s *Service) directory(ctx context.Context, id cert.NodeID, v view, since api.Version, most int) (*api.Directory, error) {
	d := &api.Directory{Version: v.versions.Directory, Peers: []api.Peer{}, Removed: []string{}}
	if !v.reaches(since) {
		d.Full, since.N = true, 0
	}
	err := s.readDirectory(ctx, v, d, since.N, func(node *store.Node) error {
		switch {
		case node.ID == id:
			return nil
		case len(d.Peers) == most:
			return errLong
		}
		d.Peers = append(d.Peers, s.peerOf(node))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// reaches reports whether the server can make a delta from a version to the present one.
func (v *view) reaches(since api.Version) bool {
	have := v.versions.Directory
	return since.Epoch == have.Epoch && since.N >= v.fullAfter && since.N <= have.N
}

// readDirectory completes d for a caller with this view: it calls each for every node that
// changed after since, and adds the removed ones.
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

// changesCache caches the changes to the present directory version: a rename makes the same
// changes for all nodes with the same owner, tags and directory version.
type changesCache struct {
	mu   sync.Mutex
	last map[changesKey]*changes // of one version; mu guards it
	of   api.Version
}

type changesKey struct {
	class string
	since uint64
}

// changes are the changes that a nudge contains. They are immutable.
type changes struct {
	api.Changes
	about []cert.NodeID // nodes that were added or changed
	long  bool          // there are too many for a nudge
}

var errLong = errors.New("more devices than the answer may hold")

// Changes returns the changes from the directory version that a node has to the current one,
// or nil if they are too many for a nudge: then the node has to fetch them.
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
