package overlay

import (
	"sync"

	"weft/overlay/api"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// nameCache keeps the snapshot of names until something changes.
type nameCache struct {
	mu sync.Mutex
	// mu guards the following.
	names   *status.Names
	network *network.Network
	changes uint64
	online  bool
}

// Names implements localapi.Node.
func (n *Node) Names() *status.Names {
	s, ok := n.held.Get()
	r := n.active.Load()
	online := r != nil && r.home.Connected() && !n.health.Has(status.CodeServerOffline)
	c := &n.names
	c.mu.Lock()
	defer c.mu.Unlock()
	changes := n.dir.Changes()
	f := status.NameFacts{Serial: 1, NoIPv4: n.health.Has(status.CodeIPv4Blocked)}
	if c.names != nil {
		if c.network == s && c.changes == changes && c.online == online && c.names.NoIPv4 == f.NoIPv4 {
			return c.names
		}
		f.Serial = c.names.Serial + 1
	}
	if ok {
		f.Self, f.LookedUp, f.Suffix = s.Self, n.dir.Round(), s.Config.Suffix
		f.IPv4, f.IPv6 = s.Ranges()
		f.Complete = online && s.ReadsDirectory() && !n.dir.Version().IsZero()
		f.Known = n.dir.All()
	}
	c.names, c.network, c.changes, c.online = status.NamesOf(f), s, changes, online
	return c.names
}

// versions is what this node holds, as told to the relay.
func (n *Node) versions() api.Versions { return follow.Versions(&n.held, n.dir) }

// tellVersions tells the relay what this node holds now.
func (n *Node) tellVersions() {
	if r := n.active.Load(); r != nil {
		r.home.SendVersions()
	}
}

// uses notes that names are looked up here, and returns the round that the
// answer belongs to.
func (n *Node) uses() (round uint64) {
	round, tell := n.dir.Looks()
	if tell {
		n.tellVersions()
	}
	return round
}

// namesAre takes a relay's word for which version of all names is the current
// one. A node that looks names up fetches nothing for that: it looks up again
// what is asked for from now on, and says that it remembers no names until then,
// so that a device on which nobody uses names is not woken for them.
func (n *Node) namesAre(v api.Version) {
	if !n.dir.NamesAre(v) {
		return
	}
	n.tellVersions()
	n.cfg.NamesChanged()
}
