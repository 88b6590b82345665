package store

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"weft/overlay/cert"
)

// Lapsed returns at most limit nodes that should be overdue and are not: nodes of people,
// without tags, that were last signed in at until or before.
func (r *Reader) Lapsed(id cert.NetworkID, until time.Time, limit int) ([]Node, error) {
	return r.nodes(nodeColumns+`AND d.overdue = 0 AND d.tags = '' AND d.signed_in_at <= $2 AND u.kind = $3 ORDER BY d.signed_in_at, d.node_id LIMIT $4`,
		id[:], until.Unix(), string(Person), limit)
}

// NotLapsed returns at most limit nodes that are overdue and should not be, by the rule of
// Lapsed.
func (r *Reader) NotLapsed(id cert.NetworkID, until time.Time, limit int) ([]Node, error) {
	return r.nodes(nodeColumns+`AND d.overdue = 1 AND (d.tags <> '' OR d.signed_in_at > $2 OR u.kind <> $3) ORDER BY d.user_id, d.node_id LIMIT $4`,
		id[:], until.Unix(), string(Person), limit)
}

func (r *Reader) nodes(query string, args ...any) (list []Node, err error) {
	err = r.each(query, args, func(scan func(...any) error) error {
		n, err := scanNode(scan)
		list = append(list, n)
		return err
	})
	return list, err
}

// OverdueOf returns the overdue nodes of a user, in the order of their ids.
func (r *Reader) OverdueOf(id cert.NetworkID, userID string) (ids []cert.NodeID, err error) {
	err = r.each(`SELECT node_id FROM nodes WHERE network_id=$1 AND user_id=$2 AND overdue = 1`, []any{id[:], userID}, func(scan func(...any) error) error {
		var b []byte
		err := scan(&b)
		ids = append(ids, nodeID(b))
		return err
	})
	slices.SortFunc(ids, func(a, b cert.NodeID) int { return bytes.Compare(a[:], b[:]) })
	return ids, err
}

// SetSignedIn stores when a node was last signed in, as change n of its config.
func (tx *Tx) SetSignedIn(id cert.NetworkID, node cert.NodeID, at time.Time, n uint64) error {
	tx.touch(node)
	if err := tx.changed(`UPDATE nodes SET signed_in_at=$3, config_n=$4 WHERE network_id=$1 AND node_id=$2`, id[:], node[:], at.Unix(), n); err != nil {
		return fmt.Errorf("store when a device was signed in: %w", err)
	}
	return nil
}

// SetOverdue stores whether a node has to be signed in again, as change n of its config and
// its directory.
func (tx *Tx) SetOverdue(id cert.NetworkID, node cert.NodeID, overdue bool, n uint64) error {
	tx.touch(node)
	err := tx.changed(`UPDATE nodes SET overdue=$3, config_n=$4, class_n=$4 WHERE network_id=$1 AND node_id=$2`, id[:], node[:], overdue, n)
	if err != nil {
		return fmt.Errorf("store whether a device is overdue: %w", err)
	}
	return nil
}

// BumpConfigOf stores change n of the config of the nodes of these classes.
func (tx *Tx) BumpConfigOf(id cert.NetworkID, classes []string, n uint64) error {
	for _, class := range classes {
		tx.rows = append(tx.rows, Rows{Class: class})
		if err := tx.exec(`UPDATE nodes SET config_n=$3 WHERE network_id=$1 AND class=$2`, id[:], class, n); err != nil {
			return fmt.Errorf("store a change of configs: %w", err)
		}
	}
	return nil
}
