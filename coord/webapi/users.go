package webapi

import (
	"context"
	"net/http"

	"weft/coord/ops"
	"weft/coord/store"
)

// User is a user with its revision.
type User struct {
	store.User
	Revision string `json:"revision"` // what If-Match takes
}

func viewUser(u store.User) User { return User{u, ops.UserRevision(u)} }

// UserToDelete names a user, and says what becomes of its devices.
type UserToDelete struct {
	Word
	DevicesTo     string `query:"devices_to" doc:"name of the user who gets the devices, which get new certificates; the keys are revoked"`
	DeleteDevices bool   `query:"delete_devices" doc:"true deletes the devices and keys"`
}

// DeletedUser is a user that was deleted.
type DeletedUser struct {
	User
	Devices  int      `json:"devices"`  // that were handed over or deleted
	Keys     int      `json:"keys"`     // that were revoked or deleted
	Warnings []string `json:"warnings"` // where the policy still names the user
}

// UserList is one page of users, by name.
type UserList struct {
	Users []User `json:"users"`
	Next  string `json:"next"` // cursor of the next page, "" at the end
}

func (a *api) users() {
	s := a.ops
	addAsked(a, operation{"GET", "/users", "listUsers", "List users, by name: all, or yourself", "user.read", 0}, "cursor limit",
		func(ctx context.Context, who ops.Actor, in *Asked) (UserList, error) {
			users, err := s.Users(ctx, who)
			if err != nil {
				return UserList{}, err
			}
			users, next, err := page(users, in, byName, func(u store.User) (int64, string) { return 0, u.Name })
			list := UserList{Users: []User{}, Next: next}
			for _, u := range users {
				list.Users = append(list.Users, viewUser(u))
			}
			return list, err
		})
	add(a, operation{"GET", "/users/{id}", "getUser", "Show a user", "user.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			u, err := s.User(ctx, who, in.ID)
			return viewUser(u), err
		})
	addSent(a, operation{"POST", "/users", "createUser", "Make a user, or a service", "user.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body ops.CreateUser) (User, error) {
			return do(ctx, a, who, body, viewUser)
		})
	addSent(a, operation{"PATCH", "/users/{id}", "editUser", "Change what a user may do; it holds at once", "user.edit", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, c ops.EditUser) (User, error) {
			match, err := in.revisions()
			if err != nil {
				return User{}, err
			}
			c.Name, c.Match = in.ID, match
			return do(ctx, a, who, c, viewUser)
		})
	add(a, operation{"POST", "/users/{id}/suspend", "suspendUser", "Sign a user out and have it do nothing until it is resumed: its tokens and keys are refused, its devices without tags reach nothing", "user.suspend", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			return do(ctx, a, who, ops.SuspendUser{Name: in.ID}, viewUser)
		})
	add(a, operation{"POST", "/users/{id}/resume", "resumeUser", "End the suspension of a user", "user.resume", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			return do(ctx, a, who, ops.ResumeUser{Name: in.ID}, viewUser)
		})
	add(a, operation{"DELETE", "/users/{id}", "deleteUser", "Delete a user; its tokens end, and nobody gets its name again. While it has devices or keys that is refused, unless the request says what becomes of them", "user.delete", 0},
		func(ctx context.Context, who ops.Actor, in *UserToDelete) (DeletedUser, error) {
			return do(ctx, a, who, ops.DeleteUser{Name: in.ID, DevicesTo: in.DevicesTo, DeleteDevices: in.DeleteDevices}, func(d ops.UserDeleted) DeletedUser {
				return DeletedUser{viewUser(d.User), d.Devices, d.Keys, d.Warnings}
			})
		})
}
