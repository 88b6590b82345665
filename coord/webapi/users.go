package webapi

import (
	"context"
	"net/http"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

// User is a user with its revision.
type User struct {
	store.User
	Revision string `json:"revision"` // what If-Match takes
}

func viewUser(u store.User) User { return User{u, ops.UserRevision(u)} }

// UserRow is a user as lists show it.
type UserRow struct {
	User
	SignedIn *time.Time `json:"signed_in"` // last sign-in; nil: never
	Devices  int        `json:"devices"`
	Invited  *time.Time `json:"invited"` // end of an invitation that was not used yet, nil for none
}

func viewRow(u store.UserRow) UserRow {
	return UserRow{viewUser(u.User), u.SignedIn, u.Devices, u.Invited}
}

// NewInvitation asks for an invitation.
type NewInvitation struct {
	ops.InviteUser
	// LifeSeconds is how long it can be used, nil for a week.
	LifeSeconds *int64 `json:"life_seconds,omitempty" doc:"how long it can be used, 60 to 2592000; a week if not given"`
}

// Invitation is a link with which a person sets a password and is signed in, once.
type Invitation struct {
	User    User      `json:"user"`
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

// Made names the invitation in the answer to a repeated request, as the link itself is not
// saved.
func (i Invitation) Made() string { return "an invitation of " + i.User.Name }

// UserToDelete names a user, and says what happens to its devices.
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
	Users []UserRow `json:"users"`
	Next  string    `json:"next"` // cursor of the next page, "" at the end
}

func (a *api) users() {
	s := a.ops
	addAsked(a, operation{"GET", "/users", "listUsers", "List users, by name: all, or yourself", "user.read", 0}, "cursor limit",
		func(ctx context.Context, who ops.Actor, in *Asked) (UserList, error) {
			users, err := s.Users(ctx, who)
			if err != nil {
				return UserList{}, err
			}
			users, next, err := page(users, in, byName, func(u store.UserRow) (int64, string) { return 0, u.Name })
			list := UserList{Users: []UserRow{}, Next: next}
			for _, u := range users {
				list.Users = append(list.Users, viewRow(u))
			}
			return list, err
		})
	add(a, operation{"GET", "/users/{id}", "getUser", "Show a user", "user.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (UserRow, error) {
			u, err := s.User(ctx, who, in.ID)
			return viewRow(u), err
		})
	addSent(a, operation{"POST", "/users", "createUser", "Create a person or a service", "user.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body ops.CreateUser) (User, error) {
			return do(ctx, a, who, body, viewUser)
		})
	addSent(a, operation{"PATCH", "/users/{id}", "editUser", "Change a user: role, tags, display name, groups; takes effect at once", "user.edit", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, c ops.EditUser) (User, error) {
			match, err := in.revisions()
			if err != nil {
				return User{}, err
			}
			c.Name, c.Match = in.ID, match
			return do(ctx, a, who, c, viewUser)
		})
	add(a, operation{"POST", "/users/{id}/suspend", "suspendUser", "Suspend a user until it is resumed: it is signed out, its tokens and keys are refused, and its devices without tags reach nothing", "user.suspend", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			return do(ctx, a, who, ops.SuspendUser{Name: in.ID}, viewUser)
		})
	add(a, operation{"POST", "/users/{id}/resume", "resumeUser", "End the suspension of a user", "user.resume", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			return do(ctx, a, who, ops.ResumeUser{Name: in.ID}, viewUser)
		})
	addSent(a, operation{"POST", "/invitations", "createInvitation", "Invite a new person, or a user who has never signed in; only this answer contains the link, and an earlier link ends", "user.invite user.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body NewInvitation) (Invitation, error) {
			c := body.InviteUser
			c.Life = lifeOf(body.LifeSeconds)
			return do(ctx, a, who, c, func(in ops.Invited) Invitation {
				return Invitation{viewUser(in.User), s.InviteURL(in.Path), in.Expires}
			})
		})
	add(a, operation{"DELETE", "/invitations/{id}", "deleteInvitation", "End the invitation of a user, who stays and can be invited again", "user.uninvite", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (User, error) {
			return do(ctx, a, who, ops.RevokeInvitation{Name: in.ID}, viewUser)
		})
	add(a, operation{"DELETE", "/users/{id}", "deleteUser", "Delete a user; its tokens end, and its name is never used again. Refused while the user has devices or keys, unless the request says what happens to them", "user.delete", 0},
		func(ctx context.Context, who ops.Actor, in *UserToDelete) (DeletedUser, error) {
			return do(ctx, a, who, ops.DeleteUser{Name: in.ID, DevicesTo: in.DevicesTo, DeleteDevices: in.DeleteDevices}, func(d ops.UserDeleted) DeletedUser {
				return DeletedUser{viewUser(d.User), d.Devices, d.Keys, d.Warnings}
			})
		})
}
