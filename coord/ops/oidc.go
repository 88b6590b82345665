package ops

import (
	"errors"
	"fmt"
	"time"

	"weft/coord/store"
)

// People who sign in elsewhere (OpenID Connect). Who somebody is, is issuer and subject:
// what else a provider says of them is for people to look at, and gives nobody an account
// that is there.

// ProviderLife is how long a session lasts that began at a provider, unless the provider
// extends it: somebody who was removed there is out by then.
const ProviderLife = 12 * time.Hour

// The bounds of what strangers can grow.
const (
	maxProviders = 20
	maxWaiting   = 100
	maxGroups    = 200
)

// ErrTooManyWaiting refuses somebody new while too many people wait for approval.
var ErrTooManyWaiting = errors.New("too many people wait for approval")

// ErrNotAdmitted refuses somebody who was approved by a rule whose claim they do not have any more.
var ErrNotAdmitted = errors.New("the provider does not report any more what this person was approved for")

// Foreigner is somebody whom a provider knows.
type Foreigner struct {
	Provider        string
	Issuer, Subject string
	Name, Mail      string
	Groups          []string
	Admitted        bool   // a rule of the provider approves them
	Refresh         string // what asks again, "" for nothing
}

// SignInWithProvider begins a session of whom a provider has proved, if it is somebody
// here. Who is not waits for approval from then on.
type SignInWithProvider struct {
	Who  Foreigner
	Same string // id of the user that it has to be, "" for anybody
	// Link is the hash of an invitation's token, which is used up: somebody who is not here
	// is the one who was invited, and need not wait. Zero for none.
	Link    [32]byte
	Session NewSession
	Ends    [32]byte // as in SignIn
}

func (SignInWithProvider) operation() *Operation { return opSignIn }

// run returns the zero value for somebody who waits.
func (c SignInWithProvider) run(tx *Tx) (store.User, error) {
	tx.asked = true // whoever a provider has proved may ask whether it is somebody
	i, err := tx.Identity(tx.s.network, c.Who.Issuer, c.Who.Subject)
	known := err == nil
	if err != nil && !isNotFound(err) {
		return store.User{}, err
	}
	if !known {
		i = store.Identity{ID: newID(), Issuer: c.Who.Issuer, Subject: c.Who.Subject, Created: tx.now}
	}
	i.Provider, i.Name, i.Mail, i.Seen = c.Who.Provider, printable(c.Who.Name, 100), printable(c.Who.Mail, 200), tx.now
	var u store.User
	switch {
	case i.UserID != "" && c.Link != [32]byte{}:
		return u, fmt.Errorf("an invitation of somebody else than whom %s signs in as: %w", c.Who.Provider, ErrTaken)
	case i.UserID != "" && i.Admitted && !c.Who.Admitted:
		return u, ErrNotAdmitted
	case i.UserID != "":
		if u, err = tx.User(tx.s.network, i.UserID); err == nil {
			err = active(u)
		}
		if err != nil {
			return u, err
		}
	case c.Same != "":
		return u, fmt.Errorf("another person: %w", ErrNotFound)
	case c.Link != [32]byte{}: // the session's beginning uses it up
		l, err := tx.Link(tx.s.network, c.Link, tx.now)
		if err == nil && !l.Invites {
			err = ErrNotFound
		}
		if err == nil {
			err = active(l.User)
		}
		if err == nil {
			err = tx.s.checkInvitation(&tx.Reader, l, c.Ends)
		}
		if err != nil {
			return u, err
		}
		u, i.UserID = l.User, l.User.ID
	case c.Who.Admitted:
		if u, err = tx.newPerson(i.Name, false); err != nil {
			return u, err
		}
		i.UserID, i.Admitted = u.ID, true
	default:
		n, err := tx.Waiting(tx.s.network)
		if err == nil && !known && n >= maxWaiting {
			err = ErrTooManyWaiting
		}
		if err == nil {
			err = tx.SetIdentity(tx.s.network, i)
		}
		if err == nil && !known {
			tx.note(opIdentityAsk, identityTarget(i), nil, i)
		}
		return u, err
	}
	if c.Same != "" && u.ID != c.Same {
		return u, fmt.Errorf("another person: %w", ErrNotFound)
	}
	tx.actor = ConsoleActor(u, tx.actor.From)
	if err := tx.may(userTarget(u)); err != nil {
		return u, err
	}
	if err := tx.SetIdentity(tx.s.network, i); err != nil {
		return u, err
	}
	if err := tx.setGroups(u, c.Who); err != nil {
		return u, err
	}
	if err := tx.endFormer(c.Ends); err != nil {
		return u, err
	}
	session := tx.sessionOf(u, c.Session, store.WithProvider)
	session.Provider, session.Expires = c.Who.Provider, tx.now.Add(ProviderLife)
	if session.Refresh, err = tx.sealRefresh(session, c.Who.Refresh); err != nil {
		return u, err
	}
	if err := tx.putSession(u, session, c.Session); err != nil {
		return u, err
	}
	tx.did(userTarget(u), nil, browserOf(session))
	return u, nil
}

func refreshAbout(s store.Session) string { return "refresh of " + s.UserID + " at " + s.Provider }

func (tx *Tx) sealRefresh(s store.Session, refresh string) ([]byte, error) {
	if refresh == "" {
		return nil, nil
	}
	return tx.s.auth.Seal(refreshAbout(s), []byte(refresh))
}

// setGroups takes the groups that a provider tells of.
func (tx *Tx) setGroups(u store.User, who Foreigner) error {
	var groups []string
	for _, g := range who.Groups {
		if g = printable(g, 100); g != "" && len(groups) < maxGroups {
			groups = append(groups, g)
		}
	}
	return tx.giveGroups(u, func() error { return tx.SetGroups(tx.s.network, u.ID, who.Provider, groups) })
}

// Refresh opens what extends a session at its provider, "" for nothing.
func (s *Service) Refresh(session store.Session) (string, error) {
	if session.Refresh == nil {
		return "", nil
	}
	b, err := s.auth.Unseal(refreshAbout(session), session.Refresh)
	return string(b), err
}

// ExtendSession has a session go on whose provider still knows its person. The server
// does it by itself.
type ExtendSession struct {
	Hash [32]byte
	Who  Foreigner
}

func (ExtendSession) operation() *Operation { return opSessionExtend }

func (c ExtendSession) run(tx *Tx) (none struct{}, err error) {
	session, u, err := tx.Session(tx.s.network, c.Hash)
	if err == nil {
		err = tx.may(userTarget(u))
	}
	tx.asked = true
	if err != nil {
		return none, err
	}
	i, err := tx.Identity(tx.s.network, c.Who.Issuer, c.Who.Subject)
	switch {
	case err != nil:
		return none, err
	case i.UserID != u.ID || session.Provider != c.Who.Provider:
		return none, fmt.Errorf("another person: %w", ErrNotFound)
	case i.Admitted && !c.Who.Admitted:
		return none, ErrNotAdmitted
	}
	sealed, err := tx.sealRefresh(session, c.Who.Refresh)
	if err != nil {
		return none, err
	}
	if err := tx.setGroups(u, c.Who); err != nil {
		return none, err
	}
	if err := tx.Tx.ExtendSession(tx.s.network, c.Hash, tx.now.Add(ProviderLife), sealed); err != nil {
		return none, err
	}
	tx.did(userTarget(u), nil, browserOf(session))
	return none, nil
}
