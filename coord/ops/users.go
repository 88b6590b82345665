package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// CreateLink makes a one-time sign-in link for a user ("" for the network's owner). It
// is stored as a hash.
type CreateLink struct{ User string }

func (CreateLink) operation() *Operation { return opUserLink }

// run returns the link's path and query.
func (c CreateLink) run(tx *Tx) (string, error) {
	u, err := tx.owner("", c.User)
	if err == nil {
		err = tx.may(userTarget(u))
	}
	if err != nil {
		tx.asked = true
		return "", err
	}
	token := NewToken()
	if err := tx.CreateLink(tx.s.network, HashToken(token), u.ID, tx.now, tx.now.Add(LinkLife)); err != nil {
		return "", err
	}
	tx.did(userTarget(u), nil, nil)
	return LinkPath(token), nil
}

func userTarget(u store.User) target {
	return target{kind: "user", id: u.ID, name: u.Name, owner: u.ID}
}

// CreateUser makes a user: a member, who sees and changes the devices and keys that
// belong to it.
type CreateUser struct {
	Name string `json:"name"`
}

func (CreateUser) operation() *Operation { return opUserCreate }

func (c CreateUser) run(tx *Tx) (store.User, error) {
	u := store.User{ID: newID(), Name: c.Name, Created: tx.now.UTC().Truncate(time.Second)}
	if err := tx.may(userTarget(u)); err != nil {
		return u, err
	}
	if err := checkUserName(c.Name); err != nil {
		return u, err
	}
	if err := tx.Tx.CreateUser(tx.s.network, u); errors.Is(err, ErrTaken) {
		return u, fmt.Errorf("user %s: %w", u.Name, ErrTaken)
	} else if err != nil {
		return u, err
	}
	n, err := tx.Bump(tx.s.network)
	if err != nil {
		return u, err
	}
	tx.changed(n, store.UserChanged, u.ID)
	tx.did(userTarget(u), nil, named{u.Name})
	return u, nil
}

// DeleteUser deletes a user, by name or id, that owns no devices and no keys. It is
// signed out everywhere.
type DeleteUser struct{ Name string }

func (DeleteUser) operation() *Operation { return opUserDelete }

func (c DeleteUser) run(tx *Tx) (store.User, error) {
	u, err := tx.UserByName(tx.s.network, c.Name)
	if isNotFound(err) {
		u, err = tx.User(tx.s.network, c.Name)
	}
	if err == nil {
		err = tx.may(userTarget(u))
	}
	tx.asked = true
	switch {
	case err != nil:
		return u, fmt.Errorf("user %q: %w", printable(c.Name, 64), err)
	case u.Owner:
		return u, Invalid("%s owns the network and cannot be deleted", u.Name)
	}
	err = tx.Tx.DeleteUser(tx.s.network, u.ID)
	if errors.Is(err, ErrTaken) {
		return u, fmt.Errorf("%s still owns devices or keys; delete those first: %w", u.Name, ErrTaken)
	}
	if err != nil {
		return u, err
	}
	n, err := tx.Bump(tx.s.network)
	if err != nil {
		return u, err
	}
	tx.changed(n, store.UserChanged, u.ID)
	tx.did(userTarget(u), named{u.Name}, nil)
	return u, nil
}

// Users lists the users by name.
func (s *Service) Users(ctx context.Context, a Actor) (users []store.User, err error) {
	if err := opUserRead.asks(a); err != nil {
		return nil, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { users, err = r.Users(s.network); return err })
	return users, err
}

// checkUserName wants a name that can stand in a certificate as it is.
func checkUserName(name string) error {
	if !cert.ValidWord(name) {
		return Invalid("user name %q: want 1 to 64 letters, digits and ._@+-", printable(name, 64))
	}
	return nil
}

// SetConsoleURL tells the service where the console is, for sign-in links.
func (s *Service) SetConsoleURL(base string) { s.consoleURL.Store(&base) }

// consoleBase returns where the console is, as far as is known.
func (s *Service) consoleBase() string {
	if u := s.consoleURL.Load(); u != nil {
		return *u
	}
	if urls := s.index.info().URLs; len(urls) > 0 {
		return urls[0]
	}
	return ""
}
