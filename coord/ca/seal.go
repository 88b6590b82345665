package ca

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// errSealed means that Unseal cannot open a secret with this server's key.
var errSealed = errors.New("it was sealed by another server, or for something else; restore the ca directory that belongs to this database")

// Seal encrypts a secret that the server will need again, to store it in the database. The
// key is derived from the server's key, which is not in the database. about says what the
// secret is and whose, such as "totp of" and the id of a user. Unseal needs the same text, so
// a sealed secret that was moved to another row does not open.
func (a *Authorities) Seal(about string, secret []byte) ([]byte, error) {
	aead, err := a.sealer()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, secret, []byte(about)), nil
}

// Unseal is the inverse of Seal.
func (a *Authorities) Unseal(about string, sealed []byte) ([]byte, error) {
	aead, err := a.sealer()
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, sealed, []byte(about))
	if err != nil {
		return nil, fmt.Errorf("open the sealed %s: %w", about, errSealed)
	}
	return secret, nil
}

// sealer returns an AEAD with random nonces. One key is safe for 2^32 secrets, more than a
// server ever seals.
func (a *Authorities) sealer() (cipher.AEAD, error) {
	key, err := a.Secret("weft-sealed/1", nil)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make key for secrets: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
