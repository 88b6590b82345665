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

// ErrDone says that the same request ran its command before, and that the answer
// contained a secret, so it was not saved and cannot be repeated.
var ErrDone = errors.New("done already")

// Once makes all requests with the same key run their command once.
type Once struct {
	Key     string   // "" for no such thing
	Request [32]byte // hash of all that was asked
}

// stored is once as the database has it: a request may contain a secret that is short
// enough to be guessed from its hash.
func (s *Service) stored(once Once) (Once, error) {
	key, err := s.auth.Secret("weft-idempotency/1", nil)
	if err == nil {
		h := hmac.New(sha256.New, key)
		h.Write(once.Request[:])
		h.Sum(once.Request[:0])
	}
	return once, err
}

// maker is implemented by answers that contain a secret: Made says what was made, for
// people.
type maker interface{ Made() string }

// DoOnce is Do for requests that may be repeated. It makes the answer with view, which
// is called inside the transaction if there is a key, and saves the answer together
// with the change: for a day, and for the last 1,000 keys of each user. The same
// request with the same key gets the same answer, or ErrDone if that contained a
// secret; a different request with the same key gets ErrInvalid. Failures are not
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

// answered reads the answer of a request whose command ran before into out, which is a
// pointer, and reports whether one did.
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

// save saves the answer of a request whose command ran.
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

// Again answers a request whose command ran before, into out; ErrNotFound if none ran.
// It is for requests that fail before they reach DoOnce because the thing that they are
// about does not exist any more. operation is a name in Operations.
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

// again answers for what was done. The actor must still be one who does such things.
func again(o *Operation, a Actor, once Once, d store.Done, out any) error {
	if err := o.asks(a); err != nil {
		return err
	}
	switch {
	case d.Request != once.Request:
		return Invalid("the idempotency key was used for another request at %s; take a new one for each", d.At.Format(time.RFC3339))
	case d.Made != "":
		return fmt.Errorf("%w, at %s: it made %s, whose secret was shown then and is kept nowhere", ErrDone, d.At.Format(time.RFC3339), d.Made)
	}
	return json.Unmarshal([]byte(d.Answer), out)
}
