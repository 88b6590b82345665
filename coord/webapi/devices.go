package webapi

import (
	"context"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/overlay/cert"
)

// NewDevice names the device that replaces the one in the path.
type NewDevice struct {
	By string `json:"by" required:"true" doc:"name, address or id"`
}

func (a *api) devices() {
	s := a.ops
	addAsked(a, operation{"GET", "/devices", "listDevices", "List devices, by name unless another order is asked for", "device.read", 0}, "cursor limit filter sort text state key",
		func(ctx context.Context, who ops.Actor, in *Asked) (ops.DeviceList, error) {
			list, err := s.Devices(ctx, who, ops.DeviceQuery{Filter: in.Filter, Sort: in.Sort, Text: in.Text, State: in.State, KeyID: in.Key, After: in.Cursor, Limit: in.Limit})
			list.Devices = append([]ops.Device{}, list.Devices...)
			return list, err
		})
	add(a, operation{"GET", "/devices/{id}", "getDevice", "Show a device", "device.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Device, error) {
			return s.Device(ctx, who, in.ID)
		})
	addSent(a, operation{"PATCH", "/devices/{id}", "editDevice", "Change the name, tags, owner or DNS settings of a device", "device.rename device.assign device.dns", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, c ops.EditDevice) (ops.Device, error) {
			match, err := in.revisions()
			if err != nil {
				return ops.Device{}, err
			}
			return a.change(ctx, who, in.ID, func(id cert.NodeID) ops.Command[store.Node] {
				c.ID, c.Match = id, match
				return c
			})
		})
	add(a, operation{"DELETE", "/devices/{id}", "deleteDevice", "Delete a device and revoke its certificates", "device.delete", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Device, error) {
			return a.change(ctx, who, in.ID, func(id cert.NodeID) ops.Command[store.Node] { return ops.DeleteDevice{ID: id} })
		})
	addSent(a, operation{"POST", "/devices/{id}/replace", "replaceDevice", "Delete a device and give its name to another one", "device.replace", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, body NewDevice) (ops.Device, error) {
			match, err := in.revisions()
			if err != nil {
				return ops.Device{}, err
			}
			old, err := s.DeviceToChange(ctx, who, in.ID)
			if err != nil {
				return ops.Device{}, err
			}
			return a.change(ctx, who, body.By, func(id cert.NodeID) ops.Command[store.Node] { return ops.ReplaceDevice{Old: old, By: id, Match: match} })
		})
}

// change runs a command about the device with a name, address or id.
func (a *api) change(ctx context.Context, who ops.Actor, name string, c func(cert.NodeID) ops.Command[store.Node]) (ops.Device, error) {
	id, err := a.ops.DeviceToChange(ctx, who, name)
	if err != nil {
		return ops.Device{}, err
	}
	return do(ctx, a, who, c(id), a.ops.View)
}
