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

// Between package paths, which finds better paths than the relay connection, and others.

// sessionWith and connTo return the session with a peer and its relay connection; nil for
// none. pathChanged is called when the selected path of a peer has changed.
func (t *Table) sessionWith(id cert.NodeID) *intro.Session {
	if q := t.table[id]; q != nil {
		return q.session
	}
	return nil
}

func (t *Table) connTo(id cert.NodeID) homes.RelayConn {
	if q := t.table[id]; q != nil {
		return q.conn
	}
	return nil
}

func (t *Table) pathChanged() {
	t.publish()
	t.cfg.Health.Notify()
}

// Gather gathers candidates over the node's own sockets, and waits for that. It is an
// error if there are no sockets.
func (t *Table) Gather(ctx context.Context) (*gather.Snapshot, error) { return t.paths.Gather(ctx) }

// AskServers sets the STUN servers to ask when a path is next wanted.
func (t *Table) AskServers(stun []string) { t.paths.AskServers(stun) }

// Probed, STUN and LaneControl take datagrams that look like probes, STUN and control
// datagrams of a lane, on the goroutine that reads the socket. They do not keep pkt.
func (t *Table) Probed(pkt []byte, from bind.Path) { t.paths.Probed(pkt, from) }

// STUN is described at Probed.
func (t *Table) STUN(pkt []byte, from bind.Path) { t.paths.STUN(pkt, from) }

// LaneControl is described at Probed.
func (t *Table) LaneControl(pkt []byte, from bind.Path) { t.paths.LaneControl(pkt, from) }

// SendFailed is called with the error of sending on a tunnel's selected path.
func (t *Table) SendFailed(ep *bind.Endpoint, w bind.Path, err error) { t.paths.SendFailed(ep, w, err) }

// A relay connection calls LaneOpened when there is a lane, LaneEnded when there is none
// or it has ended, and LaneRebind when the relay gets our datagrams from another address
// than the bound one.
func (t *Table) LaneOpened(w homes.RelayConn, id cert.NodeID, info lane.Info) {
	t.paths.LaneOpened(w, id, info)
}

// LaneEnded is described at LaneOpened.
func (t *Table) LaneEnded(w homes.RelayConn, id cert.NodeID) { t.paths.LaneEnded(w, id) }

// LaneRebind is described at LaneOpened.
func (t *Table) LaneRebind(w homes.RelayConn, id cert.NodeID) { t.paths.LaneRebind(w, id) }
