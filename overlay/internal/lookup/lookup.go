// Package lookup finds nodes by name or address for a node, and tells at which relay they
// are and whether they are online. It also makes the errors for users when a node is not
// found.
//
// It answers from memory (package directory) if that is recent enough; otherwise it asks
// the server and records the answer. It does not depend on tunnels or on the node: it is
// made of functions and values.
//
//   - lookup.go    which node has a name or an address
//   - where.go     at which relay a peer is
//   - presence.go  which nodes are online, asked when a user wants to see it
//   - absent.go    errors for users when a node is not found or offline
//   - names.go     all names at once, for the resolver
//
// The package starts no goroutine and holds no lock while it asks the server.
package lookup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

const (
	// answerWait bounds a request to the server, unless it is slow (see AskTime).
	answerWait = 5 * time.Second
	// tripMost is the longest round trip that counts.
	tripMost = 4 * time.Second
)

// Server answers lookups. package api/client implements it over the wire.
type Server interface {
	// Lookup asks for a node; kind is "name", "ip" or "id". One that does not exist is an
	// *api.Error with http.StatusNotFound.
	Lookup(ctx context.Context, kind, key string) (*api.Peer, error)
	// Presence asks which of at most api.MaxPresence nodes are online. A server before
	// 2026-11-29 answers with http.StatusNotFound.
	Presence(ctx context.Context, ids []string) ([]api.Presence, error)
}

// Config configures New. All fields are required. The functions run on the goroutine that
// calls the Resolver, and must not wait for the network.
type Config struct {
	Held      *network.Holder
	Directory *directory.Directory
	Health    *status.Warnings
	Log       *slog.Logger

	// Now is weft time.
	Now func() time.Time
	// Server returns the server to ask now.
	Server func() Server
	// Trip returns the round trip to the relay, 0 while it is unknown.
	Trip func() time.Duration
	// Tell makes the node send its current versions to the relay.
	Tell func()
	// NamesChanged is called when earlier lookups have become stale.
	NamesChanged func()
	// Keep schedules a file of the state directory to be written.
	Keep func(file string)
}

// Resolver finds nodes for one node. Any goroutine may use it.
type Resolver struct{ cfg Config }

// New makes a Resolver.
func New(cfg Config) *Resolver { return &Resolver{cfg} }

// ErrNotJoined is returned while the node is in no network.
var ErrNotJoined = &status.Error{Kind: status.KindNotJoined, Message: "this device has not joined a network", Hint: "run: weft up TOKEN"}

// Resolve finds a node of s by what a user typed: a short name, a full name or an
// address. Its errors are for the user.
func (r *Resolver) Resolve(ctx context.Context, s *network.Network, name string) (*directory.Entry, error) {
	key, ok := directory.Key(name, s.Config.Suffix)
	if !ok {
		return nil, r.unknown(name, s)
	}
	if addr, err := netip.ParseAddr(key); key == s.Self.Name || err == nil && s.Self.Has(addr) {
		return &directory.Entry{Node: s.Self, Online: true}, nil
	}
	return r.find(ctx, s, key)
}

// Find finds a node of the network that this one is in by its key (directory.Key).
func (r *Resolver) Find(ctx context.Context, key string) (*directory.Entry, error) {
	s, ok := r.cfg.Held.Get()
	if !ok {
		return nil, ErrNotJoined
	}
	return r.find(ctx, s, key)
}

// find finds a node of s by its key: in memory, or else at the server.
func (r *Resolver) find(ctx context.Context, s *network.Network, key string) (*directory.Entry, error) {
	dir := r.cfg.Directory
	k, missing := dir.Find(key)
	if k != nil && !k.CallerOnly && (!dir.Stale(k) || r.cfg.Health.Has(status.CodeServerOffline)) {
		if !k.Listed {
			r.markUsed() // it may have introduced itself, and nobody was asked
		}
		return k, nil
	}
	if missing || !s.Config.Directory && !s.Config.Version.IsZero() {
		// In the latter case policy allows this node to reach nobody, so there is no
		// point in asking.
		return nil, r.unknown(key, s)
	}
	kind := "name"
	if _, err := netip.ParseAddr(key); err == nil {
		kind = "ip"
	}
	ctx, cancel := context.WithTimeout(ctx, r.AskTime(answerWait))
	defer cancel()
	round := r.markUsed()
	p, err := r.cfg.Server().Lookup(ctx, kind, key)
	if err != nil {
		if notFound(err) {
			r.whileIn(s, func(*network.Network) { dir.SetMissing(key) })
			return nil, r.unknown(key, s)
		}
		if k != nil && !k.CallerOnly {
			return k, nil // as last known
		}
		return nil, unavailable("look up "+key, err)
	}
	k, err = directory.NewEntry(*p, s.VerifyListed)
	if err != nil {
		return nil, fmt.Errorf("look up %s: the server's answer is not usable: %w", key, err)
	}
	if addr, aerr := netip.ParseAddr(key); aerr == nil && !k.Node.Has(addr) || aerr != nil && k.Node.Name != key && !k.HasAlias(key, time.Now()) {
		return nil, fmt.Errorf("look up %s: the server answered with %s (%s)", key, k.Node.Name, k.Node.IPv4)
	}
	k.Round = round
	if !r.learn(s, k) {
		return nil, r.unknown(key, s)
	}
	follow.PinNames(dir, r.cfg.Health, r.cfg.Keep)
	return k, nil
}

// notFound reports whether the server has answered that there is no such thing.
func notFound(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// AskTime returns how long a request to the server may take: least, plus four round
// trips, which a connection and a request take, if they are slow.
func (r *Resolver) AskTime(least time.Duration) time.Duration {
	return least + 4*min(r.cfg.Trip(), tripMost)
}

// markUsed records that names are looked up here, and returns the round for the answer.
func (r *Resolver) markUsed() (round uint64) {
	round, tell := r.cfg.Directory.MarkUsed()
	if tell {
		r.cfg.Tell()
	}
	return round
}

// SetNamesVersion takes the current version of all names from a relay. It fetches
// nothing: names are looked up again when somebody asks for them. Until then the node
// reports that it remembers no names, so that a device on which nobody uses names is not
// woken for them.
func (r *Resolver) SetNamesVersion(v api.Version) {
	if !r.cfg.Directory.SetNamesVersion(v) {
		return
	}
	r.cfg.Tell()
	r.cfg.NamesChanged()
}

// whileIn calls f with the current Network if the node is still in the network of s: it
// may have left it or joined another one while the server was asked. f must not block.
// whileIn reports whether it called f.
func (r *Resolver) whileIn(s *network.Network, f func(now *network.Network)) bool {
	return r.cfg.Held.UpdateIn(s, func(now *network.Network) *network.Network {
		f(now)
		return nil
	})
}

// learn adds a node that the server has returned in the network of s. It returns false if
// that no longer counts: this node has left the network, or the other one was revoked.
func (r *Resolver) learn(s *network.Network, k *directory.Entry) bool {
	revoked := false
	in := r.whileIn(s, func(now *network.Network) {
		if revoked = now.CRL.Revoked(k.Node.Serial); !revoked {
			r.cfg.Directory.Learn(k)
		}
	})
	return in && !revoked
}

// Name returns the name of a node, or its id if the name is unknown.
func (r *Resolver) Name(id cert.NodeID) string {
	if k := r.cfg.Directory.Get(id); k != nil {
		return k.Node.Name
	}
	return "node " + id.String()[:8]
}
