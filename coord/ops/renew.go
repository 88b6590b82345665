package ops

import (
	"context"
	"net/http"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
)

// handleRenew answers with the node's certificate in force. That is the newest one, until a third
// of its life is left or something in it has changed; then the server issues a new one for the
// same key. A node may also ask with an expired certificate, so a device that was off for a year
// reconnects by itself.
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
	node, err := s.renew(ctx, c, req)
	if err != nil {
		return nil, gone(err)
	}
	return &api.RenewResponse{Certificate: node.Certificate}, nil
}

// renew returns the node with its certificate in force. It writes to the database only if there
// is none.
func (s *Service) renew(ctx context.Context, c *caller, req api.RenewRequest) (node store.Node, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { node, err = r.Node(s.network, c.id); return err })
	if err != nil || s.inForce(node, s.now()) {
		return node, err
	}
	return Do(ctx, s, nodeActor(ctx, c.id.String()), renew{c, req})
}

// renew issues a new certificate for a device, unless the device has one in force.
type renew struct {
	c   *caller
	req api.RenewRequest
}

func (renew) operation() *Operation { return opDeviceRenew }

func (r renew) run(tx *Tx) (store.Node, error) {
	s := tx.s
	node, err := tx.device(r.c.id)
	if err != nil || s.inForce(node, tx.now) {
		return node, err
	}
	before := expiry{node.Software, node.Expires}
	node.OS, node.Software = printable(r.req.OS, 64), printable(r.req.Software, 64)
	if err := s.certify(tx, &node, r.c.key, tx.now, store.Cause{}); err != nil {
		return node, err
	}
	// Raise only the version that other nodes see: the node itself gets the certificate in the
	// answer.
	if node.N, err = tx.Bump(s.network); err != nil {
		return node, err
	}
	if err := tx.UpdateNode(s.network, node); err != nil {
		return node, err
	}
	tx.changed(node.N, store.DeviceRenewed, node.ID.String())
	tx.did(deviceTarget(node), before, expiry{node.Software, node.Expires})
	return node, nil
}

// expiry is the value of the audit record of a renewal.
type expiry struct {
	Version string    `json:"version"`
	Expires time.Time `json:"expires"`
}

// gone turns ErrNotFound about the caller itself into the answer that the device was deleted,
// which happened after identify.
func gone(err error) error {
	if isNotFound(err) {
		return fail(http.StatusUnauthorized, api.CodeRevoked, "this device was deleted from the network", "join again with a new token: weft logout, then weft up TOKEN")
	}
	return err
}
