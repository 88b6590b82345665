package ops

import (
	"context"
	"errors"
	"fmt"

	"weft/coord/store"
	"weft/overlay/cert"
)

// Errors that the verbs and the console distinguish.
var (
	ErrNotFound = store.ErrNotFound
	ErrTaken    = store.ErrTaken
	ErrInvalid  = errors.New("invalid")
	ErrTooOften = errors.New("too often") // it may be done again later
)

// wordedError is an ErrInvalid or ErrTooOften whose text is only what is wrong.
type wordedError struct {
	what string
	kind error
}

func (e wordedError) Error() string { return e.what }
func (e wordedError) Unwrap() error { return e.kind }

// Invalid returns an ErrInvalid whose text is only what is wrong.
func Invalid(format string, args ...any) error {
	return wordedError{fmt.Sprintf(format, args...), ErrInvalid}
}

// inTheWay returns an ErrTaken whose text is only what is in the way.
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

// device reads a device and asks whether the actor may do this to it.
func (tx *Tx) device(id cert.NodeID) (store.Node, error) {
	node, err := tx.Node(tx.s.network, id)
	if err != nil {
		tx.asked = true // there is nothing to be allowed
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
