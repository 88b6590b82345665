package network

import (
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Identity is who this node is and whom it trusts: what the file node.json holds.
// One that is in use is not changed any more.
type Identity struct {
	Schema      string         `json:"schema"`
	PEM         string         `json:"key"` // of Key: secret
	Network     cert.NetworkID `json:"network"`
	ServerPins  []cert.Pin     `json:"server_pins"`
	URLs        []string       `json:"server_urls"`
	Certificate []byte         `json:"certificate,omitempty"` // DER; absent until joined
	NetworkCAs  [][]byte       `json:"network_cas,omitempty"` // DER
	ServerTime  time.Time      `json:"server_time"`           // when the server was heard last, to the hour: floor of weft time

	Key *ecdsa.PrivateKey `json:"-"`
}

const identitySchema = "node/1"

// NewIdentity makes the identity of a device that is to join a network, with a key of
// its own, by a server that has the pin and is at one of urls.
func NewIdentity(network cert.NetworkID, server cert.Pin, urls []string) (*Identity, error) {
	key, err := cert.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make identity key: %w", err)
	}
	pem, err := cert.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	return &Identity{Schema: identitySchema, PEM: string(pem), Network: network, ServerPins: []cert.Pin{server}, URLs: urls, Key: key}, nil
}

// SchemaError says that an identity was written by another version.
type SchemaError struct{ Schema string }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("schema %q, this weft knows %q: use the weft that wrote it, or a newer one", e.Schema, identitySchema)
}

// ParseIdentity reads what json.Marshal wrote of an Identity, and checks that all of
// it belongs together. The error is a *SchemaError for what another version wrote.
func ParseIdentity(b []byte) (*Identity, error) {
	var id Identity
	if err := json.Unmarshal(b, &id); err != nil {
		return nil, err
	}
	if id.Schema != identitySchema {
		return nil, &SchemaError{id.Schema}
	}
	var err error
	if id.Key, err = cert.ParseKey([]byte(id.PEM)); err != nil {
		return nil, err
	}
	if len(id.ServerPins) == 0 || len(id.URLs) == 0 || id.Network.IsZero() {
		return nil, errors.New("server or network is missing")
	}
	if id.Joined() {
		n, err := cert.ParseNode(id.Network, id.Certificate)
		if err != nil {
			return nil, err
		}
		if !id.Key.PublicKey.Equal(n.Leaf.PublicKey) {
			return nil, errors.New("key and certificate do not belong together")
		}
	}
	return &id, nil
}

// Joined reports whether the server has certified this identity. nil is none.
func (id *Identity) Joined() bool { return id != nil && len(id.Certificate) > 0 }

// TLS is what the node shows: its node certificate, or, before it has joined, a
// self-signed one over the same key.
func (id *Identity) TLS() (*tls.Certificate, error) {
	if !id.Joined() {
		c, err := cert.SelfSigned(id.Key)
		return &c, err
	}
	return &tls.Certificate{Certificate: [][]byte{id.Certificate}, PrivateKey: id.Key}, nil
}

// BareConfig is enough to reach the server and fetch the real configuration, and made
// of the identity alone.
func (id *Identity) BareConfig() *api.Config {
	return &api.Config{
		Network: id.Network.String(), ServerURLs: id.URLs, NetworkCAs: id.NetworkCAs,
		Relays: []api.Relay{{Name: "server", URLs: id.URLs}},
	}
}
