package client

import (
	"context"
	"strconv"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// KeyPage returns a page of keys.
func (c *Client) KeyPage(ctx context.Context, cursor string, limit int) (list webapi.KeyList, err error) {
	err = c.call(ctx, "GET", "/keys"+query("cursor", cursor, "limit", strconv.Itoa(limit)), nil, nil, &list)
	return list, err
}

// Keys returns all keys, newest first. The list is not nil.
func (c *Client) Keys(ctx context.Context) ([]store.Key, error) {
	return pages(func(cursor string) ([]store.Key, string, error) {
		page, err := c.KeyPage(ctx, cursor, 1000)
		return page.Keys, page.Next, err
	})
}

// Key returns one key.
func (c *Client) Key(ctx context.Context, id string) (k store.Key, err error) {
	if err := named("key", id); err != nil {
		return k, err
	}
	err = c.call(ctx, "GET", "/keys/"+segment(id), nil, nil, &k)
	return k, err
}

// CreateKey makes a key. Its life is rounded up to whole seconds.
func (c *Client) CreateKey(ctx context.Context, k ops.CreateKey) (made ops.KeyCreated, err error) {
	err = c.call(ctx, "POST", "/keys", nil, webapi.NewKey{CreateKey: k, LifeSeconds: wholeSeconds(k.Life)}, &made)
	return made, err
}

// RevokeKey makes a key useless.
func (c *Client) RevokeKey(ctx context.Context, id string) (k store.Key, err error) {
	if err := named("key", id); err != nil {
		return k, err
	}
	err = c.call(ctx, "POST", "/keys/"+segment(id)+"/revoke", nil, nil, &k)
	return k, err
}
