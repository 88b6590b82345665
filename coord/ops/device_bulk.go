package ops

import (
	"context"
	"errors"
	"slices"
	"sync"

	"weft/coord/store"
	"weft/overlay/cert"
)

// RetagDevice adds and removes tags of a device, and leaves its other tags as they are.
type RetagDevice struct {
	ID          cert.NodeID
	Add, Remove []string // with or without "tag:"
}

func (RetagDevice) operation() *Operation { return opDeviceAssign }

func (c RetagDevice) run(tx *Tx) (store.Node, error) {
	node, err := tx.device(c.ID)
	if err != nil {
		return node, err
	}
	remove, err := checkTags(c.Remove)
	if err != nil {
		return node, err
	}
	tags := slices.DeleteFunc(slices.Clone(node.Tags), func(t string) bool { return slices.Contains(remove, t) })
	tags = append(tags, c.Add...)
	return within(tx, AssignDevice{ID: c.ID, Tags: &tags})
}

// MaxDeviceChange is how many devices one ChangeDevices changes.
const MaxDeviceChange = 1000

// DeviceChange is a change to each of many devices. Exactly one field must be set.
type DeviceChange struct {
	AddTag, RemoveTag string
	User              string // the new owner
	Delete            bool
}

// command returns the command that makes the change to one device.
func (c DeviceChange) command(id cert.NodeID) (Command[store.Node], error) {
	n := 0
	for _, set := range []bool{c.AddTag != "", c.RemoveTag != "", c.User != "", c.Delete} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return nil, Invalid("name exactly one change: a tag to add, a tag to remove, a new owner, or deletion")
	case c.Delete:
		return DeleteDevice{id}, nil
	case c.User != "":
		return AssignDevice{ID: id, User: &c.User}, nil
	case c.AddTag != "":
		return RetagDevice{ID: id, Add: []string{c.AddTag}}, nil
	}
	return RetagDevice{ID: id, Remove: []string{c.RemoveTag}}, nil
}

// DeviceOutcome is the result of a change to one device.
type DeviceOutcome struct {
	ID   cert.NodeID
	Name string // "" if the actor may not see the device
	Err  error  // nil if the device was changed, or needed no change
}

// changesAtOnce is how many devices are changed at the same time. The store writes concurrent
// changes in one transaction, and one new revocation list serves all of them.
const changesAtOnce = 64

// ChangeDevices makes the same change to many devices, with a command for each: if one fails
// the others are changed nevertheless. Outcomes are in the order of ids, without duplicates. It
// does not stop when ctx ends, so that there is an outcome for each device.
func (s *Service) ChangeDevices(ctx context.Context, a Actor, ids []cert.NodeID, c DeviceChange) ([]DeviceOutcome, error) {
	if _, err := c.command(cert.NodeID{}); err != nil {
		return nil, err
	}
	had := make(map[cert.NodeID]bool, len(ids))
	var out []DeviceOutcome
	for _, id := range ids {
		if !had[id] {
			had[id] = true
			out = append(out, DeviceOutcome{ID: id})
		}
	}
	if len(out) > MaxDeviceChange {
		return nil, Invalid("at most %d devices can be changed at once, and these are %d", MaxDeviceChange, len(out))
	}
	ctx = context.WithoutCancel(ctx)
	next := make(chan *DeviceOutcome)
	var changing sync.WaitGroup
	for range min(changesAtOnce, len(out)) {
		changing.Go(func() {
			for o := range next {
				o.Name, o.Err = s.changeDevice(ctx, a, o.ID, c)
			}
		})
	}
	for i := range out {
		next <- &out[i]
	}
	close(next)
	changing.Wait()
	return out, nil
}

func (s *Service) changeDevice(ctx context.Context, a Actor, id cert.NodeID, c DeviceChange) (name string, err error) {
	command, err := c.command(id)
	if err != nil {
		return "", err
	}
	node, err := Do(ctx, s, a, command)
	if err == nil || errors.Is(err, ErrNotFound) && c.User == "" {
		return node.Name, err
	}
	if d, lost := s.Device(Passive(ctx), a, id.String()); lost == nil {
		name = d.Name
	}
	return name, err
}
