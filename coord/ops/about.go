package ops

import (
	"errors"
	"fmt"
)

// Kind is a kind of things that have names, and that an error can be about.
type Kind string

// The kinds. The values are the words that messages use.
const (
	KindDevice   Kind = "device"
	KindProvider Kind = "provider"
	KindKey      Kind = "key"
	KindUser     Kind = "user"
	KindGroup    Kind = "group"
	KindToken    Kind = "token"
	KindRelay    Kind = "relay"
	KindRequest  Kind = "request"
	KindWebhook  Kind = "webhook"
	KindPolicy   Kind = "policy"
	KindRecord   Kind = "record"
	KindRoute    Kind = "route"
	KindAlias    Kind = "former name"
	KindWho      Kind = "person or device"
)

// KindOf returns the kind of the thing that an error of this package is about, "" if unknown.
func KindOf(err error) Kind {
	e, _ := errors.AsType[aboutError](err)
	return e.kind
}

// About wraps an error with the kind and the name of the thing that it is about. name is what
// the caller typed.
func About(kind Kind, name string, err error) error {
	return aboutError{kind, fmt.Sprintf("%s %q", kind, printable(name, 80)), err}
}

// aboutError is an error about a thing of some kind.
type aboutError struct {
	kind  Kind
	thing string // for people
	err   error
}

func (e aboutError) Error() string { return e.thing + ": " + e.err.Error() }
func (e aboutError) Unwrap() error { return e.err }
