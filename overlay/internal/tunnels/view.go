package tunnels

import (
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/path"
	"weft/overlay/status"
)

// View is what others may know of a tunnel: a copy. The zero View is of none.
type View struct {
	made time.Time
	gone time.Time
	rtt  time.Duration // of the last ping through the tunnel, 0 before
	via  string        // name of the relay, "" while it is looked for
	path path.Path
	trip *atomic.Int64 // of path, in nanoseconds; nil without an agent
}

// Tunnel is what the status says of it, but for what only the data plane knows.
func (v View) Tunnel() *status.Tunnel {
	t := &status.Tunnel{Made: v.made, Gone: v.gone, Relay: v.via, Pinged: v.rtt}
	if v.trip != nil {
		t.Path, t.PathRTT = &v.path, time.Duration(v.trip.Load())
	}
	return t
}

// Views returns the tunnels that there are. The map is not to be changed.
func (t *Table) Views() map[cert.NodeID]View { return *t.view.Load() }

// ViaOf returns the name of the relay through which a peer is reached, "" for none.
func (t *Table) ViaOf(id cert.NodeID) string { return t.Views()[id].via }

// publish makes a fresh copy of the table for readers.
func (t *Table) publish() {
	v := make(map[cert.NodeID]View, len(t.table))
	for id, q := range t.table {
		if q.installed() {
			shown, trip := t.paths.Shown(id)
			v[id] = View{made: q.made, gone: q.gone, rtt: q.rtt, via: q.relayName(), path: shown, trip: trip}
		}
	}
	t.view.Store(&v)
}

func (q *peer) relayName() string {
	if q.way == nil {
		return ""
	}
	return q.way.Relay().Name
}
