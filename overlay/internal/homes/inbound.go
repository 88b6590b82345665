package homes

import (
	"bytes"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

// Events is what relay connections bring. The functions are called in the goroutine
// that reads the connection, so none of them waits; w is the connection. All are
// required. What is said of this node itself comes from its home only.
type Events struct {
	// Message sees a message of the data plane before Bind gets it. It is borrowed.
	Message func(from cert.NodeID, payload []byte)
	// Session takes a frame of an introduction. It is borrowed.
	Session func(from cert.NodeID, frame []byte)
	// Gone is a hint that a peer is not there.
	Gone func(w Way, peer cert.NodeID, reason relay.GoneReason)
	// Lane, LaneGone and LaneMoved are of lanes with a peer (relay.Handler).
	Lane      func(w Way, peer cert.NodeID, info lane.Info)
	LaneGone  func(w Way, peer cert.NodeID)
	LaneMoved func(w Way, peer cert.NodeID)
	// Time is what a relay says what time it is; server says that the relay is the
	// coordination server itself.
	Time func(t time.Time, server bool)
	// Welcome and Nudge say what is current.
	Welcome func(w relay.Welcome)
	Nudge   func(nd relay.Nudge, server bool)
	// CRL is a list whose signature nobody has checked. The callee keeps it.
	CRL func(der []byte)
	// Replaced says that another machine uses this identity.
	Replaced func()
}

// inbound hands on what one relay connection brings.
type inbound struct {
	events Events
	guests *Guests
	via    Way // this connection
	source *bind.Source
	server bool // the relay is the coordination server itself
}

func (in *inbound) Packet(from cert.NodeID, payload []byte) {
	in.events.Message(from, payload)
	in.source.Deliver(from, payload)
}
func (in *inbound) Drained() { in.source.Flush() }
func (in *inbound) Session(from cert.NodeID, frame []byte) {
	in.guests.heard(in.via, from, frame)
	in.events.Session(from, frame)
}
func (in *inbound) Gone(peer cert.NodeID, reason relay.GoneReason) {
	in.events.Gone(in.via, peer, reason)
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
func (in *inbound) LaneRebind(peer cert.NodeID) { in.events.LaneMoved(in.via, peer) }
func (in *inbound) Lane(peer cert.NodeID, info lane.Info) {
	in.events.Lane(in.via, peer, info)
}
func (in *inbound) LaneGone(peer cert.NodeID, _ relay.LaneReason) {
	in.events.LaneGone(in.via, peer)
}

// guestInbound hands on what a guest connection brings. What the relay says
// about this node itself is for the home to say.
type guestInbound struct {
	inbound
	bind *bind.Bind
}

func (in *guestInbound) Packet(from cert.NodeID, payload []byte) {
	if in.bind.Find(from) == nil {
		in.guests.stray(in.via, from)
	}
	in.inbound.Packet(from, payload)
}

func (in *guestInbound) Welcome(w relay.Welcome) { in.events.Time(w.ServerTime, false) }
func (in *guestInbound) Nudge(relay.Nudge)       {}

// Replaced ends the connection: this node's home is here now, or another guest.
func (in *guestInbound) Replaced() {}

// Draining lets go of the relay; its peers move too.
func (in *guestInbound) Draining(relay.Draining) { in.via.(*Guest).cancel() }
