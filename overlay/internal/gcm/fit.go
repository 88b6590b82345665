package gcm

import (
	"crypto/aes"
	"crypto/cipher"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Fit reports whether this machine should use AES: whether AES-GCM is at least as fast
// here as ChaCha20-Poly1305. Without AES instructions it is several times slower, and its
// time depends on the keys, which others could measure. The first call measures for at
// most 20 ms.
var Fit = sync.OnceValue(func() bool {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return false
	}
	counted, err := cipher.NewGCMWithRandomNonce(block) // the same speed, and allowed in every FIPS mode
	if err != nil {
		return false
	}
	other, err := chacha20poly1305.New(make([]byte, 32))
	if err != nil {
		return false
	}
	const size = 16 << 10
	buf := make([]byte, size, size+64)
	nonce := make([]byte, other.NonceSize())
	ours, theirs := time.Hour, time.Hour
	// The fastest of many short runs: no other program interrupts all of them.
	begun := time.Now()
	for range 128 {
		start := time.Now()
		counted.Seal(buf[:0], nil, buf, nil)
		ours = min(ours, time.Since(start))
		start = time.Now()
		other.Seal(buf[:0], nonce, buf, nil)
		theirs = min(theirs, time.Since(start))
		if time.Since(begun) > 15*time.Millisecond {
			break
		}
	}
	return ours <= theirs
})
