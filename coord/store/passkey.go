package store

import (
	"fmt"
	"strings"
	"time"

	"weft/overlay/cert"
)

// Passkey is a passkey of a user.
type Passkey struct {
	Credential []byte // its id, made by the authenticator
	ID         string // used in addresses and in the audit
	UserID     string
	Name       string
	Domain     string // for which it was made
	PublicKey  []byte
	Counter    uint32
	Flags      byte
	Transport  []string
	AAGUID     []byte
	Created    time.Time
	Used       time.Time // zero for never
	Cloned     time.Time // when its counter last went back, zero for never
}

const passkeyColumns = `SELECT credential_id, passkey_id, user_id, name, rp_id, public_key, counter, flags, transports, aaguid, created_at, used_at, cloned_at FROM passkeys WHERE network_id=$1 `

func scanPasskey(scan func(...any) error) (p Passkey, err error) {
	var transports string
	err = scan(&p.Credential, &p.ID, &p.UserID, &p.Name, &p.Domain, &p.PublicKey, &p.Counter, &p.Flags, &transports, &p.AAGUID, stored{&p.Created}, nullTime{&p.Used}, nullTime{&p.Cloned})
	p.Transport = SplitTags(transports)
	return p, err
}

// Passkeys lists a user's passkeys, oldest first.
func (r *Reader) Passkeys(id cert.NetworkID, userID string) (list []Passkey, err error) {
	err = r.each(passkeyColumns+`AND user_id=$2 ORDER BY created_at, passkey_id`, []any{id[:], userID}, func(scan func(...any) error) error {
		p, err := scanPasskey(scan)
		list = append(list, p)
		return err
	})
	return list, err
}

// Passkey finds a passkey by its Credential.
func (r *Reader) Passkey(id cert.NetworkID, credential []byte) (p Passkey, err error) {
	err = ErrNotFound
	if e := r.each(passkeyColumns+`AND credential_id=$2`, []any{id[:], credential}, func(scan func(...any) error) error {
		p, err = scanPasskey(scan)
		return err
	}); e != nil {
		err = e
	}
	return p, err
}

// OtherPasskeys counts the passkeys that are not for a domain.
func (r *Reader) OtherPasskeys(id cert.NetworkID, domain string) (n int, err error) {
	err = r.row(`SELECT COUNT(*) FROM passkeys WHERE network_id=$1 AND rp_id <> $2`, []any{id[:], domain}, &n)
	return n, err
}

// CreatePasskey stores a passkey; ErrTaken if it is stored already.
func (tx *Tx) CreatePasskey(id cert.NetworkID, p Passkey) error {
	err := tx.exec(`INSERT INTO passkeys (network_id, credential_id, passkey_id, user_id, name, rp_id, public_key, counter, flags, transports, aaguid, created_at)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)`,
		id[:], p.Credential, p.ID, p.UserID, p.Name, p.Domain, p.PublicKey, p.Counter, p.Flags, strings.Join(p.Transport, ","), p.AAGUID, p.Created.Unix())
	if isUnique(err, "passkeys.") {
		err = ErrTaken
	}
	if err != nil {
		return fmt.Errorf("create passkey: %w", err)
	}
	return nil
}

// UsePasskey stores that a passkey was used: its counter, flags, and when it seemed to have
// been copied.
func (tx *Tx) UsePasskey(id cert.NetworkID, p Passkey) error {
	return tx.changed(`UPDATE passkeys SET counter=$3, flags=$4, used_at=$5, cloned_at=$6 WHERE network_id=$1 AND credential_id=$2`,
		id[:], p.Credential, p.Counter, p.Flags, orNull(p.Used), orNull(p.Cloned))
}

// DeletePasskey deletes one passkey of a user.
func (tx *Tx) DeletePasskey(id cert.NetworkID, userID, passkeyID string) error {
	return tx.changed(`DELETE FROM passkeys WHERE network_id=$1 AND user_id=$2 AND passkey_id=$3`, id[:], userID, passkeyID)
}

// DeletePasskeys deletes all passkeys of a user.
func (tx *Tx) DeletePasskeys(id cert.NetworkID, userID string) error {
	return tx.exec(`DELETE FROM passkeys WHERE network_id=$1 AND user_id=$2`, id[:], userID)
}
