package ops

import (
	"fmt"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/overlay/cert"
)

// A device's rights hang on its tags and its owner, and those are in its certificate. So
// a change of them revokes all earlier certificates in the same transaction: from the
// commit on the server treats the device by the new ones, and other devices refuse the
// old certificate as soon as they have the list, whose push begins with those that know
// the device.
//
// The device itself must not take that for its deletion. The list marks the certificates
// as superseded (cert.CRL.Superseded), and a device that finds its own so marked fetches
// the new one at once. Devices from before 2026-11-30 do not know the mark. Those of
// early 2026-11 do not look for themselves in the list at all; later ones believe for a
// moment that they were deleted, until the server answers them again, which it does at
// once because their config has changed too. Neither fetches a certificate for other
// tags: they ask for one only when the name in their config is not that in the
// certificate. Service.spelling sees to that. So revoking at once is safe for all, and
// nobody has the old rights while a device that was switched off, or one that does not
// want to lose them, keeps its old certificate.

// AssignDevice gives a device other tags, another owner, or both.
type AssignDevice struct {
	ID   cert.NodeID
	Tags *[]string // all that it has from now on, with or without "tag:"; nil: as before
	User *string   // name of the owner; nil: as before
}

func (AssignDevice) operation() *Operation { return opDeviceAssign }

// assigned is what AssignDevice changes, for the audit.
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

// mayAssign refuses an actor that is limited to tags what he could not undo, or would get
// more by: he gives and takes only his own tags, leaves at least one of them, and hands
// over only devices on which nothing depends but his tags.
//
// Everybody gives and takes only tags that he may give (Tx.mayTag), and hands over what
// belongs to others only if he may do that to all.
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

// reissue revokes all certificates of a node, and gives it one for what it is now.
func (tx *Tx) reissue(node *store.Node) (err error) {
	s := tx.s
	if node.Wildcard { // others' configs name it, if they reach it
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

// spelling is a device's full name for its config. A device that showed a superseded
// certificate gets it with the dot of the root at the end: the same name in other
// letters, for which every version fetches a certificate. Nothing else reads it there.
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
