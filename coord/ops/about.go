package ops

import (
	"errors"
	"fmt"
)

// Kind is what an error is about: a kind of things that have names.
type Kind string

// The kinds. Where a text names one, it is this word.
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

// KindOf returns what an error of this package is about, "" if it does not say that.
func KindOf(err error) Kind {
	e, _ := errors.AsType[aboutError](err)
	return e.kind
}

// About wraps an error with the thing that it is about, as that was named.
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
