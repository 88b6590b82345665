package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// caLife is how long a CA certificate is valid. A successor takes over long before its
// end.
const caLife = 30 * 365 * 24 * time.Hour

// CA is a certificate authority with its key: secret.
type CA struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// NewCA makes a self-signed CA valid for 30 years.
func NewCA(commonName string, now time.Time) (*CA, error) {
	key, err := NewKey()
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	return makeCA(commonName, now, key, nil)
}

// Successor makes a CA whose certificate is signed by ca, so that whoever trusts ca
// learns to trust it. The network keeps the id of the CA that founded it.
func (ca *CA) Successor(commonName string, now time.Time) (*CA, error) {
	key, err := NewKey()
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	return makeCA(commonName, now, key, ca)
}

func makeCA(commonName string, now time.Time, key *ecdsa.PrivateKey, parent *CA) (*CA, error) {
	tmpl := &x509.Certificate{
		SerialNumber:          NewSerial(),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	signer, issuer := crypto.Signer(key), tmpl
	if parent != nil {
		signer, issuer = parent.Key, parent.Cert
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign CA %q: %w", commonName, err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse new CA %q: %w", commonName, err)
	}
	return &CA{Cert: crt, Key: key}, nil
}

// MarshalPEM returns certificate and key, in that order. The result is secret.
func (ca *CA) MarshalPEM() ([]byte, error) {
	key, ok := ca.Key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("marshal CA: its key is not in this process")
	}
	b, err := MarshalKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}), b...), nil
}

// ParseCA parses what MarshalPEM returns.
func ParseCA(b []byte) (*CA, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("parse CA: no PEM block \"CERTIFICATE\" at the start")
	}
	crt, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	key, err := ParseKey(rest)
	if err != nil {
		return nil, fmt.Errorf("parse CA: %w", err)
	}
	if !key.PublicKey.Equal(crt.PublicKey) {
		return nil, errors.New("parse CA: key and certificate do not belong together")
	}
	return &CA{Cert: crt, Key: key}, nil
}

// Role is what a server certificate permits.
type Role string

const (
	RoleServer Role = "server" // a coordination server; also valid for its relay
	RoleRelay  Role = "relay"  // a relay that runs alone
)

const uriScheme = "weft"

func roleURI(r Role) *url.URL { return &url.URL{Scheme: uriScheme, Opaque: "role:" + string(r)} }

// SignServer certifies a coordination server or relay. The certificate names no host:
// nodes check pin and role, so a server may change its address.
func (ca *CA) SignServer(pub *ecdsa.PublicKey, role Role, now time.Time, life time.Duration) ([]byte, error) {
	if role != RoleServer && role != RoleRelay {
		return nil, fmt.Errorf("sign server certificate: unknown role %q", role)
	}
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          NewSerial(),
		Subject:               pkix.Name{CommonName: "weft " + string(role)},
		URIs:                  []*url.URL{roleURI(role)},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, ca.Cert, pub, ca.Key)
}

// Attributes are what a node certificate says about its node.
type Attributes struct {
	Name   string // one DNS label, lower case
	FQDN   string // Name.SUFFIX
	IPv4   netip.Addr
	IPv6   netip.Addr
	User   string   // the owner: the user who made the token
	Groups []string // of the owner
	Tags   []string // a node with tags acts as its tags, not as its owner
}

// SignNode certifies a node. It refuses attributes that ParseNode would not return
// unchanged.
func (ca *CA) SignNode(pub *ecdsa.PublicKey, a Attributes, serial *big.Int, notBefore, notAfter time.Time) ([]byte, error) {
	uris := []*url.URL{}
	add := func(kind string, words ...string) error {
		for _, w := range words {
			if !validWord(w) {
				return fmt.Errorf("sign node certificate: invalid %s %q", kind, w)
			}
			uris = append(uris, &url.URL{Scheme: uriScheme, Opaque: kind + ":" + w})
		}
		return nil
	}
	if err := errors.Join(add("user", a.User), add("group", a.Groups...), add("tag", a.Tags...)); err != nil {
		return nil, err
	}
	if !validLabel(a.Name) || !strings.HasPrefix(a.FQDN, a.Name+".") || len(a.FQDN) > 253 {
		return nil, fmt.Errorf("sign node certificate: invalid name %q (%q)", a.Name, a.FQDN)
	}
	if !a.IPv4.Is4() || !a.IPv6.Is6() || a.IPv6.Is4In6() {
		return nil, fmt.Errorf("sign node certificate: invalid addresses %v, %v", a.IPv4, a.IPv6)
	}
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: a.Name},
		DNSNames:              []string{a.FQDN},
		IPAddresses:           []net.IP{a.IPv4.AsSlice(), a.IPv6.AsSlice()},
		URIs:                  uris,
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, ca.Cert, pub, ca.Key)
}

// NewSerial returns a random serial number of nine bytes: positive and with 70 random
// bits, so none is issued twice or can be guessed (the CA/Browser Forum asks for 64
// bits). With nine bytes an entry of the revocation list takes 28 bytes. Certificates
// issued before 2026-11-29 have serial numbers of 16 bytes and entries of 35.
func NewSerial() *big.Int {
	b := make([]byte, 9)
	rand.Read(b)
	b[0] &= 0x7f // positive in DER without a padding byte
	b[0] |= 0x40 // never short, never zero
	return new(big.Int).SetBytes(b)
}

// validLabel reports whether s is a lower-case DNS label (RFC 1123 2.1).
func validLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// ValidWord reports whether s can be a user, group or tag in a certificate:
// 1 to 64 of letters, digits and "._@+-", starting with a letter or digit.
func ValidWord(s string) bool { return validWord(s) }

func validWord(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._@+-", rune(c))) {
			return false
		}
	}
	return true
}
