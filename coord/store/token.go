package store

import (
	"fmt"
	"strings"
	"time"

	"weft/overlay/cert"
)

// Token is a token with which a service uses the API. Only a hash of its secret is stored.
type Token struct {
	ID          string     `json:"id"`
	Hash        [32]byte   `json:"-"`
	UserID      string     `json:"-"`
	MadeBy      string     `json:"-"`           // id of the user who made it, "" if no user did
	Maker       string     `json:"made_by"`     // name of that user
	Suspended   bool       `json:"suspended"`   // its user or its maker is suspended: it does not work for that time
	User        string     `json:"user"`        // name of the service
	Description string     `json:"description"` // for people
	Created     time.Time  `json:"created"`
	Expires     *time.Time `json:"expires"`   // nil: it does not expire
	Revoked     *time.Time `json:"revoked"`   // nil: it is not
	Used        *time.Time `json:"last_used"` // nil: never; to the minute
	From        []string   `json:"used_from"` // addresses, the most recent first; for IPv6 the /64; not nil
}

// Live reports whether a token can be used at now.
func (t Token) Live(now time.Time) bool {
	return t.Revoked == nil && (t.Expires == nil || now.Before(*t.Expires))
}

const tokenColumns = `SELECT t.token_id, t.token_hash, t.user_id, u.name, t.description, t.created_at, t.expires_at, t.revoked_at, t.used_at, t.used_from,
	t.made_by, COALESCE(m.name, ''), u.suspended_at IS NOT NULL OR m.suspended_at IS NOT NULL
	FROM tokens t JOIN users u ON u.network_id = t.network_id AND u.user_id = t.user_id
	LEFT JOIN users m ON m.network_id = t.network_id AND m.user_id = t.made_by WHERE t.network_id=$1 `

func scanToken(scan func(...any) error) (t Token, err error) {
	var hash []byte
	var from string
	err = scan(&t.ID, &hash, &t.UserID, &t.User, &t.Description, stored{&t.Created}, maybeTime{&t.Expires}, maybeTime{&t.Revoked}, maybeTime{&t.Used}, &from, &t.MadeBy, &t.Maker, &t.Suspended)
	copy(t.Hash[:], hash)
	t.From = SplitTags(from)
	return t, err
}

func (r *Reader) token(query string, args ...any) (t Token, err error) {
	err = ErrNotFound
	if e := r.each(query, args, func(scan func(...any) error) error {
		t, err = scanToken(scan)
		return err
	}); e != nil {
		err = e
	}
	return t, err
}

// TokenByHash finds a token by its hash: an index lookup, so its time says nothing about
// how much of a guess was right.
func (r *Reader) TokenByHash(id cert.NetworkID, hash [32]byte) (Token, error) {
	return r.token(tokenColumns+`AND t.token_hash=$2`, id[:], hash[:])
}

// Token finds a token by its id.
func (r *Reader) Token(id cert.NetworkID, tokenID string) (Token, error) {
	return r.token(tokenColumns+`AND t.token_id=$2`, id[:], tokenID)
}

// Tokens lists the tokens of a user ("" for all), newest first.
func (r *Reader) Tokens(id cert.NetworkID, userID string) (list []Token, err error) {
	err = r.each(tokenColumns+`AND ($2 = '' OR t.user_id = $2) ORDER BY t.created_at DESC, t.token_id`, []any{id[:], userID},
		func(scan func(...any) error) error {
			t, err := scanToken(scan)
			list = append(list, t)
			return err
		})
	return list, err
}

// CreateToken stores a new token.
func (tx *Tx) CreateToken(id cert.NetworkID, t Token) error {
	var expires time.Time
	if t.Expires != nil {
		expires = *t.Expires
	}
	err := tx.exec(`INSERT INTO tokens (network_id, token_id, token_hash, user_id, description, created_at, expires_at, made_by) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)`,
		id[:], t.ID, t.Hash[:], t.UserID, t.Description, t.Created.Unix(), orNull(expires), t.MadeBy)
	if err != nil {
		return fmt.Errorf("create token: %w", err)
	}
	return nil
}

// RevokeToken revokes a token. A token that was revoked before keeps its date.
func (tx *Tx) RevokeToken(id cert.NetworkID, tokenID string, now time.Time) error {
	return tx.changed(`UPDATE tokens SET revoked_at = COALESCE(revoked_at, $3) WHERE network_id=$1 AND token_id=$2`, id[:], tokenID, now.Unix())
}

// SetTokenUsed stores when and from where a token was used, the most recent address first.
func (tx *Tx) SetTokenUsed(id cert.NetworkID, tokenID string, at time.Time, from []string) error {
	return tx.changed(`UPDATE tokens SET used_at=$3, used_from=$4 WHERE network_id=$1 AND token_id=$2`, id[:], tokenID, at.Unix(), strings.Join(from, ","))
}

// PruneTokens deletes the tokens that were revoked or expired before a time.
func (tx *Tx) PruneTokens(id cert.NetworkID, before time.Time) error {
	return tx.exec(`DELETE FROM tokens WHERE network_id=$1 AND (revoked_at < $2 OR expires_at < $2)`, id[:], before.Unix())
}
