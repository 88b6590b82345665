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

// Passkeys. The console makes challenges and checks what browsers answer (package
// passkey); what is here decides whose they are, and whether one may have been copied.

// maxPasskeys bounds the passkeys of one user.
const maxPasskeys = 20

// ErrNeedsPasskey is of who has a passkey where the network demands one, and has shown
// a password only.
var ErrNeedsPasskey = errors.New("this network wants your passkey")

// FindPasskey returns the passkey with an id, if it is of this user and for the domain
// that passkeys are for: passkey.ErrUnknown if not.
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

// PasskeyDomain is the domain that passkeys are for, "" before the first one.
func (s *Service) PasskeyDomain() string { return s.signIn.Load().PasskeyDomain }

// AddPasskey gives the actor a passkey, that was checked. The first one of the network
// decides for which domain all are.
type AddPasskey struct {
	Key     passkey.Key
	Domain  string
	Name    string
	Session [32]byte // where it is done: it has proved a passkey then
}

func (AddPasskey) operation() *Operation { return opFactorSet }

// aPasskey is one as the audit has it.
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
		return store.Passkey{}, Invalid("%d passkeys are the most that one person has; remove one first", maxPasskeys)
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

// mayAddFactor refuses a first proof to who has one and did not show it: whoever knows
// the password only does not make another one.
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

// RemovePasskey takes a passkey, by its ID, from the actor.
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
		return none, Invalid("this network wants a passkey or codes of whoever has your role: add another one first")
	}
	tx.did(userTarget(u), aPasskey{list[i].ID, list[i].Name, list[i].Domain}, nil)
	return none, nil
}

// SignInWithPasskey begins a session of the actor, who showed a passkey.
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
	// An authenticator that counts has counted on, unless another one has its key too.
	// That is no reason to keep its owner out, who may be the one that signs in.
	if (c.Proof.Counter != 0 || p.Counter != 0) && c.Proof.Counter <= p.Counter {
		p.Cloned = tx.now
		tx.note(opPasskeyCloned, userTarget(u), nil, struct {
			aPasskey
			Had uint32 `json:"counted"`
			Has uint32 `json:"counts"`
		}{aPasskey{p.ID, p.Name, p.Domain}, p.Counter, c.Proof.Counter})
		tx.After(func() {
			tx.s.log.Warn("a passkey counts less than it did: there may be a copy of it", "user", u.Name, "passkey", p.ID)
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
