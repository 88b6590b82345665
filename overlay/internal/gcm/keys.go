package gcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
)

// The labels of derived keys. They contain the version of the format.
const (
	labelCaller = "weft aes 1 caller" // what the caller of the introduction sends
	labelCallee = "weft aes 1 callee"
	labelEpoch  = "weft aes 1 epoch"
)

// chain is the secret from which an epoch of one direction and all later ones are derived.
type chain [32]byte

// chains returns the chains of the two directions of a session.
func chains(secret [32]byte, caller bool) (send, receive chain) {
	send, receive = chain(expand(secret[:], labelCaller, 32)), chain(expand(secret[:], labelCallee, 32))
	if !caller {
		send, receive = receive, send
	}
	return send, receive
}

// keys are the keys of one epoch of one direction.
type keys struct {
	index uint32 // names the epoch in datagrams
	key   [32]byte
	next  chain // of the next epoch
}

// derive returns the keys of the chain's epoch. after is the index of the epoch before: two
// in a row never have the same.
func (c chain) derive(after uint32) keys {
	for {
		b := expand(c[:], labelEpoch, 32+32+4)
		k := keys{next: chain(b[:32]), key: [32]byte(b[32:64]), index: binary.BigEndian.Uint32(b[64:])}
		if k.index != after {
			return k
		}
		c = k.next
	}
}

func expand(secret []byte, label string, n int) []byte {
	b, err := hkdf.Expand(sha256.New, secret, label, n)
	if err != nil {
		panic("gcm: " + err.Error()) // the lengths are constant and allowed
	}
	return b
}

// cipherOf returns AES-256-GCM with a key. In Go's FIPS mode "only" its nonces are random
// and part of the ciphertext (see enforced); otherwise the caller counts.
func cipherOf(key *[32]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("gcm: " + err.Error())
	}
	var a cipher.AEAD
	if enforced {
		a, err = cipher.NewGCMWithRandomNonce(block)
	} else {
		a, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic("gcm: " + err.Error())
	}
	return a
}

// enforced says that Go's FIPS 140-3 module refuses nonces of the caller. It is constant
// for a process. Tests set it.
var enforced = fips140.Enforced()
