package ops

import (
	"context"
	"errors"
	"fmt"

	"weft/coord/store"
	"weft/overlay/cert"
)

// Errors that the CLI, the API and the console distinguish.
var (
	ErrNotFound = store.ErrNotFound
	ErrTaken    = store.ErrTaken
	ErrInvalid  = errors.New("invalid")
	ErrTooOften = errors.New("too often") // possible again later
)

// wordedError is an error of some kind, such as ErrInvalid, whose text says only what is wrong
// and not the kind.
type wordedError struct {
	what string
	kind error
}

func (e wordedError) Error() string { return e.what }
func (e wordedError) Unwrap() error { return e.kind }

// Invalid returns an ErrInvalid with this text.
func Invalid(format string, args ...any) error {
	return wordedError{fmt.Sprintf(format, args...), ErrInvalid}
}

// inTheWay returns an ErrTaken with this text, which says what prevents the operation.
func inTheWay(format string, args ...any) error {
	return wordedError{fmt.Sprintf(format, args...), ErrTaken}
}

func tooOften(format string, args ...any) error {
	return wordedError{fmt.Sprintf(format, args...), ErrTooOften}
}

// FindDevice finds a device by its name (short or full), its overlay address or its id.
func (s *Service) FindDevice(ctx context.Context, word string) (store.Node, error) {
	find, err := s.deviceFinder(word)
	if err != nil {
		return store.Node{}, err
	}
	var node store.Node
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { node, err = find(r); return err })
	if err != nil {
		return node, About(KindDevice, word, err)
	}
	return node, nil
}

// device reads a device, and returns an error if the actor may not do the operation on it.
func (tx *Tx) device(id cert.NodeID) (store.Node, error) {
	node, err := tx.Node(tx.s.network, id)
	if err != nil {
		tx.asked = true // without a device there is nothing to authorize
		return node, err
	}
	return node, tx.may(deviceTarget(node))
}

func deviceTarget(n store.Node) target {
	return target{kind: "device", id: n.ID.String(), name: n.Name, owner: n.UserID, tags: n.Tags}
}

// EachDevice calls f for every device of a user ("" for all), by name.
func (s *Service) EachDevice(ctx context.Context, userID string, f func(store.Node) error) error {
	return s.store.Read(ctx, func(r *store.Reader) error { return r.EachNode(s.network, userID, f) })
}
