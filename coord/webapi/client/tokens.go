package client

import (
	"context"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// Tokens returns the tokens that the asker may see, newest first, of one service or ("")
// of all.
func (c *Client) Tokens(ctx context.Context, user string) ([]store.Token, error) {
	return pages(func(cursor string) ([]store.Token, string, error) {
		var list webapi.TokenList
		err := c.call(ctx, "GET", "/tokens"+query("user", user, "cursor", cursor, "limit", pageSize), nil, nil, &list)
		return list.Tokens, list.Next, err
	})
}

// CreateToken makes a token of a service. Its life is rounded up to whole seconds.
func (c *Client) CreateToken(ctx context.Context, t ops.CreateToken) (made ops.TokenCreated, err error) {
	err = c.call(ctx, "POST", "/tokens", nil, webapi.NewToken{CreateToken: t, LifeSeconds: wholeSeconds(t.Life)}, &made)
	return made, err
}

// RevokeToken makes a token useless at once.
func (c *Client) RevokeToken(ctx context.Context, id string) (t store.Token, err error) {
	if err := named("token", id); err != nil {
		return t, err
	}
	err = c.call(ctx, "POST", "/tokens/"+segment(id)+"/revoke", nil, nil, &t)
	return t, err
}
