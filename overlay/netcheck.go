package overlay

import (
	"context"
	"errors"

	"weft/overlay/internal/gather"
	"weft/overlay/netcheck"
)

// Gather looks where this node can be reached, over its own sockets, for weft
// netcheck. It implements netcheck.Gatherer.
func (n *Node) Gather(ctx context.Context) (*gather.Snapshot, error) {
	r := n.active.Load()
	if r == nil || r.peers.paths.gatherer == nil {
		return nil, errors.New("this node has no UDP socket now")
	}
	r.peers.paths.servers()
	return r.peers.paths.gatherer.Check(ctx)
}

var _ netcheck.Gatherer = (*Node)(nil)
