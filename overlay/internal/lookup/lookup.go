// Package lookup answers, for a node: who is that name or address, where is it, is it
// online, and what is a person told when it is not there?
//
// It answers from memory (package directory) where that is recent enough, else asks the
// server, and notes what that said. It knows nothing of tunnels or of the node: it is
// made of functions and values.
//
//   - lookup.go    who has a name or an address
//   - where.go     at which relay a peer is
//   - presence.go  who is online, asked when somebody looks
//   - absent.go    what a person is told of who is not there
//   - names.go     all names at once, for the resolver
//
// The package starts no goroutine and keeps no lock while it asks the server.
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
	// answerWait bounds a question to the server, if that is not far (see AskTime).
	answerWait = 5 * time.Second
	// tripMost is the longest round trip that is believed.
	tripMost = 4 * time.Second
)

// Server is who is asked: package api/client has the one on the wire.
type Server interface {
	// Lookup asks for a node; kind is "name", "ip" or "id". One that does not exist is an
	// *api.Error with http.StatusNotFound.
	Lookup(ctx context.Context, kind, key string) (*api.Peer, error)
	// Presence asks which of at most api.MaxPresence nodes are online. A server that does
	// not know the question answers with http.StatusNotFound.
	Presence(ctx context.Context, ids []string) ([]api.Presence, error)
}

// Config is what a Resolver is made of. All of it is required. The functions are called
// by whoever calls the Resolver, and do not wait for the network.
type Config struct {
	Held      *network.Holder
	Directory *directory.Directory
	Health    *status.Warnings
	Log       *slog.Logger

	// Now is weft time.
	Now func() time.Time
	// Server returns who is asked now.
	Server func() Server
	// Trip is how long a round trip to the relay takes, 0 while that is not known.
	Trip func() time.Duration
	// Tell has the relay told which versions are held now.
	Tell func()
	// NamesChanged is called when what was looked up counts no more.
	NamesChanged func()
	// Keep has a file of the state directory written again.
	Keep func(file string)
}

// Resolver finds nodes for one node. Any goroutine may use it.
type Resolver struct{ cfg Config }

// New makes a Resolver.
func New(cfg Config) *Resolver { return &Resolver{cfg} }

// ErrNotJoined is returned while the node is in no network.
var ErrNotJoined = &status.Error{Kind: status.KindNotJoined, Message: "this device has not joined a network", Hint: "run: weft up TOKEN"}

// Resolve finds a node of s by what a person typed: a short name, a full name or an
// address. The errors are for that person.
func (r *Resolver) Resolve(ctx context.Context, s *network.Network, name string) (*directory.Known, error) {
	key, ok := directory.Key(name, s.Config.Suffix)
	if !ok {
		return nil, r.unknown(name, s)
	}
	if addr, err := netip.ParseAddr(key); key == s.Self.Name || err == nil && s.Self.Has(addr) {
		return &directory.Known{Node: s.Self, Online: true}, nil
	}
	return r.find(ctx, s, key)
}

// Find finds a node of the network that this one is in by its key (directory.Key).
func (r *Resolver) Find(ctx context.Context, key string) (*directory.Known, error) {
	s, ok := r.cfg.Held.Get()
	if !ok {
		return nil, ErrNotJoined
	}
	return r.find(ctx, s, key)
}

// find finds a node of s by its key: in memory, else on the server.
func (r *Resolver) find(ctx context.Context, s *network.Network, key string) (*directory.Known, error) {
	dir := r.cfg.Directory
	k, missing := dir.Find(key)
	if k != nil && !k.Stranger && (!dir.Old(k) || r.cfg.Health.Has(status.CodeServerOffline)) {
		if !k.Listed {
			r.uses() // it may have introduced itself, and nobody was asked
		}
		return k, nil
	}
	if missing || !s.Config.Directory && !s.Config.Version.IsZero() {
		// The latter: policy lets this node reach nobody, so why ask?
		return nil, r.unknown(key, s)
	}
	kind := "name"
	if _, err := netip.ParseAddr(key); err == nil {
		kind = "ip"
	}
	ctx, cancel := context.WithTimeout(ctx, r.AskTime(answerWait))
	defer cancel()
	round := r.uses()
	p, err := r.cfg.Server().Lookup(ctx, kind, key)
	if err != nil {
		if notFound(err) {
			r.whileIn(s, func(*network.Network) { dir.SetMissing(key) })
			return nil, r.unknown(key, s)
		}
		if k != nil && !k.Stranger {
			return k, nil // as it was
		}
		return nil, unavailable("look up "+key, err)
	}
	k, err = directory.KnownOf(*p, s.VerifyListed)
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

// notFound reports whether the server does not know what it was asked for.
func notFound(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// AskTime returns how long a question to the server may take: least where answers come
// at once, and four round trips more, which a connection and a question need, where
// they do not.
func (r *Resolver) AskTime(least time.Duration) time.Duration {
	return least + 4*min(r.cfg.Trip(), tripMost)
}

// uses notes that names are looked up here, and returns the round that the answer
// belongs to.
func (r *Resolver) uses() (round uint64) {
	round, tell := r.cfg.Directory.Looks()
	if tell {
		r.cfg.Tell()
	}
	return round
}

// NamesAre takes a relay's word for which version of all names is the current one. A
// node that looks names up fetches nothing for that: it looks up again what is asked
// for from now on, and says that it remembers no names until then, so that a device on
// which nobody uses names is not woken for them.
func (r *Resolver) NamesAre(v api.Version) {
	if !r.cfg.Directory.NamesAre(v) {
		return
	}
	r.cfg.Tell()
	r.cfg.NamesChanged()
}

// whileIn runs f, with what is held now, if the node is still in the network that s is
// of: it may have left it, and joined another one, while the server was asked. f is not
// to wait. It reports whether f was run.
func (r *Resolver) whileIn(s *network.Network, f func(now *network.Network)) bool {
	return r.cfg.Held.While(s, func(now *network.Network) *network.Network {
		f(now)
		return nil
	})
}

// learn notes a node that the server told of in the network that s is of. It reports
// false when that counts no more: this node has left the network, or the other one was
// revoked.
func (r *Resolver) learn(s *network.Network, k *directory.Known) bool {
	revoked := false
	in := r.whileIn(s, func(now *network.Network) {
		if revoked = now.CRL.Revoked(k.Node.Serial); !revoked {
			r.cfg.Directory.Learn(k)
		}
	})
	return in && !revoked
}

// Name is what people call a node, as far as that is known.
func (r *Resolver) Name(id cert.NodeID) string {
	if k := r.cfg.Directory.Get(id); k != nil {
		return k.Node.Name
	}
	return "node " + id.String()[:8]
}
