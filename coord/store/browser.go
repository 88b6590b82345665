package store

import (
	"fmt"
	"time"

	"weft/overlay/cert"
)

// maxBrowsers bounds the browsers remembered for one user.
const maxBrowsers = 20

// KnowBrowser stores that a user has signed in with the browser whose token has this hash,
// and deletes the least recently seen browsers above the bound.
func (tx *Tx) KnowBrowser(id cert.NetworkID, userID string, hash [32]byte, now time.Time) error {
	err := tx.exec(`INSERT INTO browsers (network_id, user_id, token_hash, seen_at) VALUES ($1,$2,$3,$4)
		ON CONFLICT (network_id, user_id, token_hash) DO UPDATE SET seen_at=excluded.seen_at`, id[:], userID, hash[:], now.Unix())
	if err != nil {
		return fmt.Errorf("store browser: %w", err)
	}
	return tx.exec(`DELETE FROM browsers WHERE network_id=$1 AND user_id=$2 AND token_hash <> $3 AND token_hash IN
		(SELECT token_hash FROM browsers WHERE network_id=$1 AND user_id=$2 ORDER BY seen_at DESC, token_hash LIMIT 1000 OFFSET $4)`,
		id[:], userID, hash[:], maxBrowsers)
}

// KnowsBrowser reports whether a user has signed in with a browser since a time.
func (r *Reader) KnowsBrowser(id cert.NetworkID, userID string, hash [32]byte, since time.Time) (known bool, err error) {
	err = r.row(`SELECT EXISTS (SELECT 1 FROM browsers WHERE network_id=$1 AND user_id=$2 AND token_hash=$3 AND seen_at > $4)`,
		[]any{id[:], userID, hash[:], since.Unix()}, &known)
	return known, err
}

// ForgetBrowsers deletes all browsers of a user.
func (tx *Tx) ForgetBrowsers(id cert.NetworkID, userID string) error {
	return tx.exec(`DELETE FROM browsers WHERE network_id=$1 AND user_id=$2`, id[:], userID)
}
