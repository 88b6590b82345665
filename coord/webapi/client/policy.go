package client

import (
	"context"
	"strconv"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// Policy returns the policy as it was written.
func (c *Client) Policy(ctx context.Context) (p ops.PolicyText, err error) {
	err = c.call(ctx, "GET", "/policy", nil, nil, &p)
	return p, err
}

// SetPolicy puts a policy into force, "" for the starting one: if match is not nil,
// only in the place of one of these revisions (ops.PolicyText.Revision).
func (c *Client) SetPolicy(ctx context.Context, text string, match []string) (p ops.PolicyText, err error) {
	err = c.call(ctx, "PUT", "/policy", ifMatch(match), webapi.NewPolicy{Text: text}, &p)
	return p, err
}

// CheckPolicy says what would come of a policy, or what is wrong with it, and changes
// nothing. match is as of SetPolicy. All that is wrong is in *webapi.Problem.
func (c *Client) CheckPolicy(ctx context.Context, text string, match []string) (r ops.PolicyCheck, err error) {
	err = c.call(ctx, "POST", "/policy/check", ifMatch(match), webapi.NewPolicy{Text: text}, &r)
	return r, err
}

// CanReach says whether one may reach another.
func (c *Client) CanReach(ctx context.Context, q ops.AccessQuery) (a ops.Access, err error) {
	err = c.call(ctx, "GET", "/policy/can"+query("from", q.From, "to", q.To), nil, nil, &a)
	return a, err
}

// PolicyHistory lists the policies that were in force, the newest first.
func (c *Client) PolicyHistory(ctx context.Context) ([]store.PolicyRevision, error) {
	var list webapi.PolicyHistory
	err := c.call(ctx, "GET", "/policy/history", nil, nil, &list)
	return list.Policies, err
}

// FormerPolicy returns one of them as it was written.
func (c *Client) FormerPolicy(ctx context.Context, number int) (p ops.PolicyText, err error) {
	err = c.call(ctx, "GET", "/policy/history/"+strconv.Itoa(number), nil, nil, &p)
	return p, err
}

// RevertPolicy puts one of them into force again. match is as of SetPolicy.
func (c *Client) RevertPolicy(ctx context.Context, number int, match []string) (p ops.PolicyText, err error) {
	err = c.call(ctx, "POST", "/policy/revert", ifMatch(match), webapi.Revert{Number: number}, &p)
	return p, err
}
