package webapi

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

// NewToken asks for a token of a service.
type NewToken struct {
	ops.CreateToken
	// LifeSeconds is how long it can be used, nil for 90 days.
	LifeSeconds *int64 `json:"life_seconds,omitempty" doc:"how long it can be used, 60 to 31622400; 90 days if not given"`
}

// TokenList is one page of tokens, newest first.
type TokenList struct {
	Tokens []store.Token `json:"tokens"`
	Next   string        `json:"next"` // cursor of the next page, "" at the end
}

func (a *api) tokens() {
	s := a.ops
	addAsked(a, operation{"GET", "/tokens", "listTokens", "List the tokens of services, newest first, without their secrets", "token.read", 0}, "cursor limit user",
		func(ctx context.Context, who ops.Actor, in *Asked) (TokenList, error) {
			tokens, err := s.Tokens(ctx, who, in.User)
			if err != nil {
				return TokenList{}, err
			}
			list := TokenList{}
			list.Tokens, list.Next, err = page(tokens, in, newestFirst, func(t store.Token) (int64, string) { return t.Created.Unix(), t.ID })
			return list, err
		})
	addSent(a, operation{"POST", "/tokens", "createToken", "Create a token for a service; only this answer contains it", "token.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body NewToken) (ops.TokenCreated, error) {
			c := body.CreateToken
			c.Life = lifeOf(body.LifeSeconds)
			return do(ctx, a, who, c, same)
		})
	add(a, operation{"POST", "/tokens/{id}/revoke", "revokeToken", "Revoke a token at once", "token.revoke", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.Token, error) {
			return do(ctx, a, who, ops.RevokeToken{ID: in.ID}, same)
		})
}

// lifeOf converts seconds to a life. A value far out of range stays out of range and
// does not wrap around; 0 is refused, and is not the default.
func lifeOf(seconds *int64) time.Duration {
	if seconds == nil {
		return 0
	}
	return cmp.Or(time.Duration(min(max(*seconds, -1), 1e9))*time.Second, -1)
}
