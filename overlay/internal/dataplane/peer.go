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
	ErrTaken = errors.New("held by another node")

	// ErrKeyGone is returned for a key pair of this node that another has
	// replaced.
	ErrKeyGone = errors.New("this node has another WireGuard key by now")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the data plane is closed")
)

// Peer is what an introduction yields.
type Peer struct {
	ID  cert.NodeID
	IPs []netip.Addr // certified overlay addresses

	Secret [32]byte // of the pair, from this introduction alone; not zero
	Key    [32]byte // the public key that the node has named
	Claim           // how far it is known that it is the node's

	Endpoint *bind.Endpoint
	Filter   *filter.Peer // may be kept over RemovePeer, with its flows

	// Initiate says that this node begins. It is set on the side that called.
	Initiate bool

	// Trip is how long the node takes to answer, 0 if that is not known: a
	// handshake of the plane waits as long for its answer.
	Trip time.Duration
}

// Check returns the peer's addresses, sorted, or says what is wrong with what every
// plane needs.
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

// Claim says how far it is known that a node holds the private key of the
// public key that it names. Anybody can name the key of another.
//
// A key of which the node has proven that it holds it is firm: by the claim
// Proven, or because a handshake of the plane under it has succeeded, which takes
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

// Key is what others know a node by, for a time.
type Key struct {
	Public [32]byte
	Boot   uint64 // random for each key pair: a peer that is told another makes a new tunnel
}

// Plane carries packets between this node and its peers. Which plane a pair has
// is agreed upon when it is introduced. Methods may be called from any goroutine,
// but not from Config.Miss, nor from a Sender of the Bind.
type Plane interface {
	// SetPeer makes a node a peer, or brings a peer up to date: with the secret of
	// a further introduction the tunnel goes on, with another key a new one is
	// made before the old one ends. It returns a *TakenError if the key or an
	// address is held by another node, plain ErrTaken if the key is this node's
	// own, and changes nothing then; ErrClosed after Close.
	SetPeer(Peer) error
	// Prove notes that a node has proven to hold a key under which it has a
	// tunnel. It reports whether there is such a tunnel.
	Prove(id cert.NodeID, key [32]byte) bool
	// RemovePeer ends the tunnels of a node at once. Packets to its addresses
	// miss from then on. It may wait for a SendPackets that blocks.
	RemovePeer(id cert.NodeID)
	// Begins reports whether a message may be the first with which a node uses
	// what it is being introduced with: it may be ahead of SetPeer.
	Begins(msg []byte) bool
	// Close ends all tunnels and returns when no goroutine of the plane is left.
	Close() error
}

// Keys are the key pair that this node names to others in introductions. A plane
// that needs one has it.
type Keys interface {
	// Key returns the present one.
	Key() Key
	// PairKey returns a secret that only the holders of two private keys can
	// know, this node's and the peer's: each proves with it that it is one. own
	// is the public key by which this node is known to the peer; once another has
	// replaced it, PairKey returns ErrKeyGone.
	PairKey(own, peer [32]byte) (key [32]byte, err error)
	// NewKey ends all tunnels and takes another key pair, for when this node is
	// to be another one: nobody takes a key from two.
	NewKey() error
	// SetBack reports whether the machine's clock was set back in a way for which
	// peers may not listen to this node under its present key. Then Rekey makes
	// it good: it takes another key pair and keeps the peers, who have to be told.
	SetBack() bool
	Rekey() error
}
