package ops

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weft/overlay/cert"
)

// Nobody touches another user's things, and nothing says that they exist.
func TestMembersAreSeparate(t *testing.T) {
	s := openSite(t)
	bob, alice := s.member("bob"), s.member("alice")
	laptop := s.joined(CreateKey{UserID: alice.UserID}, "laptop")
	keys, err := s.Keys(t.Context(), alice, 1)
	if err != nil {
		t.Fatal(err)
	}
	bobs := s.joined(CreateKey{UserID: bob.UserID}, "bobs")
	id, key := laptop.id, keys[0].ID
	session := s.signedIn(alice, "s")
	do := func(a Actor, c Command[struct{}]) error { _, err := Do(t.Context(), s.Service, a, c); return err }
	off := false
	for name, f := range map[string]func() error{
		"device": func() error { _, err := s.Device(t.Context(), bob, id.String()); return err },
		"named":  func() error { _, err := s.Device(t.Context(), bob, "laptop"); return err },
		"to change": func() error {
			_, err := s.DeviceToChange(t.Context(), bob, "laptop")
			return err
		},
		"rename": func() error { _, err := Do(t.Context(), s.Service, bob, RenameDevice{id, "x"}); return err },
		"delete": func() error { _, err := Do(t.Context(), s.Service, bob, DeleteDevice{id}); return err },
		"names": func() error {
			_, err := Do(t.Context(), s.Service, bob, SetDeviceDNS{id, DeviceDNS{Wildcard: &off}})
			return err
		},
		"replace": func() error {
			_, err := Do(t.Context(), s.Service, bob, ReplaceDevice{Old: id, By: bobs.id})
			return err
		},
		"replaced": func() error {
			_, err := Do(t.Context(), s.Service, alice, ReplaceDevice{Old: bobs.id, By: id})
			return err
		},
		"test":   func() error { _, err := s.TestConnection(t.Context(), bob, id); return err },
		"key":    func() error { _, err := s.Key(t.Context(), bob, key); return err },
		"revoke": func() error { _, err := Do(t.Context(), s.Service, bob, RevokeKey{key}); return err },
		"a key for": func() error {
			_, err := Do(t.Context(), s.Service, bob, CreateKey{UserID: alice.UserID})
			return err
		},
		"session":   func() error { return do(bob, EndSession{session}) },
		"a sign-in": func() error { return s.signIn(Actor{UserID: "nobody", Role: RoleMember, Via: ViaConsole}, "x") },
		"no id":     func() error { _, err := s.Device(t.Context(), alice, cert.NodeID{}.String()); return err },
		"no owner": func() error {
			_, err := s.Device(t.Context(), Actor{Role: RoleMember, Via: ViaConsole}, id.String())
			return err
		},
	} {
		if err := f(); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, user := range []string{"alice", "nosuch"} { // there is one, and there is not
		_, err := Do(t.Context(), s.Service, bob, CreateKey{User: user})
		if want := fmt.Sprintf("user %q: not found", user); err == nil || err.Error() != want {
			t.Errorf("a key for %s: %v, want %s", user, err, want)
		}
	}
	for name, f := range map[string]func() error{
		"dns":      func() error { _, err := s.ShowDNS(t.Context(), bob); return err },
		"preview":  func() error { _, err := s.Preview(t.Context(), bob, PreviewQuery{Name: "laptop"}); return err },
		"edit dns": func() error { return do(bob, EditDNS{}) },
		"nobody":   func() error { _, err := s.Devices(t.Context(), Actor{}, DeviceQuery{}); return err },
	} {
		if err := f(); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := s.Devices(t.Context(), bob, DeviceQuery{Limit: 10})
	if err != nil || list.All != 1 || list.Total != 1 || len(list.Devices) != 1 || list.Devices[0].Name != "bobs" {
		t.Errorf("%+v, %v", list, err)
	}
	for _, text := range []string{"laptop", laptop.res.Config.Self.IPv4} {
		if list, err := s.Devices(t.Context(), bob, DeviceQuery{Limit: 10, Text: text}); err != nil || list.Total != 0 || len(list.Devices) != 0 {
			t.Errorf("bob finds %+v, %v", list, err)
		}
	}
	if keys, err := s.Keys(t.Context(), bob, 10); err != nil || len(keys) != 1 || keys[0].UserID != bob.UserID {
		t.Errorf("bob's keys: %+v, %v", keys, err)
	}
	if list, err := s.Sessions(t.Context(), bob); err != nil || len(list) != 0 {
		t.Errorf("bob's sessions: %+v, %v", list, err)
	}
	if d, err := s.Device(t.Context(), alice, id.String()); err != nil || d.Name != "laptop" {
		t.Errorf("%+v, %v", d, err)
	}
	// The owner of the network has all of it before it.
	if list, err := s.Devices(t.Context(), s.owner(), DeviceQuery{Limit: 10}); err != nil || list.All != 2 || len(list.Devices) != 2 {
		t.Errorf("the owner's: %+v, %v", list, err)
	}
	if _, err := s.Key(t.Context(), s.owner(), key); err != nil {
		t.Error(err)
	}
	if err := do(s.owner(), EndSession{session}); !errors.Is(err, ErrNotFound) {
		t.Errorf("the owner ends alice's session: %v", err)
	}
	// A name that alice's device had says nothing of the one that it has.
	if _, err := s.RenameDevice(t.Context(), id, "secret"); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(Actor) error{
		"to change": func(a Actor) error { _, err := s.DeviceToChange(t.Context(), a, "laptop"); return err },
		"rename": func(a Actor) error {
			_, err := Do(t.Context(), s.Service, a, RenameDevice{bobs.id, "laptop"})
			return err
		},
	} {
		if err := f(bob); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s by bob: %v", name, err)
		}
		if err := f(s.owner()); err == nil || !strings.Contains(err.Error(), "secret") {
			t.Errorf("%s by the owner: %v", name, err)
		}
	}
	if _, err := s.RenameDevice(t.Context(), id, "laptop"); err != nil {
		t.Fatal(err)
	}
	fresh := s.joined(CreateKey{UserID: alice.UserID}, "laptop")
	if n, err := Do(t.Context(), s.Service, alice, ReplaceDevice{Old: id, By: fresh.id}); err != nil || n.Name != "laptop" || n.ID != fresh.id {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := s.Device(t.Context(), alice, id.String()); !errors.Is(err, ErrNotFound) {
		t.Errorf("the replaced device: %v", err)
	}
}

func TestDevices(t *testing.T) {
	s := openSite(t)
	laptop := s.laptop("laptop")
	cams := []*device{s.camera("cam"), s.camera("cam"), s.camera("door")}
	owner := s.owner()
	s.Presence(laptop.id, 1, true, s.clock.Now(), netip.MustParseAddr("::ffff:192.0.2.9"))
	for _, c := range []struct {
		q     DeviceQuery
		names []string
		total int
	}{
		{DeviceQuery{Limit: 10}, []string{"cam", "cam-1", "door", "laptop"}, 4},
		{DeviceQuery{Limit: 2, Offset: 1}, []string{"cam-1", "door"}, 4},
		{DeviceQuery{Limit: 10, Text: "CAM device"}, []string{"cam", "cam-1"}, 2},
		{DeviceQuery{Limit: 1, Offset: 1, Text: "cam"}, []string{"cam-1"}, 2},
		{DeviceQuery{Limit: 10, Text: cams[2].res.Config.Self.IPv4}, []string{"door"}, 1},
		{DeviceQuery{Limit: 10, State: "online"}, []string{"laptop"}, 1},
		{DeviceQuery{Limit: 10, State: "offline", Text: "o"}, []string{"door"}, 1},
		{DeviceQuery{Limit: 10, Text: "%"}, nil, 0},
		{DeviceQuery{Limit: 10, Offset: 99}, nil, 4},
	} {
		list, err := s.Devices(t.Context(), owner, c.q)
		if err != nil || list.Total != c.total || list.All != 4 || list.Online != 1 || len(list.Devices) != len(c.names) {
			t.Errorf("%+v: %+v, %v", c.q, list, err)
			continue
		}
		for i, d := range list.Devices {
			if d.Name != c.names[i] {
				t.Errorf("%+v: %d is %s", c.q, i, d.Name)
			}
		}
	}
	if d, err := s.Device(t.Context(), owner, laptop.id.String()); err != nil || !d.Online || d.Address != "192.0.2.9" || d.Relay == "" {
		t.Errorf("%+v, %v", d, err)
	}
}

// Devices are asked whether they are there when somebody looks, and not for a page
// that was left open.
func TestAsksDevicesForPeopleOnly(t *testing.T) {
	s := openSite(t)
	laptop, owner := s.laptop("laptop"), s.owner()
	show := func(ctx context.Context) (looks int) {
		t.Helper()
		before := s.told.looks
		if _, err := s.Devices(ctx, owner, DeviceQuery{Limit: 10}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Device(ctx, owner, laptop.id.String()); err != nil {
			t.Fatal(err)
		}
		return s.told.looks - before
	}
	if n := show(t.Context()); n != 2 {
		t.Errorf("asked for %d of two pages that somebody opened", n)
	}
	if n := show(Passive(t.Context())); n != 0 {
		t.Errorf("asked for %d of two pages that were left open", n)
	}
}
