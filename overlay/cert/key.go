package cert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// NewKey makes an identity or CA key: ECDSA P-256, so that a TPM or secure
// element could hold it instead.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// MarshalKey returns the key as PEM (PKCS #8, RFC 5958). The result is secret.
func MarshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("marshal key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey parses what MarshalKey returns.
func ParseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("parse key: no PEM block \"PRIVATE KEY\"")
	}
	key, err := parseKeyDER(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse key: %w", err)
	}
	return key, nil
}

// parseKeyDER parses a key of PKCS #8.
func parseKeyDER(der []byte) (*ecdsa.PrivateKey, error) {
	var outer privateKeyInfo
	if rest, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	} else if len(rest) > 0 {
		return nil, errors.New("trailing data")
	}
	if a := outer.Algorithm; !a.Algorithm.Equal(oidECDSA) || !bytes.Equal(a.Parameters.FullBytes, derP256) {
		return nil, errors.New("not an ECDSA P-256 key")
	}
	var inner ecPrivateKey
	if rest, err := asn1.Unmarshal(outer.Key, &inner); err != nil {
		return nil, err
	} else if len(rest) > 0 || inner.Version != 1 {
		return nil, errors.New("malformed ECDSA key")
	}
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), inner.Key)
}

// A key of PKCS #8 (RFC 5958) with an elliptic-curve key (RFC 5915) in it. The function of
// crypto/x509 parses it too, and puts the private keys of all other algorithms, with their
// tables, into each program.
type (
	privateKeyInfo struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	ecPrivateKey struct {
		Version   int
		Key       []byte
		Curve     asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		PublicKey asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}
)

var (
	oidECDSA = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	derP256  = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07} // 1.2.840.10045.3.1.7
)

// SPKI returns the DER SubjectPublicKeyInfo of a public key. NodeIDs and pins are hashes
// of it.
func SPKI(pub *ecdsa.PublicKey) ([]byte, error) { return x509.MarshalPKIXPublicKey(pub) }

// SelfSigned returns a certificate that proves possession of key and nothing else. A node
// presents it until it has a node certificate.
func SelfSigned(key *ecdsa.PrivateKey) (tls.Certificate, error) {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "weft join"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // "no well-defined end", RFC 5280 4.1.2.5
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-sign: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// NewCSR returns a certificate request (PKCS #10, RFC 2986, DER) that proves possession
// of key. It has no name or addresses, because the server assigns them.
func NewCSR(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// CheckCSR verifies the request's own signature and returns its key.
func CheckCSR(der []byte) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: key is not ECDSA P-256")
	}
	return pub, nil
}
