package store

import (
	"fmt"
	"math/big"
	"net/netip"
	"time"

	"weft/overlay/cert"
)

// Node is one device.
type Node struct {
	ID          cert.NodeID `json:"id"`
	SPKI        []byte      `json:"-"`        // DER
	Name        string      `json:"name"`     // unique label
	Hostname    string      `json:"hostname"` // as reported
	UserID      string      `json:"-"`
	User        string      `json:"user"` // name of the user; ignored by writes
	Tags        []string    `json:"tags"` // not nil
	Class       string      `json:"-"`    // Class(UserID, tags)
	IPv4        netip.Addr  `json:"ipv4"`
	KeyID       string      `json:"key"`
	Ephemeral   bool        `json:"ephemeral"`
	OS          string      `json:"os"`
	Software    string      `json:"version"`
	Created     time.Time   `json:"joined"`
	Seen        time.Time   `json:"-"`        // zero: never
	Certificate []byte      `json:"-"`        // DER, the newest
	Expires     time.Time   `json:"expires"`  // of Certificate
	N           uint64      `json:"-"`        // last change that others see
	ConfigN     uint64      `json:"-"`        // last change of its own config
	Wildcard    bool        `json:"wildcard"` // it answers for every name below its own
	LANNames    LANNames    `json:"lan_names"`
}

// LANNames says whether names of a device's LAN win over the network's.
type LANNames int8

// The values: as the network says, they do, they do not.
const (
	LANNamesDefault LANNames = 0
	LANNamesOn      LANNames = 1
	LANNamesOff     LANNames = -1
)

// String is "default", "on" or "off".
func (l LANNames) String() string {
	switch l {
	case LANNamesOn:
		return "on"
	case LANNamesOff:
		return "off"
	}
	return "default"
}

// MarshalText is String.
func (l LANNames) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText takes what String returns.
func (l *LANNames) UnmarshalText(b []byte) error {
	for _, v := range []LANNames{LANNamesDefault, LANNamesOn, LANNamesOff} {
		if v.String() == string(b) {
			*l = v
			return nil
		}
	}
	return fmt.Errorf("%q: want default, on or off", b)
}

const nodeColumns = `SELECT d.node_id, d.spki, d.name, d.hostname, d.user_id, u.name, d.tags, d.class, d.ipv4, d.key_id, d.ephemeral, d.os, d.software,
	d.created_at, d.seen_at, d.certificate, d.expires_at, d.n, d.config_n, d.wildcard, d.lan_names
	FROM nodes d JOIN users u ON u.network_id = d.network_id AND u.user_id = d.user_id WHERE d.network_id=$1 `

func scanNode(scan func(...any) error) (n Node, err error) {
	var id []byte
	var tags string
	var v4 uint32
	err = scan(&id, &n.SPKI, &n.Name, &n.Hostname, &n.UserID, &n.User, &tags, &n.Class, &v4, &n.KeyID, &n.Ephemeral, &n.OS, &n.Software,
		stored{&n.Created}, nullTime{&n.Seen}, &n.Certificate, stored{&n.Expires}, &n.N, &n.ConfigN, &n.Wildcard, &n.LANNames)
	copy(n.ID[:], id)
	n.Tags, n.IPv4 = SplitTags(tags), fromUint32(v4)
	return n, err
}

func (r *Reader) node(query string, args ...any) (n Node, err error) {
	err = ErrNotFound
	if e := r.each(query, args, func(scan func(...any) error) error {
		n, err = scanNode(scan)
		return err
	}); e != nil {
		err = e
	}
	return n, err
}

// Node finds a node by id.
func (r *Reader) Node(id cert.NetworkID, node cert.NodeID) (Node, error) {
	return r.node(nodeColumns+`AND d.node_id=$2`, id[:], node[:])
}

// NodeByName finds a node by its label.
func (r *Reader) NodeByName(id cert.NetworkID, name string) (Node, error) {
	return r.node(nodeColumns+`AND d.name=$2`, id[:], name)
}

// NodeByIPv4 finds a node by its overlay address.
func (r *Reader) NodeByIPv4(id cert.NetworkID, a netip.Addr) (Node, error) {
	return r.node(nodeColumns+`AND d.ipv4=$2`, id[:], toUint32(a))
}

// EachNode calls f for the nodes of a user ("" for all) in the order of their
// names.
func (r *Reader) EachNode(id cert.NetworkID, userID string, f func(Node) error) error {
	return r.each(nodeColumns+`AND ($2 = '' OR d.user_id = $2) ORDER BY d.name`, []any{id[:], userID}, func(scan func(...any) error) error {
		n, err := scanNode(scan)
		if err != nil {
			return err
		}
		return f(n)
	})
}

// NodesPage returns one page of the nodes of a user ("" for all) in the order
// of their names.
func (r *Reader) NodesPage(id cert.NetworkID, userID string, offset, limit int) (nodes []Node, err error) {
	err = r.each(nodeColumns+`AND ($2 = '' OR d.user_id = $2) ORDER BY d.name LIMIT $3 OFFSET $4`, []any{id[:], userID, limit, offset},
		func(scan func(...any) error) error {
			n, err := scanNode(scan)
			nodes = append(nodes, n)
			return err
		})
	return nodes, err
}

// NodesSince returns the nodes of a class that changed after since.
func (r *Reader) NodesSince(id cert.NetworkID, class string, since uint64, f func(Node) error) error {
	return r.each(nodeColumns+`AND d.class=$2 AND d.n > $3 ORDER BY d.n`, []any{id[:], class, since}, func(scan func(...any) error) error {
		n, err := scanNode(scan)
		if err != nil {
			return err
		}
		return f(n)
	})
}

// RemovedSince returns the nodes that left a class after since.
func (r *Reader) RemovedSince(id cert.NetworkID, class string, since uint64) (ids []cert.NodeID, err error) {
	err = r.each(`SELECT node_id FROM removed WHERE network_id=$1 AND class=$2 AND n > $3 ORDER BY n`, []any{id[:], class, since},
		func(scan func(...any) error) error {
			var b []byte
			err := scan(&b)
			ids = append(ids, nodeID(b))
			return err
		})
	return ids, err
}

// WasRemoved reports whether a node of this id was deleted, as far back as
// that is kept.
func (r *Reader) WasRemoved(id cert.NetworkID, node cert.NodeID) (yes bool, err error) {
	err = r.row(`SELECT EXISTS (SELECT 1 FROM removed WHERE network_id=$1 AND node_id=$2)`, []any{id[:], node[:]}, &yes)
	return yes, err
}

// Brief is what the server keeps in memory of each node.
type Brief struct {
	ID        cert.NodeID
	Class     string
	ConfigN   uint64
	ToldN     uint64 // change of the config that it holds
	Ephemeral bool
	Created   time.Time
	Seen      time.Time
}

// EachBrief calls f for every node.
func (r *Reader) EachBrief(id cert.NetworkID, f func(Brief) error) error {
	return r.each(`SELECT node_id, class, config_n, told_n, ephemeral, created_at, seen_at FROM nodes WHERE network_id=$1`, []any{id[:]},
		func(scan func(...any) error) error {
			var b Brief
			var raw []byte
			if err := scan(&raw, &b.Class, &b.ConfigN, &b.ToldN, &b.Ephemeral, stored{&b.Created}, nullTime{&b.Seen}); err != nil {
				return err
			}
			b.ID = nodeID(raw)
			return f(b)
		})
}

// ClassVersions returns for each class the last change in it that others see,
// removals included.
func (r *Reader) ClassVersions(id cert.NetworkID) (map[string]uint64, error) {
	m := map[string]uint64{}
	err := r.each(`SELECT class, MAX(n) FROM nodes WHERE network_id=$1 GROUP BY class
		UNION ALL SELECT class, MAX(n) FROM removed WHERE network_id=$1 GROUP BY class`, []any{id[:]},
		func(scan func(...any) error) error {
			var class string
			var n uint64
			err := scan(&class, &n)
			m[class] = max(m[class], n)
			return err
		})
	return m, err
}

// InsertNode stores a new node. ErrTaken when its id, name or address is.
func (tx *Tx) InsertNode(id cert.NetworkID, n Node) error {
	tags := JoinTags(n.Tags)
	err := tx.exec(`INSERT INTO nodes (network_id, node_id, spki, name, hostname, user_id, tags, class, ipv4, key_id, ephemeral, os, software,
		created_at, certificate, expires_at, n, config_n, told_n) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$17)`,
		id[:], n.ID[:], n.SPKI, n.Name, n.Hostname, n.UserID, tags, Class(n.UserID, tags), toUint32(n.IPv4), n.KeyID, n.Ephemeral, n.OS, n.Software,
		n.Created.Unix(), n.Certificate, n.Expires.Unix(), n.N, n.ConfigN)
	if isUnique(err, "nodes.") {
		err = ErrTaken
	}
	if err != nil {
		return fmt.Errorf("insert node %s: %w", n.Name, err)
	}
	return nil
}

// UpdateNode stores name, certificate, software and versions of a node.
func (tx *Tx) UpdateNode(id cert.NetworkID, n Node) error {
	err := tx.changed(`UPDATE nodes SET name=$3, os=$4, software=$5, certificate=$6, expires_at=$7, n=$8, config_n=$9 WHERE network_id=$1 AND node_id=$2`,
		id[:], n.ID[:], n.Name, n.OS, n.Software, n.Certificate, n.Expires.Unix(), n.N, n.ConfigN)
	if isUnique(err, "nodes.name") {
		err = ErrTaken
	}
	if err != nil {
		return fmt.Errorf("update node %s: %w", n.Name, err)
	}
	return nil
}

// FreeName makes a node's former name usable for others.
func (tx *Tx) FreeName(id cert.NetworkID, name string) error { return tx.freeName(id, name) }

// FormerKeep is how long a deleted node's name is remembered for its key.
const FormerKeep = 365 * 24 * time.Hour

// DeleteNode deletes a node, revokes all its certificates, frees its name, and
// puts its address into quarantine. The caller makes a new CRL in the same
// transaction.
func (tx *Tx) DeleteNode(id cert.NetworkID, n Node, now time.Time) (change uint64, err error) {
	if change, err = tx.Bump(id); err != nil {
		return 0, err
	}
	steps := []func() error{
		func() error { return tx.leaveName(id, n, now) },
		func() error {
			return tx.changed(`DELETE FROM nodes WHERE network_id=$1 AND node_id=$2`, id[:], n.ID[:])
		},
		func() error {
			return tx.exec(`INSERT INTO removed (network_id, node_id, class, n, removed_at) VALUES ($1,$2,$3,$4,$5)`, id[:], n.ID[:], n.Class, change, now.Unix())
		},
		func() error {
			return tx.exec(`UPDATE issued SET revoked_at=$3, key_id=$4 WHERE network_id=$1 AND node_id=$2 AND revoked_at IS NULL`, id[:], n.ID[:], now.Unix(), n.KeyID)
		},
		func() error { return tx.freeAddr(id, n.IPv4, now) },
		func() error { return tx.freeName(id, n.Name) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return 0, fmt.Errorf("delete node %s: %w", n.Name, err)
		}
	}
	return change, nil
}

// SetSeen stores when nodes were last online, in one statement each and one
// transaction. Nodes that are gone are passed over.
func (tx *Tx) SetSeen(id cert.NetworkID, seen map[cert.NodeID]time.Time) error {
	for node, at := range seen {
		if err := tx.exec(`UPDATE nodes SET seen_at=$3 WHERE network_id=$1 AND node_id=$2`, id[:], node[:], orNull(at)); err != nil {
			return fmt.Errorf("store last seen: %w", err)
		}
	}
	return nil
}

// SetTold stores of which change the configs are that nodes hold. Nodes that are
// gone are passed over.
func (tx *Tx) SetTold(id cert.NetworkID, told map[cert.NodeID]uint64) error {
	for node, n := range told {
		if err := tx.exec(`UPDATE nodes SET told_n=$3 WHERE network_id=$1 AND node_id=$2 AND told_n < $3`, id[:], node[:], n); err != nil {
			return fmt.Errorf("store what nodes hold: %w", err)
		}
	}
	return nil
}

// Issued records a certificate that was signed for a node; renamed is when a
// rename asked for it, zero for a join or a renewal.
func (tx *Tx) Issued(id cert.NetworkID, node cert.NodeID, serial *big.Int, expires, renamed time.Time) error {
	return tx.exec(`INSERT INTO issued (network_id, node_id, serial, expires_at, renamed_at) VALUES ($1,$2,$3,$4,$5)`,
		id[:], node[:], serial.Bytes(), expires.Unix(), orNull(renamed))
}

// Unexpired counts the certificates of a node that have not expired at now.
func (r *Reader) Unexpired(id cert.NetworkID, node cert.NodeID, now time.Time) (n int, err error) {
	err = r.row(`SELECT COUNT(*) FROM issued WHERE network_id=$1 AND node_id=$2 AND revoked_at IS NULL AND expires_at > $3`, []any{id[:], node[:], now.Unix()}, &n)
	return n, err
}

// Renames counts the certificates that renames after since asked for, and says
// when the first of them did: the zero time when there is none.
func (r *Reader) Renames(id cert.NetworkID, node cert.NodeID, since time.Time) (n int, first time.Time, err error) {
	err = r.row(`SELECT COUNT(*), MIN(renamed_at) FROM issued WHERE network_id=$1 AND node_id=$2 AND renamed_at > $3`, []any{id[:], node[:], since.Unix()}, &n, nullTime{&first})
	return n, first, err
}

// Revoked is a revoked certificate.
type Revoked struct {
	Serial *big.Int
	KeyID  string // of the key by which its device had joined, "" when unknown
}

// Revoked returns all revoked certificates that have not expired at now, the
// latest that were revoked first.
func (r *Reader) Revoked(id cert.NetworkID, now time.Time) (list []Revoked, err error) {
	err = r.each(`SELECT serial, key_id FROM issued WHERE network_id=$1 AND revoked_at IS NOT NULL AND expires_at > $2 ORDER BY revoked_at DESC, expires_at DESC`, []any{id[:], now.Unix()},
		func(scan func(...any) error) error {
			var b []byte
			var v Revoked
			err := scan(&b, &v.KeyID)
			v.Serial = new(big.Int).SetBytes(b)
			list = append(list, v)
			return err
		})
	return list, err
}

// RevokedByKey counts the revoked certificates, not expired at now, of devices
// that had joined with a key; until is when the first of them expires.
func (r *Reader) RevokedByKey(id cert.NetworkID, keyID string, now time.Time) (n int, until time.Time, err error) {
	err = r.row(`SELECT COUNT(*), MIN(expires_at) FROM issued WHERE network_id=$1 AND key_id=$2 AND revoked_at IS NOT NULL AND expires_at > $3`, []any{id[:], keyID, now.Unix()}, &n, nullTime{&until})
	return n, until, err
}

// SetCRL stores a new revocation list, and what it states of those that ended.
func (tx *Tx) SetCRL(id cert.NetworkID, number uint64, der []byte, since time.Time) error {
	return tx.changed(`UPDATE networks SET crl_number=$2, crl=$3, crl_since=$4 WHERE network_id=$1 AND crl_number < $2`, id[:], number, der, orNull(since))
}

// Prune deletes what nobody needs any more: addresses out of quarantine,
// expired certificates, removals older than keep (directories from before
// those become full ones), changes that everybody follows by now, expired links. It returns how far back directories
// are deltas from then on, and how many revoked certificates had expired.
func (tx *Tx) Prune(id cert.NetworkID, now time.Time, keep time.Duration) (fullAfter uint64, ended int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("prune: %w", err)
		}
	}()
	// First of all: what is deleted below must have been noted.
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
		// The certificate that a node has stays: if it had not ended after all,
		// because the clock was wrong, a deletion has to revoke it.
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

func nodeID(b []byte) (id cert.NodeID) {
	copy(id[:], b)
	return id
}
