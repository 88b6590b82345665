package lookup

import (
	"context"

	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/homes"
)

// Where asks the server where a peer is; the zero Whereabouts when that is not known.
func (r *Resolver) Where(ctx context.Context, id cert.NodeID) homes.Whereabouts {
	s, ok := r.cfg.Held.Get()
	if !ok {
		return homes.Whereabouts{}
	}
	p, err := r.cfg.Server().Lookup(ctx, "id", id.String())
	if err != nil {
		if !notFound(err) {
			r.cfg.Log.Debug("ask where a peer is", "peer", id, "err", err)
		}
		return homes.Whereabouts{}
	}
	k, err := directory.KnownOf(*p, s.VerifyListed)
	if err != nil || k.Node.ID != id || !r.learn(s, k) {
		return homes.Whereabouts{}
	}
	return homes.Whereabouts{Online: p.Online, Relay: p.Relay, Unknown: p.Unknown && !p.Online}
}
