package cert

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
)

const (
	apiTokenPrefix = "weftapi1"
	maxAPIToken    = 200 // characters
	apiSecretSize  = 32  // bytes
)

// APIToken is the text with which a program uses the API of a coordination server: a
// secret, and which CA to trust, wherever the server is. It is shown once; the server
// stores only a hash of it.
//
// As a string it is "weftapi1" and then, in base 62, a byte 1, the server pin, 32 bytes
// of secret, and the first four bytes of SHA-256 over all that.
type APIToken struct {
	Server Pin
	Secret [apiSecretSize]byte
}

// NewAPIToken returns a token with a new secret: 256 random bits.
func NewAPIToken(server Pin) APIToken {
	t := APIToken{Server: server}
	rand.Read(t.Secret[:])
	return t
}

// String returns the token as the one word that users copy: secret.
func (t APIToken) String() string {
	b := append([]byte{1}, t.Server[:]...)
	return apiTokenPrefix + encode62(append(b, t.Secret[:]...))
}

// LogValue keeps the secret out of logs.
func (t APIToken) LogValue() slog.Value { return slog.StringValue("API token") }

// ParseAPIToken parses the form that String returns. Its errors never contain the token.
func ParseAPIToken(s string) (t APIToken, err error) {
	b, err := decode62(s, apiTokenPrefix, maxAPIToken)
	switch {
	case errors.Is(err, errOtherPrefix):
		return t, errors.New("parse token: it is not one of the API, which starts with \"weftapi1\"; make one with `weft-server tokens create`")
	case errors.Is(err, errDamaged):
		return t, errors.New("parse token: it is incomplete or mistyped; copy the whole word again, or make a new one with `weft-server tokens create`")
	case err != nil:
		return t, err
	case len(b) == 0 || b[0] != 1:
		return t, fmt.Errorf("parse token: it is of a later version; this weft-server is too old for the server")
	case len(b) != 1+len(t.Server)+len(t.Secret):
		return t, errors.New("parse token: malformed")
	}
	copy(t.Secret[:], b[1+copy(t.Server[:], b[1:]):])
	return t, nil
}
