package store

import (
	"fmt"
	"math/big"
	"time"

	"weft/overlay/cert"
)

// Restored gives a database that came out of a backup a new epoch: every node
// then fetches everything anew, and nobody takes the numbers that follow for
// those that were given out after the backup was made.
//
// What ended until now may have been revoked, and dropped again from a list that
// is newer than the backup. Who was online then says nothing about now. Webhooks go on
// from where they were: what they were about to send, and no more, may come twice.
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
	// Links and sessions of people may have been used or ended since.
	if err := tx.exec(`DELETE FROM login_links WHERE network_id=$1`, id[:]); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM sessions WHERE network_id=$1`, id[:])
}

// HolderOf returns the node that a certificate was issued to, whether it still
// exists or not; ErrNotFound if the serial number is not known here.
func (r *Reader) HolderOf(id cert.NetworkID, serial *big.Int) (node cert.NodeID, revoked bool, err error) {
	var b []byte
	var at *int64
	err = r.row(`SELECT node_id, revoked_at FROM issued WHERE network_id=$1 AND serial BETWEEN $2 AND $2`, []any{id[:], serial.Bytes()}, &b, &at)
	copy(node[:], b)
	return node, at != nil, err
}

// AddRevoked keeps a serial number that a revocation list names and that is
// not known here, until expires.
func (tx *Tx) AddRevoked(id cert.NetworkID, serial *big.Int, superseded bool, now, expires time.Time) error {
	var nobody cert.NodeID
	return tx.exec(`INSERT INTO issued (network_id, node_id, serial, expires_at, revoked_at, superseded) VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT DO NOTHING`,
		id[:], nobody[:], serial.Bytes(), expires.Unix(), now.Unix(), superseded)
}
