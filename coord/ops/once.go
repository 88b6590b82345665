package ops

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/coord/store"
)

// ErrDone means that the same request has run its command before, but its answer contained a
// secret, so that it was not saved and cannot be repeated.
var ErrDone = errors.New("done already")

// Once identifies a request, so that repetitions of it do not run its command again.
type Once struct {
	Key     string   // the idempotency key; "" for none
	Request [32]byte // hash of the whole request
}

// stored returns once in the form in which it is stored: with an HMAC in place of the hash,
// because a request may contain a secret that is short enough to be guessed from a plain hash.
func (s *Service) stored(once Once) (Once, error) {
	key, err := s.auth.Secret("weft-idempotency/1", nil)
	if err == nil {
		h := hmac.New(sha256.New, key)
		h.Write(once.Request[:])
		h.Sum(once.Request[:0])
	}
	return once, err
}

// maker is implemented by answers that contain a secret. Made returns words for what was made.
type maker interface{ Made() string }

// DoOnce is Do for requests that may be repeated. view makes the answer from the result of the
// command; if there is a key it is called inside the transaction, which saves the answer
// together with the change. Answers are kept for a day, and for the last 1,000 keys of each
// user. The same request with the same key gets the same answer, or ErrDone if the answer
// contained a secret. A different request with the same key gets ErrInvalid. Errors are not
// saved.
func DoOnce[R, O any](ctx context.Context, s *Service, a Actor, once Once, c Command[R], view func(R) O) (O, error) {
	var none O
	if once.Key != "" {
		once, err := s.stored(once)
		if err != nil {
			return none, err
		}
		return Do(ctx, s, a, onceCommand[R, O]{c, once, view})
	}
	r, err := Do(ctx, s, a, c)
	if err != nil {
		return none, err
	}
	return view(r), nil
}

// onceCommand is a command of a request with a key.
type onceCommand[R, O any] struct {
	c    Command[R]
	once Once
	view func(R) O
}

func (o onceCommand[R, O]) operation() *Operation { return o.c.operation() }

func (o onceCommand[R, O]) run(tx *Tx) (out O, err error) {
	if done, err := o.once.answered(tx, &out); done || err != nil {
		return out, err
	}
	r, err := o.c.run(tx)
	if err != nil {
		return out, err
	}
	out = o.view(r)
	return out, o.once.save(tx, out)
}

// answered reports whether the command of this request has run before, and if so, decodes its
// answer into out, which is a pointer.
func (once Once) answered(tx *Tx, out any) (bool, error) {
	d, err := tx.DoneWith(tx.s.network, tx.actor.UserID, once.Key, tx.now)
	if isNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	tx.asked = true
	return true, again(tx.op, tx.actor, once, d, out)
}

// save stores the answer of a request whose command has run.
func (once Once) save(tx *Tx, out any) error {
	d := store.Done{UserID: tx.actor.UserID, Key: once.Key, Request: once.Request, At: tx.now}
	if m, ok := out.(maker); ok {
		d.Made = m.Made()
	} else if b, err := json.Marshal(out); err == nil {
		d.Answer = string(b)
	} else {
		return fmt.Errorf("keep the answer: %w", err)
	}
	return tx.AddDone(tx.s.network, d)
}

// Again decodes the answer of a request whose command has run before into out, which is a
// pointer. It returns ErrNotFound if the command has not run. It is for requests that fail
// before they reach DoOnce, because the thing that they are about was deleted by the first
// request. operation is a name in Operations.
func (s *Service) Again(ctx context.Context, a Actor, operation string, once Once, out any) error {
	i := slices.IndexFunc(Operations, func(o *Operation) bool { return o.Name == operation })
	if i < 0 || once.Key == "" {
		return ErrNotFound
	}
	once, err := s.stored(once)
	if err != nil {
		return err
	}
	return s.store.Read(ctx, func(r *store.Reader) error {
		d, err := r.DoneWith(s.network, a.UserID, once.Key, s.now())
		if err != nil {
			return err
		}
		return again(Operations[i], a, once, d, out)
	})
}

// again decodes a saved answer into out. The actor must still be allowed to do such operations.
func again(o *Operation, a Actor, once Once, d store.Done, out any) error {
	if err := o.asks(a); err != nil {
		return err
	}
	switch {
	case d.Request != once.Request:
		return Invalid("the idempotency key was used for another request at %s; use a new one for each request", d.At.Format(time.RFC3339))
	case d.Made != "":
		return fmt.Errorf("%w, at %s: the request made %s, whose secret was shown then and is not stored", ErrDone, d.At.Format(time.RFC3339), d.Made)
	}
	return json.Unmarshal([]byte(d.Answer), out)
}
