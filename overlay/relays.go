package overlay

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/state"
	"weft/overlay/internal/tunnels"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
	"weft/overlay/status"
)

// What comes in over relay connections (package homes), and to whom it goes.

// makeHomes makes the connections of a running half to relays.
func (n *Node) makeHomes(r *running, self cert.NodeID) (*homes.Home, *homes.Guests) {
	p := func() *tunnels.Table { return r.peers } // made after this, and so is r.follower
	versions := func() api.Versions { return follow.Versions(&n.held, n.dir) }
	h := &homeState{
		health: &n.health, last: n.state.LoadHome(), versions: versions, namesVersion: n.lookup.SetNamesVersion,
		moved: func(relayID string) {
			n.disk.setHome(relayID)
			n.keeper.Mark(state.HomeFile)
		},
		unknown:     func() { r.follower.Unknown() },
		announced:   func(v api.Versions) { r.follower.Announce(v) },
		nudged:      func(v api.Versions, spread time.Duration, c *api.Changes) { r.follower.Nudge(v, spread, c) },
		reconnected: func() { p().Reconnected() },
		lost:        func() { p().HomeMoved() },
		current:     func() { p().UpToDate() },
	}
	return homes.New(homes.Config{
		Self: self, Dial: relay.DialWith(r.dialer), Relays: n.held.Relays, LastHome: h.last, Idle: n.tuning.guestIdle, Bind: n.plane.bind,
		IsServer: n.held.IsServer, Versions: versions, Log: n.log,
		Active:     func() bool { return len(p().Views()) > 0 },
		State:      h.changed,
		GuestEnded: func(c *homes.Guest) { p().GuestLost(c) },
		Events: homes.Events{
			Message:    func(from cert.NodeID, pkt []byte) { p().Early(from, pkt) },
			Session:    func(from cert.NodeID, frame []byte) { p().Session(from, frame) },
			Gone:       func(w homes.RelayConn, id cert.NodeID, why relay.GoneReason) { p().Gone(w, id, why) },
			Lane:       func(w homes.RelayConn, id cert.NodeID, info lane.Info) { p().LaneOpened(w, id, info) },
			LaneGone:   func(w homes.RelayConn, id cert.NodeID) { p().LaneEnded(w, id) },
			LaneRebind: func(w homes.RelayConn, id cert.NodeID) { p().LaneRebind(w, id) },
			Time:       n.times.relay,
			Welcome:    h.welcome,
			Nudge:      h.nudge,
			CRL:        func(der []byte) { r.follower.WantCRL(der) },
			Replaced:   h.replaced,
		},
	})
}

// homeState follows what the home connection does and what its relay says of the node
// and of the server, and tells those who go by it. The functions do not wait.
type homeState struct {
	health   *status.Warnings
	versions func() api.Versions // what this node holds

	unknown      func()               // the relay does not know this node
	reconnected  func()               // it has let the node in
	lost         func()               // it is another relay than the last one
	moved        func(relayID string) // the same, or it is the first
	namesVersion func(api.Version)    // the version of all names that is current
	announced    func(api.Versions)   // what is current, as the node was let in
	current      func()               // this node holds the revocation list that is current
	// nudged is hear while the node is connected: spread is how long nodes may take to
	// ask, changes what came along, nil unless it is of the server itself.
	nudged func(v api.Versions, spread time.Duration, changes *api.Changes)

	last string      // Relay.ID of the last welcome; changed's
	away atomic.Bool // the relay said that the server is
}

// plainError is an error for people: Go's name for the end of a stream is none.
func plainError(err error) string {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return "the connection was closed"
	}
	return err.Error()
}

// changed is told of each change of the home connection, by one goroutine at a time.
func (h *homeState) changed(st relay.State) {
	if st.Online || st.Err == nil {
		h.health.Clear(status.CodeRelayOffline)
	} else {
		h.health.Set(status.CodeRelayOffline, "not connected to the relay: "+plainError(st.Err)+"; trying again by itself")
	}
	if refused := (*relay.RefusedError)(nil); errors.As(st.Err, &refused) && refused.Reason == relay.RefusedUnknown {
		h.unknown()
	}
	if st.Online {
		h.reconnected()
		if id := st.Relay.ID; id != "" && id != h.last {
			if h.last != "" {
				h.lost()
			}
			h.last = id
			h.moved(id)
		}
	}
	h.health.Notify()
}

// serverAway takes the relay's word for whether it can reach the coordination
// server: a node that has nothing to fetch would not notice.
func (h *homeState) serverAway(away bool) {
	if was := h.away.Swap(away); away {
		h.health.Set(status.CodeServerOffline, "the coordination server does not answer the relay; known devices stay reachable")
	} else if was {
		h.health.Clear(status.CodeServerOffline)
	}
}

func (h *homeState) welcome(w relay.Welcome) {
	h.serverAway(w.Away)
	h.namesVersion(w.Versions.Names)
	h.announced(w.Versions)
	if h.versions().CRL >= w.Versions.CRL {
		h.current()
	}
}

// nudge takes what the relay says is current. server says that the relay is the
// server's own.
func (h *homeState) nudge(nd relay.Nudge, server bool) {
	h.serverAway(nd.Away)
	h.namesVersion(nd.Versions.Names)
	var changes *api.Changes
	if server {
		changes = nd.Changes
	}
	h.nudged(nd.Versions, time.Duration(nd.SpreadMS)*time.Millisecond, changes)
}

// replaced is told when the relay gave this node's place to another connection.
func (h *homeState) replaced() {
	h.health.Set(status.CodeCloned, "another machine uses this device's identity: was its state directory copied? Remove it on one of them and join that one anew")
}
