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

// Identity says who this node is and whom it trusts. It is the content of the file
// node.json. An Identity in use is immutable.
type Identity struct {
	Schema      string         `json:"schema"`
	PEM         string         `json:"key"` // Key as PEM: secret
	Network     cert.NetworkID `json:"network"`
	ServerPins  []cert.Pin     `json:"server_pins"`
	URLs        []string       `json:"server_urls"`
	Certificate []byte         `json:"certificate,omitempty"` // DER; absent until joined
	NetworkCAs  [][]byte       `json:"network_cas,omitempty"` // DER
	ServerTime  time.Time      `json:"server_time"`           // last time received from the server, to the hour: floor of weft time

	Key *ecdsa.PrivateKey `json:"-"`
}

const identitySchema = "node/1"

// NewIdentity makes the identity, with a new key, of a device that is to join a network
// through the server with this pin at one of urls.
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

// SchemaError says that another version has written an identity in a format that this one
// does not know.
type SchemaError struct{ Schema string }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("schema %q, but this weft knows %q: use the weft that wrote it, or a newer one", e.Schema, identitySchema)
}

// ParseIdentity parses an Identity in the form of json.Marshal and checks that its parts
// belong together. The error is a *SchemaError for an unknown format.
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

// Joined reports whether the server has certified this identity. It is false for nil.
func (id *Identity) Joined() bool { return id != nil && len(id.Certificate) > 0 }

// TLS returns the certificate that the node presents: its node certificate, or, before it
// has joined, a self-signed one over the same key.
func (id *Identity) TLS() (*tls.Certificate, error) {
	if !id.Joined() {
		c, err := cert.SelfSigned(id.Key)
		return &c, err
	}
	return &tls.Certificate{Certificate: [][]byte{id.Certificate}, PrivateKey: id.Key}, nil
}

// BareConfig returns a config made of the identity alone. It suffices to reach the server
// and fetch the real one.
func (id *Identity) BareConfig() *api.Config {
	return &api.Config{
		Network: id.Network.String(), ServerURLs: id.URLs, NetworkCAs: id.NetworkCAs,
		Relays: []api.Relay{{Name: "server", URLs: id.URLs}},
	}
}
