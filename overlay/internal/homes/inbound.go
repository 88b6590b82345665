package homes

import (
	"bytes"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

// Events are the callbacks for what relay connections receive. They run on the goroutine
// that reads the connection, so they must not block. w is the connection. All are
// required. What concerns this node itself is taken from the home connection only.
type Events struct {
	// Message is called with a message of the data plane before Bind gets it. payload is
	// valid until it returns.
	Message func(from cert.NodeID, payload []byte)
	// Session is called with an introduction frame. frame is valid until it returns.
	Session func(from cert.NodeID, frame []byte)
	// Gone is a hint that a peer is not connected or does not answer.
	Gone func(w RelayConn, peer cert.NodeID, reason relay.GoneReason)
	// Lane, LaneGone and LaneMoved concern lanes with a peer (relay.Handler).
	Lane       func(w RelayConn, peer cert.NodeID, info lane.Info)
	LaneGone   func(w RelayConn, peer cert.NodeID)
	LaneRebind func(w RelayConn, peer cert.NodeID)
	// Time is called with the time that a relay states; server says that the relay is the
	// coordination server itself.
	Time func(t time.Time, server bool)
	// Welcome and Nudge are called with the current versions.
	Welcome func(w relay.Welcome)
	Nudge   func(nd relay.Nudge, server bool)
	// CRL is called with a revocation list whose signature has not been checked. The
	// callee owns it.
	CRL func(der []byte)
	// Replaced says that another machine uses this identity.
	Replaced func()
}

// inbound passes on what one relay connection receives.
type inbound struct {
	events Events
	guests *Guests
	conn   RelayConn // this connection
	source *bind.Source
	server bool // the relay is the coordination server itself
}

func (in *inbound) Packet(from cert.NodeID, payload []byte) {
	in.events.Message(from, payload)
	in.source.Deliver(from, payload)
}
func (in *inbound) Drained() { in.source.Flush() }
func (in *inbound) Session(from cert.NodeID, frame []byte) {
	in.guests.called(in.conn, from, frame)
	in.events.Session(from, frame)
}
func (in *inbound) Gone(peer cert.NodeID, reason relay.GoneReason) {
	in.events.Gone(in.conn, peer, reason)
}

// Busy needs no answer: TCP inside the tunnel slows down by itself.
func (in *inbound) Busy(cert.NodeID) {}

func (in *inbound) Welcome(w relay.Welcome) {
	in.events.Time(w.ServerTime, in.server)
	in.events.Welcome(w)
}
func (in *inbound) Nudge(nd relay.Nudge)        { in.events.Nudge(nd, in.server) }
func (in *inbound) CRL(der []byte)              { in.events.CRL(bytes.Clone(der)) }
func (in *inbound) Replaced()                   { in.events.Replaced() }
func (in *inbound) Draining(relay.Draining)     {}
func (in *inbound) LaneRebind(peer cert.NodeID) { in.events.LaneRebind(in.conn, peer) }
func (in *inbound) Lane(peer cert.NodeID, info lane.Info) {
	in.events.Lane(in.conn, peer, info)
}
func (in *inbound) LaneGone(peer cert.NodeID, _ relay.LaneReason) {
	in.events.LaneGone(in.conn, peer)
}

// guestInbound passes on what a guest connection receives, except what concerns this node
// itself: only the home connection may say that.
type guestInbound struct {
	inbound
	bind *bind.Bind
}

func (in *guestInbound) Packet(from cert.NodeID, payload []byte) {
	if in.bind.Find(from) == nil {
		in.guests.stray(in.conn, from)
	}
	in.inbound.Packet(from, payload)
}

func (in *guestInbound) Welcome(w relay.Welcome) { in.events.Time(w.ServerTime, false) }
func (in *guestInbound) Nudge(relay.Nudge)       {}

// Replaced does nothing; the connection ends, because this node now has its home
// connection or another guest connection here.
func (in *guestInbound) Replaced() {}

// Draining ends the connection: the peers of this relay move too.
func (in *guestInbound) Draining(relay.Draining) { in.conn.(*Guest).cancel() }
