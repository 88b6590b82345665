package ops

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/overlay/cert"
)

// hears subscribes for the length of the test.
func (s *site) hears(a Actor, in Interest) <-chan Event {
	s.t.Helper()
	events, cancel, err := s.Subscribe(s.t.Context(), a, in)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(cancel)
	return events
}

// kinds are the events that a subscriber has got, by then.
func kinds(events <-chan Event) (list []EventKind) {
	for len(events) > 0 {
		list = append(list, (<-events).Kind)
	}
	return list
}

// What an open console hears, in order; one that does not listen is let go, and a
// member hears of its own devices only.
func TestSubscribe(t *testing.T) {
	s := openSite(t)
	bob := s.member("bob")
	s.laptop("first")
	events, cancel, err := s.Subscribe(t.Context(), s.owner(), Interest{Every: true})
	if err != nil {
		t.Fatal(err)
	}
	bobs, lagging := s.hears(bob, Interest{Every: true}), s.hears(s.owner(), Interest{Every: true})
	d := s.camera("cam")
	key := mustNode(t, s, d.id).KeyID
	s.RenameDevice(t.Context(), d.id, "hall")
	s.Presence(d.id, 1, true, s.clock.Now(), netip.Addr{})
	s.DeleteDevice(t.Context(), d.id)
	for _, want := range []EventKind{EventJoined, EventRenamed, EventOnline, EventDeleted} {
		if e := <-events; e != (Event{want, d.id, key}) {
			t.Errorf("%+v, want %s of %s", e, want, d.id)
		}
	}
	s.Presence(d.id, 1, false, s.clock.Now(), netip.Addr{})
	if len(events) > 0 {
		t.Errorf("of a device that is gone: %+v", <-events)
	}
	cancel()
	cancel() // twice is fine
	mine := s.joined(CreateKey{UserID: bob.UserID}, "mine")
	if e := <-bobs; e.ID != mine.id {
		t.Errorf("bob hears of %+v", e)
	}
	preload(t, s, 3*lag)
	n := 0
	for range lagging {
		n++
	}
	if n > 2*lag {
		t.Errorf("%d events were kept for a reader that did not read", n)
	}
	if n := s.Followers(); n != 0 && n != 1 { // bob's, who hears nothing of the others
		t.Errorf("%d followers are left", n)
	}
	s.CloseStreams()
	if _, ok := <-bobs; ok {
		t.Error("a stream goes on while the server stops")
	}
	if _, _, err := s.Subscribe(t.Context(), s.owner(), Interest{Every: true}); err == nil {
		t.Error("one began while it stops")
	}
}

// A page of one device, or of the devices of a key, is not woken for others, and gets each
// event once.
func TestSubscribeToOne(t *testing.T) {
	s := openSite(t)
	k, tok, err := s.CreateKey(t.Context(), CreateKey{Reusable: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	joins := func(name string) *device {
		d := newDevice(t, s.Service)
		if err := d.join(t, tok, name); err != nil {
			t.Fatal(err)
		}
		return d
	}
	one, other := joins("one"), s.camera("other")
	key := s.hears(s.owner(), Interest{Keys: []string{k.ID, ""}})
	ofOne := s.hears(s.owner(), Interest{Devices: []cert.NodeID{one.id}})
	both := s.hears(s.owner(), Interest{Devices: []cert.NodeID{one.id}, Keys: []string{k.ID}})
	nothing := s.hears(s.owner(), Interest{})
	two := joins("two")
	for _, d := range []*device{one, two, other} {
		s.Presence(d.id, 1, true, s.clock.Now(), netip.Addr{})
	}
	s.RenameDevice(t.Context(), one.id, "uno")
	s.DeleteDevice(t.Context(), other.id)
	for name, c := range map[string]struct {
		events <-chan Event
		want   []EventKind
	}{
		"key":     {key, []EventKind{EventJoined, EventOnline, EventOnline, EventRenamed}},
		"one":     {ofOne, []EventKind{EventOnline, EventRenamed}},
		"both":    {both, []EventKind{EventJoined, EventOnline, EventOnline, EventRenamed}},
		"nothing": {nothing, nil},
	} {
		if got := kinds(c.events); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Followers that ask for a device that they may not see hear nothing of it, whether it
// exists or not.
func TestSubscribeToWhatIsNotSeen(t *testing.T) {
	s := openSite(t)
	bob := s.member("bob")
	_, narrow := s.user(CreateUser{Name: "ops", Role: RoleOperator, Tags: []string{"door"}})
	k, tok, err := s.CreateKey(t.Context(), CreateKey{Reusable: true, Tags: []string{"camera"}})
	if err != nil {
		t.Fatal(err)
	}
	cam := newDevice(t, s.Service)
	if err := cam.join(t, tok, "cam"); err != nil {
		t.Fatal(err)
	}
	weak := s.owner()
	weak.Weak = true
	var all []<-chan Event
	for _, a := range []Actor{bob, narrow, weak, {}, {UserID: "of nobody", Role: RoleOwner, Via: ViaConsole}} {
		for _, in := range []Interest{{Every: true}, {Devices: []cert.NodeID{cam.id}}, {Keys: []string{k.ID}}} {
			all = append(all, s.hears(a, in))
		}
	}
	s.Presence(cam.id, 1, true, s.clock.Now(), netip.Addr{})
	s.RenameDevice(t.Context(), cam.id, "eye")
	s.mustAssign(cam, []string{"camera", "hall"}, "")
	s.DeleteDevice(t.Context(), cam.id)
	for i, events := range all {
		if got := kinds(events); got != nil {
			t.Errorf("follower %d hears %v", i, got)
		}
	}
}

// Two actors of the same visibility see the same devices.
func TestVisibility(t *testing.T) {
	var actors []Actor
	for _, role := range []Role{"", RoleOwner, RoleAdmin, RoleOperator, RoleAuditor, RoleMember} {
		for _, user := range []string{"", "anna", "bob"} {
			for _, tags := range [][]string{nil, {"a"}, {"a", "b"}, {"b", "a"}} {
				for _, via := range []Via{"", ViaConsole, ViaAPI, ViaCLI, ViaNode, ViaSystem} {
					for _, weak := range []bool{false, true} {
						actors = append(actors, Actor{UserID: user, Role: role, Tags: tags, Via: via, Weak: weak})
					}
				}
			}
		}
	}
	same := map[visibility]string{}
	for _, a := range actors {
		seen := ""
		for _, owner := range []string{"anna", "bob", "carol"} {
			for _, tags := range [][]string{nil, {"a"}, {"b"}, {"c"}, {"a", "c"}} {
				seen += fmt.Sprint(opDeviceRead.authorize(a, target{kind: "device", owner: owner, tags: tags}) == nil, " ")
			}
		}
		v := visibilityOf(a)
		if was, ok := same[v]; ok && was != seen {
			t.Errorf("%+v sees %s, another one of %+v %s", a, seen, v, was)
		}
		same[v] = seen
	}
}

// A page that shows when a certificate ends hears of the next one. Nobody else does: the
// device's names and config are as they were.
func TestRenewalIsHeardOf(t *testing.T) {
	s := openSite(t)
	d := s.camera("cam")
	events, names, version := s.hears(s.owner(), Interest{Devices: []cert.NodeID{d.id}}), s.index.namesVersion(), s.Versions(d.id)
	old := mustNode(t, s, d.id).Expires
	s.clock.Add(nodeLife - 24*time.Hour)
	if got := s.renewal(d).Expires; !got.After(old) {
		t.Fatalf("it ends at %s as before", got)
	}
	if got := kinds(events); !slices.Equal(got, []EventKind{EventRenewed}) {
		t.Errorf("heard %v", got)
	}
	if now := s.Versions(d.id); s.index.namesVersion() != names || now.Config != version.Config {
		t.Errorf("versions %+v were %+v, names %v were %v", now, version, s.index.namesVersion(), names)
	}
}
