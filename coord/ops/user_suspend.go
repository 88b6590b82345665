package ops

import (
	"errors"
	"fmt"
	"time"

	"weft/coord/store"
)

// ErrSuspended refuses whatever somebody does who is suspended.
var ErrSuspended = errors.New("suspended: an owner or an admin of the network has to resume this account")

// SuspendUser has a user, by name or id, do nothing until it is resumed. Its sessions and
// sign-in links end. Its tokens and keys, and those that it made for others, are refused.
// Its devices without tags reach nothing; who may reach them still does. Devices with tags
// act as those, and go on.
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

// ResumeUser ends a suspension. What ended with it stays so: the user signs in anew.
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

// peopleChanged has memory and nodes follow a change of people that rules are about.
func (tx *Tx) peopleChanged() error {
	n, err := tx.Network()
	if err == nil {
		err = tx.rulesChanged(n)
	}
	return err
}

// nameTags has nodes fetch their rules if those name each tag, and a device has the first of
// one.
func (tx *Tx) nameTags(tags []string) error {
	if len(tags) == 0 || !tx.s.index.namesEach(tags) {
		return nil
	}
	return tx.configChanged()
}

// active refuses somebody who is suspended.
func active(u store.User) error {
	if u.Suspended == nil {
		return nil
	}
	return fmt.Errorf("%s is suspended since %s: %w", u.Name, u.Suspended.UTC().Format(time.DateOnly), ErrSuspended)
}
