package tunnels

import (
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/path"
	"weft/overlay/status"
)

// View is a copy of a tunnel's state for others. The zero View means no tunnel.
type View struct {
	made  time.Time
	gone  time.Time
	rtt   time.Duration // of the last ping through the tunnel, 0 before
	relay string        // name of the relay, "" while this node looks for the peer
	path  path.Selection

	suite    intro.Suite
	exchange string
	trip     *atomic.Int64 // round trip of the path in nanoseconds; nil without an agent
}

// Tunnel returns the tunnel for the status, without the data plane's counters.
func (v View) Tunnel() *status.Tunnel {
	t := &status.Tunnel{Made: v.made, Gone: v.gone, Relay: v.relay, Pinged: v.rtt, Suite: string(v.suite), KeyExchange: v.exchange}
	if v.trip != nil {
		t.Path, t.PathRTT = &v.path, time.Duration(v.trip.Load())
	}
	return t
}

// Direct reports whether packets to the peer take a path that does not lead through a relay.
func (v View) Direct() bool { return v.path.Kind == path.Direct }

// Views returns all tunnels. The map must not be changed.
func (t *Table) Views() map[cert.NodeID]View { return *t.view.Load() }

// RelayOf returns the name of the relay through which a peer is reached, "" for none.
func (t *Table) RelayOf(id cert.NodeID) string { return t.Views()[id].relay }

// publish makes a fresh copy of the table for readers.
func (t *Table) publish() {
	v := make(map[cert.NodeID]View, len(t.table))
	for id, q := range t.table {
		if q.installed() {
			shown, trip := t.paths.Shown(id)
			t.cfg.Claims.Used(id, shown.Kind.String())
			t.cfg.Claims.Used(id, string(q.suite))
			v[id] = View{made: q.made, gone: q.gone, rtt: q.rtt, relay: q.relayName(), path: shown, trip: trip, suite: q.suite, exchange: q.exchange}
		}
	}
	t.view.Store(&v)
}

func (q *peer) relayName() string {
	if q.conn == nil {
		return ""
	}
	return q.conn.Relay().Name
}

// claim counts an introduction that has led to a tunnel, if the network's owner wants to
// know.
func (t *Table) claim(s *intro.Session, inbound bool) {
	t.cfg.Claims.Note(s.Peer, inbound)
	shown, _ := t.paths.Shown(s.Peer.ID)
	t.cfg.Claims.Used(s.Peer.ID, shown.Kind.String())
	t.cfg.Claims.Used(s.Peer.ID, string(s.Suite))
}
