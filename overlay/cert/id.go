package cert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// NetworkID names one network: the first 16 bytes of SHA-256 over the
// SubjectPublicKeyInfo of the network CA that founded it. It never changes, not even when
// a successor CA takes over.
type NetworkID [16]byte

// NodeID is a node's address at the relay: the first 16 bytes of
// SHA-256(network id ‖ the node's SubjectPublicKeyInfo). It belongs to the
// identity key, so it survives renewal and rename.
type NodeID [16]byte

// Pin is the SHA-256 of a CA's SubjectPublicKeyInfo (as in RFC 7469), carried by every
// join token, so that a joining node trusts only what the token names.
type Pin [32]byte

// PinOf returns the pin of a CA certificate.
func PinOf(ca *x509.Certificate) Pin { return sha256.Sum256(ca.RawSubjectPublicKeyInfo) }

// NetworkID returns the id of the network that the pinned network CA founded.
func (p Pin) NetworkID() NetworkID { return NetworkID(p[:16]) }

// NodeIDOf returns the id of the node that holds the key of spki (a DER
// SubjectPublicKeyInfo) in network.
func NodeIDOf(network NetworkID, spki []byte) NodeID {
	h := sha256.New()
	h.Write(network[:])
	h.Write(spki)
	return NodeID(h.Sum(nil)[:16])
}

// RelayID names the relay that holds the key of spki (a DER
// SubjectPublicKeyInfo), in the configs of nodes: the first 16 bytes of SHA-256
// over it, as 32 lower-case hexadecimal digits. It survives renewal.
func RelayID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:16])
}

// String returns the id as 32 lower-case hexadecimal digits.
func (id NodeID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id as 32 lower-case hexadecimal digits.
func (id NetworkID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id is unset.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// IsZero reports whether the id is unset.
func (id NetworkID) IsZero() bool { return id == NetworkID{} }

// Less orders ids as byte strings. When two nodes introduce themselves to each other at
// once, the handshake whose client has the lower id wins.
func (id NodeID) Less(other NodeID) bool { return string(id[:]) < string(other[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *NodeID) UnmarshalText(b []byte) error { return unhex(id[:], "node id", b) }

// MarshalText implements encoding.TextMarshaler.
func (id NetworkID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *NetworkID) UnmarshalText(b []byte) error { return unhex(id[:], "network id", b) }

// String returns the pin as 64 lower-case hexadecimal digits.
func (p Pin) String() string { return hex.EncodeToString(p[:]) }

// MarshalText implements encoding.TextMarshaler.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Pin) UnmarshalText(b []byte) error { return unhex(p[:], "pin", b) }

// ParseNodeID parses the form that String prints.
func ParseNodeID(s string) (NodeID, error) {
	var id NodeID
	err := id.UnmarshalText([]byte(s))
	return id, err
}

func unhex(dst []byte, what string, b []byte) error {
	if len(b) != 2*len(dst) {
		return fmt.Errorf("parse %s: %d characters, want %d", what, len(b), 2*len(dst))
	}
	if _, err := hex.Decode(dst, b); err != nil {
		return fmt.Errorf("parse %s: %w", what, err)
	}
	return nil
}
