// Package passhash hashes passwords. Each hash has its own salt, and names its algorithm and
// parameters in PHC form:
//
//	$argon2id$v=19$m=19456,t=3,p=1$SALT$HASH
//	$pbkdf2-sha256$i=600000$SALT$HASH              in FIPS mode, whose module has no argon2id
//
// Outside FIPS mode both forms are accepted. In FIPS mode, whether enforced or not, argon2id is
// refused (ErrNotFIPS).
//
// Computing a hash takes 0.1 to 0.5 s of processor time, and argon2id also 19 MB of memory, so
// callers bound how many are computed at a time. Tests that sign in many times use a smaller
// Cost.
package passhash

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"weft/overlay/fips"
)

// Cost has the parameters of argon2id. Old hashes stay valid if it changes, because each contains
// its own parameters. The zero value means 3 passes and 19 MiB, which is above OWASP's minimum
// and small enough for a server with little memory; other values are for tests. PBKDF2 always
// uses fips.Rounds.
type Cost struct {
	Passes uint32 // 1 to 16
	Memory uint32 // KiB, 8 to 1 << 20
}

const argonThreads = 1

func (c Cost) orDefault() Cost {
	if c == (Cost{}) {
		return Cost{Passes: 3, Memory: 19 << 10}
	}
	return c
}

const (
	saltSize = 16
	sumSize  = 32
)

// ErrNotFIPS refuses to check a password that was set outside FIPS mode.
var ErrNotFIPS = errors.New("the password was set outside FIPS mode (argon2id); set a new one with a link from: weft-server login-link")

// New returns the hash of a password.
func (c Cost) New(password string) string { return c.hash(fips.Enabled(), password) }

func (c Cost) hash(approved bool, password string) string {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	if approved {
		sum, err := pbkdf2.Key(sha256.New, password, salt, fips.Rounds, sumSize)
		if err != nil {
			panic("passhash: " + err.Error()) // cannot happen: all lengths are valid constants
		}
		return pbkdf2Form(salt, sum)
	}
	c = c.orDefault()
	return c.argonForm(salt, argon2.IDKey([]byte(password), salt, c.Passes, c.Memory, argonThreads, sumSize))
}

func pbkdf2Form(salt, sum []byte) string {
	return fmt.Sprintf("$pbkdf2-sha256$i=%d$%s$%s", fips.Rounds, b64(salt), b64(sum))
}

func (c Cost) argonForm(salt, sum []byte) string {
	c = c.orDefault()
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Passes, argonThreads, b64(salt), b64(sum))
}

func b64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// Is reports whether hash is the hash of password. It takes the same time for hashes that New
// has made, for "", which stands for a user who does not exist or has no password, and for
// hashes that it refuses with ErrNotFIPS. So the time does not reveal which users exist.
func (c Cost) Is(password, hash string) (bool, error) { return c.is(fips.Enabled(), password, hash) }

func (c Cost) is(approved bool, password, hash string) (bool, error) {
	// No password has a hash of only zeros.
	nothing := c.argonForm(make([]byte, saltSize), make([]byte, sumSize))
	if approved {
		nothing = pbkdf2Form(make([]byte, saltSize), make([]byte, sumSize))
	}
	if hash == "" {
		hash = nothing
	}
	var refused error
	if approved && Outside(hash) {
		hash, refused = nothing, ErrNotFIPS
	}
	want, got, err := compute(password, hash)
	if err != nil {
		return false, fmt.Errorf("parse password hash: %w", err)
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && refused == nil, refused
}

// Outside reports whether a hash was made with an algorithm that FIPS mode refuses.
func Outside(hash string) bool { return strings.HasPrefix(hash, "$argon2id$") }

// compute returns the sum in hash, and the sum of password with the same salt and parameters.
func compute(password, hash string) (want, got []byte, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) < 3 || parts[0] != "" {
		return nil, nil, errors.New("not in PHC form")
	}
	var salt []byte
	n := len(parts)
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[n-2])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[n-1])
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	if len(want) < 16 || len(want) > 64 || len(salt) > 64 {
		return nil, nil, errBounds
	}
	switch params := strings.Join(parts[2:n-2], " "); parts[1] {
	case "argon2id":
		var version, memory, passes, threads uint32
		if _, err := fmt.Sscanf(params, "v=%d m=%d,t=%d,p=%d", &version, &memory, &passes, &threads); err != nil {
			return nil, nil, err
		}
		if version != argon2.Version || passes < 1 || passes > 16 || threads < 1 || threads > 16 || memory > 1<<20 {
			return nil, nil, errBounds
		}
		return want, argon2.IDKey([]byte(password), salt, passes, memory, uint8(threads), uint32(len(want))), nil
	case "pbkdf2-sha256":
		var rounds int
		if _, err := fmt.Sscanf(params, "i=%d", &rounds); err != nil {
			return nil, nil, err
		}
		if rounds < fips.Rounds || rounds > 100*fips.Rounds || len(salt) < saltSize {
			return nil, nil, errBounds
		}
		got, err = pbkdf2.Key(sha256.New, password, salt, rounds, len(want))
		return want, got, err
	}
	return nil, nil, fmt.Errorf("algorithm %q is not known", parts[1])
}

var errBounds = errors.New("bad parameters")
