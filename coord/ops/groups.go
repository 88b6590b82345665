package ops

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"weft/coord/policy"
	"weft/coord/store"
	"weft/overlay/cert"
)

// Groups of people. Admins make groups and choose their members; other groups, and who is in
// them, come from the provider at which a person signs in. Groups are not in certificates: in
// the rules that devices get, the server replaces a group by its members.

// maxOwnGroups bounds the groups that admins make.
const maxOwnGroups = 1000

// CreateGroup makes a group without members.
type CreateGroup struct {
	Name string `json:"name" required:"true" doc:"1 to 64 letters, digits and ._@+-, as group:NAME in the policy"`
}

func (CreateGroup) operation() *Operation { return opGroupCreate }

func (c CreateGroup) run(tx *Tx) (store.Group, error) {
	g := store.Group{Name: c.Name, Sources: []string{}, Members: []string{}, Created: orNil(tx.now)}
	if err := tx.may(target{kind: "group"}); err != nil {
		return g, err
	}
	if !cert.ValidWord(c.Name) {
		return g, Invalid("group %q: want 1 to 64 letters, digits and ._@+-", printable(c.Name, 64))
	}
	n, err := tx.CountGroups(tx.s.network)
	if err != nil {
		return g, err
	}
	if n >= maxOwnGroups {
		return g, Invalid("a network can have at most %d groups", maxOwnGroups)
	}
	if err := tx.Tx.CreateGroup(tx.s.network, g); err != nil {
		return g, About(KindGroup, g.Name, err)
	}
	tx.did(groupTarget(g), nil, membersOf(g))
	return g, nil
}

func groupTarget(g store.Group) target {
	return target{kind: "group", id: g.Name, name: printable(g.Name, 64)}
}

// members is the value of audit records about a group.
type members struct {
	Members []string `json:"members"`
}

func membersOf(g store.Group) members { return members{g.Members} }

// ownGroup finds a group that an admin has made, and returns an error if the actor may not
// change it.
func (tx *Tx) ownGroup(name string) (store.Group, error) {
	if err := tx.may(target{kind: "group"}); err != nil {
		return store.Group{}, err
	}
	g, err := tx.Group(tx.s.network, name)
	if err == nil && g.Created == nil {
		return g, Invalid("the group %s comes from %s, which decides who is in it", printable(name, 64), strings.Join(g.Sources, " and "))
	}
	if err != nil {
		return g, About(KindGroup, name, err)
	}
	return g, nil
}

// DeleteGroup deletes a group that an admin has made. Rules that name it then select nobody by
// that name.
type DeleteGroup struct{ Name string }

func (DeleteGroup) operation() *Operation { return opGroupDelete }

func (c DeleteGroup) run(tx *Tx) (store.Group, error) {
	g, err := tx.ownGroup(c.Name)
	if err != nil {
		return g, err
	}
	if err := tx.groupsChange(func() error { return tx.Tx.DeleteGroup(tx.s.network, g.Name) }); err != nil {
		return g, err
	}
	tx.did(groupTarget(g), membersOf(g), nil)
	return g, nil
}

// EditGroup adds people to a group that an admin has made, and removes people from it: all of
// them or none.
type EditGroup struct {
	Name   string   `json:"-"`
	Match  []string `json:"-"` // GroupRevision must be one of these; nil for any
	Add    []string `json:"add,omitempty" doc:"names of users to add to the group"`
	Remove []string `json:"remove,omitempty" doc:"names of users to remove from the group"`
}

func (EditGroup) operation() *Operation { return opGroupEdit }

func (c EditGroup) run(tx *Tx) (store.Group, error) {
	old, err := tx.ownGroup(c.Name)
	if err != nil {
		return old, err
	}
	if err := matches(c.Match, GroupRevision(old)); err != nil {
		return old, About(KindGroup, old.Name, err)
	}
	err = tx.groupsChange(func() error {
		for i, name := range slices.Concat(c.Remove, c.Add) {
			u, err := findUser(&tx.Reader, tx.s.network, tx.actor, name)
			if err != nil {
				return About(KindUser, name, err)
			}
			if u.Kind == store.Service {
				return Invalid("%s is a service; only people can be in groups", u.Name)
			}
			if err := tx.SetMember(tx.s.network, old.Name, u.ID, i >= len(c.Remove)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return old, err
	}
	g, err := tx.Group(tx.s.network, old.Name)
	if err != nil || slices.Equal(g.Members, old.Members) {
		return g, err
	}
	tx.did(groupTarget(g), membersOf(old), membersOf(g))
	return g, nil
}

// GroupRevision returns a hash of a group's name and members, which changes when they do.
func GroupRevision(g store.Group) string {
	return revisionOfParts(append([]string{g.Name}, g.Members...)...)
}

// Groups lists the groups with their members, by name.
func (s *Service) Groups(ctx context.Context, a Actor) (list []store.Group, err error) {
	if err := opGroupRead.readsAll(a); err != nil {
		return nil, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { list, err = r.AllGroups(s.network); return err })
	return list, err
}

// Group finds a group by name.
func (s *Service) Group(ctx context.Context, a Actor, name string) (g store.Group, err error) {
	if err := opGroupRead.readsAll(a); err != nil {
		return g, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { g, err = r.Group(s.network, name); return err })
	if errors.Is(err, ErrNotFound) {
		err = About(KindGroup, name, err)
	}
	return g, err
}

// regroup adds a person to groups that admins have made, and removes the person from others:
// all of these changes or none. It returns all groups of the person before and after, sorted.
func (tx *Tx) regroup(u store.User, add, remove []string) (was, is []string, err error) {
	if len(add)+len(remove) == 0 {
		return nil, nil, nil
	}
	if u.Kind == store.Service {
		return nil, nil, Invalid("%s is a service; only people can be in groups", u.Name)
	}
	if was, err = tx.Groups(tx.s.network, u.ID); err != nil {
		return nil, nil, err
	}
	err = tx.giveGroups(u, func() error {
		for i, name := range slices.Concat(remove, add) {
			g, err := tx.ownGroup(name)
			if err == nil {
				err = tx.SetMember(tx.s.network, g.Name, u.ID, i >= len(remove))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		is, err = tx.Groups(tx.s.network, u.ID)
	}
	return was, is, err
}

// giveGroups is groupsChange for a change to the groups of one user.
func (tx *Tx) giveGroups(u store.User, change func() error) error {
	before, err := tx.Groups(tx.s.network, u.ID)
	if err == nil {
		err = change()
	}
	if err != nil {
		return err
	}
	after, err := tx.Groups(tx.s.network, u.ID)
	if err != nil {
		return err
	}
	return tx.groupsChanged(map[string][]string{u.ID: before}, map[string][]string{u.ID: after})
}

// groupsChange runs a function that changes who is in which group, and then groupsChanged.
func (tx *Tx) groupsChange(change func() error) error {
	before, err := tx.GroupsOf(tx.s.network)
	if err == nil {
		err = change()
	}
	if err != nil {
		return err
	}
	after, err := tx.GroupsOf(tx.s.network)
	if err != nil {
		return err
	}
	return tx.groupsChanged(before, after)
}

// groupsChanged notes that the users have changed whose groups differ between before and after,
// and that the nodes' rules have changed if rules name one of these groups. before and after
// have the sorted groups of users, by user id.
func (tx *Tx) groupsChanged(before, after map[string][]string) error {
	users := maps.Clone(before)
	maps.Copy(users, after)
	changed := map[string]bool{}
	for id := range users {
		was, is := before[id], after[id]
		if slices.Equal(was, is) {
			continue
		}
		if err := tx.userChanged(store.User{ID: id}); err != nil {
			return err
		}
		for _, g := range slices.Concat(was, is) {
			if slices.Contains(was, g) != slices.Contains(is, g) {
				changed[g] = true
			}
		}
	}
	if len(changed) == 0 {
		return nil
	}
	n, err := tx.Network()
	if err != nil {
		return err
	}
	p, err := policy.Stored(n.Policy)
	if err != nil {
		return err
	}
	for g := range changed {
		if p.NamesGroup(g) {
			return tx.rulesChanged(n)
		}
	}
	return nil
}
