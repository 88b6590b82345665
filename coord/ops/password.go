package ops

import (
	"crypto/subtle"
	"fmt"
)

// ChangePassword changes the password of the actor, who has given the old one. All sessions and
// links of the user end. The browser that does this gets a new session, in case somebody knows
// the token of its old one.
type ChangePassword struct {
	Checked  string // hash with which the old password was verified; it must still be the user's
	Password string // hash of the new password
	Session  NewSession
	Ends     [32]byte // hash of the old session; the new one has the same sign-in time and method
}

func (ChangePassword) operation() *Operation { return opPassword }

func (c ChangePassword) run(tx *Tx) (none struct{}, err error) {
	u, err := tx.self()
	if err != nil {
		return none, err
	}
	if !sameHash(u.Password, c.Checked) {
		return none, fmt.Errorf("the password of %s was changed meanwhile: %w", u.Name, ErrNotFound)
	}
	here, err := tx.ownSession(u, c.Ends)
	if err != nil {
		return none, err
	}
	if err := tx.endAll(u); err != nil {
		return none, err
	}
	if err := tx.setPassword(u, c.Password); err != nil {
		return none, err
	}
	if err := tx.replaceSession(u, here, c.Session); err != nil {
		return none, err
	}
	b := browserOf(here)
	b.With = "new password"
	tx.did(userTarget(u), nil, nil)
	tx.note(opSignIn, userTarget(u), nil, b)
	return none, nil
}

// sameHash compares two hashes in constant time.
func sameHash(now, checked string) bool {
	return subtle.ConstantTimeCompare([]byte(now), []byte(checked)) == 1
}
