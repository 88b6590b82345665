package overlay

import (
	"context"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/lookup"
	"weft/overlay/status"
)

// Finding nodes. Package lookup does it; this file configures it and has the methods for
// users of a node.

// newLookup makes the Resolver. It lives as long as the Node, because it answers while
// the node is down, too.
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

// DNS returns the owner's settings for names, nil while there is no configuration. The
// caller must not change it.
func (n *Node) DNS() *api.DNS {
	s, ok := n.held.Get()
	if !ok {
		return nil
	}
	return &s.Config.DNS
}
