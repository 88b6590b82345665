package webapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"weft/coord/ops"
)

// Requests that are repeated because an answer was lost: a POST with a header
// Idempotency-Key is done once for that key. See ops.DoOnce.

const (
	onceHeader = "Idempotency-Key"
	maxOnce    = 100 // bytes
)

type onceKey struct{}

// withOnce notes the idempotency key of a request, and a hash of its path and query.
func withOnce(r *http.Request) (*http.Request, *Problem) {
	keys := r.Header.Values(onceHeader)
	if len(keys) == 0 || r.Method != http.MethodPost {
		return r, nil
	}
	key := keys[0]
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			key = ""
		}
	}
	if len(keys) > 1 || key == "" || len(key) > maxOnce {
		return r, &Problem{Status: http.StatusBadRequest, Code: codeInvalid, Detail: fmt.Sprintf("%s: want one word of at most %d characters, such as a UUID", onceHeader, maxOnce)}
	}
	o := ops.Once{Key: key, Request: sha256.Sum256([]byte(r.URL.RequestURI()))}
	return r.WithContext(context.WithValue(r.Context(), onceKey{}, o)), nil
}

// withBody adds the body to the hash of a request with a key.
func withBody(ctx context.Context, body []byte) context.Context {
	o, ok := ctx.Value(onceKey{}).(ops.Once)
	if !ok {
		return ctx
	}
	o.Request = sha256.Sum256(append(o.Request[:], body...))
	return context.WithValue(ctx, onceKey{}, o)
}

// do runs a command for a request; if the request has a key, once for that key. view
// makes the answer.
func do[R, O any](ctx context.Context, a *api, who ops.Actor, c ops.Command[R], view func(R) O) (O, error) {
	o, _ := ctx.Value(onceKey{}).(ops.Once)
	return ops.DoOnce(ctx, a.ops, who, o, c, view)
}

// again answers a repeated request with the answer from before if the request fails
// this time because it was done before: the thing that it names was renamed or deleted.
func (a *api) again(ctx context.Context, o operation, is types, who ops.Actor, out any, err error) (any, error) {
	once, ok := ctx.Value(onceKey{}).(ops.Once)
	if err == nil || !ok {
		return out, err
	}
	before := reflect.New(is.answer)
	row, _, _ := strings.Cut(o.does, " ")
	if e := a.ops.Again(ctx, who, row, once, before.Interface()); !errors.Is(e, ops.ErrNotFound) {
		return before.Elem().Interface(), e
	}
	return out, err
}

// same is a view that changes nothing.
func same[R any](r R) R { return r }
