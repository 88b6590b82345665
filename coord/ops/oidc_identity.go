package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"weft/coord/store"
)

// Identities: who somebody is at a provider, and whether that person was approved.

// Identities lists who people are at providers, those first who wait for approval.
func (s *Service) Identities(ctx context.Context, a Actor) (list []store.Identity, err error) {
	if err := opIdentityRead.readsAll(a); err != nil {
		return nil, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { list, err = r.Identities(s.network); return err })
	return list, err
}

func identityTarget(i store.Identity) target {
	return target{kind: "identity", id: i.ID, name: printable(i.Name, 64)}
}

// ApproveIdentity approves somebody who waits: as a new user, or as one that is there.
type ApproveIdentity struct {
	ID   string `json:"-"`
	User string `json:"user,omitempty" doc:"name of the user, who is made if there is none; after what the provider says if not given"`
}

func (ApproveIdentity) operation() *Operation { return opIdentityDecide }

func (c ApproveIdentity) run(tx *Tx) (store.Identity, error) {
	if err := tx.may(target{kind: "identity"}); err != nil {
		return store.Identity{}, err
	}
	i, err := tx.IdentityByID(tx.s.network, c.ID)
	if err != nil {
		return i, fmt.Errorf("identity %q: %w", printable(c.ID, 64), err)
	}
	if i.UserID != "" {
		return i, fmt.Errorf("%s was approved before: %w", i.User, ErrTaken)
	}
	var u store.User
	if c.User != "" {
		if err := checkUserName(c.User); err != nil {
			return i, err
		}
		u, err = tx.UserByName(tx.s.network, c.User)
		if err == nil { // who lets somebody in as a user makes that user's rights theirs
			err = tx.mayGrant(Role(u.Role), u.Tags)
		}
	} else {
		err = ErrNotFound
	}
	if isNotFound(err) {
		u, err = tx.newPerson(cmp.Or(c.User, i.Name), c.User != "")
	}
	if err != nil {
		return i, err
	}
	i.UserID, i.User = u.ID, u.Name
	if err := tx.SetIdentity(tx.s.network, i); err != nil {
		return i, err
	}
	tx.did(identityTarget(i), nil, i)
	return i, nil
}

// DenyIdentity forgets somebody who waits, or was approved, who has to wait again then and is
// signed out.
type DenyIdentity struct{ ID string }

func (DenyIdentity) operation() *Operation { return opIdentityDecide }

func (c DenyIdentity) run(tx *Tx) (store.Identity, error) {
	if err := tx.may(target{kind: "identity"}); err != nil {
		return store.Identity{}, err
	}
	i, err := tx.IdentityByID(tx.s.network, c.ID)
	if err == nil && i.UserID != "" {
		var u store.User
		if u, err = tx.User(tx.s.network, i.UserID); err == nil {
			err = tx.mayGrant(Role(u.Role), u.Tags)
		}
		if err == nil {
			err = tx.noteEnds(u, func(s store.Session) bool { return s.Provider == i.Provider })
		}
		if err == nil {
			err = tx.DeleteProviderSessions(tx.s.network, i.UserID, i.Provider)
		}
	}
	if err == nil {
		err = tx.DeleteIdentity(tx.s.network, i.ID)
	}
	if err != nil {
		return i, fmt.Errorf("identity %q: %w", printable(c.ID, 64), err)
	}
	tx.did(identityTarget(i), i, nil)
	return i, nil
}

// newPerson makes a user with a name, or if that is taken and need not be it, one like
// it.
func (tx *Tx) newPerson(name string, exactly bool) (store.User, error) {
	word := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._+-", r):
			return r
		case r == ' ':
			return '-'
		}
		return -1
	}, name), "._+-")
	if exactly {
		word = name
	}
	if len(word) > 50 && !exactly {
		word = word[:50]
	}
	word = cmp.Or(word, "person")
	for n := 1; ; n++ {
		u := store.User{ID: newID(), Name: word, Kind: store.Person, Role: string(RoleMember), Created: tx.now.UTC().Truncate(time.Second)}
		if n > 1 {
			u.Name = fmt.Sprintf("%s-%d", word, n)
		}
		err := tx.makeUser(u)
		if errors.Is(err, ErrTaken) && !exactly && n < 1000 {
			continue
		}
		if err != nil {
			return u, err
		}
		tx.note(opUserCreate, userTarget(u), nil, userAs(u))
		return u, nil
	}
}
