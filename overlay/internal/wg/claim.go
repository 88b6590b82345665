package wg

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
)

// firm reports whether the node of a tunnel is known to have its key's private key. A
// tunnel sends data only after the peer has answered a handshake under the key, or
// confirmed one. The caller holds Device.mu.
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

// Prove implements dataplane.Plane.
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

// KeyOf returns the WireGuard key of a peer's tunnel, zero if there is none.
func (d *Device) KeyOf(id cert.NodeID) (key [32]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[id]; p != nil {
		key = p.cur.key
	}
	return key
}

// PairKey implements dataplane.Keys. The secret is derived from the Diffie-Hellman secret
// of the two keys, for this purpose only. A key of low order, with which everybody could
// compute it, is an error.
func (d *Device) PairKey(own, peer [32]byte) (key [32]byte, err error) {
	pair := d.key.Load()
	if own != pair.Public {
		return key, dataplane.ErrKeyGone
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
