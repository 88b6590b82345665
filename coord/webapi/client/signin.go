package client

import (
	"context"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// SignIn returns what is demanded of who signs in to the console.
func (c *Client) SignIn(ctx context.Context) (s webapi.SignIn, err error) {
	err = c.call(ctx, "GET", "/sign-in", nil, nil, &s)
	return s, err
}

// SetSignIn changes what is demanded of who signs in to the console.
func (c *Client) SetSignIn(ctx context.Context, in ops.SetSignIn) (s webapi.SignIn, err error) {
	err = c.call(ctx, "PATCH", "/sign-in", ifMatch(in.Match), in, &s)
	return s, err
}

// ResetSecondFactor takes from a user, by name or id, what is asked for beside the
// password.
func (c *Client) ResetSecondFactor(ctx context.Context, name string) (u webapi.User, err error) {
	if err := named("user", name); err != nil {
		return u, err
	}
	err = c.call(ctx, "DELETE", "/users/"+segment(name)+"/second-factor", nil, nil, &u)
	return u, err
}
