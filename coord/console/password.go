package console

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
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

// hashPassword returns the hash of a password.
func (c *Console) hashPassword(ctx context.Context, password string) (string, error) {
	release, err := c.hashSlot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	return c.passwords.New(password), nil
}

// passwordIs reports whether hash is of password. The error may be passhash.ErrNotFIPS. It
// takes as long if hash is "".
func (c *Console) passwordIs(ctx context.Context, password, hash string) (bool, error) {
	release, err := c.hashSlot(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	return c.passwords.Is(password, hash)
}

// hashSlot waits for one of the few slots for hashing passwords.
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
