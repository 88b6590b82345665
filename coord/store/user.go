package store

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/overlay/cert"
)

// User owns nodes. A person signs in to the console, a service uses the API with
// tokens.
type User struct {
	ID       string    `json:"id"` // opaque, without "/"
	Name     string    `json:"name"`
	Password string    `json:"-"`     // hash of its password (coord/passhash), "" for none yet
	Owner    bool      `json:"owner"` // owns the devices and keys for which no other user is named
	Kind     UserKind  `json:"kind"`
	Role     string    `json:"role"` // see coord/ops.Role
	Tags     []string  `json:"tags"` // without "tag:", sorted; if there are any, they limit the role
	Created  time.Time `json:"created"`
	// DisplayName is what people read, "" for none; certificates and rules use Name.
	DisplayName string     `json:"display_name"`
	Suspended   *time.Time `json:"suspended"` // since when it is suspended; nil: it is not
}

// UserKind says what a user is. The words are stored.
type UserKind string

// The kinds of users.
const (
	Person  UserKind = "person"
	Service UserKind = "service"
)

// Session is a signed-in browser; Hash is the SHA-256 of its token.
type Session struct {
	Hash    [32]byte
	UserID  string
	Created time.Time // when the user signed in; signing in again begins a new session
	Seen    time.Time
	Agent   string
	Addr    string
	Method  Method
	// Provider is the OpenID provider at which the user signed in, "" for none. Refresh is
	// the sealed refresh token that extends the session. Such a session ends at Expires,
	// which is zero for other sessions.
	Provider string
	Refresh  []byte
	Expires  time.Time
}

// Method is how a user signed in. The words are stored and shown.
type Method string

// The methods; "" was stored by an older server.
const (
	WithPassword Method = "password"
	WithLink     Method = "link"
	WithPasskey  Method = "passkey"
	WithProvider Method = "oidc"

	// What was proved in addition.
	AndTOTP     = "totp"
	AndRecovery = "recovery"
	AndPasskey  = "passkey"
)

// With returns the method with something that was proved in addition.
func (m Method) With(more string) Method { return m + "+" + Method(more) }

// Strong reports whether more than a password or a link was proved.
func (m Method) Strong() bool { return m == WithPasskey || strings.Contains(string(m), "+") }

const userColumns = `SELECT user_id, name, password, owner, kind, role, tags, created_at, display_name, suspended_at FROM users WHERE network_id=$1 `

func scanUser(scan func(...any) error) (u User, err error) {
	var tags, kind string
	err = scan(&u.ID, &u.Name, &u.Password, &u.Owner, &kind, &u.Role, &tags, stored{&u.Created}, &u.DisplayName, maybeTime{&u.Suspended})
	u.Kind, u.Tags = UserKind(kind), SplitTags(tags)
	return u, err
}

func (r *Reader) user(query string, args ...any) (u User, err error) {
	err = ErrNotFound
	if e := r.each(query, args, func(scan func(...any) error) error {
		u, err = scanUser(scan)
		return err
	}); e != nil {
		err = e
	}
	return u, err
}

// User finds a user by id.
func (r *Reader) User(id cert.NetworkID, userID string) (User, error) {
	return r.user(userColumns+`AND user_id=$2`, id[:], userID)
}

// UserByName finds a user by name.
func (r *Reader) UserByName(id cert.NetworkID, name string) (User, error) {
	return r.user(userColumns+`AND name=$2`, id[:], name)
}

// FirstUser returns the user with User.Owner: the first user of the network, or the owner who
// replaced it.
func (r *Reader) FirstUser(id cert.NetworkID) (User, error) {
	return r.user(userColumns+`AND owner=1`, id[:])
}

// SetFirstUser makes another user the FirstUser.
func (tx *Tx) SetFirstUser(id cert.NetworkID, userID string) error {
	return tx.exec(`UPDATE users SET owner = CASE WHEN user_id=$2 THEN 1 ELSE 0 END WHERE network_id=$1 AND (owner=1 OR user_id=$2)`, id[:], userID)
}

// UsersOfRole lists the users that have a role and are not suspended, the oldest first.
func (r *Reader) UsersOfRole(id cert.NetworkID, role string) (users []User, err error) {
	err = r.each(userColumns+`AND role=$2 AND suspended_at IS NULL ORDER BY created_at, user_id`, []any{id[:], role}, func(scan func(...any) error) error {
		u, err := scanUser(scan)
		users = append(users, u)
		return err
	})
	return users, err
}

// Users lists all users by name.
func (r *Reader) Users(id cert.NetworkID) (users []User, err error) {
	err = r.each(userColumns+`ORDER BY name`, []any{id[:]}, func(scan func(...any) error) error {
		u, err := scanUser(scan)
		users = append(users, u)
		return err
	})
	return users, err
}

// CreateUser stores a new user; ErrTaken if a user has or had this name.
func (tx *Tx) CreateUser(id cert.NetworkID, u User) error {
	used, err := tx.NameUsed(id, u.Name)
	if err == nil && used {
		err = ErrTaken
	}
	if err == nil {
		err = tx.exec(`INSERT INTO users (network_id, user_id, name, password, owner, kind, role, tags, created_at, display_name) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)`,
			id[:], u.ID, u.Name, u.Password, u.Owner, string(u.Kind), u.Role, JoinTags(u.Tags), u.Created.Unix(), u.DisplayName)
	}
	if isUnique(err, "users.") {
		err = ErrTaken
	}
	if err != nil {
		return fmt.Errorf("create user %s: %w", u.Name, err)
	}
	return nil
}

// NameUsed reports whether a user with this name was deleted. The name is not used again,
// since certificates carry it.
func (r *Reader) NameUsed(id cert.NetworkID, name string) (used bool, err error) {
	err = r.row(`SELECT EXISTS (SELECT 1 FROM used_names WHERE network_id=$1 AND name=$2)`, []any{id[:], name}, &used)
	return used, err
}

// SetDisplayName stores the display name of a user, "" for none.
func (tx *Tx) SetDisplayName(id cert.NetworkID, userID, name string) error {
	return tx.changed(`UPDATE users SET display_name=$3 WHERE network_id=$1 AND user_id=$2`, id[:], userID, name)
}

// SetSuspended stores since when a user is suspended, the zero time if it is not. It deletes
// the user's links and sessions.
func (tx *Tx) SetSuspended(id cert.NetworkID, userID string, since time.Time) error {
	if err := tx.changed(`UPDATE users SET suspended_at=$3 WHERE network_id=$1 AND user_id=$2`, id[:], userID, orNull(since)); err != nil {
		return err
	}
	if err := tx.exec(`DELETE FROM login_links WHERE network_id=$1 AND user_id=$2`, id[:], userID); err != nil {
		return err
	}
	return tx.DeleteSessions(id, userID, [32]byte{})
}

// RevokeMadeBy revokes the tokens and keys that a user made for others.
func (tx *Tx) RevokeMadeBy(id cert.NetworkID, userID string, now time.Time) error {
	for _, table := range []string{"tokens", "keys"} {
		if err := tx.exec(`UPDATE `+table+` SET revoked_at = COALESCE(revoked_at, $3) WHERE network_id=$1 AND made_by=$2`, id[:], userID, now.Unix()); err != nil {
			return fmt.Errorf("revoke tokens and keys that a user made: %w", err)
		}
	}
	return nil
}

// DeleteKeys deletes the keys of a user.
func (tx *Tx) DeleteKeys(id cert.NetworkID, userID string) error {
	return tx.exec(`DELETE FROM keys WHERE network_id=$1 AND user_id=$2`, id[:], userID)
}

// GiveKeys revokes the keys of a user and gives them to another user.
func (tx *Tx) GiveKeys(id cert.NetworkID, from, to string, now time.Time) error {
	return tx.exec(`UPDATE keys SET user_id=$3, revoked_at = COALESCE(revoked_at, $4) WHERE network_id=$1 AND user_id=$2`, id[:], from, to, now.Unix())
}

// SetRole stores the role of a user and the tags that limit it.
func (tx *Tx) SetRole(id cert.NetworkID, userID, role string, tags []string) error {
	return tx.changed(`UPDATE users SET role=$3, tags=$4 WHERE network_id=$1 AND user_id=$2`, id[:], userID, role, JoinTags(tags))
}

// Belongings counts the nodes and the keys of a user.
func (r *Reader) Belongings(id cert.NetworkID, userID string) (nodes, keys int, err error) {
	err = r.row(`SELECT (SELECT COUNT(*) FROM nodes WHERE network_id=$1 AND user_id=$2), (SELECT COUNT(*) FROM keys WHERE network_id=$1 AND user_id=$2)`,
		[]any{id[:], userID}, &nodes, &keys)
	return nodes, keys, err
}

// NodesOf returns the ids of a user's nodes.
func (r *Reader) NodesOf(id cert.NetworkID, userID string) (ids []cert.NodeID, err error) {
	err = r.each(`SELECT node_id FROM nodes WHERE network_id=$1 AND user_id=$2`, []any{id[:], userID}, func(scan func(...any) error) error {
		var b []byte
		err := scan(&b)
		ids = append(ids, nodeID(b))
		return err
	})
	slices.SortFunc(ids, func(a, b cert.NodeID) int { return bytes.Compare(a[:], b[:]) })
	return ids, err
}

// DeleteUser deletes a user without nodes and keys; its sessions, links and tokens are
// deleted too. ErrTaken while nodes or keys of the user exist.
func (tx *Tx) DeleteUser(id cert.NetworkID, userID string) error {
	nodes, keys, err := tx.Belongings(id, userID)
	if err != nil {
		return err
	}
	if nodes+keys > 0 {
		return fmt.Errorf("delete user: it owns devices or keys: %w", ErrTaken)
	}
	if err := tx.exec(`INSERT INTO used_names (network_id, name) SELECT network_id, name FROM users WHERE network_id=$1 AND user_id=$2`, id[:], userID); err != nil {
		return fmt.Errorf("store the name of a deleted user: %w", err)
	}
	return tx.changed(`DELETE FROM users WHERE network_id=$1 AND user_id=$2`, id[:], userID)
}

// SetPassword stores a password hash, and deletes the user's links and all sessions except
// keep.
func (tx *Tx) SetPassword(id cert.NetworkID, userID, hash string, keep [32]byte) error {
	if err := tx.changed(`UPDATE users SET password=$3 WHERE network_id=$1 AND user_id=$2`, id[:], userID, hash); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	if err := tx.exec(`DELETE FROM login_links WHERE network_id=$1 AND user_id=$2`, id[:], userID); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return tx.DeleteSessions(id, userID, keep)
}

// CreateLink stores the hash of a one-time sign-in link.
func (tx *Tx) CreateLink(id cert.NetworkID, hash [32]byte, userID string, now, expires time.Time) error {
	return tx.exec(`INSERT INTO login_links (network_id, token_hash, user_id, created_at, expires_at) VALUES ($1,$2,$3,$4,$5)`,
		id[:], hash[:], userID, now.Unix(), expires.Unix())
}

// Link finds a link that can still be used.
func (r *Reader) Link(id cert.NetworkID, hash [32]byte, now time.Time) (l Link, err error) {
	var userID string
	var by *string
	if err := r.row(`SELECT user_id, invited_by FROM login_links WHERE network_id=$1 AND token_hash=$2 AND expires_at > $3`, []any{id[:], hash[:], now.Unix()}, &userID, &by); err != nil {
		return l, err
	}
	if by != nil {
		l.Invites, l.By = true, *by
	}
	l.User, err = r.User(id, userID)
	return l, err
}

// DeleteLink deletes a link, so that it cannot be used again.
func (tx *Tx) DeleteLink(id cert.NetworkID, hash [32]byte) error {
	return tx.changed(`DELETE FROM login_links WHERE network_id=$1 AND token_hash=$2`, id[:], hash[:])
}

// maxSessions bounds the sessions of one user.
const maxSessions = 100

// CreateSession stores a session, deletes the least recently used sessions above the bound
// and returns these. It also deletes an invitation of the user, which is no longer needed.
func (tx *Tx) CreateSession(id cert.NetworkID, s Session) (ended []Session, err error) {
	if err := tx.exec(`INSERT INTO sessions (network_id, token_hash, user_id, created_at, seen_at, agent, addr, method, provider, refresh, expires_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)`,
		id[:], s.Hash[:], s.UserID, s.Created.Unix(), s.Seen.Unix(), s.Agent, s.Addr, string(s.Method), s.Provider, s.Refresh, orNull(s.Expires)); err != nil {
		return nil, fmt.Errorf("create session: %w", err)
	}
	if err := tx.exec(`UPDATE users SET signed_in_at=$3 WHERE network_id=$1 AND user_id=$2`, id[:], s.UserID, s.Created.Unix()); err != nil {
		return nil, fmt.Errorf("create session: %w", err)
	}
	if err := tx.EndInvitation(id, s.UserID); err != nil {
		return nil, err
	}
	err = tx.each(sessionColumns+`AND user_id=$2 AND token_hash <> $3 ORDER BY seen_at DESC, token_hash LIMIT 1000 OFFSET $4`,
		[]any{id[:], s.UserID, s.Hash[:], maxSessions - 1}, func(scan func(...any) error) error {
			old, err := scanSession(scan)
			ended = append(ended, old)
			return err
		})
	for _, old := range ended {
		if err == nil {
			err = tx.DeleteSession(id, s.UserID, old.Hash)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("end the oldest sessions: %w", err)
	}
	return ended, nil
}

const sessionColumns = `SELECT token_hash, user_id, created_at, seen_at, agent, addr, method, provider, refresh, expires_at FROM sessions WHERE network_id=$1 `

func scanSession(scan func(...any) error) (s Session, err error) {
	var hash []byte
	err = scan(&hash, &s.UserID, stored{&s.Created}, stored{&s.Seen}, &s.Agent, &s.Addr, (*string)(&s.Method), &s.Provider, &s.Refresh, nullTime{&s.Expires})
	copy(s.Hash[:], hash)
	return s, err
}

// Session finds a session and its user.
func (r *Reader) Session(id cert.NetworkID, hash [32]byte) (s Session, u User, err error) {
	err = ErrNotFound
	if e := r.each(sessionColumns+`AND token_hash=$2`, []any{id[:], hash[:]}, func(scan func(...any) error) error {
		s, err = scanSession(scan)
		return err
	}); e != nil {
		err = e
	}
	if err == nil {
		u, err = r.User(id, s.UserID)
	}
	return s, u, err
}

// Sessions lists a user's sessions, most recently seen first.
func (r *Reader) Sessions(id cert.NetworkID, userID string) ([]Session, error) {
	return r.sessions(`AND user_id=$2 ORDER BY seen_at DESC, token_hash`, id[:], userID)
}

func (r *Reader) sessions(which string, args ...any) (list []Session, err error) {
	err = r.each(sessionColumns+which, args, func(scan func(...any) error) error {
		s, err := scanSession(scan)
		list = append(list, s)
		return err
	})
	return list, err
}

// TouchSession stores when a session was last used.
func (tx *Tx) TouchSession(id cert.NetworkID, hash [32]byte, seen time.Time) error {
	return tx.changed(`UPDATE sessions SET seen_at=$3 WHERE network_id=$1 AND token_hash=$2`, id[:], hash[:], seen.Unix())
}

// DeleteSession deletes one session of a user.
func (tx *Tx) DeleteSession(id cert.NetworkID, userID string, hash [32]byte) error {
	return tx.changed(`DELETE FROM sessions WHERE network_id=$1 AND user_id=$2 AND token_hash=$3`, id[:], userID, hash[:])
}

// DeleteSessions deletes all sessions of a user except keep.
func (tx *Tx) DeleteSessions(id cert.NetworkID, userID string, keep [32]byte) error {
	return tx.exec(`DELETE FROM sessions WHERE network_id=$1 AND user_id=$2 AND token_hash <> $3`, id[:], userID, keep[:])
}
