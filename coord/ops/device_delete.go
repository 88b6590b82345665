package ops

import (
	"context"
	"errors"
	"net/http"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// DeleteDevice deletes a device and revokes all its certificates. When Do returns, the relay
// in this process has disconnected the device, and the new revocation list is on its way to
// the devices that are online.
type DeleteDevice struct {
	ID cert.NodeID
}

func (DeleteDevice) operation() *Operation { return opDeviceDelete }

func (c DeleteDevice) run(tx *Tx) (store.Node, error) {
	node, err := tx.device(c.ID)
	if err != nil {
		return node, err
	}
	if err := tx.delete(node); err != nil {
		return node, err
	}
	tx.did(deviceTarget(node), node, nil)
	return node, nil
}

// delete deletes a node and revokes its certificates.
func (tx *Tx) delete(node store.Node) error {
	n, revoked, err := tx.DeleteNode(tx.s.network, node, tx.now)
	if err != nil {
		return err
	}
	tx.Note(newList{revoked: revoked})
	if node.Wildcard { // configs of other nodes contain its name
		c, err := tx.BumpConfig(tx.s.network)
		if err != nil {
			return err
		}
		tx.changed(c, store.ConfigChanged, "")
	}
	tx.changed(n, store.DeviceRemoved, node.ID.String())
	if node.Overdue {
		if n, err = tx.Bump(tx.s.network); err != nil {
			return err
		}
		return tx.overdueChanged(n, node.UserID)
	}
	return nil
}

// leave deletes the device that sent the request.
type leave struct{ id cert.NodeID }

func (leave) operation() *Operation { return opDeviceLeave }

func (c leave) run(tx *Tx) (store.Node, error) {
	node, err := tx.device(c.id)
	if err == nil {
		err = tx.s.mayLeave(&tx.Reader, node, tx.now)
	}
	if err == nil {
		err = tx.delete(node)
	}
	if err != nil {
		return node, err
	}
	tx.did(deviceTarget(node), node, nil)
	return node, nil
}

// handleLogout deletes the calling device.
func (s *Service) handleLogout(ctx context.Context, c *caller, _ *http.Request) (any, error) {
	_, err := Do(ctx, s, nodeActor(ctx, c.id.String()), leave{c.id})
	if errors.Is(err, ErrTooOften) {
		return nil, fail(http.StatusTooManyRequests, api.CodeTooMany, err.Error(), "ask the network's owner to delete it in the console, or try again then")
	}
	if err != nil {
		return nil, gone(err)
	}
	return statusOnly(http.StatusNoContent), nil
}
