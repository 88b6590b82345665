package coord

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Errors that the verbs and the console branch on.
var (
	ErrNotFound = store.ErrNotFound
	ErrTaken    = store.ErrTaken
	ErrInvalid  = errors.New("invalid")
	ErrTooOften = errors.New("too often") // it may be done again later
)

// wordedError is an ErrInvalid or ErrTooOften that says what is wrong and nothing
// else.
type wordedError struct {
	what string
	kind error
}

func (e wordedError) Error() string { return e.what }
func (e wordedError) Unwrap() error { return e.kind }

func invalid(format string, args ...any) error {
	return wordedError{fmt.Sprintf(format, args...), ErrInvalid}
}

func tooOften(format string, args ...any) error {
	return wordedError{fmt.Sprintf(format, args...), ErrTooOften}
}

// FindDevice finds a device as a person names it: by name (short or full),
// overlay address or id.
func (s *Service) FindDevice(ctx context.Context, word string) (store.Node, error) {
	name, ip, id := word, "", ""
	if _, err := netip.ParseAddr(word); err == nil {
		name, ip = "", word
	} else if _, err := cert.ParseNodeID(strings.ToLower(word)); err == nil {
		name, id = "", strings.ToLower(word)
	}
	find, err := s.finder(name, ip, id)
	if err != nil {
		return store.Node{}, err
	}
	var node store.Node
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { node, err = find(r); return err })
	if err != nil {
		return node, fmt.Errorf("device %q: %w", word, err)
	}
	return node, nil
}

// findToChange is FindDevice for what cannot be taken back: a former name will
// not do, it might have been typed for another device.
func (s *Service) findToChange(ctx context.Context, word string) (store.Node, error) {
	node, err := s.FindDevice(ctx, word)
	if err != nil {
		return node, err
	}
	if label, ok := s.label(word); ok && slices.ContainsFunc(s.aliasInfos(node.ID), func(a AliasInfo) bool { return a.Name == label }) {
		return store.Node{}, fmt.Errorf("device %q: that was the name of %s before; say %s if you mean it: %w", printable(word, 80), node.Name, node.Name, ErrNotFound)
	}
	return node, nil
}

// EachDevice calls f for every device of a user ("" for all), by name.
func (s *Service) EachDevice(ctx context.Context, userID string, f func(store.Node) error) error {
	return s.store.Read(ctx, func(r *store.Reader) error { return r.EachNode(s.network, userID, f) })
}

// RenameDevice gives a device another name. Its certificate is signed anew at
// once, for others to see; the device fetches its own when its config says
// so. allowed, if not nil, is asked inside the transaction.
func (s *Service) RenameDevice(ctx context.Context, id cert.NodeID, name string, allowed func(store.Node) error) (store.Node, error) {
	label, err := newLabel(name)
	if err != nil {
		return store.Node{}, err
	}
	var node store.Node
	err = s.store.Write(ctx, func(tx *store.Tx) (err error) {
		if node, err = s.nodeFor(tx, id, allowed); err != nil || node.Name == label {
			return err
		}
		return s.renameTx(tx, &node, label)
	})
	return node, err
}

func newLabel(name string) (string, error) {
	label, ok := nameLabel(name)
	if !ok {
		return "", invalid("name %q: want 1 to 56 letters, digits and single hyphens, not only digits", printable(name, 80))
	}
	return label, nil
}

// renameTx gives a node a name that nobody has, and keeps its old one as an
// alias.
func (s *Service) renameTx(tx *store.Tx, node *store.Node, name string) (err error) {
	now := s.now()
	if err := s.mayRename(&tx.Reader, *node, now); err != nil {
		return err
	}
	if err := s.claimName(tx, node.ID, name); err != nil {
		return err
	}
	old := node.Name
	node.Name = name
	if node.Wildcard {
		node.N, err = tx.BumpConfig(s.network) // others' configs name it
	} else {
		node.N, err = tx.Bump(s.network)
	}
	if err != nil {
		return err
	}
	node.ConfigN = node.N
	pub, err := x509.ParsePKIXPublicKey(node.SPKI)
	if err != nil {
		return err
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("rename %s: its key is not ECDSA", old)
	}
	if err := s.certify(tx, node, key, now, now); err != nil {
		return err
	}
	if err := tx.UpdateNode(s.network, *node); err != nil {
		if errors.Is(err, store.ErrTaken) {
			err = fmt.Errorf("name %q: %w", name, ErrTaken)
		}
		return err
	}
	aliases, err := s.keepName(tx, node.ID, old)
	if err != nil {
		return err
	}
	renamed := *node
	tx.After(func() {
		s.index.setAliases(renamed.ID, aliases)
		if renamed.Wildcard {
			s.index.setConfigN(renamed.N)
			s.index.setWildcard(renamed.ID, renamed.Name)
		}
		s.index.put(renamed)
		s.changed()
		s.events.publish(eventRenamed, renamed)
		s.log.Info("device renamed", "name", name, "was", old, "id", renamed.ID)
	})
	return nil
}

// ReplaceDevice deletes a device and gives its name to another one, in one
// transaction: new hardware in the old one's place.
func (s *Service) ReplaceDevice(ctx context.Context, old, by cert.NodeID, allowed func(store.Node) error) (store.Node, error) {
	if old == by {
		return store.Node{}, invalid("a device cannot replace itself")
	}
	var node store.Node
	err := s.store.Write(ctx, func(tx *store.Tx) error {
		gone, err := s.nodeFor(tx, old, allowed)
		if err != nil {
			return err
		}
		if node, err = s.nodeFor(tx, by, allowed); err != nil {
			return err
		}
		if err := s.deleteTx(tx, gone); err != nil {
			return err
		}
		return s.renameTx(tx, &node, gone.Name)
	})
	return node, err
}

// DeleteDevice deletes a device and revokes every certificate it was given,
// in one transaction. When it returns, the new revocation list is on its way
// to whoever is online, and the relay has dropped the device.
func (s *Service) DeleteDevice(ctx context.Context, id cert.NodeID, allowed func(store.Node) error) (store.Node, error) {
	var node store.Node
	err := s.store.Write(ctx, func(tx *store.Tx) (err error) {
		if node, err = s.nodeFor(tx, id, allowed); err != nil {
			return err
		}
		return s.deleteTx(tx, node)
	})
	return node, err
}

func (s *Service) deleteTx(tx *store.Tx, node store.Node) error {
	n, err := tx.DeleteNode(s.network, node, s.now())
	if err != nil {
		return err
	}
	s.renewCRL(tx)
	if node.Wildcard { // others' configs name it
		c, err := tx.BumpConfig(s.network)
		if err != nil {
			return err
		}
		tx.After(func() { s.index.setConfigN(c) })
	}
	tx.After(func() {
		s.revoked = append(s.revoked, node.ID)
		s.index.remove(node.ID, n)
		s.presence.Forget(node.ID)
		s.relay.get().Kick(s.network, node.ID)
		s.changed()
		s.events.publish(eventDeleted, node)
		s.log.Info("device deleted", "name", node.Name, "id", node.ID)
	})
	return nil
}

func (s *Service) nodeFor(tx *store.Tx, id cert.NodeID, allowed func(store.Node) error) (store.Node, error) {
	node, err := tx.Node(s.network, id)
	if err == nil && allowed != nil {
		err = allowed(node)
	}
	return node, err
}

// handleLogout deletes the calling device.
func (s *Service) handleLogout(ctx context.Context, c *caller, _ *http.Request) (any, error) {
	err := s.store.Write(ctx, func(tx *store.Tx) error {
		node, err := tx.Node(s.network, c.id)
		if err == nil {
			err = s.mayLeave(&tx.Reader, node, s.now())
		}
		if err != nil {
			return err
		}
		return s.deleteTx(tx, node)
	})
	if errors.Is(err, ErrTooOften) {
		return nil, fail(http.StatusTooManyRequests, api.CodeTooMany, err.Error(), "ask the network's owner to delete it in the console, or try again then")
	}
	if err != nil {
		return nil, gone(err)
	}
	return statusOnly(http.StatusNoContent), nil
}
