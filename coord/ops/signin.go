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
	// Browser is the hash of what the browser is known by from then on.
	Browser [32]byte
}

// SignIn begins a session of the actor, whose password was checked.
type SignIn struct {
	// Checked is the hash that the password was checked against. If it is no longer the
	// user's, nobody is signed in.
	Checked string
	Code    string // beside it, for who needs one: "" is ErrNeedsCode then
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
	with, err := tx.proveCode(u, store.WithPassword, c.Code)
	if err != nil {
		return u, err
	}
	if err := tx.endFormer(c.Ends); err != nil {
		return u, err
	}
	return u, tx.signIn(u, c.Session, with)
}

// UseLink uses a one-time sign-in link or an invitation up: it sets a password, ends all
// sessions and other links of the user, and begins a session. Of many at once with one link one
// does it, the others get ErrNotFound.
type UseLink struct {
	Link     [32]byte // hash of its token
	Code     string   // as in SignIn: a link is no way around it
	Password string   // hash of the new one
	// Passkey is what somebody who was invited takes in place of a password; nil for none.
	// Its Session is not used.
	Passkey *AddPasskey
	Session NewSession
	Ends    [32]byte // as in SignIn
}

func (UseLink) operation() *Operation { return opSignIn }

func (c UseLink) run(tx *Tx) (store.User, error) {
	l, err := tx.Tx.Link(tx.s.network, c.Link, tx.now)
	u := l.User
	if err == nil {
		err = active(u)
	}
	if err == nil {
		err = tx.may(userTarget(u))
	}
	if err != nil {
		tx.asked = true
		return u, err
	}
	if err := tx.s.checkInvitation(&tx.Reader, l, c.Ends); err != nil {
		return u, err
	}
	if err := tx.DeleteLink(tx.s.network, c.Link); err != nil {
		return u, err
	}
	with, err := tx.proveCode(u, store.WithLink, c.Code)
	if err != nil {
		return u, err
	}
	if err := tx.endFormer(c.Ends); err != nil {
		return u, err
	}
	if err := tx.endAll(u); err != nil {
		return u, err
	}
	if c.Passkey == nil {
		if err := tx.setPassword(u, c.Password); err != nil {
			return u, err
		}
		return u, tx.signIn(u, c.Session, with)
	}
	if !l.Invites {
		return u, Invalid("a sign-in link sets a password")
	}
	p, err := tx.storePasskey(u, *c.Passkey)
	if err != nil {
		return u, err
	}
	tx.note(opFactorSet, userTarget(u), nil, aPasskey{p.ID, p.Name, p.Domain})
	return u, tx.signIn(u, c.Session, with.With(store.AndPasskey))
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
func (tx *Tx) signIn(u store.User, n NewSession, with store.Method) error {
	session, err := tx.newSession(u, n, with)
	if err != nil {
		return err
	}
	tx.did(userTarget(u), nil, browserOf(session))
	return nil
}

func (tx *Tx) newSession(u store.User, n NewSession, with store.Method) (store.Session, error) {
	session := tx.sessionOf(u, n, with)
	return session, tx.putSession(u, session, n)
}

// sessionOf is a session that begins now.
func (tx *Tx) sessionOf(u store.User, n NewSession, with store.Method) store.Session {
	now := tx.now.UTC().Truncate(time.Second)
	session := store.Session{Hash: n.Hash, UserID: u.ID, Created: now, Seen: now, Agent: printable(n.Agent, 200), Method: with}
	if tx.actor.From.IsValid() {
		session.Addr = tx.actor.From.String()
	}
	return session
}

// putSession stores a session, in a browser that is known from then on. The oldest ones
// of the user end when there are too many.
func (tx *Tx) putSession(u store.User, session store.Session, n NewSession) error {
	if n.Browser != [32]byte{} {
		if err := tx.KnowBrowser(tx.s.network, session.UserID, n.Browser, tx.now); err != nil {
			return err
		}
	}
	ended, err := tx.CreateSession(tx.s.network, session)
	for _, old := range ended { // one person has so many at most
		tx.note(opSignOut, userTarget(u), browserOf(old), nil)
	}
	return err
}

// ownSession finds the session in which a user does something.
func (tx *Tx) ownSession(u store.User, hash [32]byte) (store.Session, error) {
	session, owner, err := tx.Session(tx.s.network, hash)
	if err == nil && owner.ID != u.ID {
		err = ErrNotFound
	}
	if err != nil {
		return session, fmt.Errorf("session: %w", err)
	}
	return session, nil
}

// replaceSession goes on with a session under another token.
func (tx *Tx) replaceSession(u store.User, session store.Session, n NewSession) error {
	if err := tx.DeleteSession(tx.s.network, session.UserID, session.Hash); err != nil && !isNotFound(err) {
		return err
	}
	session.Hash = n.Hash
	return tx.putSession(u, session, n)
}

// setPassword gives a user a password. Whoever knew another one is a stranger again.
func (tx *Tx) setPassword(u store.User, hash string) error {
	if err := tx.ForgetBrowsers(tx.s.network, u.ID); err != nil {
		return err
	}
	return tx.SetPassword(tx.s.network, u.ID, hash, [32]byte{})
}
