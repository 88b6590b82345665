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

// Sessions of browsers. The console makes their tokens, makes and checks the hashes of
// passwords, and says which session is still good; what is here never sees a password
// or a token, only their hashes. Codes it checks itself, since each works once. None of
// it is in the audit.

// LinkLife is how long a one-time sign-in link is good, and BrowserLife how long a
// browser is known in which somebody has signed in.
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

// HashToken is what is stored in a token's place.
func HashToken(token string) [32]byte { return sha256.Sum256([]byte(token)) }

// LinkPath is the path and query of the one-time sign-in link with this token. Append
// it to the console's address.
func LinkPath(token string) string { return "/welcome?link=" + url.QueryEscape(token) }

// ConsoleActor is a user in the console, at the address from.
func ConsoleActor(u store.User, from netip.Addr) Actor { return actorOf(u, ViaConsole, from) }

// SessionActor is the user of a session, at the address from.
func (s *Service) SessionActor(session store.Session, u store.User, from netip.Addr) Actor {
	a := ConsoleActor(u, from)
	a.SignedIn, a.Weak = session.Created, !session.Method.Strong() && s.demandsOf(a.Role)
	return a
}

// KnownBrowser reports whether a user (ErrNotFound for none) has signed in before with
// the browser whose token has this hash.
func (s *Service) KnownBrowser(ctx context.Context, userID string, hash [32]byte) (known bool, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) {
		known, err = r.KnowsBrowser(s.network, userID, hash, s.now().Add(-BrowserLife))
		return err
	})
	return known, err
}

// Link returns what a one-time sign-in link is for, and does not use it up. Unknown, used
// and expired links are ErrNotFound. here is the session of the browser where it was opened,
// zero for none: see checkInvitation.
func (s *Service) Link(ctx context.Context, hash, here [32]byte) (l store.Link, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) {
		if l, err = r.Link(s.network, hash, s.now()); err == nil {
			err = s.checkInvitation(r, l, here)
		}
		return err
	})
	return l, err
}

// Login returns the user with this name, whose Password is "" when none is set yet.
// Unknown names are ErrNotFound, in about the same time.
func (s *Service) Login(ctx context.Context, name string) (u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { u, err = r.UserByName(s.network, name); return err })
	return u, err
}

// Person returns the user with this id, for who has proved to be it.
func (s *Service) Person(ctx context.Context, id string) (u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { u, err = r.User(s.network, id); return err })
	return u, err
}

// Session returns the session with the token of this hash, and its user: ErrNotFound
// when it has ended. Whoever has the token may ask. It is called for every request of
// a browser: an indexed read.
func (s *Service) Session(ctx context.Context, hash [32]byte) (session store.Session, u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { session, u, err = r.Session(s.network, hash); return err })
	return session, u, err
}

// TouchSession notes when a session was last used. It is not recorded: looking at a
// page is no operation.
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

// endAll notes that all sessions of a user end, with what it does beside.
func (tx *Tx) endAll(u store.User) error {
	return tx.noteEnds(u, func(store.Session) bool { return true })
}

// noteEnds is endAll for some sessions.
func (tx *Tx) noteEnds(u store.User, which func(store.Session) bool) error {
	list, err := tx.Sessions(tx.s.network, u.ID)
	for _, session := range list {
		if which(session) {
			tx.note(opSignOut, userTarget(u), browserOf(session), nil)
		}
	}
	return err
}

// self reads the actor's user and asks whether it may do this for itself.
func (tx *Tx) self() (store.User, error) {
	u, err := tx.User(tx.s.network, tx.actor.UserID)
	if err != nil {
		tx.asked = true // there is nobody to be allowed
		return u, About(KindUser, tx.actor.User, err)
	}
	return u, tx.may(userTarget(u))
}

// browser is a session as the audit has it: nothing of its token.
type browser struct {
	Agent   string       `json:"agent"`
	Address string       `json:"address,omitempty"`
	Since   time.Time    `json:"since"`
	With    store.Method `json:"with,omitempty"` // what it began with
}

func browserOf(s store.Session) browser {
	return browser{Agent: s.Agent, Address: s.Addr, Since: s.Created.UTC(), With: s.Method}
}
