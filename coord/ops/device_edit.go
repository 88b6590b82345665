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

// ErrChanged means that something has changed since the actor read it.
var ErrChanged = errors.New("it was changed since you read it; read it again, then repeat")

// matches returns ErrChanged unless the current revision is one of match, the revisions that
// the actor has read; a nil match accepts any.
func matches(match []string, revision string) error {
	if match == nil || slices.Contains(match, revision) {
		return nil
	}
	return ErrChanged
}

// EditDevice makes several changes to a device: all of them or none.
type EditDevice struct {
	ID    cert.NodeID `json:"-"`
	Match []string    `json:"-"` // Device.Revision must be one of these; nil for any
	Name  *string     `json:"name,omitempty"`
	Tags  *[]string   `json:"tags,omitempty" doc:"all tags that the device has from now on, with or without tag:; revokes its older certificates"`
	User  *string     `json:"user,omitempty" doc:"name of the owner; revokes the device's older certificates"`
	DeviceDNS
}

// operation returns the operation of the first change. run authorizes each change by itself.
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
	// Assign first: renaming issues a certificate, which assigning would revoke at once.
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

// within runs a command in the transaction of another one, with its own authorization.
func within[R any](tx *Tx, c Command[R]) (R, error) {
	part := *tx
	part.op = c.operation()
	return c.run(&part)
}

// revisionOf returns Device.Revision.
func revisionOf(n store.Node) string { return strconv.FormatUint(max(n.N, n.ConfigN), 10) }

// revisionOfParts returns a revision for something without a version number: a hash of its
// parts.
func revisionOfParts(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
