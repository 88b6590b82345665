package store

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"weft/overlay/cert"
)

// Node is one device.
type Node struct {
	ID          cert.NodeID `json:"id"`
	SPKI        []byte      `json:"-"`        // DER
	Name        string      `json:"name"`     // unique label
	Hostname    string      `json:"hostname"` // as the device reports
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
	N           uint64      `json:"-"`        // last change that other nodes see
	ConfigN     uint64      `json:"-"`        // last change of its own config
	ClassN      uint64      `json:"-"`        // change at which it got its class; 0: it has had this one since it joined
	Wildcard    bool        `json:"wildcard"` // it answers for every name below its own
	LANNames    LANNames    `json:"lan_names"`
	// SignedIn is when its owner last signed it in; at first, when it joined.
	SignedIn time.Time `json:"-"`
	// Overdue: its owner has to sign it in again; until then it reaches nothing.
	Overdue  bool `json:"-"`
	OfPerson bool `json:"-"` // its user is a person, not a service
}

// LANNames says whether names of a device's LAN win over the network's.
type LANNames int8

// The values: as set for the network, yes, no.
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
	d.created_at, d.seen_at, d.certificate, d.expires_at, d.n, d.config_n, d.class_n, d.wildcard, d.lan_names,
	d.signed_in_at, d.overdue, u.kind
	FROM nodes d JOIN users u ON u.network_id = d.network_id AND u.user_id = d.user_id WHERE d.network_id=$1 `

func scanNode(scan func(...any) error) (n Node, err error) {
	var id []byte
	var tags, kind string
	var v4 uint32
	err = scan(&id, &n.SPKI, &n.Name, &n.Hostname, &n.UserID, &n.User, &tags, &n.Class, &v4, &n.KeyID, &n.Ephemeral, &n.OS, &n.Software,
		stored{&n.Created}, nullTime{&n.Seen}, &n.Certificate, stored{&n.Expires}, &n.N, &n.ConfigN, &n.ClassN, &n.Wildcard, &n.LANNames,
		stored{&n.SignedIn}, &n.Overdue, &kind)
	copy(n.ID[:], id)
	n.Tags, n.IPv4, n.OfPerson = SplitTags(tags), fromUint32(v4), UserKind(kind) == Person
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

// NodePage selects nodes for EachListed.
type NodePage struct {
	UserID string // of this user, "" for all
	After  string // name after which they begin
	Offset int    // how many of those to skip
	Limit  int    // at most this many; 0 for all
	// Ending selects the nodes whose certificates are read: those that expire before it; none
	// for the zero time.
	Ending time.Time
}

// listColumns is nodeColumns without the keys, and without most certificates: reading those
// would double the time.
var listColumns = strings.NewReplacer("d.spki", "NULL", "d.certificate", "CASE WHEN d.expires_at < $2 THEN d.certificate END").Replace(nodeColumns)

// EachListed calls f for nodes in the order of their names, without their keys.
func (r *Reader) EachListed(id cert.NetworkID, p NodePage, f func(Node) error) error {
	ending := int64(0)
	if !p.Ending.IsZero() {
		ending = p.Ending.Unix()
	}
	return r.each(listColumns+`AND ($3 = '' OR d.user_id = $3) AND d.name > $4 ORDER BY d.name LIMIT $5 OFFSET $6`,
		[]any{id[:], ending, p.UserID, p.After, cmp.Or(p.Limit, math.MaxInt32), p.Offset}, func(scan func(...any) error) error {
			n, err := scanNode(scan)
			if err != nil {
				return err
			}
			return f(n)
		})
}

// ListedNode finds a node as EachListed reads it, with its certificate if that ends before
// ending.
func (r *Reader) ListedNode(id cert.NetworkID, node cert.NodeID, ending time.Time) (Node, error) {
	return r.node(listColumns+`AND d.node_id=$3`, id[:], ending.Unix(), node[:])
}

// EachSoftware calls f with the number of nodes of each version and class.
func (r *Reader) EachSoftware(id cert.NetworkID, f func(software, class string, nodes int) error) error {
	return r.each(`SELECT software, class, COUNT(*) FROM nodes WHERE network_id=$1 GROUP BY software, class`, []any{id[:]}, func(scan func(...any) error) error {
		var software, class string
		var n int
		if err := scan(&software, &class, &n); err != nil {
			return err
		}
		return f(software, class, n)
	})
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

// WasRemoved reports whether a node with this id was deleted, as far back as removals are
// stored.
func (r *Reader) WasRemoved(id cert.NetworkID, node cert.NodeID) (yes bool, err error) {
	err = r.row(`SELECT EXISTS (SELECT 1 FROM removed WHERE network_id=$1 AND node_id=$2)`, []any{id[:], node[:]}, &yes)
	return yes, err
}

// Brief is what the server holds in memory about each node.
type Brief struct {
	ID        cert.NodeID
	Class     string
	ConfigN   uint64
	ToldN     uint64 // change of the config that the node holds
	ClassN    uint64 // Node.ClassN
	Ephemeral bool
	Overdue   bool
	Created   time.Time
	Seen      time.Time
	KeyID     string
}

// EachBrief calls f for every node.
func (r *Reader) EachBrief(id cert.NetworkID, f func(Brief) error) error {
	return r.each(`SELECT node_id, class, config_n, told_n, class_n, ephemeral, overdue, created_at, seen_at, key_id FROM nodes WHERE network_id=$1`, []any{id[:]},
		func(scan func(...any) error) error {
			var b Brief
			var raw []byte
			if err := scan(&raw, &b.Class, &b.ConfigN, &b.ToldN, &b.ClassN, &b.Ephemeral, &b.Overdue, stored{&b.Created}, nullTime{&b.Seen}, &b.KeyID); err != nil {
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

// InsertNode stores a new node. ErrTaken if another node has its id, name or address.
func (tx *Tx) InsertNode(id cert.NetworkID, n Node) error {
	tx.touch(n.ID)
	tags := JoinTags(n.Tags)
	err := tx.exec(`INSERT INTO nodes (network_id, node_id, spki, name, hostname, user_id, tags, class, ipv4, key_id, ephemeral, os, software,
		created_at, signed_in_at, certificate, expires_at, n, config_n, told_n) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$14,$15,$16,$17,$18,$17)`,
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

// UpdateNode stores name, owner, tags, certificate, software and versions of a node.
func (tx *Tx) UpdateNode(id cert.NetworkID, n Node) error {
	tx.touch(n.ID)
	tags := JoinTags(n.Tags)
	err := tx.changed(`UPDATE nodes SET name=$3, user_id=$4, tags=$5, class=$6, class_n=$7, os=$8, software=$9, certificate=$10, expires_at=$11, n=$12, config_n=$13
		WHERE network_id=$1 AND node_id=$2`,
		id[:], n.ID[:], n.Name, n.UserID, tags, Class(n.UserID, tags), n.ClassN, n.OS, n.Software, n.Certificate, n.Expires.Unix(), n.N, n.ConfigN)
	if isUnique(err, "nodes.name") {
		err = ErrTaken
	}
	if err != nil {
		return fmt.Errorf("update node %s: %w", n.Name, err)
	}
	return nil
}

// LeaveClass stores that a node left a class with change n: nodes that see only that class no
// longer see it.
func (tx *Tx) LeaveClass(id cert.NetworkID, node cert.NodeID, class string, n uint64, now time.Time) error {
	return tx.exec(`INSERT INTO removed (network_id, node_id, class, n, removed_at) VALUES ($1,$2,$3,$4,$5)`, id[:], node[:], class, n, now.Unix())
}

// FreeName makes a node's former name usable for others.
func (tx *Tx) FreeName(id cert.NetworkID, name string) error { return tx.freeName(id, name) }

// FormerKeep is how long a deleted node's name is remembered for its key.
const FormerKeep = 365 * 24 * time.Hour

// DeleteNode deletes a node, revokes all its certificates, frees its name, and
// puts its address into quarantine. The caller makes a new CRL in the same
// transaction.
func (tx *Tx) DeleteNode(id cert.NetworkID, n Node, now time.Time) (change uint64, revoked []Revoked, err error) {
	if change, err = tx.Bump(id); err != nil {
		return 0, nil, err
	}
	tx.touch(n.ID)
	steps := []func() error{
		func() error { return tx.leaveName(id, n, now) },
		func() error {
			return tx.changed(`DELETE FROM nodes WHERE network_id=$1 AND node_id=$2`, id[:], n.ID[:])
		},
		func() error { return tx.LeaveClass(id, n.ID, n.Class, change, now) },
		func() (err error) { revoked, err = tx.revoke(id, n, now); return err },
		func() error { return tx.freeAddr(id, n.IPv4, now) },
		func() error { return tx.freeName(id, n.Name) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return 0, nil, fmt.Errorf("delete node %s: %w", n.Name, err)
		}
	}
	return change, revoked, nil
}

// SetSeen stores when nodes were last online, in one statement each and one
// transaction. Deleted nodes are ignored.
func (tx *Tx) SetSeen(id cert.NetworkID, seen map[cert.NodeID]time.Time) error {
	for node, at := range seen {
		tx.touch(node)
		if err := tx.exec(`UPDATE nodes SET seen_at=$3 WHERE network_id=$1 AND node_id=$2`, id[:], node[:], orNull(at)); err != nil {
			return fmt.Errorf("store last seen: %w", err)
		}
	}
	return nil
}

// SetTold stores the changes of the configs that nodes hold. Deleted nodes are ignored.
func (tx *Tx) SetTold(id cert.NetworkID, told map[cert.NodeID]uint64) error {
	for node, n := range told {
		if err := tx.exec(`UPDATE nodes SET told_n=$3 WHERE network_id=$1 AND node_id=$2 AND told_n < $3`, id[:], node[:], n); err != nil {
			return fmt.Errorf("store the versions of the nodes' configs: %w", err)
		}
	}
	return nil
}

func nodeID(b []byte) (id cert.NodeID) {
	copy(id[:], b)
	return id
}
