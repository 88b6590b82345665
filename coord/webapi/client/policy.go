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

// SetPolicy puts a policy into force, "" for the starting policy. If match is not nil,
// only if the revision of the policy in force (ops.PolicyText.Revision) is one of
// these.
func (c *Client) SetPolicy(ctx context.Context, text string, match []string) (p ops.PolicyText, err error) {
	err = c.call(ctx, "PUT", "/policy", ifMatch(match), webapi.NewPolicy{Text: text}, &p)
	return p, err
}

// CheckPolicy says what a policy would change, or what is wrong with it, and changes
// nothing. match is as for SetPolicy. An error is a *webapi.Problem with all mistakes.
func (c *Client) CheckPolicy(ctx context.Context, text string, match []string) (r ops.PolicyCheck, err error) {
	err = c.call(ctx, "POST", "/policy/check", ifMatch(match), webapi.NewPolicy{Text: text}, &r)
	return r, err
}

// CanReach says whether a person or a device may reach a port of a device.
func (c *Client) CanReach(ctx context.Context, q ops.AccessQuery) (a ops.Access, err error) {
	err = c.call(ctx, "GET", "/policy/can"+query("from", q.From, "to", q.To), nil, nil, &a)
	return a, err
}

// Reach says all that a person or a device reaches, or all who reach a device: one page.
func (c *Client) Reach(ctx context.Context, q ops.ReachQuery) (r ops.Reach, err error) {
	limit := ""
	if q.Limit != 0 {
		limit = strconv.Itoa(q.Limit)
	}
	err = c.call(ctx, "GET", "/policy/reach"+query("from", q.From, "to", q.To, "cursor", q.Cursor, "limit", limit), nil, nil, &r)
	return r, err
}

// PolicyHistory lists the policies that were in force, the newest first.
func (c *Client) PolicyHistory(ctx context.Context) ([]store.PolicyRevision, error) {
	var list webapi.PolicyHistory
	err := c.call(ctx, "GET", "/policy/history", nil, nil, &list)
	return list.Policies, err
}

// FormerPolicy returns a policy of the history with its text.
func (c *Client) FormerPolicy(ctx context.Context, number int) (p ops.PolicyText, err error) {
	err = c.call(ctx, "GET", "/policy/history/"+strconv.Itoa(number), nil, nil, &p)
	return p, err
}

// RevertPolicy puts a policy of the history into force again. match is as for
// SetPolicy.
func (c *Client) RevertPolicy(ctx context.Context, number int, match []string) (p ops.PolicyText, err error) {
	err = c.call(ctx, "POST", "/policy/revert", ifMatch(match), webapi.Revert{Number: number}, &p)
	return p, err
}
