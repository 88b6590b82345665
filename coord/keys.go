package coord

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// Life of a key.
const (
	DefaultKeyLife = 24 * time.Hour
	minKeyLife     = time.Minute
	maxKeyLife     = 366 * 24 * time.Hour
	maxKeyTags     = 16
)

// NewKey asks for a join key. The zero value is a one-time key for an
// untagged device of the network's first user, good for 24 hours.
type NewKey struct {
	User      string        // name of the owner of what joins; "" is the first user
	UserID    string        // instead of User
	Note      string        // for people, at most 100 bytes
	Tags      []string      // with or without "tag:"
	Reusable  bool          // may make many devices
	Relay     bool          // a relay joins with it, and no device
	Ephemeral bool          // its devices are deleted soon after they go offline
	Life      time.Duration // 1 minute to 366 days; 0 is 24 h
}

// CreateKey makes a join key. The token is returned this once and stored
// nowhere.
func (s *Service) CreateKey(ctx context.Context, nk NewKey) (store.Key, cert.Token, error) {
	n := s.index.info()
	if len(n.URLs) == 0 {
		return store.Key{}, cert.Token{}, invalid("the server knows no address of its own; start it once with: weft-server serve --url https://HOST:PORT")
	}
	if nk.Life == 0 {
		nk.Life = DefaultKeyLife
	}
	if nk.Life < minKeyLife || nk.Life > maxKeyLife {
		return store.Key{}, cert.Token{}, invalid("a key lives 1 minute to 366 days, not %s", nk.Life)
	}
	tags, err := checkTags(nk.Tags)
	if err != nil {
		return store.Key{}, cert.Token{}, err
	}
	if nk.Relay && (nk.Ephemeral || len(tags) > 0) {
		return store.Key{}, cert.Token{}, invalid("a relay has no tags and is not ephemeral")
	}
	secret := cert.NewSecret()
	now := s.now()
	k := store.Key{
		ID: newID(), SecretHash: sha256.Sum256(secret), Note: printable(nk.Note, 100), Tags: tags,
		Reusable: nk.Reusable, Ephemeral: nk.Ephemeral, Relay: nk.Relay,
		Created: now.UTC().Truncate(time.Second), Expires: now.Add(nk.Life).UTC().Truncate(time.Second),
	}
	err = s.store.Write(ctx, func(tx *store.Tx) error {
		u, err := s.owner(tx, nk)
		if err != nil {
			return err
		}
		k.UserID, k.User = u.ID, u.Name
		return tx.CreateKey(s.network, k)
	})
	if err != nil {
		return store.Key{}, cert.Token{}, err
	}
	s.log.Info("key created", "key", k.ID, "user", k.User, "tags", k.Tags, "reusable", k.Reusable, "expires", k.Expires)
	return k, cert.Token{URLs: n.URLs, Server: cert.PinOf(s.auth.Server.Cert), Network: cert.PinOf(s.auth.Network.Cert), Secret: secret}, nil
}

func (s *Service) owner(tx *store.Tx, nk NewKey) (store.User, error) {
	switch {
	case nk.UserID != "":
		return tx.User(s.network, nk.UserID)
	case nk.User != "":
		u, err := tx.UserByName(s.network, nk.User)
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("user %q: %w", printable(nk.User, 64), err)
		}
		return u, err
	}
	return tx.FirstUser(s.network)
}

func checkTags(in []string) ([]string, error) {
	var tags []string
	for _, t := range in {
		t = strings.TrimPrefix(t, "tag:")
		if !cert.ValidWord(t) {
			return nil, invalid("tag %q: want letters, digits and ._@+-", printable(t, 64))
		}
		tags = append(tags, t)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > maxKeyTags {
		return nil, invalid("%d tags, at most %d", len(tags), maxKeyTags)
	}
	return tags, nil
}

// Keys lists the keys of a user ("" for all), newest first: all of them if limit
// is 0, else at most limit, those that can be used before the others.
func (s *Service) Keys(ctx context.Context, userID string, limit int) (keys []store.Key, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { keys, err = r.Keys(s.network, userID, limit, s.now()); return err })
	return keys, err
}

// Key returns one key; userID "" for anybody's.
func (s *Service) Key(ctx context.Context, userID, id string) (k store.Key, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { k, err = r.Key(s.network, id); return err })
	if err == nil && userID != "" && k.UserID != userID {
		return store.Key{}, ErrNotFound
	}
	return k, err
}

// RevokeKey makes a key useless for new devices; those that joined stay.
func (s *Service) RevokeKey(ctx context.Context, userID, id string) error {
	return s.store.Write(ctx, func(tx *store.Tx) error {
		k, err := tx.Key(s.network, id)
		if err == nil && userID != "" && k.UserID != userID {
			err = ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("key %q: %w", printable(id, 32), err)
		}
		tx.After(func() { s.log.Info("key revoked", "key", id) })
		return tx.RevokeKey(s.network, id, s.now())
	})
}
