package ops

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"weft/coord/store"
	"weft/overlay/cert"
)

// ErrChanged refuses a change to something that has changed since the actor read it.
var ErrChanged = errors.New("it was changed since you read it; read it again, then repeat")

// matches refuses a change if the present revision is not one of match, the revisions
// that the actor read; nil accepts any.
func matches(match []string, revision string) error {
	if match == nil || slices.Contains(match, revision) {
		return nil
	}
	return ErrChanged
}

// EditDevice makes several changes to a device: all of them or none.
type EditDevice struct {
	ID    cert.NodeID `json:"-"`
	Match []string    `json:"-"` // the revisions that it may change (Device.Revision); nil for any
	Name  *string     `json:"name,omitempty"`
	Tags  *[]string   `json:"tags,omitempty" doc:"all tags that it has from now on, with or without tag:; revokes its older certificates"`
	User  *string     `json:"user,omitempty" doc:"name of the owner; revokes its older certificates"`
	DeviceDNS
}

// operation is that of the first thing that it changes; run asks for each.
func (c EditDevice) operation() *Operation {
	switch {
	case c.assigns():
		return opDeviceAssign
	case c.Name != nil:
		return opDeviceRename
	}
	return opDeviceDNS
}

func (c EditDevice) assigns() bool { return c.Tags != nil || c.User != nil }

func (c EditDevice) run(tx *Tx) (store.Node, error) {
	node, err := tx.device(c.ID)
	if err != nil {
		return node, err
	}
	if err := matches(c.Match, revisionOf(node)); err != nil {
		return node, About(KindDevice, node.Name, err)
	}
	// First, so that no certificate is signed only to be revoked.
	if c.assigns() {
		if node, err = within(tx, AssignDevice{c.ID, c.Tags, c.User}); err != nil {
			return node, err
		}
	}
	if c.Name != nil {
		if node, err = within(tx, RenameDevice{c.ID, *c.Name}); err != nil {
			return node, err
		}
	}
	if c.DeviceDNS != (DeviceDNS{}) {
		node, err = within(tx, SetDeviceDNS{c.ID, c.DeviceDNS})
	}
	return node, err
}

// within runs a command as a part of another one.
func within[R any](tx *Tx, c Command[R]) (R, error) {
	part := *tx
	part.op = c.operation()
	return c.run(&part)
}

// revisionOf changes whenever somebody changes something of the device.
func revisionOf(n store.Node) string { return strconv.FormatUint(max(n.N, n.ConfigN), 10) }

// revisionOfParts is the revision of something that has no number of its own.
func revisionOfParts(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
