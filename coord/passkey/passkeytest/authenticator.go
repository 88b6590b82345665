// Package passkeytest is an authenticator in software, for tests: it does what it is
// told, also what no real one does.
package passkeytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"
)

// The flags of authenticator data.
const (
	UserPresent  = 0x01
	UserVerified = 0x04
	attested     = 0x40
)

// Authenticator holds one passkey.
type Authenticator struct {
	// What it says; tests change these.
	Domain  string
	Origin  string
	Flags   byte
	Counter uint32

	t    testing.TB
	key  *ecdsa.PrivateKey
	id   []byte
	user string
}

// New returns an authenticator for pages at an origin, which counts nothing.
func New(t testing.TB, domain, origin string) *Authenticator {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authenticator{t: t, Domain: domain, Origin: origin, Flags: UserPresent | UserVerified, key: key, id: make([]byte, 32)}
	rand.Read(a.id)
	return a
}

// Copy is another authenticator with the same key.
func (a *Authenticator) Copy() *Authenticator { b := *a; return &b }

type options struct {
	Challenge string `json:"challenge"`
	User      struct {
		ID string `json:"id"`
	} `json:"user"`
}

func (a *Authenticator) read(o []byte) (in options) {
	a.t.Helper()
	if err := json.Unmarshal(o, &in); err != nil {
		a.t.Fatalf("%v in %s", err, o)
	}
	return in
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (a *Authenticator) client(kind, challenge string) []byte {
	b, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": false})
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func (a *Authenticator) data(flags byte) []byte {
	domain := sha256.Sum256([]byte(a.Domain))
	return binary.BigEndian.AppendUint32(append(domain[:], flags), a.Counter)
}

// Create answers the options of navigator.credentials.create.
func (a *Authenticator) Create(opts []byte) []byte {
	a.t.Helper()
	in := a.read(opts)
	user, err := base64.RawURLEncoding.DecodeString(in.User.ID)
	if err != nil {
		a.t.Fatal(err)
	}
	a.user = string(user)
	pub, err := a.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		a.t.Fatal(err)
	}
	data := append(a.data(a.Flags|attested), make([]byte, 16)...)
	data = append(binary.BigEndian.AppendUint16(data, uint16(len(a.id))), a.id...)
	data = append(data, 0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 32) // {1: 2, 3: -7, -1: 1, -2: x, -3: y}
	data = append(append(append(data, pub[1:33]...), 0x22, 0x58, 32), pub[33:]...)
	object := append([]byte{0xa3, 0x63}, "fmt"...)
	object = append(append(object, 0x64), "none"...)
	object = append(append(object, 0x67), "attStmt"...)
	object = append(append(object, 0xa0, 0x68), "authData"...)
	object = append(append(object, 0x59), binary.BigEndian.AppendUint16(nil, uint16(len(data)))...)
	object = append(object, data...)
	return a.answer(map[string]any{"clientDataJSON": b64(a.client("webauthn.create", in.Challenge)), "attestationObject": b64(object), "transports": []string{"internal"}})
}

// Get answers the options of navigator.credentials.get.
func (a *Authenticator) Get(opts []byte) []byte {
	a.t.Helper()
	client := a.client("webauthn.get", a.read(opts).Challenge)
	data := a.data(a.Flags)
	sum := sha256.Sum256(client)
	signed := sha256.Sum256(append(data[:len(data):len(data)], sum[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, a.key, signed[:])
	if err != nil {
		a.t.Fatal(err)
	}
	return a.answer(map[string]any{"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(sig), "userHandle": b64([]byte(a.user))})
}

// Claim has it say that it is of another user.
func (a *Authenticator) Claim(user string) { a.user = user }

func (a *Authenticator) answer(response map[string]any) []byte {
	b, err := json.Marshal(map[string]any{"id": b64(a.id), "rawId": b64(a.id), "type": "public-key", "response": response, "clientExtensionResults": map[string]any{}})
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}
