package webapi

import (
	"context"
	"net/http"

	"weft/coord/ops"
	"weft/coord/store"
)

// NewKey asks for a join key.
type NewKey struct {
	ops.CreateKey
	// LifeSeconds is how long it can be used, nil for a day.
	LifeSeconds *int64 `json:"life_seconds,omitempty" doc:"how long it can be used, 60 to 31622400; a day if not given"`
}

// KeyList is one page of keys, newest first.
type KeyList struct {
	Keys []store.Key `json:"keys"`
	Next string      `json:"next"` // cursor of the next page, "" at the end
}

func (a *api) keys() {
	s := a.ops
	addAsked(a, operation{"GET", "/keys", "listKeys", "List join keys, newest first, without their tokens", "key.read", 0}, "cursor limit",
		func(ctx context.Context, who ops.Actor, in *Asked) (KeyList, error) {
			keys, err := s.Keys(ctx, who, 0)
			if err != nil {
				return KeyList{}, err
			}
			list := KeyList{}
			list.Keys, list.Next, err = page(keys, in, newestFirst, func(k store.Key) (int64, string) { return k.Created.Unix(), k.ID })
			return list, err
		})
	add(a, operation{"GET", "/keys/{id}", "getKey", "Show a join key, without its token", "key.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.Key, error) {
			return s.Key(ctx, who, in.ID)
		})
	addSent(a, operation{"POST", "/keys", "createKey", "Create a join key; only this answer contains its token", "key.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body NewKey) (ops.KeyCreated, error) {
			c := body.CreateKey
			c.Life = lifeOf(body.LifeSeconds)
			return do(ctx, a, who, c, same)
		})
	add(a, operation{"POST", "/keys/{id}/revoke", "revokeKey", "Revoke a join key; devices that joined with it stay", "key.revoke", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.Key, error) {
			return do(ctx, a, who, ops.RevokeKey{ID: in.ID}, same)
		})
}
