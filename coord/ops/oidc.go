package ops

import (
	"errors"
	"fmt"
	"time"

	"weft/coord/store"
)

// People who sign in at an OpenID provider. Issuer and subject identify a person. A name or mail
// address that a provider reports is for people to read, and a new user may be named after it, but
// it never gives access to an existing account.

// ProviderLife is how long a session that began at a provider lasts, unless the provider extends
// it. So a person who was removed at the provider is signed out after that time.
const ProviderLife = 12 * time.Hour

// Bounds for data that strangers and providers can cause to be stored.
const (
	maxProviders = 20
	maxWaiting   = 100 // people who wait for approval
	maxGroups    = 200 // of one person
)

// ErrTooManyWaiting refuses an unknown person while too many people wait for approval.
var ErrTooManyWaiting = errors.New("too many people wait for approval")

// ErrNotAdmitted refuses a person who was approved because of a claim (Provider.AdmitClaim) that
// the provider does not report any more.
var ErrNotAdmitted = errors.New("the provider no longer reports the claim for which this person was approved")

// Foreigner is a person as a provider reports them.
type Foreigner struct {
	Provider        string
	Issuer, Subject string
	Name, Mail      string
	Groups          []string
	Admitted        bool   // the person has the claim that approves people of this provider
	Refresh         string // refresh token with which the server can ask again, "" for none
}

// SignInWithProvider begins a session of a person whom a provider has identified, if the person
// belongs to a user. An unknown person waits for approval from then on.
type SignInWithProvider struct {
	Who  Foreigner
	Same string // id of the user that the person has to be, "" for any
	// Link is the hash of an invitation's token, zero for none. An unknown person becomes the
	// invited user without waiting for approval, and the invitation is used up.
	Link    [32]byte
	Session NewSession
	Ends    [32]byte // as in SignIn
}

func (SignInWithProvider) operation() *Operation { return opSignIn }

// run returns the zero User for a person who has to wait.
func (c SignInWithProvider) run(tx *Tx) (store.User, error) {
	tx.asked = true // everybody whom a provider has identified may sign in or wait
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
		return u, fmt.Errorf("the person at %s belongs to a user already, and cannot use an invitation: %w", c.Who.Provider, ErrTaken)
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
	case c.Link != [32]byte{}: // putSession below uses the link up
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

// setGroups stores the groups that a provider reports of a user.
func (tx *Tx) setGroups(u store.User, who Foreigner) error {
	var groups []string
	for _, g := range who.Groups {
		if g = printable(g, 100); g != "" && len(groups) < maxGroups {
			groups = append(groups, g)
		}
	}
	return tx.giveGroups(u, func() error { return tx.SetGroups(tx.s.network, u.ID, who.Provider, groups) })
}

// Refresh returns the refresh token with which a session can be extended at its provider, "" for
// none.
func (s *Service) Refresh(session store.Session) (string, error) {
	if session.Refresh == nil {
		return "", nil
	}
	b, err := s.auth.Unseal(refreshAbout(session), session.Refresh)
	return string(b), err
}

// ExtendSession extends a session by ProviderLife, because its provider still knows the person.
// Only the server itself does this.
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
