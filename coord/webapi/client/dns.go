package client

import (
	"context"

	"weft/coord/ops"
)

// DNS returns all DNS settings.
func (c *Client) DNS(ctx context.Context) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "GET", "/dns", nil, nil, &i)
	return i, err
}

// EditDNS changes DNS settings, and returns all of them. If match is not nil, only if
// the present revision (ops.DNSInfo.Revision) is one of these.
func (c *Client) EditDNS(ctx context.Context, e ops.DNSEdit, match []string) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "PATCH", "/dns", ifMatch(match), e, &i)
	return i, err
}

// PreviewName says what a name will answer. From is a device's name, address or id.
func (c *Client) PreviewName(ctx context.Context, q ops.PreviewQuery) (p ops.Preview, err error) {
	err = c.call(ctx, "GET", "/dns/preview"+query("name", q.Name, "type", q.Type, "from", q.From), nil, nil, &p)
	return p, err
}
