package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"weft/overlay/cert"
)

// Network is the row of one network.
type Network struct {
	ID      cert.NetworkID
	Created time.Time

	Epoch     uint64 // new after a restore
	N         uint64 // change counter; only Bump raises it
	ConfigN   uint64 // last change of the config of all nodes
	FullAfter uint64 // deltas of the directory start at this change or later
	URLsN     uint64 // last change of URLs
	NamesN    uint64 // last change of how names resolve

	IPv4, IPv6 netip.Prefix
	Suffix     string
	URLs       []string
	STUN       []string // host:port
	Policy     string   // JSON, "" for the starting policy

	CRLNumber uint64
	CRL       []byte // DER
}

// Network returns the only network of this database; ErrNotFound before the
// first start.
func (r *Reader) Network() (Network, error) {
	var n Network
	var id []byte
	var created int64
	var v4, v6, urls, stun string
	err := r.row(`SELECT network_id, created_at, epoch, n, config_n, full_after, ipv4_prefix, ipv6_prefix,
		suffix, urls, urls_n, names_n, stun, policy, crl_number, crl FROM networks`, nil,
		&id, &created, &n.Epoch, &n.N, &n.ConfigN, &n.FullAfter, &v4, &v6, &n.Suffix, &urls, &n.URLsN, &n.NamesN, &stun, &n.Policy, &n.CRLNumber, &n.CRL)
	if err != nil {
		return Network{}, fmt.Errorf("read network: %w", err)
	}
	copy(n.ID[:], id)
	n.Created = fromUnix(created)
	if n.IPv4, err = netip.ParsePrefix(v4); err == nil {
		n.IPv6, err = netip.ParsePrefix(v6)
	}
	if err == nil {
		err = json.Unmarshal([]byte(urls), &n.URLs)
	}
	if err == nil {
		err = json.Unmarshal([]byte(stun), &n.STUN)
	}
	if err != nil {
		return Network{}, fmt.Errorf("read network: %w", err)
	}
	return n, nil
}

// CreateNetwork stores a new network.
func (tx *Tx) CreateNetwork(n Network) error {
	urls, stun, err := marshalLists(n.URLs, n.STUN)
	if err != nil {
		return err
	}
	err = tx.exec(`INSERT INTO networks (network_id, created_at, epoch, n, config_n, full_after, ipv4_prefix, ipv6_prefix,
		next_ipv4, suffix, urls, stun, policy, crl_number, crl) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15)`,
		n.ID[:], n.Created.Unix(), n.Epoch, n.N, n.ConfigN, n.FullAfter, n.IPv4.String(), n.IPv6.String(),
		toUint32(n.IPv4.Masked().Addr()), n.Suffix, urls, stun, n.Policy, n.CRLNumber, n.CRL)
	if err != nil {
		return fmt.Errorf("create network: %w", err)
	}
	return nil
}

// SetNetwork stores the settings that the server was started with (addresses, suffix) and the
// policy, as a change of the config of all nodes. It returns the number of the change.
func (tx *Tx) SetNetwork(n Network) (uint64, error) {
	urls, stun, err := marshalLists(n.URLs, n.STUN)
	if err != nil {
		return 0, err
	}
	c, err := tx.Bump(n.ID)
	if err != nil {
		return 0, err
	}
	err = tx.exec(`UPDATE networks SET ipv4_prefix=$2, next_ipv4=$3, suffix=$4, urls_n=CASE WHEN urls=$5 THEN urls_n ELSE $9 END, urls=$5, stun=$6, policy=$7, full_after=$8, config_n=$9 WHERE network_id=$1`,
		n.ID[:], n.IPv4.String(), toUint32(n.IPv4.Masked().Addr()), n.Suffix, urls, stun, n.Policy, n.FullAfter, c)
	if err != nil {
		return 0, fmt.Errorf("update network: %w", err)
	}
	return c, nil
}

// Bump takes the next number of the network's change counter.
func (tx *Tx) Bump(id cert.NetworkID) (n uint64, err error) {
	if err := tx.row(`UPDATE networks SET n = n + 1 WHERE network_id=$1 RETURNING n`, []any{id[:]}, &n); err != nil {
		return 0, fmt.Errorf("bump version: %w", err)
	}
	return n, nil
}

func marshalLists(urls, stun []string) (string, string, error) {
	a, err := json.Marshal(append([]string{}, urls...))
	if err != nil {
		return "", "", err
	}
	b, err := json.Marshal(append([]string{}, stun...))
	return string(a), string(b), err
}
