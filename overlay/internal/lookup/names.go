package lookup

import (
	"sync"

	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// Names makes the snapshot of all names from which the resolver answers, and caches it
// until something changes. Any goroutine may use it.
type Names struct {
	r         *Resolver
	connected func() bool

	mu sync.Mutex
	// mu guards the following: the snapshot, nil at first, and what it was made of.
	names   *status.Names
	network *network.Network
	changes uint64
	online  bool
}

// NewNames makes a Names from r. connected reports whether the node is connected to a
// relay, which reports changes.
func (r *Resolver) NewNames(connected func() bool) *Names {
	return &Names{r: r, connected: connected}
}

// Snapshot returns the current names: the same value as before if nothing has changed.
func (n *Names) Snapshot() *status.Names {
	cfg := &n.r.cfg
	s, ok := cfg.Held.Get()
	online := n.connected() && !cfg.Health.Has(status.CodeServerOffline)
	n.mu.Lock()
	defer n.mu.Unlock()
	changes := cfg.Directory.Changes()
	f := status.NameFacts{Serial: 1, NoIPv4: cfg.Health.Has(status.CodeIPv4Blocked)}
	if n.names != nil {
		if n.network == s && n.changes == changes && n.online == online && n.names.NoIPv4 == f.NoIPv4 {
			return n.names
		}
		f.Serial = n.names.Serial + 1
	}
	if ok {
		f.Self, f.LookedUp, f.Suffix = s.Self, cfg.Directory.Round(), s.Config.Suffix
		f.IPv4, f.IPv6 = s.Ranges()
		f.Complete = online && s.ReadsDirectory() && !cfg.Directory.Version().IsZero()
		f.Known = cfg.Directory.All()
	}
	n.names, n.network, n.changes, n.online = status.NamesOf(f), s, changes, online
	return n.names
}
