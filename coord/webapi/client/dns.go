package client

import (
	"context"

	"weft/coord/ops"
)

// DNS returns everything that is set about names.
func (c *Client) DNS(ctx context.Context) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "GET", "/dns", nil, nil, &i)
	return i, err
}

// EditDNS changes what is set about names, and returns all of it: if match is not nil,
// only one of these revisions (ops.DNSInfo.Revision).
func (c *Client) EditDNS(ctx context.Context, e ops.DNSEdit, match []string) (i ops.DNSInfo, err error) {
	err = c.call(ctx, "PATCH", "/dns", ifMatch(match), e, &i)
	return i, err
}

// PreviewName says what a name will answer. From is a device's name, address or id.
func (c *Client) PreviewName(ctx context.Context, q ops.PreviewQuery) (p ops.Preview, err error) {
	err = c.call(ctx, "GET", "/dns/preview"+query("name", q.Name, "type", q.Type, "from", q.From), nil, nil, &p)
	return p, err
}
