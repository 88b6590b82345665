package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/coord/passkey"
	"weft/coord/store"
)

// Passkeys. The console makes challenges and verifies the answers of browsers (package passkey).
// This file decides to whom a passkey belongs, and notices if one may have been copied.

// maxPasskeys bounds the passkeys of one user.
const maxPasskeys = 20

// ErrNeedsPasskey means that the network demands a second factor, and that the person has a
// passkey but has given only a password.
var ErrNeedsPasskey = errors.New("this network demands your passkey")

// FindPasskey returns the passkey with a credential id, and its user. It returns
// passkey.ErrUnknown unless the passkey belongs to that user and is for the network's domain.
func (s *Service) FindPasskey(ctx context.Context, credential []byte, userID string) (p store.Passkey, u store.User, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) {
		if p, err = r.Passkey(s.network, credential); err == nil && (p.UserID != userID || p.Domain != s.signIn.Load().PasskeyDomain) {
			err = ErrNotFound
		}
		if err == nil {
			u, err = r.User(s.network, userID)
		}
		return err
	})
	if isNotFound(err) {
		err = passkey.ErrUnknown
	}
	return p, u, err
}

// PasskeyDomain returns the domain for which all passkeys of the network are, "" before the
// first one.
func (s *Service) PasskeyDomain() string { return s.signIn.Load().PasskeyDomain }

// AddPasskey gives the actor a passkey, which the caller has verified. The first one of the
// network sets the domain for all.
type AddPasskey struct {
	Key     passkey.Key
	Domain  string
	Name    string
	Session [32]byte // hash of the session that does this; it counts as having proved a passkey
}

func (AddPasskey) operation() *Operation { return opFactorSet }

// aPasskey is the value of audit records about a passkey.
type aPasskey struct {
	ID     string `json:"passkey"`
	Name   string `json:"name"`
	Domain string `json:"domain"`
}

func (c AddPasskey) run(tx *Tx) (store.Passkey, error) {
	u, err := tx.self()
	if err != nil {
		return store.Passkey{}, err
	}
	session, err := tx.ownSession(u, c.Session)
	if err != nil {
		return store.Passkey{}, err
	}
	if err := tx.mayAddFactor(u); err != nil {
		return store.Passkey{}, err
	}
	p, err := tx.storePasskey(u, c)
	if err != nil {
		return p, err
	}
	if m := session.Method; !m.Strong() {
		if err := tx.SetSessionMethod(tx.s.network, u.ID, session.Hash, m.With(store.AndPasskey)); err != nil {
			return p, err
		}
	}
	tx.did(userTarget(u), nil, aPasskey{p.ID, p.Name, p.Domain})
	return p, nil
}

// storePasskey gives a user a passkey.
func (tx *Tx) storePasskey(u store.User, c AddPasskey) (store.Passkey, error) {
	have, err := tx.Passkeys(tx.s.network, u.ID)
	if err != nil {
		return store.Passkey{}, err
	}
	if len(have) >= maxPasskeys {
		return store.Passkey{}, Invalid("one person can have at most %d passkeys; remove one first", maxPasskeys)
	}
	settings, err := tx.SignIn(tx.s.network)
	if err != nil {
		return store.Passkey{}, err
	}
	if settings.PasskeyDomain == "" {
		now := settings
		now.PasskeyDomain = c.Domain
		if err := tx.changeSignIn(opSignInSet, settings, now); err != nil {
			return store.Passkey{}, err
		}
	} else if settings.PasskeyDomain != c.Domain {
		return store.Passkey{}, Invalid("passkeys of this network are for %s", settings.PasskeyDomain)
	}
	p := store.Passkey{
		Credential: c.Key.ID, ID: newID(), UserID: u.ID, Name: printable(c.Name, 64), Domain: c.Domain, PublicKey: c.Key.PublicKey, Counter: c.Key.Counter,
		Flags: c.Key.Flags, Transport: c.Key.Transport, AAGUID: append([]byte{}, c.Key.AAGUID...), Created: tx.now.UTC().Truncate(time.Second),
	}
	return p, tx.CreatePasskey(tx.s.network, p)
}

// mayAddFactor refuses to change second factors if the actor has one but has not proved it in
// this session. So somebody who knows only the password cannot add a factor.
func (tx *Tx) mayAddFactor(u store.User) error {
	if !tx.actor.Weak {
		return nil
	}
	f, err := tx.s.factors(&tx.Reader, u)
	if err == nil && f.Strong() {
		err = ErrWeak
	}
	return err
}

// RemovePasskey removes one of the actor's passkeys.
type RemovePasskey struct{ ID string }

func (RemovePasskey) operation() *Operation { return opFactorSet }

func (c RemovePasskey) run(tx *Tx) (none struct{}, err error) {
	u, err := tx.self()
	if err != nil {
		return none, err
	}
	if err := tx.mayAddFactor(u); err != nil {
		return none, err
	}
	list, err := tx.Passkeys(tx.s.network, u.ID)
	if err != nil {
		return none, err
	}
	i := slices.IndexFunc(list, func(p store.Passkey) bool { return p.ID == c.ID })
	if i < 0 {
		return none, fmt.Errorf("passkey %q: %w", printable(c.ID, 32), ErrNotFound)
	}
	if err := tx.DeletePasskey(tx.s.network, u.ID, c.ID); err != nil {
		return none, err
	}
	after, err := tx.s.factors(&tx.Reader, u)
	if err != nil {
		return none, err
	}
	if after.Demanded && !after.Strong() && list[i].Domain == tx.s.signIn.Load().PasskeyDomain {
		return none, Invalid("this network demands a passkey or codes of everybody with your role: add another one first")
	}
	tx.did(userTarget(u), aPasskey{list[i].ID, list[i].Name, list[i].Domain}, nil)
	return none, nil
}

// SignInWithPasskey begins a session of the actor, who has proved to have a passkey.
type SignInWithPasskey struct {
	Proof   passkey.Proof
	Session NewSession
	Ends    [32]byte // as in SignIn
}

func (SignInWithPasskey) operation() *Operation { return opSignIn }

func (c SignInWithPasskey) run(tx *Tx) (store.User, error) {
	u, err := tx.self()
	if err != nil {
		return u, err
	}
	p, err := tx.Passkey(tx.s.network, c.Proof.ID)
	if err == nil && p.UserID != u.ID {
		err = ErrNotFound
	}
	if err != nil {
		return u, fmt.Errorf("passkey: %w", err)
	}
	p.Used = tx.now
	// Authenticators with a counter increase it at each use. If it has not increased, another
	// authenticator may have a copy of the key. Sign the person in nevertheless, because it may
	// be the owner, but record it.
	if (c.Proof.Counter != 0 || p.Counter != 0) && c.Proof.Counter <= p.Counter {
		p.Cloned = tx.now
		tx.note(opPasskeyCloned, userTarget(u), nil, struct {
			aPasskey
			Had uint32 `json:"counted"`
			Has uint32 `json:"counts"`
		}{aPasskey{p.ID, p.Name, p.Domain}, p.Counter, c.Proof.Counter})
		tx.After(func() {
			tx.s.log.Warn("the counter of a passkey has not increased: there may be a copy of the passkey", "user", u.Name, "passkey", p.ID)
		})
	}
	p.Counter, p.Flags = max(p.Counter, c.Proof.Counter), c.Proof.Flags
	if err := tx.UsePasskey(tx.s.network, p); err != nil {
		return u, err
	}
	if err := tx.endFormer(c.Ends); err != nil {
		return u, err
	}
	return u, tx.signIn(u, c.Session, store.WithPasskey)
}
