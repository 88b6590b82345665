package coord

import (
	"context"
	"crypto/sha256"
	"time"

	"weft/coord/console"
	"weft/coord/store"
	"weft/overlay/cert"
)

// LoginLink makes a one-time sign-in link for a user ("" for the first) and
// returns its path and query. It is stored as a hash.
func (s *Service) LoginLink(ctx context.Context, user string) (string, error) {
	token := console.NewToken()
	now := s.now()
	err := s.store.Write(ctx, func(tx *store.Tx) error {
		u, err := s.owner(tx, NewKey{User: user})
		if err != nil {
			return err
		}
		return tx.CreateLink(s.network, sha256.Sum256([]byte(token)), u.ID, now, now.Add(console.LinkLife))
	})
	if err != nil {
		return "", err
	}
	return console.LinkPath(token), nil
}

// CreateUser makes a user and returns it.
func (s *Service) CreateUser(ctx context.Context, name string) (store.User, error) {
	u := store.User{ID: newID(), Name: name, Created: s.now().UTC().Truncate(time.Second)}
	if err := checkUserName(name); err != nil {
		return store.User{}, err
	}
	return u, s.store.Write(ctx, func(tx *store.Tx) error {
		tx.After(func() { s.index.setUser(u.ID, u.Name) })
		return tx.CreateUser(s.network, u)
	})
}

// DeleteUser deletes a user that owns no devices and no keys.
func (s *Service) DeleteUser(ctx context.Context, id string) error {
	return s.store.Write(ctx, func(tx *store.Tx) error { return tx.DeleteUser(s.network, id) })
}

// checkUserName wants a name that can stand in a certificate as it is.
func checkUserName(name string) error {
	if !cert.ValidWord(name) {
		return invalid("user name %q: want 1 to 64 letters, digits and ._@+-", printable(name, 64))
	}
	return nil
}

// SetConsoleURL tells the service where the console is, for sign-in links.
func (s *Service) SetConsoleURL(base string) { s.consoleURL.Store(&base) }

// consoleBase returns where the console is, as far as is known.
func (s *Service) consoleBase() string {
	if u := s.consoleURL.Load(); u != nil {
		return *u
	}
	if urls := s.index.info().URLs; len(urls) > 0 {
		return urls[0]
	}
	return ""
}
