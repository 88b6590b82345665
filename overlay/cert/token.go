package cert

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"strconv"
	"strings"
)

const (
	tokenPrefix = "weft1"
	maxToken    = 2048 // characters
	maxURLs     = 8
	secretSize  = 16 // length of a new secret, in bytes
	maxSecret   = 64
	sumSize     = 4
)

// Token is the text with which a device joins: where the server is, which two CAs to
// trust, and the secret of a key. It is shown once; the server stores only a hash of the
// secret.
//
// As a string it is "weft1" and then, in base 62 so that a double click
// selects it whole: a byte 1, server pin, network pin, one length byte and the
// secret, then one length byte and the text of each URL, then the first four
// bytes of SHA-256 over all that.
type Token struct {
	URLs    []string // https://HOST[:PORT], 1 to 8
	Server  Pin
	Network Pin
	Secret  []byte // 16 to 64 bytes
}

// NewSecret returns the secret of a new token: 128 random bits.
func NewSecret() []byte {
	b := make([]byte, secretSize)
	rand.Read(b)
	return b
}

// String returns the token as the one word that users copy: secret.
func (t Token) String() string {
	b := []byte{1}
	b = append(b, t.Server[:]...)
	b = append(b, t.Network[:]...)
	b = append(b, byte(len(t.Secret)))
	b = append(b, t.Secret...)
	for _, u := range t.URLs {
		b = append(b, byte(len(u)))
		b = append(b, u...)
	}
	return tokenPrefix + encode62(b)
}

// encode62 is b, which does not begin with a zero, and a checksum of it, in base 62.
func encode62(b []byte) string {
	sum := sha256.Sum256(b)
	return new(big.Int).SetBytes(append(b, sum[:sumSize]...)).Text(62)
}

var (
	errOtherPrefix = errors.New("parse token: it begins otherwise")
	errDamaged     = errors.New("parse token: damaged")
)

// decode62 is the inverse of encode62 behind a prefix, for a word of at most limit
// characters: errOtherPrefix, errDamaged.
func decode62(s, prefix string, limit int) ([]byte, error) {
	if len(s) > limit {
		return nil, fmt.Errorf("parse token: %d characters, at most %d", len(s), limit)
	}
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return nil, errOtherPrefix
	}
	for _, c := range []byte(digits) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return nil, errDamaged
		}
	}
	n, ok := new(big.Int).SetString(digits, 62)
	if !ok {
		return nil, errDamaged
	}
	b := n.Bytes()
	if len(b) < sumSize {
		return nil, errDamaged
	}
	body, sum := b[:len(b)-sumSize], b[len(b)-sumSize:]
	if want := sha256.Sum256(body); string(sum) != string(want[:sumSize]) {
		return nil, errDamaged
	}
	return body, nil
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value {
	return slog.StringValue("token for " + strings.Join(t.URLs, ","))
}

// ParseToken parses the form that String returns. It ignores white space around and
// inside it (a wrapped line in a terminal or mail). Its errors never contain the token.
func ParseToken(s string) (Token, error) {
	s = strings.Join(strings.Fields(s), "")
	body, err := decode62(s, tokenPrefix, maxToken)
	switch {
	case errors.Is(err, errOtherPrefix) && strings.HasPrefix(s, apiTokenPrefix):
		return Token{}, errors.New("parse token: it is for programs that use the server's API; a device joins with one that starts with \"weft1\", of `weft-server keys create`")
	case errors.Is(err, errOtherPrefix):
		return Token{}, errors.New("parse token: it does not start with \"weft1\"; copy the whole word that the server printed")
	case errors.Is(err, errDamaged), err == nil && len(body) < 1+32+32+1+secretSize:
		return Token{}, errors.New("parse token: it is incomplete or mistyped; copy the whole word again, or make a new one with `weft-server keys create`")
	case err != nil:
		return Token{}, err
	}
	if body[0] != 1 {
		return Token{}, fmt.Errorf("parse token: version %d is unknown; this weft is too old for the server", body[0])
	}
	var t Token
	body = body[1:]
	body = body[copy(t.Server[:], body):]
	body = body[copy(t.Network[:], body):]
	var ok bool
	next := func() ([]byte, bool) {
		if len(body) == 0 || int(body[0]) > len(body)-1 {
			return nil, false
		}
		field := body[1 : 1+int(body[0])]
		body = body[1+int(body[0]):]
		return field, true
	}
	if t.Secret, ok = next(); !ok || len(t.Secret) < secretSize || len(t.Secret) > maxSecret {
		return Token{}, errors.New("parse token: malformed secret")
	}
	for len(body) > 0 {
		u, ok := next()
		if !ok || len(t.URLs) == maxURLs {
			return Token{}, errors.New("parse token: malformed address list")
		}
		if err := CheckURL(string(u)); err != nil {
			return Token{}, fmt.Errorf("parse token: %w", err)
		}
		t.URLs = append(t.URLs, string(u))
	}
	if len(t.URLs) == 0 {
		return Token{}, errors.New("parse token: it names no server")
	}
	return t, nil
}

// isPort reports whether s is "" or a port that something can listen on.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// CheckURL checks a server or relay address: https, a host, and nothing else.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || !isPort(u.Port()):
		return fmt.Errorf("server address %q: want https://HOST:PORT", s)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("server address %q: want https://HOST:PORT and nothing after it", s)
	case len(s) > 255:
		return fmt.Errorf("server address of %d characters: at most 255", len(s))
	}
	return nil
}
