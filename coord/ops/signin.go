package ops

import (
	"fmt"
	"time"

	"weft/coord/store"
)

// NewSession is a session to begin. The browser's address is the actor's.
type NewSession struct {
	Hash  [32]byte // of its token, see HashToken
	Agent string   // what the browser calls itself; anything
}

// SignIn begins a session of the actor, whose password was checked.
type SignIn struct {
	// Checked is the hash that the password was checked against. If it is no longer the
	// user's, nobody is signed in.
	Checked string
	Session NewSession
	// Ends is the session that the browser had before, if it had one. It ends,
	// whoever's it was: the browser has its token.
	Ends [32]byte
}

func (SignIn) operation() *Operation { return opSignIn }

func (c SignIn) run(tx *Tx) (store.User, error) {
	u, err := tx.self()
	if err != nil {
		return u, err
	}
	if c.Checked == "" || !sameHash(u.Password, c.Checked) {
		return u, fmt.Errorf("the password of %s was changed meanwhile: %w", u.Name, ErrNotFound)
	}
	if err := tx.endFormer(c.Ends); err != nil {
		return u, err
	}
	return u, tx.signIn(u, c.Session, "password")
}

// UseLink uses a one-time sign-in link up: it sets a password, ends all sessions and
// other links of the user, and begins a session. Of many at once with one link one
// does it, the others get ErrNotFound.
type UseLink struct {
	Link     [32]byte // hash of its token
	Password string   // hash of the new one
	Session  NewSession
	Ends     [32]byte // as in SignIn
}

func (UseLink) operation() *Operation { return opSignIn }

func (c UseLink) run(tx *Tx) (store.User, error) {
	u, err := tx.Tx.UseLink(tx.s.network, c.Link, tx.now)
	if err == nil {
		err = tx.may(userTarget(u))
	}
	if err != nil {
		tx.asked = true
		return u, err
	}
	if err := tx.endFormer(c.Ends); err != nil {
		return u, err
	}
	if err := tx.endAll(u); err != nil {
		return u, err
	}
	if err := tx.SetPassword(tx.s.network, u.ID, c.Password, [32]byte{}); err != nil {
		return u, err
	}
	return u, tx.signIn(u, c.Session, "link")
}

// endFormer ends the session that a browser has before it gets another one.
func (tx *Tx) endFormer(hash [32]byte) error {
	session, u, err := tx.Session(tx.s.network, hash)
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		err = tx.DeleteSession(tx.s.network, u.ID, session.Hash)
	}
	if err != nil {
		return err
	}
	tx.note(opSignOut, userTarget(u), browserOf(session), nil)
	return nil
}

// signIn begins a session.
func (tx *Tx) signIn(u store.User, n NewSession, with string) error {
	session, err := tx.newSession(u, n)
	if err != nil {
		return err
	}
	b := browserOf(session)
	b.With = with
	tx.did(userTarget(u), nil, b)
	return nil
}

func (tx *Tx) newSession(u store.User, n NewSession) (store.Session, error) {
	now := tx.now.UTC().Truncate(time.Second)
	session := store.Session{Hash: n.Hash, UserID: u.ID, Created: now, Seen: now, Agent: printable(n.Agent, 200)}
	if tx.actor.From.IsValid() {
		session.Addr = tx.actor.From.String()
	}
	ended, err := tx.CreateSession(tx.s.network, session)
	for _, old := range ended { // one person has so many at most
		tx.note(opSignOut, userTarget(u), browserOf(old), nil)
	}
	return session, err
}
