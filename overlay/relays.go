package overlay

import (
	"crypto/x509"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/state"
	"weft/overlay/internal/tunnels"
	"weft/overlay/link"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
	"weft/overlay/status"
)

// What comes in over relay connections (package homes), and to whom it goes.

// makeHomes makes the connections of a running half to relays.
func (n *Node) makeHomes(r *running, dialer *link.Dialer, self cert.NodeID) (*homes.Home, *homes.Guests) {
	p := func() *tunnels.Table { return r.peers } // made after this
	h := &homeState{n: n, r: r, last: n.state.LoadHome()}
	return homes.New(homes.Config{
		Self: self, Dial: relay.DialWith(dialer), Relays: n.held.Relays, Sticky: h.last, Idle: n.guestIdle, Bind: n.bind,
		IsServer: n.isServer, Versions: n.versions, Log: n.log,
		Active: func() bool { return len(p().Views()) > 0 },
		State:  h.changed,
		Lost:   func(c *homes.Guest) { p().GuestLost(c) },
		Events: homes.Events{
			Message:   func(from cert.NodeID, pkt []byte) { p().Early(from, pkt) },
			Session:   func(from cert.NodeID, frame []byte) { p().Session(from, frame) },
			Gone:      func(w homes.Way, id cert.NodeID, why relay.GoneReason) { p().Gone(w, id, why) },
			Lane:      func(w homes.Way, id cert.NodeID, info lane.Info) { p().LaneCame(w, id, info) },
			LaneGone:  func(w homes.Way, id cert.NodeID) { p().LaneWent(w, id) },
			LaneMoved: func(w homes.Way, id cert.NodeID) { p().LaneMoved(w, id) },
			Time:      n.relayTime,
			Welcome:   h.welcome,
			Nudge:     h.nudge,
			CRL:       func(der []byte) { r.follower.WantCRL(der) },
			Replaced: func() {
				n.health.Set(status.CodeCloned, "another machine uses this device's identity: was its state directory copied? Remove it on one of them and join that one anew")
			},
		},
	})
}

// isServer reports whether a chain is of a coordination server, which has a
// relay in it, and not of a relay that runs alone.
func (n *Node) isServer(chain []*x509.Certificate) bool {
	s, ok := n.held.Get()
	return ok && s.ServerRoots.VerifyServer(chain, cert.RoleServer) == nil
}

// homeState follows what the home connection does and what its relay says of the node
// and of the server.
type homeState struct {
	n    *Node
	r    *running
	last string      // Relay.ID of the last welcome; changed's
	away atomic.Bool // the relay said that the server is
}

// inWords is an error for people: Go's name for the end of a stream is none.
func inWords(err error) string {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return "the connection was closed"
	}
	return err.Error()
}

func (h *homeState) changed(st relay.State) {
	if st.Online || st.Err == nil {
		h.n.health.Clear(status.CodeRelayOffline)
	} else {
		h.n.health.Set(status.CodeRelayOffline, "not connected to the relay: "+inWords(st.Err)+"; trying again by itself")
	}
	if refused := (*relay.RefusedError)(nil); errors.As(st.Err, &refused) && refused.Reason == relay.RefusedUnknown {
		h.r.follower.IsStrange()
	}
	if st.Online {
		h.r.peers.Reconnected()
		if st.Relay.ID != "" && st.Relay.ID != h.last {
			if h.last != "" {
				h.r.peers.HomeMoved()
			}
			h.last = st.Relay.ID
			h.n.homeAt.Store(&st.Relay.ID)
			h.n.keeper.Keep(state.HomeFile)
		}
	}
	h.n.health.Notify()
}

// serverAway takes the relay's word for whether it can reach the coordination
// server: a node that has nothing to fetch would not notice.
func (h *homeState) serverAway(away bool) {
	if was := h.away.Swap(away); away {
		h.n.health.Set(status.CodeServerOffline, "the coordination server does not answer the relay; known devices stay reachable")
	} else if was {
		h.n.health.Clear(status.CodeServerOffline)
	}
}

func (h *homeState) welcome(w relay.Welcome) {
	h.serverAway(w.Away)
	h.n.namesAre(w.Versions.Names)
	h.r.follower.Hear(w.Versions)
	if h.n.versions().CRL >= w.Versions.CRL {
		h.r.peers.UpToDate()
	}
}

func (h *homeState) nudge(nd relay.Nudge, server bool) {
	h.serverAway(nd.Away)
	h.n.namesAre(nd.Versions.Names)
	var changes *api.Changes
	if server {
		changes = nd.Changes
	}
	h.r.follower.Nudge(nd.Versions, time.Duration(nd.SpreadMS)*time.Millisecond, changes)
}
