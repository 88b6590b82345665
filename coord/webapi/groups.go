package webapi

import (
	"context"
	"net/http"

	"weft/coord/ops"
	"weft/coord/store"
)

// Group is a group of people with its revision.
type Group struct {
	store.Group
	Revision string `json:"revision"` // what If-Match takes
}

func viewGroup(g store.Group) Group { return Group{g, ops.GroupRevision(g)} }

// GroupList are the groups, by name.
type GroupList struct {
	Groups []Group `json:"groups"`
}

func (a *api) groups() {
	s := a.ops
	add(a, operation{"GET", "/groups", "listGroups", "List the groups of people, including those of providers, with their members", "group.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (GroupList, error) {
			list, err := s.Groups(ctx, who)
			views := []Group{}
			for _, g := range list {
				views = append(views, viewGroup(g))
			}
			return GroupList{views}, err
		})
	add(a, operation{"GET", "/groups/{id}", "getGroup", "Show a group", "group.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (Group, error) {
			g, err := s.Group(ctx, who, in.ID)
			return viewGroup(g), err
		})
	addSent(a, operation{"POST", "/groups", "createGroup", "Create a group", "group.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, c ops.CreateGroup) (Group, error) {
			return do(ctx, a, who, c, viewGroup)
		})
	addSent(a, operation{"PATCH", "/groups/{id}", "editGroup", "Add people to a group that was made here, or remove them; takes effect within seconds", "group.edit", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, c ops.EditGroup) (_ Group, err error) {
			c.Name = in.ID
			if c.Match, err = in.revisions(); err != nil {
				return Group{}, err
			}
			return do(ctx, a, who, c, viewGroup)
		})
	add(a, operation{"DELETE", "/groups/{id}", "deleteGroup", "Delete a group that was made here; in rules its name then selects nobody", "group.delete", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (Group, error) {
			return do(ctx, a, who, ops.DeleteGroup{Name: in.ID}, viewGroup)
		})
}
