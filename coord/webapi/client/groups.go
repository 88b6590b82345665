package client

import (
	"context"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// Groups returns the groups of people with their members, by name.
func (c *Client) Groups(ctx context.Context) ([]webapi.Group, error) {
	var list webapi.GroupList
	err := c.call(ctx, "GET", "/groups", nil, nil, &list)
	return list.Groups, err
}

// Group finds a group by name.
func (c *Client) Group(ctx context.Context, name string) (g webapi.Group, err error) {
	if err := named("group", name); err != nil {
		return g, err
	}
	return g, c.call(ctx, "GET", "/groups/"+segment(name), nil, nil, &g)
}

// CreateGroup makes a group.
func (c *Client) CreateGroup(ctx context.Context, name string) (g webapi.Group, err error) {
	return g, c.call(ctx, "POST", "/groups", nil, ops.CreateGroup{Name: name}, &g)
}

// EditGroup puts people into the group e.Name and takes others out. With e.Match, only if the
// present revision (webapi.Group.Revision) is one of these.
func (c *Client) EditGroup(ctx context.Context, e ops.EditGroup) (g webapi.Group, err error) {
	if err := named("group", e.Name); err != nil {
		return g, err
	}
	return g, c.call(ctx, "PATCH", "/groups/"+segment(e.Name), ifMatch(e.Match), e, &g)
}

// DeleteGroup deletes a group.
func (c *Client) DeleteGroup(ctx context.Context, name string) (g webapi.Group, err error) {
	if err := named("group", name); err != nil {
		return g, err
	}
	return g, c.call(ctx, "DELETE", "/groups/"+segment(name), nil, nil, &g)
}
