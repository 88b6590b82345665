package ops

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weft/coord/store"
	"weft/overlay/cert"
)

// user is a new user in the console, with a role.
func (s *site) user(c CreateUser) (store.User, Actor) {
	s.t.Helper()
	u, err := Do(context.Background(), s.Service, Root(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	return u, ConsoleActor(u, netip.MustParseAddr("192.0.2.52"))
}

// Nobody grants what he lacks, nor changes or deletes one who may do more: only owners
// make owners, of people.
func TestGrant(t *testing.T) {
	s := openSite(t)
	actors := map[string]Actor{"owner": s.owner(), "root": Root()}
	for _, role := range []Role{RoleAdmin, RoleOperator, RoleAuditor, RoleMember} {
		_, actors[string(role)] = s.user(CreateUser{Name: "a-" + string(role), Role: role})
	}
	_, actors["narrow"] = s.user(CreateUser{Name: "a-narrow", Role: RoleOperator, Tags: []string{"tag:camera"}})
	n := 0
	for name, a := range actors {
		a.SignedIn = s.clock.Now()
		for _, role := range []Role{RoleOwner, RoleAdmin, RoleOperator, RoleAuditor, RoleMember, "king", ""} {
			n++
			_, err := Do(t.Context(), s.Service, a, CreateUser{Name: fmt.Sprint("n", n), Service: n%2 == 0, Role: role})
			may := name == "owner" || name == "root"
			makes := may || name == "admin"
			switch {
			case role == RoleOwner && may:
				if (err == nil) != (n%2 != 0) || err != nil && !errors.Is(err, ErrInvalid) {
					t.Errorf("%s makes an owner, a service %v: %v", name, n%2 == 0, err)
				}
			case role == RoleOwner && makes:
				if !errors.Is(err, ErrForbidden) {
					t.Errorf("%s makes an owner: %v", name, err)
				}
			case makes && role == "king":
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("%s makes a %q: %v", name, role, err)
				}
			case makes != (err == nil), !makes && !errors.Is(err, ErrForbidden) && !errors.Is(err, ErrNotFound):
				t.Errorf("%s makes a %q: %v", name, role, err)
			}
			u, _ := s.user(CreateUser{Name: fmt.Sprint("e", n)})
			_, err = Do(t.Context(), s.Service, a, EditUser{Name: u.ID, Role: &role})
			if want := makes && (may || role != RoleOwner) && role != "king" && role != ""; want != (err == nil) {
				t.Errorf("%s makes a member a %q: %v", name, role, err)
			}
		}
		for _, c := range []func() error{
			func() error {
				role := RoleMember
				_, err := Do(t.Context(), s.Service, a, EditUser{Name: firstUser, Role: &role})
				return err
			},
			func() error { _, err := Do(t.Context(), s.Service, a, DeleteUser{Name: firstUser}); return err },
		} {
			if name == "owner" || name == "root" {
				continue // TestLastOwner
			}
			if err := c(); err == nil || name == "admin" && !errors.Is(err, ErrForbidden) {
				t.Errorf("%s and the owner: %v", name, err)
			}
		}
	}
	if _, err := Do(t.Context(), s.Service, Root(), CreateUser{Name: "x", Role: RoleAdmin, Tags: []string{"camera"}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an admin for some tags: %v", err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), CreateLink{User: "n2"}); err == nil {
		t.Error("a link for a service")
	}
}

// What an actor may do is what its user may do when a command runs, whatever it was
// when the request came, and so are what it hears of and what it is called.
func TestTakenAway(t *testing.T) {
	s := openSite(t)
	pi, door := s.camera("pi"), s.joined(CreateKey{Tags: []string{"door"}}, "door")
	u, a := s.user(CreateUser{Name: "ops", Role: RoleOperator})
	heard := s.hears(a, Interest{Every: true})
	// other reads the subscription, which ended with other rights, after these events, and
	// begins one of who has the rights still in mind that it began with.
	other := func(want ...cert.NodeID) {
		t.Helper()
		for _, id := range want {
			if e, ok := <-heard; !ok || e.ID != id {
				t.Errorf("heard of %+v, want %s", e, id)
			}
		}
		if e, ok := <-heard; ok {
			t.Errorf("heard of %+v with other rights", e)
		}
		heard = s.hears(a, Interest{Every: true})
	}
	rename := func(d *device, name string) error {
		_, err := Do(t.Context(), s.Service, a, RenameDevice{d.id, name})
		return err
	}
	set := func(role Role, tags ...string) {
		t.Helper()
		if _, err := Do(t.Context(), s.Service, Root(), EditUser{Name: "ops", Role: &role, Tags: &tags}); err != nil {
			t.Fatal(err)
		}
	}
	if err := rename(pi, "pi-1"); err != nil {
		t.Fatal(err)
	}
	set(RoleOperator, "door")
	other(pi.id)
	if err := rename(pi, "pi-2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a tag that was taken away: %v", err)
	}
	if err := rename(door, "door-1"); err != nil {
		t.Error(err)
	}
	if _, err := s.RenameDevice(t.Context(), pi.id, "pi-3"); err != nil {
		t.Fatal(err)
	}
	set(RoleAuditor)
	other(door.id)
	if err := rename(door, "door-2"); !errors.Is(err, ErrForbidden) {
		t.Errorf("as a role that was taken away: %v", err)
	}
	set(RoleMember)
	other()
	if _, err := s.RenameDevice(t.Context(), door.id, "unheard"); err != nil {
		t.Fatal(err)
	}
	set(RoleOperator)
	other()
	if _, err := s.RenameDevice(t.Context(), door.id, "heard"); err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), SuspendUser{Name: u.Name}); err != nil {
		t.Fatal(err)
	}
	other(door.id)
	if _, err := s.RenameDevice(t.Context(), door.id, "suspended"); err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), ResumeUser{Name: u.Name}); err != nil {
		t.Fatal(err)
	}
	other()
	if _, err := Do(t.Context(), s.Service, Root(), DeleteUser{Name: u.Name}); err != nil {
		t.Fatal(err)
	}
	other()
	if _, err := s.RenameDevice(t.Context(), door.id, "gone"); err != nil {
		t.Fatal(err)
	}
	if len(heard) > 0 {
		t.Errorf("who is no user any more heard of %+v", <-heard)
	}
	if err := rename(door, "door-3"); !errors.Is(err, ErrForbidden) {
		t.Errorf("by who is no user any more: %v", err)
	}
}

// Of many who have seen the same and change it, one does.
func TestEditUserMatch(t *testing.T) {
	s := openSite(t)
	u, _ := s.user(CreateUser{Name: "ops"})
	role := RoleOperator
	match := []string{UserRevision(u)}
	if _, err := Do(t.Context(), s.Service, Root(), EditUser{Name: "ops", Role: &role, Match: match}); err != nil {
		t.Fatal(err)
	}
	if _, err := Do(t.Context(), s.Service, Root(), EditUser{Name: "ops", Role: &role, Match: match}); !errors.Is(err, ErrChanged) {
		t.Errorf("somebody was in between: %v", err)
	}
}

// A device that joins with a key of a service is the network's owner's if the service
// makes keys for everybody, and else the service's.
func TestKeysOfServices(t *testing.T) {
	s := openSite(t)
	for role, want := range map[Role]string{RoleAdmin: firstUser, RoleOperator: firstUser, RoleMember: "s-member"} {
		_, a := s.user(CreateUser{Name: "s-" + string(role), Service: true, Role: role})
		made, err := Do(t.Context(), s.Service, a, CreateKey{})
		if err != nil {
			t.Fatal(err)
		}
		if k, err := s.Key(t.Context(), a, made.ID); err != nil || k.User != want {
			t.Errorf("%s: %s, %v", role, k.User, err)
		}
	}
}

// What the network has as a whole is the admins', also where it is had by way of what a
// user may make for himself; and nobody hears by an error which users there are.
func TestKeysOfRelays(t *testing.T) {
	s := openSite(t)
	for _, c := range []struct {
		role Role
		tags []string
		may  bool
	}{{RoleAdmin, nil, true}, {RoleOperator, nil, false}, {RoleMember, nil, false}, {RoleOperator, []string{"camera"}, false}} {
		_, a := s.user(CreateUser{Name: fmt.Sprint("r-", c.role, len(c.tags)), Role: c.role, Tags: c.tags})
		_, err := Do(t.Context(), s.Service, a, CreateKey{Relay: true})
		if c.may != (err == nil) || !c.may && !errors.Is(err, ErrForbidden) && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s %v makes a key for a relay: %v", c.role, c.tags, err)
		}
		if c.may {
			continue
		}
		_, there := Do(t.Context(), s.Service, a, CreateLink{User: "admin"})
		_, none := Do(t.Context(), s.Service, a, CreateLink{User: "nobody"})
		if there == nil || there.Error() != none.Error() {
			t.Errorf("%s %v tells users from nobody by a link: %v, %v", c.role, c.tags, there, none)
		}
		if c.role == RoleOperator {
			continue // which makes keys for everybody
		}
		_, there = Do(t.Context(), s.Service, a, CreateKey{User: "admin"})
		_, none = Do(t.Context(), s.Service, a, CreateKey{User: "bbbbb"})
		if there == nil || there.Error() != strings.ReplaceAll(none.Error(), "bbbbb", "admin") {
			t.Errorf("%s %v tells users from nobody by a key: %v, %v", c.role, c.tags, there, none)
		}
	}
}

// Who is narrowed to tags does not hear of other devices by what is set about names.
func TestNamesOfOthers(t *testing.T) {
	s := openSite(t)
	door := s.joined(CreateKey{Tags: []string{"door"}}, "front-door")
	camera := s.joined(CreateKey{Tags: []string{"camera"}}, "yard-camera")
	for name, d := range map[string]*device{"back-door": door, "gate-camera": camera} {
		if _, err := Do(t.Context(), s.Service, Root(), RenameDevice{d.id, name}); err != nil {
			t.Fatal(err)
		}
		if _, err := Do(t.Context(), s.Service, Root(), SetDeviceDNS{d.id, DeviceDNS{Wildcard: pointer(true)}}); err != nil {
			t.Fatal(err)
		}
	}
	_, wide := s.user(CreateUser{Name: "wide", Role: RoleOperator})
	_, narrow := s.user(CreateUser{Name: "narrow", Role: RoleOperator, Tags: []string{"camera"}})
	for _, c := range []struct {
		a    Actor
		name string
		sees bool
	}{
		{wide, "back-door", true}, {narrow, "back-door", false}, {narrow, "front-door", false}, {narrow, "x.back-door.weft.internal", false},
		{narrow, "gate-camera", true}, {narrow, "yard-camera", true}, {narrow, "x.gate-camera.weft.internal", true},
	} {
		p, err := s.Preview(t.Context(), c.a, PreviewQuery{Name: c.name})
		if err != nil || c.sees != (len(p.Answers) > 0) {
			t.Errorf("%s asks for %s: %+v, %v", c.a.User, c.name, p, err)
		}
	}
	for want, a := range []Actor{1: narrow, 2: wide} {
		if want == 0 {
			continue
		}
		if info, err := s.ShowDNS(t.Context(), a); err != nil || len(info.Aliases) != want || len(info.Wildcards) != want {
			t.Errorf("%s is shown %+v, %v", a.User, info, err)
		}
	}
}
