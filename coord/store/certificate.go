package store

import (
	"math/big"
	"time"

	"weft/overlay/cert"
)

// Cause says when a change by a person made a certificate necessary. The zero value is for a
// join or a renewal.
type Cause struct {
	Renamed time.Time // another name
	Moved   time.Time // other tags, or another owner
}

// Issued records a certificate that was signed for a node.
func (tx *Tx) Issued(id cert.NetworkID, node cert.NodeID, serial *big.Int, expires time.Time, cause Cause) error {
	return tx.exec(`INSERT INTO issued (network_id, node_id, serial, expires_at, renamed_at, moved_at) VALUES ($1,$2,$3,$4,$5,$6)`,
		id[:], node[:], serial.Bytes(), expires.Unix(), orNull(cause.Renamed), orNull(cause.Moved))
}

// Supersede revokes all certificates of a node that is about to get another one. The caller
// makes a new CRL in the same transaction.
func (tx *Tx) Supersede(id cert.NetworkID, node cert.NodeID, now time.Time) error {
	return tx.exec(`UPDATE issued SET revoked_at=$3, superseded=1 WHERE network_id=$1 AND node_id=$2 AND revoked_at IS NULL`, id[:], node[:], now.Unix())
}

// The query planner assumes that an index beginning with network_id is selective, but there
// is only one network. A plus before a column keeps the planner from using the index on that
// column and reading the certificates of all nodes.

// Unexpired counts the certificates of a node that have not expired at now, superseded ones
// included: these stay in the revocation list until they expire, too.
func (r *Reader) Unexpired(id cert.NetworkID, node cert.NodeID, now time.Time) (n int, err error) {
	err = r.row(`SELECT COUNT(*) FROM issued WHERE network_id=$1 AND node_id=$2 AND (revoked_at IS NULL OR superseded = 1) AND +expires_at > $3`, []any{id[:], node[:], now.Unix()}, &n)
	return n, err
}

// Renames counts the certificates that were made because of renames after since. first is the
// time of the first of these renames, zero if there are none.
func (r *Reader) Renames(id cert.NetworkID, node cert.NodeID, since time.Time) (n int, first time.Time, err error) {
	err = r.row(`SELECT COUNT(*), MIN(renamed_at) FROM issued WHERE network_id=$1 AND node_id=$2 AND renamed_at > $3`, []any{id[:], node[:], since.Unix()}, &n, nullTime{&first})
	return n, first, err
}

// Moves is Renames for changes of tags or owner.
func (r *Reader) Moves(id cert.NetworkID, node cert.NodeID, since time.Time) (n int, first time.Time, err error) {
	err = r.row(`SELECT COUNT(*), MIN(moved_at) FROM issued WHERE network_id=$1 AND node_id=$2 AND moved_at > $3`, []any{id[:], node[:], since.Unix()}, &n, nullTime{&first})
	return n, first, err
}

// Revoked is a revoked certificate.
type Revoked struct {
	Serial     *big.Int
	KeyID      string // of the join key of its deleted device, "" when unknown
	Superseded bool   // its device has got another one
	Expires    int64  // unix seconds
}

// Revoked returns all revoked certificates that have not expired at now, the most recently
// revoked first.
func (r *Reader) Revoked(id cert.NetworkID, now time.Time) (list []Revoked, err error) {
	return r.revoked(`SELECT serial, key_id, superseded, expires_at FROM issued WHERE network_id=$1 AND revoked_at IS NOT NULL AND +expires_at > $2 ORDER BY revoked_at DESC, expires_at DESC`, id[:], now.Unix())
}

// revoke revokes all certificates of a node that is deleted at now, and returns them,
// including expired and superseded ones.
func (tx *Tx) revoke(id cert.NetworkID, n Node, now time.Time) ([]Revoked, error) {
	return tx.revoked(`UPDATE issued SET revoked_at=$3, key_id=$4, superseded=0 WHERE network_id=$1 AND node_id=$2 AND (revoked_at IS NULL OR superseded=1)
		RETURNING serial, key_id, superseded, expires_at`,
		id[:], n.ID[:], now.Unix(), n.KeyID)
}

func (r *Reader) revoked(query string, args ...any) (list []Revoked, err error) {
	err = r.each(query, args, func(scan func(...any) error) error {
		var b []byte
		var v Revoked
		err := scan(&b, &v.KeyID, &v.Superseded, &v.Expires)
		v.Serial = new(big.Int).SetBytes(b)
		list = append(list, v)
		return err
	})
	return list, err
}

// RevokedByKey counts the revoked certificates, not expired at now, of devices that had
// joined with a key; until is the time when the first of them expires.
func (r *Reader) RevokedByKey(id cert.NetworkID, keyID string, now time.Time) (n int, until time.Time, err error) {
	err = r.row(`SELECT COUNT(*), MIN(expires_at) FROM issued WHERE network_id=$1 AND key_id=$2 AND revoked_at IS NOT NULL AND expires_at > $3`, []any{id[:], keyID, now.Unix()}, &n, nullTime{&until})
	return n, until, err
}

// SetCRL stores a new revocation list and its cert.CRL.Since (see Tx.Since).
func (tx *Tx) SetCRL(id cert.NetworkID, number uint64, der []byte, since time.Time) error {
	return tx.changed(`UPDATE networks SET crl_number=$2, crl=$3, crl_since=$4 WHERE network_id=$1 AND crl_number < $2`, id[:], number, der, orNull(since))
}
