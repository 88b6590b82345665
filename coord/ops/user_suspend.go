package ops

import (
	"errors"
	"fmt"
	"time"

	"weft/coord/store"
)

// ErrSuspended refuses everything that a suspended user does.
var ErrSuspended = errors.New("suspended: an owner or an admin of the network has to resume this account")

// SuspendUser suspends a user, by name or id, until the user is resumed. The user's sessions and
// sign-in links end. The user's tokens and keys, and those that the user made for others, are
// refused. The user's devices without tags reach nothing, but can be reached as before. Devices
// with tags do not act for the user, and work as before.
type SuspendUser struct{ Name string }

func (SuspendUser) operation() *Operation { return opUserSuspend }

func (c SuspendUser) run(tx *Tx) (store.User, error) {
	u, err := tx.userToChange(c.Name)
	if err != nil || u.Suspended != nil {
		return u, err
	}
	if u.ID == tx.actor.UserID {
		return u, Invalid("you cannot suspend yourself; ask another owner or admin")
	}
	if err := tx.lastOwner(u); err != nil {
		return u, err
	}
	if err := tx.endAll(u); err != nil {
		return u, err
	}
	return u, tx.setSuspended(&u, tx.now)
}

// ResumeUser ends a suspension. Sessions and links that it ended do not come back, so the user
// has to sign in again.
type ResumeUser struct{ Name string }

func (ResumeUser) operation() *Operation { return opUserResume }

func (c ResumeUser) run(tx *Tx) (store.User, error) {
	u, err := tx.userToChange(c.Name)
	if err != nil || u.Suspended == nil {
		return u, err
	}
	return u, tx.setSuspended(&u, time.Time{})
}

func (tx *Tx) setSuspended(u *store.User, since time.Time) error {
	before := userAs(*u)
	if err := tx.SetSuspended(tx.s.network, u.ID, since); err != nil {
		return err
	}
	u.Suspended, u.Owner = orNil(since), u.Owner && since.IsZero()
	tx.did(userTarget(*u), before, userAs(*u))
	if err := tx.userChanged(*u); err != nil {
		return err
	}
	return tx.peopleChanged()
}

// peopleChanged makes all nodes fetch their rules after a change of people about whom there are
// rules.
func (tx *Tx) peopleChanged() error {
	n, err := tx.Network()
	if err == nil {
		err = tx.rulesChanged(n)
	}
	return err
}

// nameTags makes nodes fetch their rules if the rules have to name each tag, and one of tags is
// new in the network.
func (tx *Tx) nameTags(tags []string) error {
	if len(tags) == 0 || !tx.s.index.namesEach(tags) {
		return nil
	}
	return tx.configChanged()
}

// active returns an error if a user is suspended.
func active(u store.User) error {
	if u.Suspended == nil {
		return nil
	}
	return fmt.Errorf("%s has been suspended since %s: %w", u.Name, u.Suspended.UTC().Format(time.DateOnly), ErrSuspended)
}
