package ops

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"weft/coord/ca"
	"weft/coord/presence"
	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/filelock"
)

// Relay is what the service needs of the relay in this process. All methods except Ping and Look
// return at once, and all may be called from any goroutine.
type Relay interface {
	// Notify says that the versions of a node, or of all nodes if node is nil, have changed.
	Notify(network cert.NetworkID, node *cert.NodeID)
	// Kick closes a node's connection. VerifyClient refuses new ones.
	Kick(network cert.NetworkID, node cert.NodeID)
	// PushCRL sends a new signed revocation list to the clients, first to those that exchanged
	// frames with one of the nodes in revoked.
	PushCRL(network cert.NetworkID, der []byte, revoked []cert.NodeID)
	// Heard returns when something last arrived from a connected node.
	Heard(network cert.NetworkID, node cert.NodeID) (time.Time, bool)
	// Traffic returns how many bytes a connected node has sent through the relay since it
	// connected, and how many were forwarded to it.
	Traffic(network cert.NetworkID, node cert.NodeID) (sent, received uint64, ok bool)
	// Ping measures the round trip to a connected node. It waits for the
	// answer, until ctx ends.
	Ping(ctx context.Context, network cert.NetworkID, node cert.NodeID) (time.Duration, error)
	// Look pings those of nodes that have been silent for some time. It waits for the answers,
	// until ctx ends.
	Look(ctx context.Context, network cert.NetworkID, nodes []cert.NodeID)
}

// Service is the coordination server without its listeners: every operation on the
// network. All methods may be called from many goroutines. Only one Service can have a
// data directory open at a time.
type Service struct {
	// constant after OpenService
	data     string
	software string
	life     time.Duration
	log      *slog.Logger
	now      func() time.Time
	lock     *os.File
	auth     *ca.Authorities
	store    *store.Store
	network  cert.NetworkID
	ipv4     netip.Prefix
	ipv6     netip.Prefix
	suffix   string
	started  time.Time
	created  bool   // the network was made at this start
	found    uint64 // number of the revocation list at this start
	// releaseKey returns the public key with which the release that devices get is signed, nil
	// for none.
	releaseKey func() []byte

	index    *index
	presence *presence.Table
	events   *hub
	relay    relayHolder
	relays   *relaySessions
	ownLoad  relayLoad     // of the relay in this process
	notify   chan struct{} // capacity 1: wakes Run after a version has changed
	told     changesCache
	lists    deviceRows
	hooks    *hooks

	strangers strangers
	refusals  refusals
	requests  *asks
	uses      tokenUses
	list      atomic.Pointer[listState] // replaced by the store's writer goroutine

	consoleURL atomic.Pointer[string]
	signIn     atomic.Pointer[store.SignIn]  // replaced by the store's writer goroutine after a commit
	names      atomic.Pointer[store.DNS]     // replaced by the store's writer goroutine after a commit
	auditing   atomic.Pointer[AuditSettings] // replaced by the store's writer goroutine after a commit
	keeping    keeping
	reports    reports
	measuring  singleflight.Group // measurements of round trips, by device

	// Only the store's writer goroutine uses the following.

	// revoked are the nodes whose certificates were revoked in the present batch, for PushCRL.
	revoked []cert.NodeID
	// revocations caches what tx.Revoked would return; nil for unknown.
	revocations revocations
	// followed is the number of the last change that follow has applied.
	followed uint64
	// brought is the highest number of a revocation list that a node sent, and settlesSince when
	// the server began to settle (recall.go).
	brought      uint64
	settlesSince time.Time
}

// SetReleaseKey sets the function that returns the public key with which the release that
// devices get is signed. It must be called before the service is used by others.
func (s *Service) SetReleaseKey(key func() []byte) { s.releaseKey = key }

// Close closes the database and releases the data directory. All requests must have ended before.
func (s *Service) Close() error {
	err := s.store.Close()
	s.events.close()
	return errors.Join(err, filelock.Release(s.lock))
}

// Network returns the network's row, from memory.
func (s *Service) Network() store.Network { return s.index.info() }

// Software returns the version of weft-server.
func (s *Service) Software() string { return s.software }

// Created reports whether the network was made at this start.
func (s *Service) Created() bool { return s.created }

// Versions returns the versions that a node should have, for the relay. For an unknown node it
// returns the zero value.
func (s *Service) Versions(node cert.NodeID) api.Versions {
	v, ok := s.index.versions(node)
	if ok {
		v.Names = s.index.namesVersion()
	}
	return v
}

// newID returns a random id of 12 characters (60 bits), without letters that look alike.
func newID() string {
	const alphabet = "abcdefghjkmnpqrstuvwxyz23456789x"
	var b [12]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = alphabet[b[i]&31]
	}
	return string(b[:])
}
