package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/filter"
)

var (
	// ErrTaken refuses a key or an overlay address that belongs to another
	// node.
	ErrTaken = errors.New("in use by another node")

	// ErrKeyGone is returned for a key pair of this node that was replaced.
	ErrKeyGone = errors.New("this node has another WireGuard key by now")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the data plane is closed")
)

// Peer is the result of an introduction.
type Peer struct {
	ID  cert.NodeID
	IPs []netip.Addr // certified overlay addresses

	Secret [32]byte // of the pair, from this introduction alone; not zero
	Key    [32]byte // the public key that the node has named
	Claim           // how certain it is that Key is the node's

	Endpoint *bind.Endpoint
	Filter   *filter.Peer // may outlive RemovePeer, with its flows

	// Restarted says that the node takes nothing under the keys of earlier introductions,
	// because it has restarted since.
	Restarted bool

	// Initiate says that this node starts the handshake. It is set for the caller of the
	// introduction.
	Initiate bool

	// Trip is how long the node takes to answer, 0 if unknown. A handshake of the plane
	// waits that long for its answer.
	Trip time.Duration
}

// Check returns the peer's addresses, sorted, or an error if a field that every plane
// needs is invalid.
func (p *Peer) Check() ([]netip.Addr, error) {
	switch {
	case p.Endpoint == nil || p.Filter == nil:
		return nil, errors.New("endpoint or filter is missing")
	case p.Endpoint.ID() != p.ID:
		return nil, errors.New("endpoint belongs to another node")
	case p.Secret == [32]byte{}:
		return nil, errors.New("the secret of the pair is zero")
	case len(p.IPs) == 0:
		return nil, errors.New("no overlay address")
	}
	ips := slices.Clone(p.IPs)
	for _, ip := range ips {
		if !ip.IsValid() || ip.Zone() != "" || !isUnicast(ip) {
			return nil, fmt.Errorf("%v is not an overlay address", ip)
		}
	}
	sort.Slice(ips, func(i, j int) bool { return ips[i].Less(ips[j]) })
	return slices.Compact(ips), nil
}

// Claim says how certain it is that a node has the private key of the public key that it
// names. Any node can name the key of another.
//
// A key is firm once its node has proven it: by the claim Proven, or by a handshake of
// the plane under it, which takes the private key, too. A firm key stays with its node. A
// key that is not firm goes to the next node that claims it, so that no node can shut
// another out by naming its key.
type Claim uint8

const (
	// Tentative is a key that may never be used, because the node that named it has not
	// accepted our introduction yet. It is not taken from another node.
	Tentative Claim = iota
	// Claimed is a key that a node has named in its introduction without proving it, as
	// nodes did before 2026-11-29.
	Claimed
	// Proven is a key that the node has proven in its introduction.
	Proven
)

// TakenError refuses a key or an address that belongs to another node. It wraps
// ErrTaken.
type TakenError struct {
	What   string // the key or the address, for users
	Holder cert.NodeID
	// Yields says that the holder has not proven the key: after RemovePeer of the holder,
	// the refused claim succeeds.
	Yields bool
}

// Error implements error.
func (e *TakenError) Error() string { return e.What + ": " + ErrTaken.Error() }

// Unwrap returns ErrTaken.
func (e *TakenError) Unwrap() error { return ErrTaken }

// Key is a WireGuard key of this node, for a time.
type Key struct {
	Public [32]byte
	Boot   uint64 // random for each key pair: with another one a peer makes a new tunnel
}

// Plane carries packets between this node and its peers. Two nodes agree on their plane
// in the introduction. Methods may be called from any goroutine, but not from Config.Miss
// or from a Sender of the Bind.
type Plane interface {
	// SetPeer makes a node a peer, or updates a peer: with the secret of a further
	// introduction the tunnel continues; with another key a new one is made before the
	// old one ends. It returns a *TakenError if another node has the key or an address,
	// plain ErrTaken if the key is this node's own, and ErrClosed after Close. With an
	// error it changes nothing.
	SetPeer(Peer) error
	// Prove says that a node has proven the key of its tunnel. It reports whether there
	// is such a tunnel.
	Prove(id cert.NodeID, key [32]byte) bool
	// RemovePeer ends the tunnels of a node at once. Later packets to its addresses are
	// misses. It may wait for a SendPackets that blocks.
	RemovePeer(id cert.NodeID)
	// Begins reports whether a message may be the first of a node under the keys of an
	// introduction in progress. Such a message may arrive before SetPeer.
	Begins(msg []byte) bool
	// Close ends all tunnels and waits for all goroutines of the plane.
	Close() error
}

// KeyState says what the keys of a peer are like.
type KeyState struct {
	Since   time.Time // when the present key for sending began; zero: there is none
	Packets uint64    // sent under it
}

// Keys is the key pair that this node names in introductions. A plane that needs one
// implements it.
type Keys interface {
	// Key returns the present key.
	Key() Key
	// PairKey returns a secret that only the owners of two private keys can compute, this
	// node's and the peer's. Each side proves its key with it. own is the public key of
	// this node that the peer has; once it was replaced, PairKey returns ErrKeyGone.
	PairKey(own, peer [32]byte) (key [32]byte, err error)
	// NewKey ends all tunnels and takes another key pair. It is for when this node gets
	// another identity: peers refuse a key that two nodes name.
	NewKey() error
	// SetBack reports whether the machine's clock was set back, so that peers may ignore
	// this node under its present key. Rekey fixes that: it takes another key pair and
	// keeps the peers, which must be sent the new key.
	SetBack() bool
	Rekey() error
}
