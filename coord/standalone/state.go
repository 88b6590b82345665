package standalone

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"weft/coord/ca"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// The files of a relay's data directory (mode 0700, files 0600), each replaced
// as a whole:
//
//	lock        held by the running relay
//	relay.json  identity: key, certificate, and the CAs that the relay trusts
//	crl.der     the last revocation list
//	site.pem    the self-signed certificate of the public site
const (
	identityFile   = "relay.json"
	crlFile        = "crl.der"
	identitySchema = "relay/1"
)

// identity is the content of relay.json. It is immutable: a change makes a new one.
type identity struct {
	Schema      string         `json:"schema"`
	Key         string         `json:"key"` // PEM: secret
	Network     cert.NetworkID `json:"network"`
	ServerPins  []cert.Pin     `json:"server_pins"`
	URLs        []string       `json:"server_urls"`
	Name        string         `json:"name"`
	Certificate []byte         `json:"certificate,omitempty"` // DER; absent until joined
	ServerCAs   [][]byte       `json:"server_cas,omitempty"`  // DER
	NetworkCAs  [][]byte       `json:"network_cas,omitempty"` // DER
	ServerTime  time.Time      `json:"server_time"`           // weft time never runs before this

	key         *ecdsa.PrivateKey
	leaf        *tls.Certificate // for TLS; self-signed until the relay has joined
	roots       *cert.NetworkRoots
	serverRoots *cert.ServerRoots
}

func (id *identity) joined() bool { return id != nil && len(id.Certificate) > 0 }

// newIdentity returns an identity with a new key for the network of a token.
func newIdentity(tok cert.Token, urls []string) (*identity, error) {
	key, err := cert.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make the relay's key: %w", err)
	}
	pem, err := cert.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	id := &identity{Schema: identitySchema, Key: string(pem), Network: tok.Network.NetworkID(), ServerPins: []cert.Pin{tok.Server}, URLs: urls}
	return id, id.complete()
}

// complete derives the fields that are not in the file from those that are, and checks all.
func (id *identity) complete() (err error) {
	if id.key, err = cert.ParseKey([]byte(id.Key)); err != nil {
		return err
	}
	if len(id.ServerPins) == 0 || len(id.URLs) == 0 || id.Network.IsZero() {
		return errors.New("server or network is missing")
	}
	if id.serverRoots, err = cert.NewServerRoots(id.ServerPins, id.ServerCAs); err != nil {
		return err
	}
	if !id.joined() {
		c, err := cert.SelfSigned(id.key)
		id.leaf = &c
		return err
	}
	if id.roots, err = cert.NewNetworkRoots(id.Network, id.NetworkCAs); err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(id.Certificate)
	if err != nil {
		return err
	}
	if !id.key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("the key does not match the certificate")
	}
	chain := []*x509.Certificate{leaf}
	id.leaf = &tls.Certificate{Certificate: [][]byte{id.Certificate}, PrivateKey: id.key, Leaf: leaf}
	for _, der := range id.ServerCAs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		chain = append(chain, c)
		id.leaf.Certificate = append(id.leaf.Certificate, der)
	}
	return id.serverRoots.VerifyServer(chain, cert.RoleRelay)
}

// trusting returns a copy of the identity with the CAs and addresses that the server sent, and
// with certificate unless that is nil.
func (id *identity) trusting(t api.RelayTrust, certificate []byte, serverTime time.Time) (*identity, error) {
	if t.Network != id.Network.String() {
		return nil, fmt.Errorf("the server's answer is for another network, %s", t.Network)
	}
	next := *id
	next.ServerCAs, next.NetworkCAs, next.ServerTime = t.ServerCAs, t.NetworkCAs, serverTime
	next.URLs = merge(t.ServerURLs, id.URLs)
	if certificate != nil {
		next.Certificate = certificate
	}
	if err := next.complete(); err != nil {
		return nil, fmt.Errorf("the server's answer is not usable: %w", err)
	}
	return &next, nil
}

// merge returns the valid addresses of both lists without duplicates, the current ones first,
// at most 8. Old addresses stay as fallbacks.
func merge(current, old []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, u := range append(append([]string{}, current...), old...) {
		if cert.CheckURL(u) == nil && !seen[u] && len(out) < 8 {
			seen[u] = true
			out = append(out, u)
		}
	}
	return out
}

// loadIdentity returns nil without an error if there is no identity yet.
func loadIdentity(dir string) (*identity, error) {
	file := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	var id identity
	if err = json.Unmarshal(b, &id); err == nil && id.Schema != identitySchema {
		return nil, fmt.Errorf("identity file %s has schema %q, this weft-server knows %q: use the one that wrote it, or a newer one", file, id.Schema, identitySchema)
	}
	if err == nil {
		err = id.complete()
	}
	if err != nil {
		return nil, fmt.Errorf("identity file %s is damaged (%w): restore it from a backup, or move it away to join as a new relay", file, err)
	}
	return &id, nil
}

func (id *identity) save(dir string) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return ca.WriteFile(filepath.Join(dir, identityFile), b)
}
