package overlay

import (
	"context"
	"errors"

	"weft/overlay/internal/gather"
	"weft/overlay/netcheck"
)

// Gather gathers candidates over the node's own sockets, for weft netcheck. It implements
// netcheck.Gatherer.
func (n *Node) Gather(ctx context.Context) (*gather.Snapshot, error) {
	r := n.active.Load()
	if r == nil {
		return nil, errors.New("this node has no UDP socket now")
	}
	return r.peers.Gather(ctx)
}

var _ netcheck.Gatherer = (*Node)(nil)
