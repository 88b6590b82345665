package ca

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// errSealed says that something was not sealed here.
var errSealed = errors.New("it was sealed by another server, or for something else; restore the ca directory that belongs to this database")

// Seal encrypts a secret that the server has to have again, for the database: with a
// key that is made from the server's, which is not there. about says what it is and
// whose, and Unseal wants the same.
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

// sealer makes nonces of its own: 2^32 secrets under one key are many.
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
