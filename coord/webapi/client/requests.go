package client

import (
	"context"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// Requests returns the devices that ask to be let in. The list is not nil.
func (c *Client) Requests(ctx context.Context) ([]ops.Request, error) {
	var list webapi.RequestList
	err := c.call(ctx, "GET", "/requests", nil, nil, &list)
	return list.Requests, err
}

// Request returns the device that shows a code.
func (c *Client) Request(ctx context.Context, code string) (r ops.Request, err error) {
	return r, c.ofRequest(ctx, "GET", code, "", nil, &r)
}

// ApproveRequest lets in the device that shows a code. r.Code is not used.
func (c *Client) ApproveRequest(ctx context.Context, code string, r ops.ApproveRequest) (d ops.Device, err error) {
	return d, c.ofRequest(ctx, "POST", code, "/approve", r, &d)
}

// DenyRequest refuses a device, by its code or by its id in Requests.
func (c *Client) DenyRequest(ctx context.Context, word string) (r ops.Request, err error) {
	return r, c.ofRequest(ctx, "POST", word, "/deny", nil, &r)
}

func (c *Client) ofRequest(ctx context.Context, method, word, more string, in, out any) error {
	if err := named("request", word); err != nil {
		return err
	}
	return c.call(ctx, method, "/requests/"+segment(word)+more, nil, in, out)
}
