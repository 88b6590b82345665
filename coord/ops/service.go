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

// Relay is the relay in this process, as the service calls it. All methods except Ping
// and Look return at once.
type Relay interface {
	// Notify says that the versions of one node, or of all (nil), changed.
	Notify(network cert.NetworkID, node *cert.NodeID)
	// Kick drops a node's connection and refuses new ones.
	Kick(network cert.NetworkID, node cert.NodeID)
	// PushCRL hands a new signed revocation list to the clients, first to
	// those that exchanged frames with the nodes just revoked.
	PushCRL(network cert.NetworkID, der []byte, revoked []cert.NodeID)
	// Heard returns when anything last came from a connected node.
	Heard(network cert.NetworkID, node cert.NodeID) (time.Time, bool)
	// Traffic returns how many bytes a connected node has sent through the relay since it
	// connected, and how many were forwarded to it.
	Traffic(network cert.NetworkID, node cert.NodeID) (sent, received uint64, ok bool)
	// Ping measures the round trip to a connected node. It waits for the
	// answer, until ctx ends.
	Ping(ctx context.Context, network cert.NetworkID, node cert.NodeID) (time.Duration, error)
	// Look asks those of nodes that have been silent for a while whether they are
	// there. It waits for the answers, until ctx ends.
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
	created  bool   // the network was made by this start
	found    uint64 // number of the revocation list that was there then
	// releaseKey returns the public key of the release that the server hands
	// out, nil for none.
	releaseKey func() []byte

	index    *index
	presence *presence.Table
	events   *hub
	relay    relayHolder
	relays   *relaySessions // those that run alone
	ownLoad  relayLoad      // of the relay in this process
	notify   chan struct{}  // capacity 1: some version changed
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
	auditing   atomic.Pointer[AuditSettings] // the same
	keeping    keeping
	reports    reports
	measuring  singleflight.Group // round trips, by device

	// revoked belongs to the store's writer goroutine: nodes deleted in the
	// batch whose revocation list is about to be pushed.
	revoked []cert.NodeID

	// revocations is what tx.Revoked would return, also of the store's writer goroutine;
	// nil: unknown.
	revocations revocations

	// followed is the last change that memory follows.
	followed uint64

	// These too: the highest number of a revocation list that was brought, and
	// since when the server settles (recall.go).
	brought      uint64
	settlesSince time.Time
}

// SetReleaseKey says how to find the key of the release that the server hands out.
// Call it before anybody asks.
func (s *Service) SetReleaseKey(key func() []byte) { s.releaseKey = key }

// Close ends the service. Requests must have ended before.
func (s *Service) Close() error {
	err := s.store.Close()
	s.events.close()
	return errors.Join(err, filelock.Release(s.lock))
}

// Network returns the network's row, as memory has it.
func (s *Service) Network() store.Network { return s.index.info() }

// Software is the version of weft-server.
func (s *Service) Software() string { return s.software }

// Created reports whether the network was made by this start.
func (s *Service) Created() bool { return s.created }

// Versions returns what a node should hold: for the relay. Unknown nodes get
// the zero value.
func (s *Service) Versions(node cert.NodeID) api.Versions {
	v, ok := s.index.versions(node)
	if ok {
		v.Names = s.index.namesVersion()
	}
	return v
}

// newID returns a short random id for keys and users: 60 bits, no letters
// that look alike.
func newID() string {
	const alphabet = "abcdefghjkmnpqrstuvwxyz23456789x"
	var b [12]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = alphabet[b[i]&31]
	}
	return string(b[:])
}
