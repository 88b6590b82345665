package tunnels

import (
	"context"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/gather"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/relay/lane"
)

// What package paths, which finds tunnels better ways than the relay, is told of them,
// and what others have to say to it.

// sessionWith and wayTo are what a peer has now; nil for none. pathChanged is told that
// its traffic goes another way.
func (t *Table) sessionWith(id cert.NodeID) *intro.Session {
	if q := t.table[id]; q != nil {
		return q.session
	}
	return nil
}

func (t *Table) wayTo(id cert.NodeID) homes.Way {
	if q := t.table[id]; q != nil {
		return q.way
	}
	return nil
}

func (t *Table) pathChanged() {
	t.publish()
	t.cfg.Health.Notify()
}

// Gather looks where this node can be reached, over its own sockets, and waits for
// that. It is an error where there are none.
func (t *Table) Gather(ctx context.Context) (*gather.Snapshot, error) { return t.paths.Gather(ctx) }

// AskServers has other STUN servers asked when a path is next wanted.
func (t *Table) AskServers(stun []string) { t.paths.AskServers(stun) }

// Probed, STUN and LaneSaid take datagrams that look like probes, STUN and a relay's
// word about a lane, on the goroutine that reads the socket. They keep no part of pkt.
func (t *Table) Probed(pkt []byte, from bind.Way) { t.paths.Probed(pkt, from) }

// STUN is described at Probed.
func (t *Table) STUN(pkt []byte, from bind.Way) { t.paths.STUN(pkt, from) }

// LaneSaid is described at Probed.
func (t *Table) LaneSaid(pkt []byte, from bind.Way) { t.paths.LaneSaid(pkt, from) }

// Trouble is told why messages could not be sent by the way that a tunnel has now.
func (t *Table) Trouble(ep *bind.Endpoint, w bind.Way, err error) { t.paths.Trouble(ep, w, err) }

// LaneCame is told by a relay connection that there is a lane, LaneWent that there is
// none, or no more, and LaneMoved that the relay gets our datagrams from another address
// than the one that is bound.
func (t *Table) LaneCame(w homes.Way, id cert.NodeID, info lane.Info) { t.paths.LaneCame(w, id, info) }

// LaneWent is described at LaneCame.
func (t *Table) LaneWent(w homes.Way, id cert.NodeID) { t.paths.LaneWent(w, id) }

// LaneMoved is described at LaneCame.
func (t *Table) LaneMoved(w homes.Way, id cert.NodeID) { t.paths.LaneMoved(w, id) }
