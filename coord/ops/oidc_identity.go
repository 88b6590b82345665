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

// An identity is a person at a provider, who waits for approval or belongs to a user.

// Identities lists the identities, those first that wait for approval.
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

// ApproveIdentity approves a person who waits, as a new user or as an existing one.
type ApproveIdentity struct {
	ID   string `json:"-"`
	User string `json:"user,omitempty" doc:"name of the user, who is made if there is none; if not given, a new user with a name like the one at the provider"`
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
		if err == nil { // approving gives the person the rights of the user
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

// DenyIdentity deletes an identity that waits or was approved. The person is signed out, and has
// to wait for approval at the next sign-in.
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

// newPerson makes a user with a name. Unless exactly is set the name is changed to a valid one,
// and gets a number if it is taken.
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
