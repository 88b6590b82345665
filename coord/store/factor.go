package store

import (
	"fmt"
	"time"

	"weft/overlay/cert"
)

// TOTP is the secret of a user's codes.
type TOTP struct {
	Secret  []byte // sealed
	Step    int64  // of the last code that was used
	Created time.Time
}

// TOTP returns the secret of a user's codes, ErrNotFound if the user has none.
func (r *Reader) TOTP(id cert.NetworkID, userID string) (t TOTP, err error) {
	err = r.row(`SELECT secret, step, created_at FROM totp WHERE network_id=$1 AND user_id=$2`, []any{id[:], userID}, &t.Secret, &t.Step, stored{&t.Created})
	return t, err
}

// SetTOTP stores the secret of a user's codes, and replaces an earlier one.
func (tx *Tx) SetTOTP(id cert.NetworkID, userID string, t TOTP) error {
	err := tx.exec(`INSERT INTO totp (network_id, user_id, secret, step, created_at) VALUES ($1,$2,$3,$4,$5)
		ON CONFLICT (network_id, user_id) DO UPDATE SET secret=excluded.secret, step=excluded.step, created_at=excluded.created_at`,
		id[:], userID, t.Secret, t.Step, t.Created.Unix())
	if err != nil {
		return fmt.Errorf("store the secret of codes: %w", err)
	}
	return nil
}

// UseTOTP stores the step of a code that was used; ErrNotFound if this step or a later one
// was used before.
func (tx *Tx) UseTOTP(id cert.NetworkID, userID string, step int64) error {
	return tx.changed(`UPDATE totp SET step=$3 WHERE network_id=$1 AND user_id=$2 AND step < $3`, id[:], userID, step)
}

// DeleteTOTP deletes the secret of a user's codes, and the recovery codes.
func (tx *Tx) DeleteTOTP(id cert.NetworkID, userID string) error {
	if err := tx.exec(`DELETE FROM totp WHERE network_id=$1 AND user_id=$2`, id[:], userID); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM recovery_codes WHERE network_id=$1 AND user_id=$2`, id[:], userID)
}

// SetRecoveryCodes stores the hashes of a user's recovery codes, and deletes the earlier
// ones.
func (tx *Tx) SetRecoveryCodes(id cert.NetworkID, userID string, hashes [][32]byte) error {
	if err := tx.exec(`DELETE FROM recovery_codes WHERE network_id=$1 AND user_id=$2`, id[:], userID); err != nil {
		return err
	}
	for _, h := range hashes {
		if err := tx.exec(`INSERT INTO recovery_codes (network_id, user_id, code_hash) VALUES ($1,$2,$3)`, id[:], userID, h[:]); err != nil {
			return err
		}
	}
	return nil
}

// UseRecoveryCode deletes a recovery code that was used; ErrNotFound if the user has no such
// code.
func (tx *Tx) UseRecoveryCode(id cert.NetworkID, userID string, hash [32]byte) error {
	return tx.changed(`DELETE FROM recovery_codes WHERE network_id=$1 AND user_id=$2 AND code_hash=$3`, id[:], userID, hash[:])
}

// RecoveryCodes returns how many recovery codes a user has left.
func (r *Reader) RecoveryCodes(id cert.NetworkID, userID string) (n int, err error) {
	err = r.row(`SELECT COUNT(*) FROM recovery_codes WHERE network_id=$1 AND user_id=$2`, []any{id[:], userID}, &n)
	return n, err
}

// SetSessionMethod stores what the user has proved since the session began.
func (tx *Tx) SetSessionMethod(id cert.NetworkID, userID string, hash [32]byte, m Method) error {
	return tx.changed(`UPDATE sessions SET method=$4 WHERE network_id=$1 AND user_id=$2 AND token_hash=$3`, id[:], userID, hash[:], string(m))
}

// SignIn is what the network demands of people who sign in to the console, and of their
// devices.
type SignIn struct {
	PasskeyDomain string `json:"passkey_domain" doc:"the domain that passkeys are for; empty before the first one"`
	Demanded      bool   `json:"second_factor_demanded" doc:"operators, admins and owners need a passkey, or a code with the password"`
	// DeviceFrom is nil if DeviceDays is 0.
	DeviceDays int        `json:"device_days" doc:"after how many days its owner has to sign a device without tags in again, or it reaches nothing; 0: never"`
	DeviceFrom *time.Time `json:"device_days_since" doc:"earlier sign-ins count as if made then"`
}

// SignIn returns what the network demands; the zero value if nothing is stored.
func (r *Reader) SignIn(id cert.NetworkID) (s SignIn, err error) {
	err = r.each(`SELECT rp_id, demanded, device_days, device_from FROM sign_in WHERE network_id=$1`, []any{id[:]}, func(scan func(...any) error) error {
		return scan(&s.PasskeyDomain, &s.Demanded, &s.DeviceDays, maybeTime{&s.DeviceFrom})
	})
	return s, err
}

// SetSignIn stores what the network demands.
func (tx *Tx) SetSignIn(id cert.NetworkID, s SignIn) error {
	var from any
	if s.DeviceFrom != nil {
		from = s.DeviceFrom.Unix()
	}
	return tx.exec(`INSERT INTO sign_in (network_id, rp_id, demanded, device_days, device_from) VALUES ($1,$2,$3,$4,$5)
		ON CONFLICT (network_id) DO UPDATE SET rp_id=excluded.rp_id, demanded=excluded.demanded, device_days=excluded.device_days, device_from=excluded.device_from`,
		id[:], s.PasskeyDomain, s.Demanded, s.DeviceDays, from)
}
