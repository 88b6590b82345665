package store

import (
	"fmt"
	"time"

	"weft/overlay/cert"
)

// ChangeKind says what changed. The words are stored.
type ChangeKind string

// The kinds of changes. The ID is that of a node, if nothing else is said.
const (
	DeviceJoined   ChangeKind = "device.joined"
	DeviceRenamed  ChangeKind = "device.renamed" // or its former names changed
	DeviceRenewed  ChangeKind = "device.renewed" // it has a new certificate, and the same names
	DeviceMoved    ChangeKind = "device.moved"   // its tags or its owner changed, and so which nodes see it and which it sees
	DeviceRemoved  ChangeKind = "device.removed"
	DeviceConfig   ChangeKind = "device.config" // its own config
	ConfigChanged  ChangeKind = "config"        // the config of all nodes; no ID
	DNSChanged     ChangeKind = "dns"           // the network's DNS settings; no ID
	RelaysChanged  ChangeKind = "relays"        // no ID
	PolicyChanged  ChangeKind = "policy"        // no ID
	CRLChanged     ChangeKind = "crl"           // no ID
	UserChanged    ChangeKind = "user"          // ID of the user, who may be deleted
	HookChanged    ChangeKind = "webhook"       // ID of the webhook
	OverdueChanged ChangeKind = "user.overdue"  // ID of the user: which of its devices are overdue
	SignInChanged  ChangeKind = "sign-in"       // the demands on signing in; no ID
	AuditChanged   ChangeKind = "audit"         // the settings of the audit; no ID
)

// ofNames reports whether names may resolve differently after such a change.
func (k ChangeKind) ofNames() bool {
	switch k {
	case DeviceJoined, DeviceRenamed, DeviceMoved, DeviceRemoved, DNSChanged, PolicyChanged:
		return true
	}
	return false
}

// changesKeep is how long changes are stored. A reader that is further behind reads
// everything anew.
const changesKeep = 24 * time.Hour

// Change is one row of the table of changes.
type Change struct {
	N    uint64 // from Bump, in the same write
	Kind ChangeKind
	ID   string
}

// AddChanges appends to the table of changes. The same change twice is stored once.
func (tx *Tx) AddChanges(id cert.NetworkID, changes []Change, now time.Time) error {
	var names uint64
	for _, c := range changes {
		if err := tx.exec(`INSERT INTO changes (network_id, n, kind, id, at) VALUES ($1,$2,$3,$4,$5) ON CONFLICT DO NOTHING`, id[:], c.N, string(c.Kind), c.ID, now.Unix()); err != nil {
			return fmt.Errorf("store change %s: %w", c.Kind, err)
		}
		if c.Kind.ofNames() {
			names = max(names, c.N)
		}
	}
	if names == 0 {
		return nil
	}
	return tx.exec(`UPDATE networks SET names_n=$2 WHERE network_id=$1`, id[:], names)
}

// ChangesSince returns the changes after n, in their order.
func (r *Reader) ChangesSince(id cert.NetworkID, n uint64) (changes []Change, err error) {
	err = r.each(`SELECT n, kind, id FROM changes WHERE network_id=$1 AND n > $2 ORDER BY n, kind, id`, []any{id[:], n},
		func(scan func(...any) error) error {
			var c Change
			var kind string
			err := scan(&c.N, &kind, &c.ID)
			c.Kind = ChangeKind(kind)
			changes = append(changes, c)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	return changes, nil
}
