package client

import (
	"context"
	"net/http"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// Users returns the users that the asker may see, by name.
func (c *Client) Users(ctx context.Context) ([]webapi.User, error) {
	return pages(func(cursor string) ([]webapi.User, string, error) {
		var list webapi.UserList
		err := c.call(ctx, "GET", "/users"+query("cursor", cursor, "limit", pageSize), nil, nil, &list)
		return list.Users, list.Next, err
	})
}

// User finds a user by name or id.
func (c *Client) User(ctx context.Context, name string) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "GET", name, nil, nil, &u)
}

func (c *Client) ofUser(ctx context.Context, method, name string, header http.Header, in any, u *webapi.User) error {
	if err := named("user", name); err != nil {
		return err
	}
	return c.call(ctx, method, "/users/"+segment(name), header, in, u)
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, u ops.CreateUser) (made webapi.User, err error) {
	err = c.call(ctx, "POST", "/users", nil, u, &made)
	return made, err
}

// EditUser changes what a user may do. With e.Match, only if the present revision
// (webapi.User.Revision) is one of these. e.Name is not used.
func (c *Client) EditUser(ctx context.Context, name string, e ops.EditUser) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "PATCH", name, ifMatch(e.Match), e, &u)
}

// DeleteUser deletes a user, by name or id, without devices and keys.
func (c *Client) DeleteUser(ctx context.Context, name string) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "DELETE", name, nil, nil, &u)
}

// LoginLink makes a sign-in link for a user, "" for the network's owner.
func (c *Client) LoginLink(ctx context.Context, user string) (string, error) {
	var l webapi.Link
	err := c.call(ctx, "POST", "/login-links", nil, webapi.NewLink{User: user}, &l)
	return l.URL, err
}
