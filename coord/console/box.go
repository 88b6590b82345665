package console

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// box keeps in the browser what the console needs again a moment later: sealed, so that
// a stranger who begins to sign in takes no memory here, and nobody reads or makes any.
// Its key is this process's: after a restart one begins anew.
type box struct{ aead cipher.AEAD }

func newBox() box {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCMWithRandomNonce(block); err == nil {
			return box{aead}
		}
	}
	panic(err) // the length of the key is right
}

type boxed struct {
	Until time.Time
	Value json.RawMessage
}

// put seals v for a purpose, until a time.
func (b box) put(purpose string, until time.Time, v any) (string, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", purpose, err)
	}
	plain, err := json.Marshal(boxed{until, value})
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", purpose, err)
	}
	return base64.RawURLEncoding.EncodeToString(b.aead.Seal(nil, nil, plain, []byte(purpose))), nil
}

// take opens what put has sealed for the same purpose, if its time is not over.
func (b box) take(purpose, sealed string, now time.Time, v any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return false
	}
	plain, err := b.aead.Open(nil, nil, raw, []byte(purpose))
	if err != nil {
		return false
	}
	var in boxed
	return json.Unmarshal(plain, &in) == nil && now.Before(in.Until) && json.Unmarshal(in.Value, v) == nil
}
