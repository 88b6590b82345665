package webapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

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
			list, err := pageOfKeys(keys, in.Cursor, in.Limit)
			return list, err
		})
	add(a, operation{"GET", "/keys/{id}", "getKey", "Show a join key, without its token", "key.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.Key, error) {
			return s.Key(ctx, who, in.ID)
		})
	addSent(a, operation{"POST", "/keys", "createKey", "Make a join key; its token is in the answer, this once", "key.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body NewKey) (ops.KeyCreated, error) {
			c := body.CreateKey
			if body.LifeSeconds != nil {
				// What is far out of range stays so, and does not wrap around.
				c.Life = cmp.Or(time.Duration(min(max(*body.LifeSeconds, -1), 1e9))*time.Second, -1)
			}
			return ops.Do(ctx, s, who, c)
		})
	add(a, operation{"POST", "/keys/{id}/revoke", "revokeKey", "Make a key useless; devices that joined with it stay", "key.revoke", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.Key, error) {
			return ops.Do(ctx, s, who, ops.RevokeKey{ID: in.ID})
		})
}

// pageOfKeys takes a page of keys that are in the order of the list. The cursor says
// where the last key stood, so that it may be gone by now.
func pageOfKeys(keys []store.Key, cursor string, limit int) (KeyList, error) {
	if cursor != "" {
		var at int64
		var id string
		if _, err := fmt.Sscanf(cursor, "%d.%s", &at, &id); err != nil {
			return KeyList{}, ops.Invalid("cursor: want next of the page before")
		}
		i := slices.IndexFunc(keys, func(k store.Key) bool {
			return cmp.Or(cmp.Compare(at, k.Created.Unix()), cmp.Compare(k.ID, id)) > 0
		})
		if i < 0 {
			i = len(keys)
		}
		keys = keys[i:]
	}
	if len(keys) <= limit {
		return KeyList{Keys: append([]store.Key{}, keys...)}, nil
	}
	last := keys[limit-1]
	return KeyList{Keys: keys[:limit], Next: fmt.Sprintf("%d.%s", last.Created.Unix(), last.ID)}, nil
}
