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

// What relay connections receive (package homes), and where it goes.

// makeHomes makes the relay connections of a running half.
func (n *Node) makeHomes(r *running, self cert.NodeID) (*homes.Home, *homes.Guests) {
	p := func() *tunnels.Table { return r.peers } // both it and r.follower are made later
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

// homeState follows the state of the home connection and what its relay reports of the
// node and the server, and calls those that depend on it. The functions do not block.
type homeState struct {
	health   *status.Warnings
	versions func() api.Versions // the versions that this node has

	unknown      func()               // the relay does not know this node
	reconnected  func()               // the relay has accepted the node
	lost         func()               // the home is another relay than the last one
	moved        func(relayID string) // the same, or the first home
	namesVersion func(api.Version)    // the current version of all names
	announced    func(api.Versions)   // current versions, from the welcome
	current      func()               // this node has the current revocation list
	// nudged gets the current versions of a nudge: spread is how long nodes may take to
	// fetch, changes the change of the directory in it, nil unless it is from the server
	// itself.
	nudged func(v api.Versions, spread time.Duration, changes *api.Changes)

	last string      // Relay.ID of the last welcome; owned by changed
	away atomic.Bool // the relay has reported that the server is unreachable
}

// plainError returns the text of an error for users, without Go's "EOF".
func plainError(err error) string {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return "the connection was closed"
	}
	return err.Error()
}

// changed is called at each change of the home connection, by one goroutine at a time.
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

// serverAway takes the relay's report of whether it can reach the coordination server: a
// node that has nothing to fetch would not notice.
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

// nudge takes the current versions from a nudge. server says that the relay is the
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

// replaced is called when another connection has replaced this node's at the relay.
func (h *homeState) replaced() {
	h.health.Set(status.CodeCloned, "another machine uses this device's identity; its state directory was probably copied. Remove the directory on one of the machines and join that one anew")
}
