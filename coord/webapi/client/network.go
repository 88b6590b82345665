package client

import (
	"context"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// Relays returns all relays, the server's own first.
func (c *Client) Relays(ctx context.Context) ([]ops.RelayInfo, error) {
	return pages(func(cursor string) ([]ops.RelayInfo, string, error) {
		var list webapi.RelayList
		err := c.call(ctx, "GET", "/relays"+query("cursor", cursor, "limit", pageSize), nil, nil, &list)
		return list.Relays, list.Next, err
	})
}

// DeleteRelay removes a relay, by name or id, and returns its last state.
func (c *Client) DeleteRelay(ctx context.Context, name string) (r ops.RelayInfo, err error) {
	if err := named("relay", name); err != nil {
		return r, err
	}
	err = c.call(ctx, "DELETE", "/relays/"+segment(name), nil, nil, &r)
	return r, err
}

// Revocations says how full the revocation list is.
func (c *Client) Revocations(ctx context.Context) (r ops.Revocations, err error) {
	err = c.call(ctx, "GET", "/network/revocations", nil, nil, &r)
	return r, err
}

// FIPS says whether the server is in FIPS 140-3 mode.
func (c *Client) FIPS(ctx context.Context) (f ops.FIPS, err error) {
	err = c.call(ctx, "GET", "/network/fips", nil, nil, &f)
	return f, err
}

// Snapshot writes a consistent copy of the database into the data directory while the
// server goes on, and returns its path; the caller removes it.
func (c *Client) Snapshot(ctx context.Context) (string, error) {
	var s webapi.Snapshot
	err := c.call(ctx, "POST", "/snapshots", nil, nil, &s)
	return s.Path, err
}
