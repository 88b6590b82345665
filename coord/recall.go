package coord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"weft/coord/api"
	"weft/coord/store"
)

// A server that was restored from an older backup does not know who was
// deleted since. The nodes do: they hold the revocation list of that time,
// signed by the network's CA. A node that finds the server's number lower than
// its own sends its list, and the server deletes again whom it names.

// handleRecall takes a revocation list that is newer than the server's.
func (s *Service) handleRecall(ctx context.Context, _ *caller, r *http.Request) (any, error) {
	der, err := io.ReadAll(r.Body) // bounded
	if err != nil {
		return nil, fail(http.StatusRequestEntityTooLarge, api.CodeTooLarge, "the revocation list is too long", "")
	}
	if err := s.Recall(ctx, der); err != nil {
		return nil, err
	}
	return statusOnly(http.StatusNoContent), nil
}

// Recall deletes every node that a revocation list of this network names, and
// keeps the serial numbers that are not known here. A list that is not newer
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
		s.renewCRL(tx) // above the number that is out there, by the clock
		return nil
	})
}
