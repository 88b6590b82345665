package ops

import (
	"weft/coord/store"
	"weft/overlay/cert"
)

// ReplaceDevice deletes a device and gives its name to another one, such as the new
// hardware that replaces it.
type ReplaceDevice struct {
	Old cert.NodeID // is deleted
	By  cert.NodeID // gets the name
	// Match has the accepted values of Device.Revision of the old device; nil for any.
	Match []string
}

func (ReplaceDevice) operation() *Operation { return opDeviceReplace }

func (c ReplaceDevice) run(tx *Tx) (store.Node, error) {
	gone, err := tx.device(c.Old)
	if err != nil {
		return store.Node{}, err
	}
	if err := matches(c.Match, revisionOf(gone)); err != nil {
		return store.Node{}, About(KindDevice, gone.Name, err)
	}
	node, err := tx.device(c.By)
	if err != nil {
		return store.Node{}, err
	}
	if c.Old == c.By {
		return store.Node{}, Invalid("a device cannot replace itself")
	}
	old := node.Name
	if err := tx.delete(gone); err != nil {
		return store.Node{}, err
	}
	if err := tx.rename(&node, gone.Name); err != nil {
		return store.Node{}, err
	}
	tx.did(deviceTarget(node), replaced{old, ""}, replaced{node.Name, gone.ID.String()})
	return node, nil
}

// replaced is the value of the audit record.
type replaced struct {
	Name     string `json:"name"`
	Replaces string `json:"replaces,omitempty"` // id of the deleted device
}
