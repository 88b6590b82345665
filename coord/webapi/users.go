package webapi

import (
	"context"
	"net/http"

	"weft/coord/ops"
	"weft/coord/store"
)

// UserList is all users, by name.
type UserList struct {
	Users []store.User `json:"users"`
}

func (a *api) users() {
	s := a.ops
	add(a, operation{"GET", "/users", "listUsers", "List users", "user.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (UserList, error) {
			users, err := s.Users(ctx, who)
			return UserList{Users: append([]store.User{}, users...)}, err
		})
	addSent(a, operation{"POST", "/users", "createUser", "Make a user, who sees the own devices only", "user.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body ops.CreateUser) (store.User, error) {
			return ops.Do(ctx, s, who, body)
		})
	add(a, operation{"DELETE", "/users/{id}", "deleteUser", "Delete a user without devices and keys", "user.delete", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.User, error) {
			return ops.Do(ctx, s, who, ops.DeleteUser{Name: in.ID})
		})
}
