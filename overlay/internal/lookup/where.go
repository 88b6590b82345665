package lookup

import (
	"context"

	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/homes"
)

// Where asks the server where a peer is. It returns the zero Presence if that is unknown.
func (r *Resolver) Where(ctx context.Context, id cert.NodeID) homes.Presence {
	s, ok := r.cfg.Held.Get()
	if !ok {
		return homes.Presence{}
	}
	p, err := r.cfg.Server().Lookup(ctx, "id", id.String())
	if err != nil {
		if !notFound(err) {
			r.cfg.Log.Debug("ask where a peer is", "peer", id, "err", err)
		}
		return homes.Presence{}
	}
	k, err := directory.NewEntry(*p, s.VerifyListed)
	if err != nil || k.Node.ID != id || !r.learn(s, k) {
		return homes.Presence{}
	}
	return homes.Presence{Online: p.Online, Relay: p.Relay, Unknown: p.Unknown && !p.Online}
}
