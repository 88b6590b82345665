package ops

import (
	"errors"
	"strings"
	"testing"

	"weft/coord/store"
)

// Who may give a tag, by a key and to a device that there is: owners and admins, who the
// policy names, operators where it says nothing, and those that are limited to tags for
// these. A tag is taken away by the same people.
func TestTagOwners(t *testing.T) {
	s := openSite(t)
	people := map[string]Actor{"root": Root()}
	for name, c := range map[string]CreateUser{
		"anna":  {Role: RoleMember},
		"ben":   {Role: RoleMember},
		"carl":  {Role: RoleMember},
		"dora":  {Role: RoleOperator},
		"emil":  {Role: RoleOperator, Tags: []string{"camera"}},
		"frida": {Role: RoleAdmin},
		"gus":   {Role: RoleMember, Tags: []string{"camera"}},
	} {
		c.Name = name
		u, err := Do(t.Context(), s.Service, Root(), c)
		if err != nil {
			t.Fatal(err)
		}
		people[name] = actorOf(u, ViaConsole, Root().From)
		if name == "carl" {
			if err := s.store.Write(t.Context(), func(tx *store.Tx) error {
				return tx.SetGroups(s.network, u.ID, "provider", []string{"ops"})
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	try := func(policy, tag, may string) {
		t.Helper()
		if _, err := Do(t.Context(), s.Service, Root(), SetPolicy{Text: policy}); err != nil {
			t.Fatal(err)
		}
		for name, a := range people {
			want := strings.Contains(" "+may+" ", " "+name+" ")
			_, err := Do(t.Context(), s.Service, a, CreateKey{Tags: []string{tag}})
			if (err == nil) != want || err != nil && !errors.Is(err, ErrForbidden) {
				t.Errorf("%s makes a key with %s: %v, want %v\n%s", name, tag, err, want, policy)
			}
			if name == "emil" || name == "gus" { // they see no device without their tag
				continue
			}
			d := s.joined(CreateKey{UserID: a.UserID}, "pi")
			if err := s.assign(a, d, []string{tag}, ""); (err == nil) != want {
				t.Errorf("%s gives %s to a device: %v, want %v\n%s", name, tag, err, want, policy)
			}
			s.mustAssign(d, []string{tag}, "")
			if err := s.assign(a, d, []string{}, ""); (err == nil) != want {
				t.Errorf("%s takes %s from a device: %v, want %v\n%s", name, tag, err, want, policy)
			}
			if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
				t.Fatal(err)
			}
		}
	}
	try("", "camera", "root frida dora emil")
	try(`{"rules":[]}`, "door", "root frida dora")
	try(`{"tagOwners":{"tag:camera":["user:anna","group:ops"]}}`, "camera", "root frida anna carl emil")
	try(`{"tagOwners":{"tag:door":["role:operator"]}}`, "door", "root frida dora")
	try(`{"tagOwners":{"tag:camera":[]}}`, "camera", "root frida emil")
	// A member gives no device away, whatever tags he has.
	if _, err := Do(t.Context(), s.Service, Root(), SetPolicy{Text: `{"tagOwners":{"tag:camera":["user:anna"]}}`}); err != nil {
		t.Fatal(err)
	}
	d := s.joined(CreateKey{UserID: people["anna"].UserID}, "pi")
	if err := s.assign(people["anna"], d, []string{"camera"}, "ben"); !errors.Is(err, ErrForbidden) {
		t.Errorf("anna gives a device to ben: %v", err)
	}
	if err := s.assign(people["ben"], d, []string{"camera"}, ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("ben changes a device of anna: %v", err)
	}
}
