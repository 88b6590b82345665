package store

import (
	"fmt"
	"math"
	"time"

	"weft/overlay/cert"
)

// Key is a join key; only the hash of its token's secret is stored.
type Key struct {
	ID         string   `json:"id"`
	SecretHash [32]byte `json:"-"`
	UserID     string   `json:"-"`
	User       string   `json:"user"` // name of the user
	MadeBy     string   `json:"-"`    // id of the user who made it, "" if no user did
	// Suspended says that its user or its maker is suspended: it cannot be used for that
	// time.
	Suspended bool       `json:"suspended"`
	Note      string     `json:"note"`
	Tags      []string   `json:"tags"` // without "tag:"; not nil
	Reusable  bool       `json:"reusable"`
	Ephemeral bool       `json:"ephemeral"`
	Relay     bool       `json:"relay"` // a relay joins with it, and no device
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"`
	Revoked   *time.Time `json:"revoked"` // nil: it is not
	Uses      int        `json:"uses"`
	Used      *time.Time `json:"last_used"` // nil: never
}

// Whether a key can be used.
const (
	KeyGood    = "good"
	KeyRevoked = "revoked"
	KeyUsed    = "used" // it works once, and was used
	KeyExpired = "expired"
	// KeySuspended: its user or its maker is suspended.
	KeySuspended = "suspended"
)

// State says whether the key can be used at now: one of the words above.
func (k Key) State(now time.Time) string {
	switch {
	case k.Revoked != nil:
		return KeyRevoked
	case !k.Reusable && k.Uses > 0:
		return KeyUsed
	case !now.Before(k.Expires):
		return KeyExpired
	case k.Suspended:
		return KeySuspended
	}
	return KeyGood
}

const keyColumns = `SELECT k.key_id, k.secret_hash, k.user_id, u.name, k.note, k.tags, k.reusable, k.ephemeral, k.relay, k.created_at, k.expires_at, k.revoked_at, k.uses, k.used_at,
	k.made_by, u.suspended_at IS NOT NULL OR m.suspended_at IS NOT NULL
	FROM keys k JOIN users u ON u.network_id = k.network_id AND u.user_id = k.user_id
	LEFT JOIN users m ON m.network_id = k.network_id AND m.user_id = k.made_by WHERE k.network_id=$1 `

func scanKey(scan func(...any) error) (k Key, err error) {
	var hash []byte
	var tags string
	err = scan(&k.ID, &hash, &k.UserID, &k.User, &k.Note, &tags, &k.Reusable, &k.Ephemeral, &k.Relay,
		stored{&k.Created}, stored{&k.Expires}, maybeTime{&k.Revoked}, &k.Uses, maybeTime{&k.Used}, &k.MadeBy, &k.Suspended)
	copy(k.SecretHash[:], hash)
	k.Tags = SplitTags(tags)
	return k, err
}

func (r *Reader) key(query string, args ...any) (k Key, err error) {
	err = ErrNotFound
	if e := r.each(query, args, func(scan func(...any) error) error {
		k, err = scanKey(scan)
		return err
	}); e != nil {
		err = e
	}
	return k, err
}

// KeyBySecret finds a key by the hash of its token's secret: an index lookup,
// so its time says nothing about how much of a guess was right.
func (r *Reader) KeyBySecret(id cert.NetworkID, hash [32]byte) (Key, error) {
	return r.key(keyColumns+`AND k.secret_hash=$2`, id[:], hash[:])
}

// Key finds a key by its id.
func (r *Reader) Key(id cert.NetworkID, keyID string) (Key, error) {
	return r.key(keyColumns+`AND k.key_id=$2`, id[:], keyID)
}

// Keys lists the keys of a user ("" for all), newest first: all of them if limit
// is 0, else at most limit, those that can be used at now before the others.
func (r *Reader) Keys(id cert.NetworkID, userID string, limit int, now time.Time) (keys []Key, err error) {
	first := `k.revoked_at IS NULL AND k.expires_at > $4 AND (k.reusable OR k.uses = 0)`
	if limit == 0 {
		limit, first = math.MaxInt32, `$4 < 0`
	}
	err = r.each(keyColumns+`AND ($2 = '' OR k.user_id = $2) ORDER BY (`+first+`) DESC, k.created_at DESC, k.key_id LIMIT $3`, []any{id[:], userID, limit, now.Unix()},
		func(scan func(...any) error) error {
			k, err := scanKey(scan)
			keys = append(keys, k)
			return err
		})
	return keys, err
}

// CreateKey stores a new key.
func (tx *Tx) CreateKey(id cert.NetworkID, k Key) error {
	err := tx.exec(`INSERT INTO keys (network_id, key_id, secret_hash, user_id, note, tags, reusable, ephemeral, relay, created_at, expires_at, made_by)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)`,
		id[:], k.ID, k.SecretHash[:], k.UserID, k.Note, JoinTags(k.Tags), k.Reusable, k.Ephemeral, k.Relay, k.Created.Unix(), k.Expires.Unix(), k.MadeBy)
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	return nil
}

// UseKey counts one use, and returns the number of uses in this hour, this one included. A
// constraint of the table also makes sure that a one-time key is used once.
func (tx *Tx) UseKey(id cert.NetworkID, keyID string, now time.Time) (inHour int, err error) {
	err = tx.row(`UPDATE keys SET uses = uses + 1, used_at = $3, hour_uses = CASE WHEN hour = $4 THEN hour_uses + 1 ELSE 1 END, hour = $4
		WHERE network_id=$1 AND key_id=$2 RETURNING hour_uses`, []any{id[:], keyID, now.Unix(), now.Unix() / 3600}, &inHour)
	return inHour, err
}

// RevokeKey revokes a key. A key that was revoked before keeps its date.
func (tx *Tx) RevokeKey(id cert.NetworkID, keyID string, now time.Time) error {
	return tx.changed(`UPDATE keys SET revoked_at = COALESCE(revoked_at, $3) WHERE network_id=$1 AND key_id=$2`, id[:], keyID, now.Unix())
}

// changed is exec for a statement that must change at least one row; ErrNotFound if it
// changes none.
func (tx *Tx) changed(query string, args ...any) error {
	n, err := tx.execN(query, args...)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}
