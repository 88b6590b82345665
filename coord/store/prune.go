package store

import (
	"fmt"
	"time"

	"weft/overlay/cert"
)

// Prune deletes rows that are no longer needed: addresses out of quarantine, expired
// certificates, removals older than keep (a node whose directory is older gets a full one),
// old changes, and expired links. It returns how far back deltas of the directory reach from
// then on, and how many revoked certificates had expired.
func (tx *Tx) Prune(id cert.NetworkID, now time.Time, keep time.Duration) (fullAfter uint64, ended int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("prune: %w", err)
		}
	}()
	// This comes first: drop moves rows that are deleted below.
	if err := tx.drop(id, now); err != nil {
		return 0, 0, err
	}
	old := now.Add(-keep).Unix()
	var last *uint64
	if err := tx.row(`SELECT MAX(n) FROM removed WHERE network_id=$1 AND removed_at < $2`, []any{id[:], old}, &last); err != nil {
		return 0, 0, err
	}
	if last != nil {
		if err := tx.exec(`UPDATE networks SET full_after = CASE WHEN full_after < $2 THEN $2 ELSE full_after END WHERE network_id=$1`, id[:], *last); err != nil {
			return 0, 0, err
		}
		if err := tx.exec(`DELETE FROM removed WHERE network_id=$1 AND n <= $2`, id[:], *last); err != nil {
			return 0, 0, err
		}
	}
	if err := tx.exec(`DELETE FROM changes WHERE network_id=$1 AND at <= $2`, id[:], now.Add(-changesKeep).Unix()); err != nil {
		return 0, 0, err
	}
	if err := tx.exec(`DELETE FROM former_names WHERE network_id=$1 AND left_at <= $2`, id[:], now.Add(-FormerKeep).Unix()); err != nil {
		return 0, 0, err
	}
	if ended, err = tx.execN(`DELETE FROM issued WHERE network_id=$1 AND expires_at <= $2 AND revoked_at IS NOT NULL`, id[:], now.Unix()); err != nil {
		return 0, 0, err
	}
	for _, q := range []string{
		`DELETE FROM freed WHERE network_id=$1 AND until <= $2`,
		// The current certificate of a node stays: if the clock was wrong and it has not
		// expired, deleting the node has to revoke it.
		`DELETE FROM issued WHERE network_id=$1 AND expires_at <= $2 AND (revoked_at IS NOT NULL OR NOT EXISTS (
			SELECT 1 FROM nodes d WHERE d.network_id = issued.network_id AND d.node_id = issued.node_id AND d.expires_at = issued.expires_at))`,
		`DELETE FROM login_links WHERE network_id=$1 AND expires_at <= $2`,
	} {
		if err := tx.exec(q, id[:], now.Unix()); err != nil {
			return 0, 0, err
		}
	}
	err = tx.row(`SELECT full_after FROM networks WHERE network_id=$1`, []any{id[:]}, &fullAfter)
	return fullAfter, ended, err
}
