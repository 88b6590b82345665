package client

import (
	"context"
	"net/http"
	"strconv"

	"weft/coord/ops"
	"weft/coord/webapi"
)

// DevicePage returns a page of devices. Offset is not used.
func (c *Client) DevicePage(ctx context.Context, q ops.DeviceQuery) (list ops.DeviceList, err error) {
	limit := ""
	if q.Limit != 0 {
		limit = strconv.Itoa(q.Limit)
	}
	err = c.call(ctx, "GET", "/devices"+query("filter", q.Filter, "sort", q.Sort, "text", q.Text, "state", q.State, "key", q.KeyID, "cursor", q.After, "limit", limit), nil, nil, &list)
	return list, err
}

// Devices returns all devices that q selects, by name. The list is not nil.
func (c *Client) Devices(ctx context.Context, q ops.DeviceQuery) ([]ops.Device, error) {
	all := []ops.Device{}
	for q.Limit = 5000; ; {
		page, err := c.DevicePage(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Devices...)
		if q.After = page.Next; q.After == "" {
			return all, nil
		}
	}
}

// Device finds a device by name, address or id.
func (c *Client) Device(ctx context.Context, name string) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "GET", name, "", nil, nil, &d)
}

func (c *Client) ofDevice(ctx context.Context, method, name, more string, header http.Header, in any, d *ops.Device) error {
	if err := named("device", name); err != nil {
		return err
	}
	return c.call(ctx, method, "/devices/"+segment(name)+more, header, in, d)
}

// EditDevice renames a device, gives it other tags or another owner, and changes its DNS
// settings. With e.Match, only if the
// present revision (ops.Device.Revision) is one of these. e.ID is not used.
func (c *Client) EditDevice(ctx context.Context, name string, e ops.EditDevice) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "PATCH", name, "", ifMatch(e.Match), e, &d)
}

// DeleteDevice deletes a device and returns its last state.
func (c *Client) DeleteDevice(ctx context.Context, name string) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "DELETE", name, "", nil, nil, &d)
}

// ReplaceDevice deletes the device name and gives its name to the device by.
func (c *Client) ReplaceDevice(ctx context.Context, name, by string) (d ops.Device, err error) {
	return d, c.ofDevice(ctx, "POST", name, "/replace", nil, webapi.NewDevice{By: by}, &d)
}
