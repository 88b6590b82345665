package store

import (
	"fmt"
	"math/big"
	"time"

	"weft/overlay/cert"
)

// Restored gives a database from a backup a new epoch: every node then fetches everything
// anew, and does not confuse the following change numbers with those that were used after the
// backup was made.
//
// Certificates that have expired by now may have been revoked after the backup, and dropped
// again from a newer list, so the list does not claim to know about them. The stored presence
// is deleted as out of date. Webhooks continue from their cursors, so they may send again
// only the events that were not sent when the backup was made.
func (tx *Tx) Restored(id cert.NetworkID, epoch uint64, now time.Time) error {
	if err := tx.DroppedUntil(id, now); err != nil {
		return err
	}
	n, err := tx.Bump(id)
	if err != nil {
		return err
	}
	if err := tx.exec(`UPDATE networks SET epoch=$2, config_n=$3, full_after=$3 WHERE network_id=$1`, id[:], epoch, n); err != nil {
		return fmt.Errorf("begin a new epoch: %w", err)
	}
	if err := tx.ForgetPresence(id); err != nil {
		return err
	}
	// Sign-in links may have been used since, and sessions ended.
	if err := tx.exec(`DELETE FROM login_links WHERE network_id=$1`, id[:]); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM sessions WHERE network_id=$1`, id[:])
}

// HolderOf returns the node that a certificate was issued to, which may be deleted;
// ErrNotFound if the serial number is unknown here.
func (r *Reader) HolderOf(id cert.NetworkID, serial *big.Int) (node cert.NodeID, revoked bool, err error) {
	var b []byte
	var at *int64
	err = r.row(`SELECT node_id, revoked_at FROM issued WHERE network_id=$1 AND serial BETWEEN $2 AND $2`, []any{id[:], serial.Bytes()}, &b, &at)
	copy(node[:], b)
	return node, at != nil, err
}

// AddRevoked stores, until expires, a serial number that a revocation list names and that is
// unknown here.
func (tx *Tx) AddRevoked(id cert.NetworkID, serial *big.Int, superseded bool, now, expires time.Time) error {
	var nobody cert.NodeID
	return tx.exec(`INSERT INTO issued (network_id, node_id, serial, expires_at, revoked_at, superseded) VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT DO NOTHING`,
		id[:], nobody[:], serial.Bytes(), expires.Unix(), now.Unix(), superseded)
}
