package overlay

import (
	"context"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/lookup"
	"weft/overlay/status"
)

// Who is that, where, and online? Package lookup answers; here is what it is given, and
// what users of a node ask.

// newLookup makes what answers, for as long as the Node lives: what is held of the network
// is asked about while the node is down, too.
func (n *Node) newLookup() *lookup.Resolver {
	return lookup.New(lookup.Config{
		Held: &n.held, Directory: n.dir, Health: &n.health, Log: n.log,
		Now:    n.clock.Now,
		Server: func() lookup.Server { return n.client() },
		Trip: func() time.Duration {
			if r := n.active.Load(); r != nil {
				return r.home.Trip()
			}
			return 0
		},
		Tell: func() {
			if r := n.active.Load(); r != nil {
				r.home.SendVersions()
			}
		},
		NamesChanged: n.cfg.NamesChanged,
		Keep:         n.keeper.Mark,
	})
}

// Resolve implements localapi.Node.
func (n *Node) Resolve(ctx context.Context, name string) (status.Peer, error) {
	s, ok := n.held.Get()
	if !ok {
		return status.Peer{}, lookup.ErrNotJoined
	}
	k, err := n.lookup.Resolve(ctx, s, name)
	if err != nil {
		return status.Peer{}, err
	}
	return status.PeerOf(k.Node, k.Online, k.Node.ID == s.Self.ID), nil
}

// Look implements localapi.Node.
func (n *Node) Look(ctx context.Context, name string) (status.Status, error) {
	var also cert.NodeID
	if name != "" {
		s, ok := n.held.Get()
		if !ok {
			return status.Status{}, lookup.ErrNotJoined
		}
		k, err := n.lookup.Resolve(ctx, s, name)
		if err != nil {
			return status.Status{}, err
		}
		also = k.Node.ID
	}
	if r := n.active.Load(); r != nil {
		r.presence.Ask(ctx, also)
	}
	return n.statusOf(also), nil
}

// Names implements localapi.Node.
func (n *Node) Names() *status.Names { return n.names.Snapshot() }

// DNS returns what the network's owner decided about names, nil while there is
// no configuration. It is not to be changed.
func (n *Node) DNS() *api.DNS {
	s, ok := n.held.Get()
	if !ok {
		return nil
	}
	return &s.Config.DNS
}
