package ops

import (
	"fmt"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/overlay/cert"
)

// What a device may do depends on its tags and its owner, which are in its certificate. So a
// change of them revokes all earlier certificates in the same transaction. From the commit on
// the server uses the new tags and owner, and other devices refuse the old certificate as soon
// as they have the new revocation list. Devices that know this one get the list first. So a
// device that is switched off, or that wants to keep its old rights, loses them nevertheless.
//
// The device itself must not conclude that it was deleted. The list marks the certificates as
// superseded (cert.CRL.Superseded), and a device that finds its own marked so fetches a new
// one at once. Devices from before 2026-11-30 do not know the mark. Those of early 2026-11 do
// not look for themselves in the list at all; later ones believe that they were deleted until
// the server answers them again, which is soon, because their config has changed too. None of
// them fetches a certificate because of other tags, but only if the name in the config differs
// from the one in the certificate. Service.spelling makes the names differ.

// AssignDevice gives a device other tags, another owner, or both.
type AssignDevice struct {
	ID   cert.NodeID
	Tags *[]string // all tags that it has from now on, with or without "tag:"; nil for no change
	User *string   // name of the owner; nil for no change
}

func (AssignDevice) operation() *Operation { return opDeviceAssign }

// assigned are the values of the audit record of AssignDevice.
type assigned struct {
	User string   `json:"user"`
	Tags []string `json:"tags"`
}

func (c AssignDevice) run(tx *Tx) (store.Node, error) {
	s := tx.s
	node, err := tx.device(c.ID)
	if err != nil {
		return node, err
	}
	old, before, class := node, assigned{node.User, node.Tags}, node.Class
	if c.Tags != nil {
		if node.Tags, err = checkTags(*c.Tags); err != nil {
			return node, err
		}
	}
	if c.User != nil {
		u, err := tx.owner("", *c.User)
		if err != nil {
			return node, err
		}
		node.UserID, node.User = u.ID, u.Name
	}
	if node.Class = store.Class(node.UserID, store.JoinTags(node.Tags)); node.Class == class {
		return node, nil
	}
	if err := tx.mayAssign(before, assigned{node.User, node.Tags}); err != nil {
		return node, err
	}
	if err := s.mayMove(&tx.Reader, node, tx.now); err != nil {
		return node, err
	}
	if err := tx.reissue(&node); err != nil {
		return node, err
	}
	if err := tx.LeaveClass(s.network, node.ID, class, node.N, tx.now); err != nil {
		return node, fmt.Errorf("assign %s: %w", node.Name, err)
	}
	if err := tx.reassigned(&node, old); err != nil {
		return node, err
	}
	tx.did(deviceTarget(node), before, assigned{node.User, node.Tags})
	return node, nil
}

// mayAssign returns nil if the actor may change before to after. All actors may add and remove
// only tags that they may give (Tx.mayTag), and actors who may change only their own devices
// may not give them to somebody else.
//
// An actor who is limited to tags may not make a change that the actor could not undo, or that
// would give the actor more rights: such an actor may add and remove only those tags, must
// leave the device at least one of them, and may change the owner only of devices that have no
// other tags.
func (tx *Tx) mayAssign(before, after assigned) error {
	a := tx.actor
	var changed []string
	for _, t := range slices.Concat(before.Tags, after.Tags) {
		if slices.Contains(before.Tags, t) != slices.Contains(after.Tags, t) {
			changed = append(changed, t)
		}
	}
	if err := tx.mayTag(changed); err != nil {
		return err
	}
	if before.User != after.User && tx.op.may[a.Role] == own {
		return fmt.Errorf("%s: as %s you cannot give a device to somebody else: %w", tx.op.Name, a.Role, ErrForbidden)
	}
	if len(a.Tags) == 0 {
		return nil
	}
	refuse := func(what string) error {
		return fmt.Errorf("%s: %s your own tags, which are %s: %w", tx.op.Name, what, strings.Join(a.Tags, ", "), ErrForbidden)
	}
	if !a.holds(changed) {
		return refuse("you may give and take only")
	}
	switch {
	case !a.covers(after.Tags):
		return refuse("you must leave one of")
	case before.User != after.User && !a.holds(after.Tags):
		return refuse("you may hand over only devices with no tags but")
	}
	return nil
}

// reissue revokes all certificates of a node, and issues one for its current tags and owner.
func (tx *Tx) reissue(node *store.Node) (err error) {
	s := tx.s
	if node.Wildcard { // the configs of nodes that may reach it contain its name
		node.N, err = tx.BumpConfig(s.network)
	} else {
		node.N, err = tx.Bump(s.network)
	}
	if err != nil {
		return err
	}
	node.ConfigN, node.ClassN = node.N, node.N
	if err := tx.Supersede(s.network, node.ID, tx.now); err != nil {
		return fmt.Errorf("revoke the certificates of %s: %w", node.Name, err)
	}
	tx.Note(newList{})
	if err := tx.certifyAnew(node, store.Cause{Moved: tx.now}); err != nil {
		return err
	}
	if err := tx.UpdateNode(s.network, *node); err != nil {
		return err
	}
	if node.Wildcard {
		tx.changed(node.N, store.ConfigChanged, "")
	}
	tx.changed(node.N, store.DeviceMoved, node.ID.String())
	return tx.nameTags(node.Tags)
}

// spelling returns a device's full name for its config. If the caller showed a superseded
// certificate the name ends with the dot of the DNS root. That is the same name, but it differs
// from the one in the certificate, so devices of every version fetch a new certificate. They
// use the name in the config for nothing else.
func (s *Service) spelling(r *store.Reader, c *caller, fqdn string) (string, error) {
	_, revoked, err := r.HolderOf(s.network, c.serial)
	if err != nil && !isNotFound(err) {
		return "", err
	}
	if revoked {
		fqdn += "."
	}
	return fqdn, nil
}
