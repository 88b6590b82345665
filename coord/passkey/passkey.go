// Package passkey makes and verifies passkeys (WebAuthn). It has no state: the caller makes
// challenges and recognizes them later, and stores keys. It is the only package that imports the
// WebAuthn module.
package passkey

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"
)

// ErrUnknown means that the caller does not know a passkey.
var ErrUnknown = errors.New("this passkey is not known here")

// Site is where passkeys are made and used.
type Site struct {
	Domain string // for which the passkeys are: the relying party's id
	Origin string // of the page: https://HOST[:PORT], where HOST is Domain or below it
}

// Key is a passkey as it is stored.
type Key struct {
	ID        []byte
	PublicKey []byte // COSE
	AAGUID    []byte // the model of the authenticator
	Transport []string
	// Flags are those of the authenticator data. They say, among others, whether the passkey can
	// be copied to other devices, and whether it was.
	Flags byte
	// Counter is the counter of the last signature, 0 if the authenticator has no counter.
	Counter uint32
}

// The algorithms that are offered: Ed25519, P-256, and RSA for older Windows.
var algorithms = []protocol.CredentialParameter{
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
}

func (s Site) party() (*webauthn.WebAuthn, error) {
	w, err := webauthn.New(&webauthn.Config{
		RPID: s.Domain, RPDisplayName: "weft", RPOrigins: []string{s.Origin}, AttestationPreference: protocol.PreferNoAttestation,
	})
	if err != nil {
		return nil, fmt.Errorf("passkeys for %s: %w", s.Domain, err)
	}
	return w, nil
}

// session returns what the module needs to verify a response to challenge.
func (s Site) session(challenge, userID []byte) webauthn.SessionData {
	return webauthn.SessionData{
		Challenge: base64.RawURLEncoding.EncodeToString(challenge), RelyingPartyID: s.Domain, Origin: s.Origin,
		UserID: userID, UserVerification: protocol.VerificationRequired, CredParams: algorithms,
	}
}

// person is a user in the form that the module needs.
type person struct {
	id   []byte
	name string
	keys []webauthn.Credential
}

func (p person) WebAuthnID() []byte                         { return p.id }
func (p person) WebAuthnName() string                       { return p.name }
func (p person) WebAuthnDisplayName() string                { return p.name }
func (p person) WebAuthnCredentials() []webauthn.Credential { return p.keys }

// CreateOptions returns the options for navigator.credentials.create, as JSON. The passkey will
// be discoverable, so that the user need not type a name to sign in, and the authenticator will
// verify the user. have are the ids of the passkeys that the user has already.
func (s Site) CreateOptions(challenge []byte, userID, name string, have [][]byte) ([]byte, error) {
	w, err := s.party()
	if err != nil {
		return nil, err
	}
	var exclude []protocol.CredentialDescriptor
	for _, id := range have {
		exclude = append(exclude, protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: id})
	}
	options, _, err := w.BeginRegistration(person{id: []byte(userID), name: name},
		webauthn.WithCredentialParameters(algorithms), webauthn.WithExclusions(exclude),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(), UserVerification: protocol.VerificationRequired,
		}))
	if err != nil {
		return nil, fmt.Errorf("begin a passkey: %w", err)
	}
	options.Response.Challenge = challenge
	return json.Marshal(options.Response)
}

// Created verifies the response of the browser to CreateOptions with the same challenge, and
// returns the new passkey.
func (s Site) Created(challenge []byte, userID string, response []byte) (Key, error) {
	w, err := s.party()
	if err != nil {
		return Key{}, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return Key{}, fmt.Errorf("read the passkey: %w", err)
	}
	c, err := w.CreateCredential(person{id: []byte(userID)}, s.session(challenge, []byte(userID)), parsed)
	if err != nil {
		return Key{}, fmt.Errorf("check the passkey: %w", err)
	}
	k := Key{ID: c.ID, PublicKey: c.PublicKey, AAGUID: c.Authenticator.AAGUID, Flags: byte(c.Flags.ProtocolValue()), Counter: c.Authenticator.SignCount}
	for _, t := range c.Transport {
		if s := string(t); len(s) < 20 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == "" && len(k.Transport) < 8 {
			k.Transport = append(k.Transport, s)
		}
	}
	return k, nil
}

// GetOptions returns the options for navigator.credentials.get, as JSON. The person may choose
// any passkey for the domain.
func (s Site) GetOptions(challenge []byte) ([]byte, error) {
	return json.Marshal(protocol.PublicKeyCredentialRequestOptions{
		Challenge: challenge, RelyingPartyID: s.Domain, UserVerification: protocol.VerificationRequired,
	})
}

// ChallengeOf returns the challenge that a response claims to answer. The caller must check
// that it is one of its own.
func ChallengeOf(response []byte) (challenge []byte, err error) {
	var r struct {
		Response struct {
			ClientDataJSON string `json:"clientDataJSON"`
		} `json:"response"`
	}
	var data struct {
		Challenge string `json:"challenge"`
	}
	if err = json.Unmarshal(response, &r); err == nil {
		var raw []byte
		if raw, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(r.Response.ClientDataJSON, "=")); err == nil {
			err = json.Unmarshal(raw, &data)
		}
	}
	if err == nil {
		challenge, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(data.Challenge, "="))
	}
	if err != nil {
		return nil, fmt.Errorf("read the passkey: %w", err)
	}
	return challenge, nil
}

// Proof is the result of a verified response: the person has this passkey.
type Proof struct {
	ID      []byte
	Flags   byte
	Counter uint32 // of the signature, 0 if the authenticator has no counter
}

// Proved verifies the response of the browser to GetOptions with the same challenge. find
// returns the key with an id; it must return ErrUnknown if the key does not belong to the user
// with userID.
func (s Site) Proved(challenge, response []byte, find func(id []byte, userID string) (Key, error)) (Proof, error) {
	w, err := s.party()
	if err != nil {
		return Proof{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return Proof{}, fmt.Errorf("read the passkey: %w", err)
	}
	var failed error
	_, _, err = w.ValidatePasskeyLogin(func(id, handle []byte) (webauthn.User, error) {
		k, err := find(id, string(handle))
		if err != nil {
			failed = err
			return nil, err
		}
		return person{id: handle, keys: []webauthn.Credential{{
			ID: k.ID, PublicKey: k.PublicKey, Flags: webauthn.NewCredentialFlags(protocol.AuthenticatorFlags(k.Flags)),
			Authenticator: webauthn.Authenticator{AAGUID: k.AAGUID, SignCount: k.Counter},
		}}}, nil
	}, s.session(challenge, nil), parsed)
	switch {
	case failed != nil:
		return Proof{}, failed
	case err != nil:
		return Proof{}, fmt.Errorf("check the passkey: %w", err)
	}
	data := parsed.Response.AuthenticatorData
	return Proof{ID: parsed.RawID, Flags: byte(data.Flags), Counter: data.Counter}, nil
}
