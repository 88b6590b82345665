package ops

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"

	"weft/coord/store"
	"weft/overlay/cert"
)

// RenameDevice gives a device another name. The server issues a certificate with that name at
// once and gives it to other devices; the device fetches it when it finds the new name in its
// config. The old name leads to the device for some time (dns_alias.go).
type RenameDevice struct {
	ID   cert.NodeID
	Name string
}

func (RenameDevice) operation() *Operation { return opDeviceRename }

func (c RenameDevice) run(tx *Tx) (store.Node, error) {
	node, err := tx.device(c.ID)
	if err != nil {
		return node, err
	}
	label, err := newLabel(c.Name)
	if err != nil || node.Name == label {
		return node, err
	}
	old := node.Name
	if err := tx.rename(&node, label); err != nil {
		return node, err
	}
	tx.did(deviceTarget(node), named{old}, named{label})
	return node, nil
}

// named is the value of the audit record of a rename.
type named struct {
	Name string `json:"name"`
}

func newLabel(name string) (string, error) {
	label, ok := nameLabel(name)
	if !ok {
		return "", Invalid("name %q: want 1 to 56 letters, digits and single hyphens, not only digits", printable(name, 80))
	}
	return label, nil
}

// rename gives a node a name that no other node has. The old name becomes an alias, unless
// this undoes a rename of a moment ago.
func (tx *Tx) rename(node *store.Node, name string) (err error) {
	s, now := tx.s, tx.now
	if err := s.mayRename(&tx.Reader, *node, now); err != nil {
		return err
	}
	undone, err := s.undoes(tx, node.ID, name)
	if err != nil {
		return err
	}
	if err := s.claimName(tx, node.ID, name); err != nil {
		return err
	}
	old := node.Name
	node.Name = name
	if node.Wildcard {
		node.N, err = tx.BumpConfig(s.network) // the configs of other nodes contain its name
	} else {
		node.N, err = tx.Bump(s.network)
	}
	if err != nil {
		return err
	}
	node.ConfigN = node.N
	if err := tx.certifyAnew(node, store.Cause{Renamed: now}); err != nil {
		return err
	}
	if err := tx.UpdateNode(s.network, *node); err != nil {
		if errors.Is(err, store.ErrTaken) {
			err = fmt.Errorf("name %q: %w", name, ErrTaken)
		}
		return err
	}
	if undone {
		err = tx.FreeName(s.network, old)
	} else {
		err = s.keepName(tx, node.ID, old)
	}
	if err != nil {
		return err
	}
	if node.Wildcard {
		tx.changed(node.N, store.ConfigChanged, "")
	}
	tx.changed(node.N, store.DeviceRenamed, node.ID.String())
	return nil
}

// certifyAnew issues a certificate for a node's current name, tags and owner although the node
// has not asked for one.
func (tx *Tx) certifyAnew(node *store.Node, cause store.Cause) error {
	pub, err := x509.ParsePKIXPublicKey(node.SPKI)
	if err != nil {
		return err
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("certify %s: its key is not ECDSA", node.Name)
	}
	return tx.s.certify(tx, node, key, tx.now, cause)
}
