package store

import (
	"encoding/json"
	"fmt"
	"time"

	"weft/overlay/cert"
)

// Relay is a standalone relay.
type Relay struct {
	ID       string    `json:"id"` // hex, as in api.Relay
	Name     string    `json:"name"`
	URLs     []string  `json:"urls"`
	STUN     []string  `json:"stun"` // host:port
	KeyID    string    `json:"key"`
	Software string    `json:"version"`
	Created  time.Time `json:"joined"`
}

// Relays lists the relays of a network, the oldest first.
func (r *Reader) Relays(id cert.NetworkID) (relays []Relay, err error) {
	err = r.each(`SELECT relay_id, name, urls, stun, key_id, software, created_at FROM relays WHERE network_id=$1 ORDER BY created_at, relay_id`, []any{id[:]},
		func(scan func(...any) error) error {
			var rl Relay
			var urls, stun string
			if err := scan(&rl.ID, &rl.Name, &urls, &stun, &rl.KeyID, &rl.Software, stored{&rl.Created}); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(urls), &rl.URLs); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(stun), &rl.STUN); err != nil {
				return err
			}
			relays = append(relays, rl)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read relays: %w", err)
	}
	return relays, nil
}

// InsertRelay stores a new relay.
func (tx *Tx) InsertRelay(id cert.NetworkID, rl Relay) error {
	urls, stun, err := marshalLists(rl.URLs, rl.STUN)
	if err != nil {
		return err
	}
	err = tx.exec(`INSERT INTO relays (network_id, relay_id, name, urls, stun, key_id, software, created_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)`,
		id[:], rl.ID, rl.Name, urls, stun, rl.KeyID, rl.Software, rl.Created.Unix())
	if err != nil {
		return fmt.Errorf("create relay: %w", err)
	}
	return nil
}

// UpdateRelay stores a relay's addresses and version.
func (tx *Tx) UpdateRelay(id cert.NetworkID, rl Relay) error {
	urls, stun, err := marshalLists(rl.URLs, rl.STUN)
	if err != nil {
		return err
	}
	return tx.changed(`UPDATE relays SET urls=$3, stun=$4, software=$5 WHERE network_id=$1 AND relay_id=$2`, id[:], rl.ID, urls, stun, rl.Software)
}

// DeleteRelay deletes a relay.
func (tx *Tx) DeleteRelay(id cert.NetworkID, relayID string) error {
	return tx.changed(`DELETE FROM relays WHERE network_id=$1 AND relay_id=$2`, id[:], relayID)
}

// BumpConfig makes a change of the config of all nodes and returns its number.
func (tx *Tx) BumpConfig(id cert.NetworkID) (uint64, error) {
	n, err := tx.Bump(id)
	if err != nil {
		return 0, err
	}
	return n, tx.exec(`UPDATE networks SET config_n=$2 WHERE network_id=$1`, id[:], n)
}
