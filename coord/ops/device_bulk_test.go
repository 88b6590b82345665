package ops

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/overlay/cert"
)

// Many devices are changed each by itself: what may not be changed says why, the others are
// changed, and each leaves its record.
func TestChangeDevices(t *testing.T) {
	s := openSite(t)
	anna := s.member("anna")
	own, other := s.joined(CreateKey{User: "anna"}, "own"), s.tagged("cam", "camera")
	gone := s.tagged("gone", "camera")
	if _, err := s.DeleteDevice(t.Context(), gone.id); err != nil {
		t.Fatal(err)
	}
	change := func(a Actor, c DeviceChange, ids ...cert.NodeID) string {
		t.Helper()
		out, err := s.ChangeDevices(t.Context(), a, ids, c)
		if err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, o := range out {
			word := "done"
			switch {
			case errors.Is(o.Err, ErrNotFound):
				word = "not found"
			case errors.Is(o.Err, ErrForbidden):
				word = "forbidden"
			case errors.Is(o.Err, ErrInvalid):
				word = "invalid"
			case o.Err != nil:
				word = o.Err.Error()
			}
			text = append(text, o.Name+" "+word)
		}
		return strings.Join(text, ", ")
	}
	tags := func(d *device) string { return strings.Join(mustNode(t, s, d.id).Tags, " ") }
	owner := s.owner()

	if got := change(owner, DeviceChange{AddTag: "tag:hall"}, own.id, other.id, gone.id, own.id); got != "own done, cam done,  not found" {
		t.Error(got)
	}
	if tags(own) != "hall" || tags(other) != "camera hall" {
		t.Error(tags(own), tags(other))
	}
	records, _ := s.audited("device.assign", nil)
	if len(records) != 2 {
		t.Errorf("%d records", len(records))
	}
	if got := change(owner, DeviceChange{AddTag: "hall"}, own.id, other.id); got != "own done, cam done" {
		t.Errorf("what is so already: %s", got)
	}
	if records, _ := s.audited("device.assign", nil); len(records) != 2 {
		t.Errorf("what is so already left a record")
	}
	if got := change(owner, DeviceChange{RemoveTag: "hall"}, own.id, other.id); got != "own done, cam done" || tags(own) != "" || tags(other) != "camera" {
		t.Error(got, tags(own), tags(other))
	}
	if got := change(owner, DeviceChange{AddTag: "a b"}, own.id); got != "own invalid" {
		t.Error(got)
	}
	// Members see and change only what is theirs, and learn no names of others.
	for name, c := range map[string]DeviceChange{"tag": {AddTag: "camera"}, "delete": {Delete: true}} {
		if got := change(anna, c, other.id); got != " not found" {
			t.Errorf("a member's %s: %s", name, got)
		}
	}
	if got := change(anna, DeviceChange{AddTag: "camera"}, own.id); got != "own forbidden" || tags(own) != "" {
		t.Error(got, tags(own))
	}
	if got := change(anna, DeviceChange{User: firstUser}, own.id); got != "own forbidden" {
		t.Error(got)
	}
	if got := change(owner, DeviceChange{User: "anna"}, other.id, own.id); got != "cam done, own done" || mustNode(t, s, other.id).User != "anna" {
		t.Error(got)
	}
	if got := change(owner, DeviceChange{User: "nobody"}, other.id); got != "cam not found" {
		t.Error(got)
	}
	if got := change(owner, DeviceChange{Delete: true}, other.id, own.id, gone.id); got != "cam done, own done,  not found" {
		t.Error(got)
	}
	if list, err := s.Devices(t.Context(), owner, DeviceQuery{}); err != nil || list.All != 0 {
		t.Errorf("%+v, %v", list, err)
	}

	for _, c := range []DeviceChange{{}, {AddTag: "x", Delete: true}} {
		if _, err := s.ChangeDevices(t.Context(), owner, []cert.NodeID{own.id}, c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	many := make([]cert.NodeID, MaxDeviceChange+1)
	for i := range many {
		many[i][0], many[i][1] = byte(i), byte(i>>8)
	}
	if _, err := s.ChangeDevices(t.Context(), owner, many, DeviceChange{AddTag: "x"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("%d at once: %v", len(many), err)
	}
}

// Who is narrowed to tags cannot do to many what cannot be done to one.
func TestChangeDevicesNarrowed(t *testing.T) {
	s := openSite(t)
	cam, door := s.tagged("cam", "camera"), s.tagged("door", "door")
	if _, err := Do(t.Context(), s.Service, Root(), CreateUser{Name: "otto", Role: RoleOperator, Tags: []string{"camera"}}); err != nil {
		t.Fatal(err)
	}
	u, err := s.Login(t.Context(), "otto")
	if err != nil {
		t.Fatal(err)
	}
	otto := ConsoleActor(u, netip.MustParseAddr("192.0.2.52"))
	for _, c := range []DeviceChange{{AddTag: "door"}, {RemoveTag: "camera"}, {Delete: true}} {
		out, err := s.ChangeDevices(t.Context(), otto, []cert.NodeID{door.id, cam.id}, c)
		if err != nil || !errors.Is(out[0].Err, ErrNotFound) || out[0].Name != "" {
			t.Errorf("%+v: %+v, %v", c, out, err)
		}
		if !c.Delete && !errors.Is(out[1].Err, ErrForbidden) {
			t.Errorf("%+v: %+v", c, out[1])
		}
	}
	if !slices.Equal(mustNode(t, s, door.id).Tags, []string{"door"}) {
		t.Error("the door's tags changed")
	}
}
