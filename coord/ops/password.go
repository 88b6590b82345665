package ops

import (
	"crypto/subtle"
	"fmt"
)

// ChangePassword changes the password of the actor, who knew the old one. All sessions
// and links of the user end, and the browser where it is done gets a new session, in
// case that the token of the old one had got about.
type ChangePassword struct {
	Checked  string // hash that the old one was checked against; it has to be the user's still
	Password string // hash of the new one
	Session  NewSession
	Ends     [32]byte // the session in which it is done: the new one is as old, and as good
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

// sameHash reports whether a password's hash is still the one that was checked, in a
// time that does not tell where they differ.
func sameHash(now, checked string) bool {
	return subtle.ConstantTimeCompare([]byte(now), []byte(checked)) == 1
}
