package store

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/overlay/cert"
)

// Revoked certificates leave the revocation list when they have expired, so that it stays
// small, and the list states since when it is complete (cert.CRL.Since). The server's clock
// decides what has expired, and it may be wrong for a while. So the server remembers the
// certificates that it dropped last.

// maxDropped is how many dropped certificates are remembered: about half a megabyte.
const maxDropped = 10_000

// Since returns the cert.CRL.Since of a revocation list signed at now: one second after the
// expiry of the last certificate that was dropped from it, but at most one second after now,
// so that no list rejects certificates that have not expired; the zero time if none was
// dropped. Dropped certificates that have not expired at now are revoked again; again is
// their number. The list must be made of what Revoked returns after that.
func (tx *Tx) Since(id cert.NetworkID, now time.Time) (since time.Time, again int64, err error) {
	if again, err = tx.revokeAgain(id, now); err != nil {
		return time.Time{}, 0, fmt.Errorf("revoke again: %w", err)
	}
	if err := tx.exec(`DELETE FROM dropped WHERE network_id=$1 AND expires_at > $2`, id[:], now.Unix()); err != nil {
		return time.Time{}, 0, fmt.Errorf("revoke again: %w", err)
	}
	var forgotten, dropped, ended int64
	err = tx.row(`SELECT COALESCE(dropped_until, 0),
			COALESCE((SELECT MAX(expires_at) FROM dropped WHERE network_id=$1), 0),
			COALESCE((SELECT MAX(+expires_at) FROM issued WHERE network_id=$1 AND revoked_at IS NOT NULL AND +expires_at <= $2), 0)
		FROM networks WHERE network_id=$1`, []any{id[:], now.Unix()}, &forgotten, &dropped, &ended)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("read what was dropped: %w", err)
	}
	last := min(max(forgotten, dropped, ended), now.Unix())
	if last <= 0 {
		return time.Time{}, again, nil
	}
	return fromUnix(last + 1), again, nil
}

// A row of dropped has a serial number, which begins with no zero byte, or for a superseded
// certificate a zero byte, its node and the serial number: if it has to be listed again, its
// device must not take itself for deleted.

func ofSuperseded(node cert.NodeID, serial []byte) []byte {
	return slices.Concat([]byte{0}, node[:], serial)
}

func readDropped(stored []byte) (node cert.NodeID, serial []byte, superseded bool) {
	if len(stored) <= len(node) || stored[0] != 0 {
		return node, stored, false
	}
	return nodeID(stored[1:]), stored[1+len(node):], true
}

// revokeAgain puts back what was dropped and has not ended at now.
func (tx *Tx) revokeAgain(id cert.NetworkID, now time.Time) (again int64, err error) {
	type row struct {
		node       cert.NodeID
		serial     []byte
		expires    int64
		superseded bool
	}
	var list []row
	err = tx.each(`SELECT serial, expires_at FROM dropped WHERE network_id=$1 AND expires_at > $2`, []any{id[:], now.Unix()}, func(scan func(...any) error) error {
		var b []byte
		var d row
		err := scan(&b, &d.expires)
		d.node, d.serial, d.superseded = readDropped(b)
		list = append(list, d)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, d := range list {
		if d.superseded { // unless its device was deleted since
			if err := tx.row(`SELECT EXISTS (SELECT 1 FROM nodes WHERE network_id=$1 AND node_id=$2)`, []any{id[:], d.node[:]}, &d.superseded); err != nil {
				return 0, err
			}
		}
		n, err := tx.execN(`INSERT INTO issued (network_id, node_id, serial, expires_at, revoked_at, superseded) VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT DO NOTHING`,
			id[:], d.node[:], d.serial, d.expires, max(1, now.Unix()), d.superseded)
		if err != nil {
			return 0, err
		}
		again += n
	}
	return again, nil
}

// Dropped returns the serial numbers, as bytes, of the remembered dropped certificates.
func (r *Reader) Dropped(id cert.NetworkID) (serials map[string]bool, err error) {
	serials = map[string]bool{}
	err = r.each(`SELECT serial FROM dropped WHERE network_id=$1`, []any{id[:]}, func(scan func(...any) error) error {
		var b []byte
		err := scan(&b)
		_, serial, _ := readDropped(b)
		serials[string(serial)] = true
		return err
	})
	return serials, err
}

// DroppedUntil stores that another server, which knew more than this one, may have dropped
// revoked certificates that expired before since. The zero time changes nothing.
func (tx *Tx) DroppedUntil(id cert.NetworkID, since time.Time) error {
	until := since.Unix() - 1
	if until <= 0 {
		return nil
	}
	return tx.exec(`UPDATE networks SET dropped_until = $2 WHERE network_id=$1 AND COALESCE(dropped_until, 0) < $2`, id[:], until)
}

// ListIsOff reports whether the list should be signed anew at now because the clock was wrong
// when it was signed: it rejects certificates that have not expired, or lacks one that was
// dropped before it expired. (A list of an older server, which does not state Since, is not
// signed anew: after a restore a new list would count as newer than the one that nodes are
// about to send.)
func (r *Reader) ListIsOff(id cert.NetworkID, now time.Time) (off bool, err error) {
	err = r.row(`SELECT COALESCE(crl_since, 0) > $2 + 1
		OR EXISTS (SELECT 1 FROM dropped d WHERE d.network_id = n.network_id AND d.expires_at > $2)
		FROM networks n WHERE network_id=$1`, []any{id[:], now.Unix()}, &off)
	if err != nil {
		return false, fmt.Errorf("check the revocation list: %w", err)
	}
	return off, nil
}

// drop moves the revoked certificates that have expired at now from issued to dropped, and
// deletes the earliest beyond maxDropped.
func (tx *Tx) drop(id cert.NetworkID, now time.Time) error {
	if err := tx.exec(`INSERT INTO dropped (network_id, expires_at, serial)
		SELECT network_id, expires_at, serial FROM issued WHERE network_id=$1 AND revoked_at IS NOT NULL AND superseded = 0 AND expires_at <= $2 ON CONFLICT DO NOTHING`,
		id[:], now.Unix()); err != nil {
		return err
	}
	superseded := map[string]int64{} // as dropped has them
	err := tx.each(`SELECT node_id, serial, expires_at FROM issued WHERE network_id=$1 AND revoked_at IS NOT NULL AND superseded = 1 AND expires_at <= $2`, []any{id[:], now.Unix()}, func(scan func(...any) error) error {
		var node, serial []byte
		var expires int64
		err := scan(&node, &serial, &expires)
		superseded[string(ofSuperseded(nodeID(node), serial))] = expires
		return err
	})
	if err != nil {
		return err
	}
	for stored, expires := range superseded {
		if err := tx.exec(`INSERT INTO dropped (network_id, expires_at, serial) VALUES ($1,$2,$3) ON CONFLICT DO NOTHING`, id[:], expires, []byte(stored)); err != nil {
			return err
		}
	}
	var last int64
	err = tx.row(`SELECT expires_at FROM dropped WHERE network_id=$1 ORDER BY expires_at DESC LIMIT 1 OFFSET $2`, []any{id[:], maxDropped}, &last)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := tx.DroppedUntil(id, fromUnix(last+1)); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM dropped WHERE network_id=$1 AND expires_at <= $2`, id[:], last)
}
