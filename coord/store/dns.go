package store

import (
	"encoding/json"
	"fmt"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// DefaultAliasDays is for how many days a former name leads to its device if the network's
// owner has set nothing else.
const DefaultAliasDays = 14

// DNS is the network's DNS settings: those that every node gets, and those that only the
// server uses. Settings of single devices are not in it: Aliases and Wildcards are empty. No
// list is nil. A value of Reader.DNS must not be changed; WithRecords makes a copy.
type DNS struct {
	api.DNS
	// Records are the rows of DNS.Records, in the same order.
	Records   []DNSRecord `json:"records"`
	AliasDays int         `json:"alias_days"` // for how long a former name leads to its device
}

// DNSRecord is a record in addition to the devices' own names.
type DNSRecord struct {
	ID string `json:"id"`
	api.DNSRecord
	Created time.Time `json:"-"`
}

// WithRecords returns a copy with these records, and with empty lists instead of nil.
func (d DNS) WithRecords(records []DNSRecord) DNS {
	d.Records, d.DNS.Records = filled(records), []api.DNSRecord{}
	for _, r := range records {
		d.DNS.Records = append(d.DNS.Records, r.DNSRecord)
	}
	d.Search, d.RebindingAllowed = filled(d.Search), filled(d.RebindingAllowed)
	d.Aliases, d.Wildcards = []api.DNSAlias{}, []string{}
	d.Nameservers, d.Routes = filledServers(d.Nameservers), append([]api.DNSRoute{}, d.Routes...)
	for i, r := range d.Routes {
		d.Routes[i].Nameservers = filledServers(r.Nameservers)
	}
	return d
}

func filledServers(list []api.Nameserver) []api.Nameserver {
	list = append([]api.Nameserver{}, list...)
	for i, n := range list {
		list[i].Bootstrap = filled(n.Bootstrap)
	}
	return list
}

func filled[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// DNS returns the network's DNS settings, the records sorted by name.
func (r *Reader) DNS(id cert.NetworkID) (DNS, error) {
	d := DNS{AliasDays: DefaultAliasDays}
	var text string
	err := r.row(`SELECT dns FROM networks WHERE network_id=$1`, []any{id[:]}, &text)
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &d)
	}
	if err != nil {
		return DNS{}, fmt.Errorf("read dns settings: %w", err)
	}
	var records []DNSRecord
	err = r.each(`SELECT record_id, name, type, value, ttl, created_at FROM dns_records WHERE network_id=$1 ORDER BY name, type, value`, []any{id[:]},
		func(scan func(...any) error) error {
			var rec DNSRecord
			err := scan(&rec.ID, &rec.Name, &rec.Type, &rec.Value, &rec.TTL, stored{&rec.Created})
			records = append(records, rec)
			return err
		})
	if err != nil {
		return DNS{}, fmt.Errorf("read dns records: %w", err)
	}
	return d.WithRecords(records), nil
}

// SetDNS stores the network's DNS settings without the records.
func (tx *Tx) SetDNS(id cert.NetworkID, d DNS) error {
	text, err := json.Marshal(d.WithRecords(nil))
	if err != nil {
		return fmt.Errorf("store dns settings: %w", err)
	}
	return tx.changed(`UPDATE networks SET dns=$2 WHERE network_id=$1`, id[:], string(text))
}

// InsertDNSRecord stores a new record. The caller has checked it.
func (tx *Tx) InsertDNSRecord(id cert.NetworkID, r DNSRecord) error {
	err := tx.exec(`INSERT INTO dns_records (network_id, record_id, name, type, value, ttl, created_at) VALUES ($1,$2,$3,$4,$5,$6,$7)`,
		id[:], r.ID, r.Name, r.Type, r.Value, r.TTL, r.Created.Unix())
	if err != nil {
		return fmt.Errorf("store record %s: %w", r.Name, err)
	}
	return nil
}

// DeleteDNSRecord deletes a record; a device may have its name from then on.
func (tx *Tx) DeleteDNSRecord(id cert.NetworkID, r DNSRecord) error {
	if err := tx.changed(`DELETE FROM dns_records WHERE network_id=$1 AND record_id=$2`, id[:], r.ID); err != nil {
		return fmt.Errorf("delete record %s: %w", r.Name, err)
	}
	return tx.freeName(id, r.Name)
}

// Alias is a former name of a device that still leads to it.
type Alias struct {
	api.Alias
	NodeID cert.NodeID `json:"id"`
}

// Aliases lists the former names of a node (of all nodes for nil), the first to end first.
func (r *Reader) Aliases(id cert.NetworkID, node *cert.NodeID) (list []Alias, err error) {
	query, args := `SELECT name, node_id, until FROM aliases WHERE network_id=$1 ORDER BY until, name`, []any{id[:]}
	if node != nil {
		query, args = `SELECT name, node_id, until FROM aliases WHERE network_id=$1 AND node_id=$2 ORDER BY until, name`, append(args, node[:])
	}
	err = r.each(query, args, func(scan func(...any) error) error {
		var a Alias
		var b []byte
		err := scan(&a.Name, &b, stored{&a.Until})
		a.NodeID = nodeID(b)
		list = append(list, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read aliases: %w", err)
	}
	return list, nil
}

// ExpiredAliases lists at most limit aliases that have ended at now.
func (r *Reader) ExpiredAliases(id cert.NetworkID, now time.Time, limit int) (list []Alias, err error) {
	err = r.each(`SELECT name, node_id, until FROM aliases WHERE network_id=$1 AND until <= $2 ORDER BY until LIMIT $3`, []any{id[:], now.Unix(), limit},
		func(scan func(...any) error) error {
			var a Alias
			var b []byte
			err := scan(&a.Name, &b, stored{&a.Until})
			a.NodeID = nodeID(b)
			list = append(list, a)
			return err
		})
	return list, err
}

// Alias finds the alias with this name.
func (r *Reader) Alias(id cert.NetworkID, name string) (a Alias, err error) {
	var b []byte
	a.Name = name
	err = r.row(`SELECT node_id, until FROM aliases WHERE network_id=$1 AND name=$2`, []any{id[:], name}, &b, stored{&a.Until})
	a.NodeID = nodeID(b)
	return a, err
}

// NodeByAlias finds the node that a former name leads to at now.
func (r *Reader) NodeByAlias(id cert.NetworkID, name string, now time.Time) (Node, error) {
	a, err := r.Alias(id, name)
	if err == nil && !now.Before(a.Until) {
		err = ErrNotFound
	}
	if err != nil {
		return Node{}, err
	}
	return r.Node(id, a.NodeID)
}

// AddAlias makes name a former name of a node.
func (tx *Tx) AddAlias(id cert.NetworkID, a Alias) error {
	err := tx.exec(`INSERT INTO aliases (network_id, name, node_id, until) VALUES ($1,$2,$3,$4)`, id[:], a.Name, a.NodeID[:], a.Until.Unix())
	if err != nil {
		return fmt.Errorf("store the former name %s: %w", a.Name, err)
	}
	return nil
}

// RemoveAlias ends an alias. If free is set, other devices may have the name.
func (tx *Tx) RemoveAlias(id cert.NetworkID, name string, free bool) error {
	if err := tx.changed(`DELETE FROM aliases WHERE network_id=$1 AND name=$2`, id[:], name); err != nil {
		return err
	}
	if free {
		return tx.freeName(id, name)
	}
	return nil
}

// FormerName returns the name that a deleted node had, if it was deleted after
// since.
func (r *Reader) FormerName(id cert.NetworkID, node cert.NodeID, since time.Time) (name string, err error) {
	err = r.row(`SELECT name FROM former_names WHERE network_id=$1 AND node_id=$2 AND left_at > $3`, []any{id[:], node[:], since.Unix()}, &name)
	return name, err
}

// leaveName ends the aliases of a node that is deleted, and stores its name in former_names.
func (tx *Tx) leaveName(id cert.NetworkID, n Node, now time.Time) error {
	list, err := tx.Aliases(id, &n.ID)
	if err != nil {
		return err
	}
	for _, a := range list {
		if err := tx.RemoveAlias(id, a.Name, true); err != nil {
			return err
		}
	}
	return tx.exec(`INSERT INTO former_names (network_id, node_id, name, left_at) VALUES ($1,$2,$3,$4)
		ON CONFLICT (network_id, node_id) DO UPDATE SET name = excluded.name, left_at = excluded.left_at`, id[:], n.ID[:], n.Name, now.Unix())
}

// NameTaken reports whether a label cannot be given to a device: a device has it, it is a
// former name that still leads to a device, or a record answers for it.
func (r *Reader) NameTaken(id cert.NetworkID, name string) (taken bool, err error) {
	err = r.row(`SELECT EXISTS (SELECT 1 FROM nodes WHERE network_id=$1 AND name=$2)
		OR EXISTS (SELECT 1 FROM aliases WHERE network_id=$1 AND name=$2)
		OR EXISTS (SELECT 1 FROM dns_records WHERE network_id=$1 AND name=$2 AND type IN ('A','AAAA','CNAME'))`, []any{id[:], name}, &taken)
	return taken, err
}

// HasRecord reports whether a record of type A, AAAA or CNAME has this name, so that no
// device can have it.
func (r *Reader) HasRecord(id cert.NetworkID, name string) (yes bool, err error) {
	err = r.row(`SELECT EXISTS (SELECT 1 FROM dns_records WHERE network_id=$1 AND name=$2 AND type IN ('A','AAAA','CNAME'))`, []any{id[:], name}, &yes)
	return yes, err
}

// Wildcard is a device that answers for every name below its own.
type Wildcard struct {
	ID    cert.NodeID
	Name  string
	Class string
}

// Wildcards lists the devices with wildcards, by name.
func (r *Reader) Wildcards(id cert.NetworkID) (list []Wildcard, err error) {
	err = r.each(`SELECT node_id, name, class FROM nodes WHERE network_id=$1 AND wildcard = 1 ORDER BY name`, []any{id[:]}, func(scan func(...any) error) error {
		var w Wildcard
		var b []byte
		err := scan(&b, &w.Name, &w.Class)
		w.ID = nodeID(b)
		list = append(list, w)
		return err
	})
	return list, err
}

// SetNodeDNS stores the DNS settings of a node and its config's version.
func (tx *Tx) SetNodeDNS(id cert.NetworkID, n Node) error {
	tx.touch(n.ID)
	return tx.changed(`UPDATE nodes SET wildcard=$3, lan_names=$4, config_n=$5 WHERE network_id=$1 AND node_id=$2`,
		id[:], n.ID[:], n.Wildcard, n.LANNames, n.ConfigN)
}

// SetNodeN stores the last change of a node that other nodes see.
func (tx *Tx) SetNodeN(id cert.NetworkID, n Node) error {
	tx.touch(n.ID)
	return tx.changed(`UPDATE nodes SET n=$3, config_n=$4 WHERE network_id=$1 AND node_id=$2`, id[:], n.ID[:], n.N, n.ConfigN)
}
