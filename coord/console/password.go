package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// The cost of argon2id (memory in KiB): above what OWASP asks for at least,
// small enough for a server with little memory. Changing these keeps old
// hashes valid, each carries its own.
const (
	argonTime    = 3
	argonMemory  = 19 << 10
	argonThreads = 1
)

// The bounds of a password, in characters and in bytes.
const (
	minPassword = 10
	maxPassword = 256
)

// checkPassword says what is wrong with a new password, "" if nothing.
func checkPassword(p, user string) string {
	switch {
	case utf8.RuneCountInString(p) < minPassword:
		return fmt.Sprintf("Use at least %d characters. A short sentence is good.", minPassword)
	case len(p) > maxPassword:
		return "That is longer than a password may be here (256 bytes)."
	case !utf8.ValidString(p):
		return "That is not valid text."
	case strings.EqualFold(p, user), strings.Count(p, p[:1]) == len(p):
		return "That is too easy to guess."
	}
	return ""
}

// hashPassword returns the argon2id hash in PHC form, with a salt of its own.
func (c *Console) hashPassword(ctx context.Context, password string) (string, error) {
	release, err := c.hashSlot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	salt := make([]byte, 16)
	rand.Read(salt)
	sum := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, 32)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, b64(salt), b64(sum)), nil
}

// noPassword is compared with when there is no such user, so that an answer
// takes as long as for one that exists. Nothing hashes to zeros.
var noPassword = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
	base64.RawStdEncoding.EncodeToString(make([]byte, 16)), base64.RawStdEncoding.EncodeToString(make([]byte, 32)))

// passwordIs reports whether hash is of password.
func (c *Console) passwordIs(ctx context.Context, password, hash string) (bool, error) {
	release, err := c.hashSlot(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	if hash == "" {
		hash = noPassword
	}
	var version, memory, passes, threads uint32
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("parse password hash: not argon2id")
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &passes, &threads); err != nil {
		return false, fmt.Errorf("parse password hash: %w", err)
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || version != argon2.Version || passes < 1 || passes > 16 || threads < 1 || threads > 16 || memory > 1<<20 || len(want) < 16 {
		return false, fmt.Errorf("parse password hash: bad parameters")
	}
	got := argon2.IDKey([]byte(password), salt, passes, memory, uint8(threads), uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// hashSlot waits for one of the few slots for argon2id.
func (c *Console) hashSlot(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	select {
	case c.hashing <- struct{}{}:
		return func() { <-c.hashing }, nil
	case <-ctx.Done():
		return nil, errBusy
	}
}
