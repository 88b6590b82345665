package ops

import (
	"fmt"
	"time"

	"weft/coord/store"
)

// NewSession is a session to begin. The browser's address is the actor's.
type NewSession struct {
	Hash  [32]byte // of its token: see HashToken
	Agent string   // the browser's User-Agent, which can be any text
	// Browser is the hash of the token by which the browser is recognized later.
	Browser [32]byte
}

// SignIn begins a session of the actor, whose password the console has verified.
type SignIn struct {
	// Checked is the hash with which the password was verified. If it is not the user's hash any
	// more the sign-in fails.
	Checked string
	Code    string // the second factor, if the user needs one; "" gives ErrNeedsCode
	Session NewSession
	// Ends is the hash of the session that the browser had before, zero for none. That session
	// ends, even if it was another user's.
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

// UseLink uses up a one-time sign-in link or an invitation: it sets a password, ends all sessions
// and other links of the user, and begins a session. If several requests use the same link, one
// succeeds and the others get ErrNotFound.
type UseLink struct {
	Link     [32]byte // hash of its token
	Code     string   // as in SignIn: a link does not replace the second factor
	Password string   // hash of the new password
	// Passkey is a passkey that an invited person sets up instead of a password; nil for none.
	// Its field Session is not used.
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
		return u, Invalid("a sign-in link can set only a password, not a passkey")
	}
	p, err := tx.storePasskey(u, *c.Passkey)
	if err != nil {
		return u, err
	}
	tx.note(opFactorSet, userTarget(u), nil, aPasskey{p.ID, p.Name, p.Domain})
	return u, tx.signIn(u, c.Session, with.With(store.AndPasskey))
}

// endFormer ends the session that a browser had before, if it had one.
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

// sessionOf returns a session that begins now.
func (tx *Tx) sessionOf(u store.User, n NewSession, with store.Method) store.Session {
	now := tx.now.UTC().Truncate(time.Second)
	session := store.Session{Hash: n.Hash, UserID: u.ID, Created: now, Seen: now, Agent: printable(n.Agent, 200), Method: with}
	if tx.actor.From.IsValid() {
		session.Addr = tx.actor.From.String()
	}
	return session
}

// putSession stores a session, and that the user knows the browser. If the user has too many
// sessions the least recently used ones end.
func (tx *Tx) putSession(u store.User, session store.Session, n NewSession) error {
	if n.Browser != [32]byte{} {
		if err := tx.KnowBrowser(tx.s.network, session.UserID, n.Browser, tx.now); err != nil {
			return err
		}
	}
	ended, err := tx.CreateSession(tx.s.network, session)
	for _, old := range ended {
		tx.note(opSignOut, userTarget(u), browserOf(old), nil)
	}
	return err
}

// ownSession returns a session of the user, ErrNotFound if it is another user's.
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

// replaceSession gives a session another token.
func (tx *Tx) replaceSession(u store.User, session store.Session, n NewSession) error {
	if err := tx.DeleteSession(tx.s.network, session.UserID, session.Hash); err != nil && !isNotFound(err) {
		return err
	}
	session.Hash = n.Hash
	return tx.putSession(u, session, n)
}

// setPassword sets a user's password, and forgets the user's browsers, because somebody else may
// have signed in there with the old one.
func (tx *Tx) setPassword(u store.User, hash string) error {
	if err := tx.ForgetBrowsers(tx.s.network, u.ID); err != nil {
		return err
	}
	return tx.SetPassword(tx.s.network, u.ID, hash, [32]byte{})
}
