package store

import (
	"fmt"
	"time"

	"weft/overlay/cert"
)

// Provider is an OpenID Connect provider at which people sign in.
type Provider struct {
	ID          string    `json:"id"`    // part of addresses
	Title       string    `json:"title"` // text of the button
	Issuer      string    `json:"issuer"`
	ClientID    string    `json:"client_id"`
	Secret      []byte    `json:"-"` // sealed, nil for none
	Scopes      string    `json:"scopes" doc:"in addition to openid, separated by spaces"`
	GroupsClaim string    `json:"groups_claim" doc:"claim with the groups of a person; empty for none"`
	NameClaim   string    `json:"name_claim" doc:"claim with the name for a new user; preferred_username if empty"`
	AdmitClaim  string    `json:"admit_claim" doc:"claim that approves people without waiting if its value is admit_value; empty for none"`
	AdmitValue  string    `json:"admit_value"`
	Created     time.Time `json:"created"`
}

const providerColumns = `SELECT provider_id, title, issuer, client_id, secret, scopes, groups_claim, name_claim, admit_claim, admit_value, created_at FROM oidc_providers WHERE network_id=$1 `

// Providers lists the providers by id.
func (r *Reader) Providers(id cert.NetworkID) (list []Provider, err error) {
	err = r.each(providerColumns+`ORDER BY provider_id`, []any{id[:]}, func(scan func(...any) error) error {
		var p Provider
		err := scan(&p.ID, &p.Title, &p.Issuer, &p.ClientID, &p.Secret, &p.Scopes, &p.GroupsClaim, &p.NameClaim, &p.AdmitClaim, &p.AdmitValue, stored{&p.Created})
		list = append(list, p)
		return err
	})
	return list, err
}

// Provider finds a provider.
func (r *Reader) Provider(id cert.NetworkID, provider string) (Provider, error) {
	list, err := r.Providers(id)
	for _, p := range list {
		if p.ID == provider {
			return p, nil
		}
	}
	if err == nil {
		err = ErrNotFound
	}
	return Provider{}, err
}

// SetProvider stores a provider, and replaces one with the same id.
func (tx *Tx) SetProvider(id cert.NetworkID, p Provider) error {
	var secret any
	if p.Secret != nil {
		secret = p.Secret
	}
	err := tx.exec(`INSERT INTO oidc_providers (network_id, provider_id, title, issuer, client_id, secret, scopes, groups_claim, name_claim, admit_claim, admit_value, created_at)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)
		ON CONFLICT (network_id, provider_id) DO UPDATE SET title=excluded.title, issuer=excluded.issuer, client_id=excluded.client_id, secret=excluded.secret, scopes=excluded.scopes,
			groups_claim=excluded.groups_claim, name_claim=excluded.name_claim, admit_claim=excluded.admit_claim, admit_value=excluded.admit_value`,
		id[:], p.ID, p.Title, p.Issuer, p.ClientID, secret, p.Scopes, p.GroupsClaim, p.NameClaim, p.AdmitClaim, p.AdmitValue, p.Created.Unix())
	if err != nil {
		return fmt.Errorf("store provider: %w", err)
	}
	return nil
}

// DeleteProvider deletes a provider, the sessions that began there, its identities that wait
// for approval, and the groups that it reported. Approved identities stay, in case the
// provider is added again.
func (tx *Tx) DeleteProvider(id cert.NetworkID, provider string) error {
	if err := tx.changed(`DELETE FROM oidc_providers WHERE network_id=$1 AND provider_id=$2`, id[:], provider); err != nil {
		return err
	}
	for _, query := range []string{
		`DELETE FROM sessions WHERE network_id=$1 AND provider=$2`,
		`DELETE FROM identities WHERE network_id=$1 AND provider_id=$2 AND user_id IS NULL`,
		`DELETE FROM user_groups WHERE network_id=$1 AND source=$2`,
	} {
		if err := tx.exec(query, id[:], provider); err != nil {
			return err
		}
	}
	return nil
}

// Identity is a person's account at a provider: issuer and subject.
type Identity struct {
	ID       string    `json:"id"`
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"`
	Provider string    `json:"provider"` // through which it signed in last
	UserID   string    `json:"-"`        // "" while it waits for approval
	User     string    `json:"user"`     // name, "" while it waits for approval
	Admitted bool      `json:"by_rule"`  // approved by a rule
	Name     string    `json:"name"`     // as the provider reports
	Mail     string    `json:"mail"`     // as the provider reports; it does not identify the person
	Created  time.Time `json:"created"`
	Seen     time.Time `json:"last_seen"`
}

const identityColumns = `SELECT i.identity_id, i.issuer, i.subject, i.provider_id, COALESCE(i.user_id, ''), COALESCE(u.name, ''), i.admitted, i.name, i.mail, i.created_at, i.seen_at
	FROM identities i LEFT JOIN users u ON u.network_id = i.network_id AND u.user_id = i.user_id WHERE i.network_id=$1 `

// Identities lists all identities, those that wait for approval first.
func (r *Reader) Identities(id cert.NetworkID) ([]Identity, error) {
	return r.identities(identityColumns+`ORDER BY i.user_id IS NOT NULL, i.created_at, i.identity_id`, id[:])
}

func (r *Reader) identities(query string, args ...any) (list []Identity, err error) {
	err = r.each(query, args, func(scan func(...any) error) error {
		var i Identity
		err := scan(&i.ID, &i.Issuer, &i.Subject, &i.Provider, &i.UserID, &i.User, &i.Admitted, &i.Name, &i.Mail, stored{&i.Created}, stored{&i.Seen})
		list = append(list, i)
		return err
	})
	return list, err
}

func one(list []Identity, err error) (Identity, error) {
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Identity{}, err
	}
	return list[0], nil
}

// Identity finds an identity by issuer and subject.
func (r *Reader) Identity(id cert.NetworkID, issuer, subject string) (Identity, error) {
	return one(r.identities(identityColumns+`AND i.issuer=$2 AND i.subject=$3`, id[:], issuer, subject))
}

// IdentityByID finds an identity by its id.
func (r *Reader) IdentityByID(id cert.NetworkID, identity string) (Identity, error) {
	return one(r.identities(identityColumns+`AND i.identity_id=$2`, id[:], identity))
}

// Waiting counts the identities that wait for approval.
func (r *Reader) Waiting(id cert.NetworkID) (n int, err error) {
	err = r.row(`SELECT COUNT(*) FROM identities WHERE network_id=$1 AND user_id IS NULL`, []any{id[:]}, &n)
	return n, err
}

// SetIdentity stores an identity, and replaces one with the same issuer and subject.
func (tx *Tx) SetIdentity(id cert.NetworkID, i Identity) error {
	var user any
	if i.UserID != "" {
		user = i.UserID
	}
	err := tx.exec(`INSERT INTO identities (network_id, identity_id, issuer, subject, provider_id, user_id, admitted, name, mail, created_at, seen_at)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)
		ON CONFLICT (network_id, issuer, subject) DO UPDATE SET provider_id=excluded.provider_id, user_id=excluded.user_id, admitted=excluded.admitted,
			name=excluded.name, mail=excluded.mail, seen_at=excluded.seen_at`,
		id[:], i.ID, i.Issuer, i.Subject, i.Provider, user, i.Admitted, i.Name, i.Mail, i.Created.Unix(), i.Seen.Unix())
	if err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	return nil
}

// DeleteIdentity deletes an identity.
func (tx *Tx) DeleteIdentity(id cert.NetworkID, identity string) error {
	return tx.changed(`DELETE FROM identities WHERE network_id=$1 AND identity_id=$2`, id[:], identity)
}

// ExtendSession sets the end of a session of a provider, and the refresh token (sealed) that
// extends it next.
func (tx *Tx) ExtendSession(id cert.NetworkID, hash [32]byte, until time.Time, refresh []byte) error {
	return tx.changed(`UPDATE sessions SET expires_at=$3, refresh=$4 WHERE network_id=$1 AND token_hash=$2`, id[:], hash[:], until.Unix(), refresh)
}

// ProviderSessions lists the sessions that began at a provider.
func (r *Reader) ProviderSessions(id cert.NetworkID, provider string) ([]Session, error) {
	return r.sessions(`AND provider=$2 AND provider<>'' ORDER BY user_id, token_hash`, id[:], provider)
}

// DeleteProviderSessions deletes the sessions of a user that began at a provider.
func (tx *Tx) DeleteProviderSessions(id cert.NetworkID, userID, provider string) error {
	return tx.exec(`DELETE FROM sessions WHERE network_id=$1 AND user_id=$2 AND provider=$3`, id[:], userID, provider)
}
