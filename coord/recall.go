package coord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"weft/coord/api"
	"weft/coord/store"
	"weft/overlay/cert"
)

// A server that was restored from an older backup does not know who was
// deleted since. The nodes do: they hold the revocation list of that time,
// signed by the network's CA. A node that finds the server's number lower than
// its own sends its list, and the server deletes again whom it names. It is the
// CA's word, whoever brings it: so nodes and relays that joined after the backup,
// and are not known here, may bring it too.

// maxStrangers is how many of those who are not known here may bring a list at
// once: each costs memory for a list, at most a megabyte.
const maxStrangers = 64

// strangers are those at it, one request each, so that one who was deleted and
// wants to stay cannot take the others' places. The zero value is ready.
type strangers struct {
	mu       sync.Mutex
	bringing map[cert.NodeID]struct{}
	verify   sync.Mutex // held for one list: that takes tens of milliseconds
}

func (s *strangers) enter(id cert.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.bringing[id]; ok || len(s.bringing) >= maxStrangers {
		return false
	}
	if s.bringing == nil {
		s.bringing = map[cert.NodeID]struct{}{}
	}
	s.bringing[id] = struct{}{}
	return true
}

func (s *strangers) leave(id cert.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bringing, id)
}

// handleRecall takes a revocation list that is newer than the server's.
func (s *Service) handleRecall(ctx context.Context, c *caller, r *http.Request) (any, error) {
	stranger := !s.knows(c)
	if stranger {
		if !s.strangers.enter(c.id) {
			return nil, fail(http.StatusServiceUnavailable, api.CodeUnavailable, "other revocation lists are being read", "try again")
		}
		defer s.strangers.leave(c.id)
	}
	der, err := io.ReadAll(r.Body) // bounded
	if err != nil {
		return nil, fail(http.StatusRequestEntityTooLarge, api.CodeTooLarge, "the revocation list is too long", "")
	}
	if stranger {
		s.strangers.verify.Lock()
		defer s.strangers.verify.Unlock()
	}
	if err := s.Recall(ctx, der); err != nil {
		return nil, err
	}
	return statusOnly(http.StatusNoContent), nil
}

// Recall deletes every node that a revocation list of this network names, and
// keeps the serial numbers that are not known here, and the date up to which the
// list may have dropped some. (A device that was deleted after the backup, and whose
// certificate has left the list since, is not deleted again: nobody knows of it.
// Others refuse what it holds, but it may renew here.) A list that is not newer
// than the server's changes nothing.
func (s *Service) Recall(ctx context.Context, der []byte) error {
	crl, err := s.auth.Roots.VerifyCRL(der)
	if err != nil {
		return fail(http.StatusBadRequest, api.CodeBadRequest, "the revocation list is not one of this network", "")
	}
	if crl.Number <= s.index.info().CRLNumber {
		return nil
	}
	return s.store.Write(ctx, func(tx *store.Tx) error {
		now := s.now()
		for _, serial := range crl.Serials() {
			id, revoked, err := tx.HolderOf(s.network, serial)
			switch {
			case errors.Is(err, store.ErrNotFound):
				if err := tx.AddRevoked(s.network, serial, now, now.Add(s.life)); err != nil {
					return err
				}
				continue
			case err != nil:
				return err
			case revoked:
				continue
			}
			node, err := tx.Node(s.network, id)
			if errors.Is(err, store.ErrNotFound) {
				continue // deleted a moment ago, in this list
			}
			if err != nil {
				return err
			}
			if err := s.deleteTx(tx, node); err != nil {
				return fmt.Errorf("delete %s again: %w", node.Name, err)
			}
			s.log.Warn("a device that was deleted after the backup is deleted again", "name", node.Name, "id", node.ID)
		}
		if err := tx.DroppedUntil(s.network, crl.Since); err != nil {
			return err
		}
		s.renewCRL(tx) // above the number that is out there, by the clock
		return nil
	})
}
