package ops

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"weft/coord/store"
)

// Sessions of browsers. The console makes their tokens, makes and verifies the hashes of
// passwords, and decides which session is still valid. This package gets only hashes of tokens
// and passwords. It checks codes itself, because each works only once. None of these secrets is
// in the audit.

// LinkLife is how long a one-time sign-in link is valid, and BrowserLife how long a browser in
// which somebody has signed in is remembered.
const (
	LinkLife    = 24 * time.Hour
	BrowserLife = 180 * 24 * time.Hour
)

// NewToken returns 256 random bits as 43 URL-safe characters.
func NewToken() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// HashToken returns the hash of a token, which is stored in its place.
func HashToken(token string) [32]byte { return sha256.Sum256([]byte(token)) }

// LinkPath returns the path and query of the one-time sign-in link with a token. Append it to the
// console's address.
func LinkPath(token string) string { return "/welcome?link=" + url.QueryEscape(token) }

// ConsoleActor returns the actor for a user in the console, at the address from.
func ConsoleActor(u store.User, from netip.Addr) Actor { return actorOf(u, ViaConsole, from) }

// SessionActor returns the actor for the user of a session, at the address from.
func (s *Service) SessionActor(session store.Session, u store.User, from netip.Addr) Actor {
	a := ConsoleActor(u, from)
	a.SignedIn, a.Weak = session.Created, !session.Method.Strong() && s.demandsOf(a.Role)
	return a
}

// KnownBrowser reports whether a user has signed in before, within BrowserLife, with the browser
// whose token has this hash.
func (s *Service) KnownBrowser(ctx context.Context, userID string, hash [32]byte) (known bool, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) {
		known, err = r.KnowsBrowser(s.network, userID, hash, s.now().Add(-BrowserLife))
		return err
	})
	return known, err
}

// Link returns the one-time sign-in link whose token has this hash, without using it up. It
// returns ErrNotFound for unknown, used and expired links. here is the hash of the session in the
// browser that opened the link, zero for none: see checkInvitation.
func (s *Service) Link(ctx context.Context, hash, here [32]byte) (l store.Link, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) {
		if l, err = r.Link(s.network, hash, s.now()); err == nil {
			err = s.checkInvitation(r, l, here)
		}
		return err
	})
	return l, err
}

// Login returns the user with this name; Password is "" if none is set. It returns ErrNotFound
// for unknown names, after about the same time.
func (s *Service) Login(ctx context.Context, name string) (u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { u, err = r.UserByName(s.network, name); return err })
	return u, err
}

// Person returns the user with an id without authorization, for requests that have proved to come
// from that user.
func (s *Service) Person(ctx context.Context, id string) (u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { u, err = r.User(s.network, id); return err })
	return u, err
}

// Session returns the session whose token has this hash, and its user. It returns ErrNotFound if
// the session has ended. It needs no authorization, because the token is a secret. The console
// calls it for every request of a browser.
func (s *Service) Session(ctx context.Context, hash [32]byte) (session store.Session, u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { session, u, err = r.Session(s.network, hash); return err })
	return session, u, err
}

// TouchSession stores when a session was last used. There is no audit record, because looking at
// a page is not an operation.
func (s *Service) TouchSession(ctx context.Context, hash [32]byte) error {
	return s.store.Write(ctx, func(tx *store.Tx) error { return tx.TouchSession(s.network, hash, s.now()) })
}

// Sessions lists the actor's own sessions, most recently seen first.
func (s *Service) Sessions(ctx context.Context, a Actor) (list []store.Session, err error) {
	if err := opSessions.authorize(a, target{kind: "user", owner: a.UserID}); err != nil {
		return nil, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { list, err = r.Sessions(s.network, a.UserID); return err })
	return list, err
}

// EndSession ends a session.
type EndSession struct{ Hash [32]byte }

func (EndSession) operation() *Operation { return opSignOut }

func (c EndSession) run(tx *Tx) (none struct{}, err error) {
	session, u, err := tx.Session(tx.s.network, c.Hash)
	if err == nil {
		err = tx.may(userTarget(u))
	}
	if err != nil {
		tx.asked = true
		return none, fmt.Errorf("session: %w", err)
	}
	return none, tx.endSession(session, u)
}

func (tx *Tx) endSession(session store.Session, u store.User) error {
	if err := tx.DeleteSession(tx.s.network, u.ID, session.Hash); err != nil {
		return err
	}
	tx.did(userTarget(u), browserOf(session), nil)
	return nil
}

// EndOtherSessions ends all sessions of the actor but one.
type EndOtherSessions struct{ Keep [32]byte }

func (EndOtherSessions) operation() *Operation { return opSignOut }

func (c EndOtherSessions) run(tx *Tx) (none struct{}, err error) {
	u, err := tx.self()
	if err != nil {
		return none, err
	}
	list, err := tx.Sessions(tx.s.network, u.ID)
	if err != nil {
		return none, err
	}
	for _, session := range list {
		if session.Hash == c.Keep {
			continue
		}
		if err := tx.endSession(session, u); err != nil {
			return none, err
		}
	}
	return none, nil
}

// endAll records that all sessions of a user end. The caller deletes them.
func (tx *Tx) endAll(u store.User) error {
	return tx.noteEnds(u, func(store.Session) bool { return true })
}

// noteEnds is endAll for the sessions for which which returns true.
func (tx *Tx) noteEnds(u store.User, which func(store.Session) bool) error {
	list, err := tx.Sessions(tx.s.network, u.ID)
	for _, session := range list {
		if which(session) {
			tx.note(opSignOut, userTarget(u), browserOf(session), nil)
		}
	}
	return err
}

// self reads the actor's user, and returns an error if the actor may not do the operation on it.
func (tx *Tx) self() (store.User, error) {
	u, err := tx.User(tx.s.network, tx.actor.UserID)
	if err != nil {
		tx.asked = true // without a user there is nothing to authorize
		return u, About(KindUser, tx.actor.User, err)
	}
	return u, tx.may(userTarget(u))
}

// browser is the value of audit records about a session. It contains nothing of the token.
type browser struct {
	Agent   string       `json:"agent"`
	Address string       `json:"address,omitempty"`
	Since   time.Time    `json:"since"`
	With    store.Method `json:"with,omitempty"` // what was proved to begin it
}

func browserOf(s store.Session) browser {
	return browser{Agent: s.Agent, Address: s.Addr, Since: s.Created.UTC(), With: s.Method}
}
