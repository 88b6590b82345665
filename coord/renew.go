package coord

import (
	"context"
	"net/http"

	"weft/coord/api"
	"weft/coord/store"
)

// handleRenew signs a new certificate over the same key, with the node's
// present name and attributes. An expired certificate will do: a device that
// was off for a year comes back by itself.
func (s *Service) handleRenew(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.RenewRequest
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if err := checkProtocol(theDevice, req.Protocol); err != nil {
		return nil, err
	}
	if err := checkKey(c, req.CSR); err != nil {
		return nil, err
	}
	var node store.Node
	err := s.store.Write(ctx, func(tx *store.Tx) (err error) {
		if node, err = tx.Node(s.network, c.id); err != nil {
			return err
		}
		node.OS, node.Software = printable(req.OS, 64), printable(req.Software, 64)
		if err := s.certify(tx, &node, c.key, s.now()); err != nil {
			return err
		}
		// Others get to see the new certificate, the node itself has it.
		if node.N, err = tx.Bump(s.network); err != nil {
			return err
		}
		if err := tx.UpdateNode(s.network, node); err != nil {
			return err
		}
		tx.After(func() {
			s.index.put(node)
			s.changed()
		})
		return nil
	})
	if err != nil {
		return nil, gone(err)
	}
	return &api.RenewResponse{Certificate: node.Certificate}, nil
}

// gone turns "not found" of the caller itself into what it means: it was
// deleted while the request was on its way.
func gone(err error) error {
	if isNotFound(err) {
		return fail(http.StatusUnauthorized, api.CodeRevoked, "this device was deleted from the network", "join again with a new token: weft logout, then weft up TOKEN")
	}
	return err
}
