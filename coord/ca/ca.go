// Package ca holds the coordination server's certificate authorities and their
// keys: the server CA, the network CA, and the key of the server's own leaf
// certificate. They are files of mode 0600 in the data directory and not rows of
// the database, so that the network CA can one day leave the server, and so that
// a dump of the database contains no key.
package ca

import (
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
)

// leafLife is how long the server's own certificate is valid. Nodes ignore its
// dates; the server makes a new one at each start.
const leafLife = 365 * 24 * time.Hour

// Authorities are the CAs of one network and the server's leaf. All methods
// may be called from many goroutines.
type Authorities struct {
	// constant after Open
	Server  *cert.CA
	Network *cert.CA
	Roots   *cert.NetworkRoots // verifies certificates of nodes
	// ServerRoots verifies certificates of this server and of relays.
	ServerRoots *cert.ServerRoots
	ID          cert.NetworkID
	leafKey     *ecdsa.PrivateKey

	leaf atomic.Pointer[tls.Certificate]
}

// Open reads the authorities from dir, which it makes with mode 0700 if need be.
// If create is set, it also makes CAs and keys that are missing.
func Open(dir string, create bool, now time.Time) (*Authorities, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open CAs: %w", err)
	}
	a := &Authorities{}
	var err error
	if a.Server, err = openCA(filepath.Join(dir, "server-ca.pem"), "weft server CA", create, now); err != nil {
		return nil, err
	}
	if a.Network, err = openCA(filepath.Join(dir, "network-ca.pem"), "weft network CA", create, now); err != nil {
		return nil, err
	}
	a.ID = cert.PinOf(a.Network.Cert).NetworkID()
	if a.Roots, err = cert.NewNetworkRoots(a.ID, a.NetworkCAs()); err != nil {
		return nil, err
	}
	if a.ServerRoots, err = cert.NewServerRoots([]cert.Pin{cert.PinOf(a.Server.Cert)}, a.ServerCAs()); err != nil {
		return nil, err
	}
	// Only the leaf's certificate is renewed, never its key: the id of the built-in relay is
	// a hash of the public key, and nodes accept no other key for that relay.
	a.leafKey, err = openKey(filepath.Join(dir, "server-key.pem"), create)
	return a, err
}

// ServerCAs returns the set of server CAs (DER) for configs.
func (a *Authorities) ServerCAs() [][]byte { return [][]byte{a.Server.Cert.Raw} }

// NetworkCAs returns the set of network CAs (DER) for configs.
func (a *Authorities) NetworkCAs() [][]byte { return [][]byte{a.Network.Cert.Raw} }

// RelayID returns the id (api.Relay.ID) of the relay that is built into this server.
func (a *Authorities) RelayID() string {
	spki, err := cert.SPKI(&a.leafKey.PublicKey)
	if err != nil {
		panic(err) // a P-256 key that was parsed or made by us
	}
	return cert.RelayID(spki)
}

// Secret derives 32 bytes from the server's key, different ones for each purpose and salt.
// Only the holder of that key can compute them. The server derives such a secret again when it
// is needed, so it is not stored, and survives a restore because backups contain the key.
func (a *Authorities) Secret(purpose string, salt []byte) ([]byte, error) {
	key, err := a.leafKey.Bytes()
	if err == nil {
		key, err = hkdf.Key(sha256.New, key, salt, purpose, sha256.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("make secret: %w", err)
	}
	return key, nil
}

// Leaf returns the server's certificate, followed by that of the server CA. It
// signs a new one when half the life of the old one has passed.
func (a *Authorities) Leaf(now time.Time) (*tls.Certificate, error) {
	if c := a.leaf.Load(); c != nil && now.Before(c.Leaf.NotAfter.Add(-leafLife/2)) && now.After(c.Leaf.NotBefore) {
		return c, nil
	}
	der, err := a.Server.SignServer(&a.leafKey.PublicKey, cert.RoleServer, now, leafLife)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der, a.Server.Cert.Raw}, PrivateKey: a.leafKey, Leaf: leaf}
	a.leaf.Store(c)
	return c, nil
}

func openCA(path, name string, create bool, now time.Time) (*cert.CA, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		ca, err := cert.NewCA(name, now)
		if err != nil {
			return nil, err
		}
		b, err := ca.MarshalPEM()
		if err != nil {
			return nil, err
		}
		return ca, WriteFile(path, b)
	}
	if err != nil {
		return nil, fmt.Errorf("open CA: %w", err)
	}
	ca, err := cert.ParseCA(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ca, nil
}

func openKey(path string, create bool) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		key, err := cert.NewKey()
		if err != nil {
			return nil, err
		}
		b, err := cert.MarshalKey(key)
		if err != nil {
			return nil, err
		}
		return key, WriteFile(path, b)
	}
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	key, err := cert.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// WriteFile replaces a file, mode 0600, atomically: even after a power cut it has
// either the old content or the new one.
func WriteFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Site returns the self-signed certificate of the public site for the given URLs. It is kept
// in dir, so that its fingerprint stays the same while it covers their hosts and is valid for
// another month. Browsers warn about it; nodes do not verify it.
func Site(dir string, urls []string, now time.Time) (*tls.Certificate, error) {
	path := filepath.Join(dir, "site.pem")
	names := siteNames(urls)
	if b, err := os.ReadFile(path); err == nil {
		c, err := tls.X509KeyPair(b, b)
		if err == nil && c.Leaf != nil && now.Before(c.Leaf.NotAfter.AddDate(0, -1, 0)) && covers(c.Leaf, names) {
			return &c, nil
		}
	}
	key, err := cert.NewKey()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: cert.NewSerial(),
		Subject:      pkix.Name{CommonName: "weft console"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(2, 0, 0), // some browsers refuse longer lives
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip, err := netip.ParseAddr(n); err == nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(ip.AsSlice()))
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make site certificate: %w", err)
	}
	keyPEM, err := cert.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	b := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM...)
	if err := WriteFile(path, b); err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(b, b)
	return &c, err
}

// Fingerprint returns the SHA-256 of a certificate as browsers show it: pairs of upper-case
// hexadecimal digits between colons.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return strings.ToUpper(strings.Join(pairs(hex.EncodeToString(sum[:])), ":"))
}

func pairs(s string) (p []string) {
	for i := 0; i+1 < len(s); i += 2 {
		p = append(p, s[i:i+2])
	}
	return p
}

func siteNames(urls []string) []string {
	names := []string{}
	for _, s := range urls {
		if u, err := url.Parse(s); err == nil && u.Hostname() != "" {
			names = append(names, u.Hostname())
		}
	}
	return append(names, "localhost", "127.0.0.1", "::1")
}

func covers(leaf *x509.Certificate, names []string) bool {
	for _, n := range names {
		if leaf.VerifyHostname(n) != nil {
			return false
		}
	}
	return true
}
