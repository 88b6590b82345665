package ops

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

// How long a key is valid.
const (
	DefaultKeyLife = 24 * time.Hour
	minKeyLife     = time.Minute
	maxKeyLife     = 366 * 24 * time.Hour
	maxKeyTags     = 16
)

// CreateKey makes a join key. The zero value makes one that is valid once, within 24 hours, for
// a device without tags that belongs to the actor, or to the network's owner if the actor is
// not a user.
type CreateKey struct {
	User      string        `json:"user,omitempty"` // name of the owner of devices that join with it
	UserID    string        `json:"-"`              // instead of User
	Note      string        `json:"note,omitempty"` // for people, at most 100 bytes
	Tags      []string      `json:"tags,omitempty"` // with or without "tag:"
	Reusable  bool          `json:"reusable,omitempty"`
	Relay     bool          `json:"relay,omitempty"`     // a relay joins with it, and no device
	Ephemeral bool          `json:"ephemeral,omitempty"` // its devices are deleted soon after they go offline
	Life      time.Duration `json:"-"`                   // 1 minute to 366 days; 0 for 24 h
}

// KeyCreated is a new key with its token. Only this answer contains the token.
type KeyCreated struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Made implements maker.
func (k KeyCreated) Made() string { return "the key " + k.ID }

func (CreateKey) operation() *Operation { return opKeyCreate }

func (c CreateKey) run(tx *Tx) (KeyCreated, error) {
	s := tx.s
	tags, err := checkTags(c.Tags)
	if err != nil {
		return KeyCreated{}, err
	}
	if !tx.actor.covers(tags) {
		return KeyCreated{}, fmt.Errorf("%s without any of your tags, which are %s: %w", tx.op.Name, strings.Join(tx.actor.Tags, ", "), ErrForbidden)
	}
	u, err := tx.ownerOfKey(c)
	if err != nil {
		return KeyCreated{}, err
	}
	k := store.Key{
		ID: newID(), UserID: u.ID, User: u.Name, MadeBy: tx.actor.UserID, Note: printable(c.Note, 100), Tags: tags,
		Reusable: c.Reusable, Ephemeral: c.Ephemeral, Relay: c.Relay, Created: tx.now.UTC().Truncate(time.Second),
	}
	if err := tx.may(keyTarget(k)); err != nil {
		if c.User != "" && isNotFound(err) { // do not reveal whether there is such a user
			err = About(KindUser, c.User, err)
		}
		return KeyCreated{}, err
	}
	if c.Relay {
		// A relay serves the whole network, so the actor must be one who may manage relays.
		if err := opRelayRemove.authorize(tx.actor, target{}); err != nil {
			return KeyCreated{}, fmt.Errorf("%s for a relay: %w", tx.op.Name, err)
		}
	}
	if !tx.actor.holds(tags) {
		return KeyCreated{}, fmt.Errorf("%s: you may give only your own tags, which are %s: %w", tx.op.Name, strings.Join(tx.actor.Tags, ", "), ErrForbidden)
	}
	if err := tx.mayTag(tags); err != nil {
		return KeyCreated{}, err
	}
	if err := active(u); err != nil {
		return KeyCreated{}, err
	}
	n := s.index.info()
	if c.Life == 0 {
		c.Life = DefaultKeyLife
	}
	switch {
	case len(n.URLs) == 0:
		return KeyCreated{}, Invalid("the server does not know its own address; start it once with: weft-server serve --url https://HOST:PORT")
	case c.Life < minKeyLife || c.Life > maxKeyLife:
		return KeyCreated{}, Invalid("a key can be valid for 1 minute to 366 days, not %s", spanText(c.Life))
	case c.Relay && (c.Ephemeral || len(tags) > 0):
		return KeyCreated{}, Invalid("a relay has no tags and is not ephemeral")
	}
	secret := cert.NewSecret()
	k.SecretHash, k.Expires = sha256.Sum256(secret), tx.now.Add(c.Life).UTC().Truncate(time.Second)
	if err := tx.CreateKey(s.network, k); err != nil {
		return KeyCreated{}, err
	}
	tx.did(keyTarget(k), nil, k)
	token := cert.Token{URLs: n.URLs, Server: cert.PinOf(s.auth.Server.Cert), Network: cert.PinOf(s.auth.Network.Cert), Secret: secret}
	return KeyCreated{ID: k.ID, Token: token.String(), Expires: k.Expires}, nil
}

func keyTarget(k store.Key) target {
	return target{kind: "key", id: k.ID, name: k.Note, owner: k.UserID, tags: k.Tags}
}

// ownerOfKey returns the user to whom devices that join with the new key will belong: by
// default the actor. If the actor is a service that may make keys for everybody the default is
// the network's owner, because a service does not use devices.
func (tx *Tx) ownerOfKey(c CreateKey) (store.User, error) {
	u, err := tx.owner(c.UserID, c.User)
	if err == nil && c.UserID == "" && c.User == "" && u.Kind == store.Service && opKeyCreate.may[Role(u.Role)] == all {
		return tx.FirstUser(tx.s.network)
	}
	return u, err
}

// owner finds a user by id or by name. If both are "" it returns the actor's user, or the
// network's owner if the actor is not a user.
func (tx *Tx) owner(id, name string) (store.User, error) {
	switch {
	case id != "":
		return tx.User(tx.s.network, id)
	case name != "":
		u, err := tx.UserByName(tx.s.network, name)
		if errors.Is(err, ErrNotFound) {
			err = About(KindUser, name, err)
		}
		return u, err
	case tx.actor.UserID != "":
		return tx.User(tx.s.network, tx.actor.UserID)
	}
	return tx.FirstUser(tx.s.network)
}

func checkTags(in []string) ([]string, error) {
	var tags []string
	for _, t := range in {
		t = strings.TrimPrefix(t, "tag:")
		if !cert.ValidWord(t) {
			return nil, Invalid("tag %q: want letters, digits and ._@+-", printable(t, 64))
		}
		tags = append(tags, t)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > maxKeyTags {
		return nil, Invalid("%d tags are given, and at most %d are possible", len(tags), maxKeyTags)
	}
	return tags, nil
}

// RevokeKey makes a key unusable. Devices that have joined with it stay. Revoking a key again
// changes nothing.
type RevokeKey struct{ ID string }

func (RevokeKey) operation() *Operation { return opKeyRevoke }

func (c RevokeKey) run(tx *Tx) (store.Key, error) {
	k, err := tx.Key(tx.s.network, c.ID)
	if err == nil {
		err = tx.may(keyTarget(k))
	}
	if err != nil {
		tx.asked = true
		return k, About(KindKey, c.ID, err)
	}
	if err := tx.RevokeKey(tx.s.network, c.ID, tx.now); err != nil {
		return k, err
	}
	if k.Revoked == nil {
		at := tx.now.UTC().Truncate(time.Second)
		k.Revoked = &at
		tx.did(keyTarget(k), nil, nil)
	}
	return k, nil
}

// Keys lists the keys that an actor may see, newest first: all of them if limit is 0, else at
// most limit, with usable keys before the others.
func (s *Service) Keys(ctx context.Context, a Actor, limit int) ([]store.Key, error) {
	list := []store.Key{}
	if err := opKeyRead.asks(a); err != nil {
		return list, err
	}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		keys, err := r.Keys(s.network, opKeyRead.ownerSeen(a), limit, s.now())
		for _, k := range keys {
			if opKeyRead.authorize(a, keyTarget(k)) == nil {
				list = append(list, k)
			}
		}
		return err
	})
	return list, err
}

// Key returns one key.
func (s *Service) Key(ctx context.Context, a Actor, id string) (k store.Key, err error) {
	err = s.store.Read(ctx, func(r *store.Reader) (err error) { k, err = r.Key(s.network, id); return err })
	if err == nil {
		err = opKeyRead.authorize(a, keyTarget(k))
	}
	if err != nil {
		return store.Key{}, About(KindKey, id, err)
	}
	return k, nil
}
