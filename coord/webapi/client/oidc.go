package client

import (
	"context"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// Providers returns where else people sign in.
func (c *Client) Providers(ctx context.Context) ([]webapi.Provider, error) {
	var list webapi.ProviderList
	err := c.call(ctx, "GET", "/oidc-providers", nil, nil, &list)
	return list.Providers, err
}

// Provider returns one provider.
func (c *Client) Provider(ctx context.Context, id string) (p webapi.Provider, err error) {
	if err := named("provider", id); err != nil {
		return p, err
	}
	err = c.call(ctx, "GET", "/oidc-providers/"+segment(id), nil, nil, &p)
	return p, err
}

// CreateProvider has people sign in at an OpenID provider, whose id is p.ID.
func (c *Client) CreateProvider(ctx context.Context, p ops.SetProvider) (made webapi.Provider, err error) {
	err = c.call(ctx, "POST", "/oidc-providers", nil, webapi.NewProvider{ID: p.ID, SetProvider: p}, &made)
	return made, err
}

// EditProvider changes the provider p.ID.
func (c *Client) EditProvider(ctx context.Context, p ops.SetProvider) (now webapi.Provider, err error) {
	if err := named("provider", p.ID); err != nil {
		return now, err
	}
	err = c.call(ctx, "PATCH", "/oidc-providers/"+segment(p.ID), ifMatch(p.Match), p, &now)
	return now, err
}

// DeleteProvider removes a provider.
func (c *Client) DeleteProvider(ctx context.Context, id string) (p webapi.Provider, err error) {
	if err := named("provider", id); err != nil {
		return p, err
	}
	err = c.call(ctx, "DELETE", "/oidc-providers/"+segment(id), nil, nil, &p)
	return p, err
}

// Identities returns who people are at providers, those first who wait for approval.
func (c *Client) Identities(ctx context.Context) ([]store.Identity, error) {
	var list webapi.IdentityList
	err := c.call(ctx, "GET", "/identities", nil, nil, &list)
	return list.Identities, err
}

// ApproveIdentity approves a person who waits, as a user ("" for a new user with a name like
// the one at the provider).
func (c *Client) ApproveIdentity(ctx context.Context, id, user string) (i store.Identity, err error) {
	if err := named("identity", id); err != nil {
		return i, err
	}
	err = c.call(ctx, "POST", "/identities/"+segment(id)+"/approve", nil, ops.ApproveIdentity{User: user}, &i)
	return i, err
}

// DenyIdentity forgets somebody.
func (c *Client) DenyIdentity(ctx context.Context, id string) (i store.Identity, err error) {
	if err := named("identity", id); err != nil {
		return i, err
	}
	err = c.call(ctx, "DELETE", "/identities/"+segment(id), nil, nil, &i)
	return i, err
}
