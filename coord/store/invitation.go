package store

import (
	"fmt"
	"time"

	"weft/overlay/cert"
)

// Link is a one-time sign-in link that can still be used.
type Link struct {
	User User
	// Invites says that it is an invitation. By is the id of the user who sent it, "" if it
	// was sent by no user.
	Invites bool
	By      string
}

// UserRow is a user as lists show it.
type UserRow struct {
	User
	SignedIn *time.Time `json:"signed_in"` // last sign-in; nil: never
	Devices  int        `json:"devices"`
	// Invited is the end of an invitation that was not used yet, nil for none.
	Invited *time.Time `json:"invited"`
	// New says that this user has no means to sign in yet.
	New bool `json:"-"`
}

const personColumns = `SELECT u.user_id, u.name, u.password, u.owner, u.kind, u.role, u.tags, u.created_at, u.display_name, u.suspended_at, u.signed_in_at,
	(SELECT COUNT(*) FROM nodes n WHERE n.network_id = u.network_id AND n.user_id = u.user_id),
	(SELECT MAX(l.expires_at) FROM login_links l WHERE l.network_id = u.network_id AND l.user_id = u.user_id AND l.invited_by IS NOT NULL AND l.expires_at > $2),
	u.password = '' AND u.signed_in_at IS NULL AND u.kind = 'person'
		AND NOT EXISTS (SELECT 1 FROM passkeys p WHERE p.network_id = u.network_id AND p.user_id = u.user_id)
		AND NOT EXISTS (SELECT 1 FROM identities i WHERE i.network_id = u.network_id AND i.user_id = u.user_id)
	FROM users u WHERE u.network_id=$1 `

func (r *Reader) people(query string, args ...any) (list []UserRow, err error) {
	err = r.each(personColumns+query, args, func(scan func(...any) error) error {
		var p UserRow
		u, err := scanUser(func(to ...any) error {
			return scan(append(to, maybeTime{&p.SignedIn}, &p.Devices, maybeTime{&p.Invited}, &p.New)...)
		})
		p.User = u
		list = append(list, p)
		return err
	})
	return list, err
}

// People lists all users by name.
func (r *Reader) People(id cert.NetworkID, now time.Time) ([]UserRow, error) {
	return r.people(`ORDER BY u.name`, id[:], now.Unix())
}

// UserRow returns the row of one user, by id.
func (r *Reader) UserRow(id cert.NetworkID, userID string, now time.Time) (UserRow, error) {
	list, err := r.people(`AND u.user_id=$3`, id[:], now.Unix(), userID)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return UserRow{}, err
	}
	return list[0], nil
}

// Invite stores the hash of an invitation's link, and deletes an earlier invitation of the
// user.
func (tx *Tx) Invite(id cert.NetworkID, hash [32]byte, userID, by string, now, expires time.Time) error {
	if err := tx.EndInvitation(id, userID); err != nil {
		return err
	}
	return tx.exec(`INSERT INTO login_links (network_id, token_hash, user_id, created_at, expires_at, invited_by) VALUES ($1,$2,$3,$4,$5,$6)`,
		id[:], hash[:], userID, now.Unix(), expires.Unix(), by)
}

// EndInvitation deletes the invitation of a user, if there is one.
func (tx *Tx) EndInvitation(id cert.NetworkID, userID string) error {
	if err := tx.exec(`DELETE FROM login_links WHERE network_id=$1 AND user_id=$2 AND invited_by IS NOT NULL`, id[:], userID); err != nil {
		return fmt.Errorf("end an invitation: %w", err)
	}
	return nil
}

// CountInvitations counts the invitations that can be used.
func (r *Reader) CountInvitations(id cert.NetworkID, now time.Time) (n int, err error) {
	err = r.row(`SELECT COUNT(*) FROM login_links WHERE network_id=$1 AND invited_by IS NOT NULL AND expires_at > $2`, []any{id[:], now.Unix()}, &n)
	return n, err
}
