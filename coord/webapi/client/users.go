package client

import (
	"context"
	"net/http"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// Users returns the users that the asker may see, by name.
func (c *Client) Users(ctx context.Context) ([]webapi.UserRow, error) {
	return pages(func(cursor string) ([]webapi.UserRow, string, error) {
		var list webapi.UserList
		err := c.call(ctx, "GET", "/users"+query("cursor", cursor, "limit", pageSize), nil, nil, &list)
		return list.Users, list.Next, err
	})
}

// User finds a user by name or id.
func (c *Client) User(ctx context.Context, name string) (u webapi.UserRow, err error) {
	return u, c.ofUser(ctx, "GET", name, "", nil, nil, &u)
}

// ofUser asks for something about a user: rest is what follows its name in the path.
func (c *Client) ofUser(ctx context.Context, method, name, rest string, header http.Header, in, u any) error {
	if err := named("user", name); err != nil {
		return err
	}
	return c.call(ctx, method, "/users/"+segment(name)+rest, header, in, u)
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, u ops.CreateUser) (made webapi.User, err error) {
	err = c.call(ctx, "POST", "/users", nil, u, &made)
	return made, err
}

// EditUser changes what a user may do. With e.Match, only if the present revision
// (webapi.User.Revision) is one of these. e.Name is not used.
func (c *Client) EditUser(ctx context.Context, name string, e ops.EditUser) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "PATCH", name, "", ifMatch(e.Match), e, &u)
}

// SuspendUser has a user, by name or id, do nothing until it is resumed.
func (c *Client) SuspendUser(ctx context.Context, name string) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "POST", name, "/suspend", nil, nil, &u)
}

// ResumeUser ends the suspension of a user, by name or id.
func (c *Client) ResumeUser(ctx context.Context, name string) (u webapi.User, err error) {
	return u, c.ofUser(ctx, "POST", name, "/resume", nil, nil, &u)
}

// DeleteUser deletes the user d.Name (or id).
func (c *Client) DeleteUser(ctx context.Context, d ops.DeleteUser) (u webapi.DeletedUser, err error) {
	all := ""
	if d.DeleteDevices {
		all = "true"
	}
	return u, c.ofUser(ctx, "DELETE", d.Name, query("devices_to", d.DevicesTo, "delete_devices", all), nil, nil, &u)
}

// InviteUser makes an invitation. Its life is rounded up to whole seconds.
func (c *Client) InviteUser(ctx context.Context, u ops.InviteUser) (made webapi.Invitation, err error) {
	err = c.call(ctx, "POST", "/invitations", nil, webapi.NewInvitation{InviteUser: u, LifeSeconds: wholeSeconds(u.Life)}, &made)
	return made, err
}

// RevokeInvitation ends the invitation of a user, by name or id.
func (c *Client) RevokeInvitation(ctx context.Context, name string) (u webapi.User, err error) {
	if err := named("user", name); err != nil {
		return u, err
	}
	err = c.call(ctx, "DELETE", "/invitations/"+segment(name), nil, nil, &u)
	return u, err
}

// LoginLink makes a sign-in link for a user, "" for the network's owner.
func (c *Client) LoginLink(ctx context.Context, user string) (string, error) {
	var l webapi.Link
	err := c.call(ctx, "POST", "/login-links", nil, webapi.NewLink{User: user}, &l)
	return l.URL, err
}
