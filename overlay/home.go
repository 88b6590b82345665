package overlay

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/state"
	"weft/overlay/link"
	"weft/overlay/relay"
	"weft/overlay/status"
)

// flushWait bounds how long going down waits for the last bye to leave.
const flushWait = 300 * time.Millisecond

// home is the node's one connection to its relay, and where everything that
// comes in over it goes. Everything a relay says is a hint: at most it starts
// a fetch or an introduction.
type home struct {
	n    *Node
	r    *running
	home *relay.Home

	last string      // Relay.ID of the last welcome; stateChanged's
	away atomic.Bool // the relay said that the server is
}

func newHome(n *Node, r *running, dialer *link.Dialer, self cert.NodeID) *home {
	h := &home{n: n, r: r, last: n.state.LoadHome()}
	h.home = relay.NewHome(relay.HomeConfig{
		Self: self,
		Dial: dialRelay(dialer),
		Relays: func() []api.Relay {
			if s, ok := n.held.Get(); ok {
				return s.Config.Relays
			}
			return nil
		},
		Sticky: h.last,
		Handler: func(c *relay.Conn) relay.Handler {
			return &inbound{home: h, via: h, source: n.bind.NewSource(), server: n.isServer(c.Certificates())}
		},
		Trying:   func(rl api.Relay) { r.peers.guests.homeMoves(rl) },
		Versions: n.versions,
		Active:   func() bool { return len(*r.peers.view.Load()) > 0 },
		OnState:  h.stateChanged,
		Log:      n.log,
	})
	return h
}

// run keeps the connection until ctx ends.
func (h *home) run(ctx context.Context) { h.home.Run(ctx) }

// inWords is an error for people: Go's name for the end of a stream is none.
func inWords(err error) string {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return "the connection was closed"
	}
	return err.Error()
}

func (h *home) stateChanged(st relay.State) {
	if st.Online || st.Err == nil {
		h.n.health.Clear(status.CodeRelayOffline)
	} else {
		h.n.health.Set(status.CodeRelayOffline, "not connected to the relay: "+inWords(st.Err)+"; trying again by itself")
	}
	if refused := (*relay.RefusedError)(nil); errors.As(st.Err, &refused) && refused.Reason == relay.RefusedUnknown {
		h.r.control.IsStrange()
	}
	if st.Online {
		h.r.peers.reconnected()
		if st.Relay.ID != "" && st.Relay.ID != h.last {
			if h.last != "" {
				h.r.peers.homeMoved()
			}
			h.last = st.Relay.ID
			at := h.last
			h.n.homeAt.Store(&at)
			h.n.keeper.Keep(state.HomeFile)
		}
	}
	h.n.health.Notify()
}

// flush gives what was sent last a moment to leave: a ping is answered after
// it.
func (h *home) flush() {
	c := h.home.Current()
	if c == nil || !h.connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	c.Ping(ctx)
}

// connected reports whether the relay has welcomed this node.
func (h *home) connected() bool { return h.home.State().Online }

// serverAway takes the relay's word for whether it can reach the coordination
// server: a node that has nothing to fetch would not notice.
func (h *home) serverAway(away bool) {
	if was := h.away.Swap(away); away {
		h.n.health.Set(status.CodeServerOffline, "the coordination server does not answer the relay; known devices stay reachable")
	} else if was {
		h.n.health.Clear(status.CodeServerOffline)
	}
}

// relay is the home relay, as configured.
func (h *home) relay() api.Relay { return h.home.State().Relay }

// sender and SendSession make it a way.
func (h *home) sender() bind.Sender { return h.home }
func (h *home) SendSession(to cert.NodeID, frame []byte) error {
	err := h.home.SendSession(to, frame)
	if errors.Is(err, relay.ErrOffline) {
		h.home.Wake() // it may be patient by now
	}
	return err
}

// inbound hands on what one relay connection brings. Its methods run in the
// goroutine that reads the connection, so none of them waits.
type inbound struct {
	*home
	via    way // this connection
	source *bind.Source
	server bool // the relay is the coordination server itself
}

// isServer reports whether a chain is of a coordination server, which has a
// relay in it, and not of a relay that runs alone.
func (n *Node) isServer(chain []*x509.Certificate) bool {
	s, ok := n.held.Get()
	return ok && s.ServerRoots.VerifyServer(chain, cert.RoleServer) == nil
}

func (in *inbound) Packet(from cert.NodeID, payload []byte) {
	in.r.peers.early(from, payload)
	in.source.Deliver(from, payload)
}
func (in *inbound) Drained() { in.source.Flush() }
func (in *inbound) Session(from cert.NodeID, frame []byte) {
	in.r.peers.guests.heard(in.via, from, frame)
	in.r.peers.intro.Deliver(from, frame)
}
func (in *inbound) Gone(peer cert.NodeID, reason relay.GoneReason) {
	in.r.peers.goneHint(in.via, peer, reason)
}

// Busy needs no answer: TCP inside the tunnel slows down by itself.
func (in *inbound) Busy(cert.NodeID) {}

func (in *inbound) Welcome(w relay.Welcome) {
	in.n.relayTime(w.ServerTime, in.server)
	in.serverAway(w.Away)
	in.n.namesAre(w.Versions.Names)
	in.r.control.Hear(w.Versions)
	if in.n.versions().CRL >= w.Versions.CRL {
		in.r.peers.upToDate()
	}
}

func (in *inbound) Nudge(nd relay.Nudge) {
	in.serverAway(nd.Away)
	in.n.namesAre(nd.Versions.Names)
	var changes *api.Changes
	if in.server {
		changes = nd.Changes
	}
	in.r.control.Nudge(nd.Versions, time.Duration(nd.SpreadMS)*time.Millisecond, changes)
}

func (in *inbound) CRL(der []byte) { in.r.control.WantCRL(bytes.Clone(der)) }

func (in *inbound) Replaced() {
	in.n.health.Set(status.CodeCloned, "another machine uses this device's identity: was its state directory copied? Remove it on one of them and join that one anew")
}

func (in *inbound) Draining(relay.Draining) {}
