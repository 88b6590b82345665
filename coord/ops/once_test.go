package ops

import (
	"crypto/sha256"
	"errors"
	"testing"

	"weft/coord/store"
)

// What a request asked for, a secret perhaps, cannot be guessed from what is kept of it,
// and the same request is known again.
func TestRequestsAreNotGuessable(t *testing.T) {
	s := openSite(t)
	owner := s.owner()
	once := Once{Key: "k", Request: sha256.Sum256([]byte("a weak secret"))}
	create := func(once Once) error {
		_, err := DoOnce(t.Context(), s.Service, owner, once, CreateUser{Name: "carl", Role: RoleMember}, func(u store.User) string { return u.Name })
		return err
	}
	if err := errors.Join(create(once), create(once)); err != nil {
		t.Fatal(err)
	}
	if err := create(Once{Key: "k", Request: sha256.Sum256([]byte("another"))}); !errors.Is(err, ErrInvalid) {
		t.Errorf("another request with the same key: %v", err)
	}
	var name string
	if err := s.Again(t.Context(), owner, "user.create", once, &name); err != nil || name != "carl" {
		t.Errorf("%q, %v", name, err)
	}
	err := s.store.Read(t.Context(), func(r *store.Reader) error {
		d, err := r.DoneWith(s.network, owner.UserID, "k", s.clock.Now())
		if d.Request == once.Request || d.Request == sha256.Sum256(once.Request[:]) || d.Request == [32]byte{} {
			t.Error("the hash can be made without the server's key")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
