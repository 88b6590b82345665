package cert

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// A key is read as crypto/x509 reads it; keys of other kinds, and what is damaged, are refused.
func TestParseKeyOfOtherKinds(t *testing.T) {
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]any{"P-384": p384, "Ed25519": ed} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	key, _ := NewKey()
	b, err := MarshalKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	for n := range block.Bytes {
		if _, err := parseKeyDER(block.Bytes[:n]); err == nil {
			t.Errorf("the first %d bytes of a key: accepted", n)
		}
	}
	if _, err := parseKeyDER(append(block.Bytes, 0)); err == nil {
		t.Error("a key with trailing data: accepted")
	}
}

// FuzzParseKey: what ParseKey accepts, crypto/x509 reads as the same key.
func FuzzParseKey(f *testing.F) {
	key, _ := NewKey()
	b, _ := MarshalKey(key)
	block, _ := pem.Decode(b)
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := parseKeyDER(der)
		if err != nil {
			return
		}
		want, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil || !key.Equal(want) {
			t.Errorf("%x: x509 reads %v, %v", der, want, err)
		}
	})
}
