package wg

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"weft/overlay/cert"
)

// Claim says how far it is known that a node holds the private key of the
// WireGuard key that it names. Anybody can name the key of another.
//
// A key of which the node has proven that it holds it is firm: by the claim
// Proven, or because a WireGuard handshake under it has succeeded, which takes
// the private key as well. Nobody takes a firm key from its node. A key that is
// not firm goes to the next node that claims it, so that no node keeps another
// out by naming its key.
type Claim uint8

const (
	// Tentative is a key that a node named and that may never be used: the
	// node has not accepted our introduction yet. It is taken from nobody.
	Tentative Claim = iota
	// Claimed is a key that a node was introduced with and did not prove to
	// hold. Nodes did not, once.
	Claimed
	// Proven is a key that the node has proven to hold, in its introduction.
	Proven
)

// TakenError refuses a key or an address that belongs to another node. It wraps
// ErrTaken.
type TakenError struct {
	What   string // the key or the address, for people
	Holder cert.NodeID
	// Yields says that the holder has never shown that it holds the key: the
	// claim refused goes before its own once the holder was removed.
	Yields bool
}

// Error implements error.
func (e *TakenError) Error() string { return e.What + ": " + ErrTaken.Error() }

// Unwrap makes it ErrTaken.
func (e *TakenError) Unwrap() error { return ErrTaken }

// firm reports whether it is known that the node of a tunnel holds its key. A
// tunnel sends data in a session only after the peer has answered a handshake
// under the key, or confirmed one. The caller holds Device.mu.
func (t *tunnel) firm() bool { return t.proven || t.session.Load() != 0 }

// tunnelOf returns the tunnel of a peer under a key, or nil. The caller holds
// Device.mu.
func (p *peer) tunnelOf(key [32]byte) *tunnel {
	switch {
	case p.cur.key == key:
		return p.cur
	case p.next != nil && p.next.key == key:
		return p.next
	}
	return nil
}

// Prove notes that a node has proven to hold a key under which it has a tunnel.
// It reports whether there is such a tunnel.
func (d *Device) Prove(id cert.NodeID, key [32]byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	if p == nil {
		return false
	}
	t := p.tunnelOf(key)
	if t == nil {
		return false
	}
	t.proven = true
	return true
}

// PairKey returns a secret that only the holders of two WireGuard private keys
// can know, this device's and the peer's: each of them proves with it that it is
// one. It is derived from their Diffie-Hellman secret for this purpose alone. own
// is the public key by which the device is known to the peer; once NewKey has
// replaced it, PairKey returns ErrKeyGone. A key of low order, with which
// everybody would know the secret, is an error too.
func (d *Device) PairKey(own, peer [32]byte) (key [32]byte, err error) {
	pair := d.key.Load()
	if own != pair.Public {
		return key, ErrKeyGone
	}
	pub, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return key, fmt.Errorf("WireGuard key: %w", err)
	}
	shared, err := pair.private.ECDH(pub)
	if err != nil {
		return key, fmt.Errorf("WireGuard key: %w", err)
	}
	b, err := hkdf.Key(sha256.New, shared, nil, "weft WireGuard key proof 1", len(key))
	if err != nil {
		return key, fmt.Errorf("derive pair key: %w", err)
	}
	return [32]byte(b), nil
}
