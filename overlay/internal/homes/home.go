// Package homes holds a node's relay connections: one to its home relay, and guest
// connections to the home relays of its peers. It passes on what they receive, knows the
// connection of each introduction and each tunnel, and finds the relay of a peer.
//
//   - home.go     the home connection
//   - guests.go   guest connections
//   - sessions.go which connection an introduction or a tunnel uses
//   - inbound.go  what relay connections receive
//   - finder.go   at which relay is a peer?
//
// Everything that a relay says is a hint, which at most starts a fetch or an
// introduction. The functions in Events decide what a hint causes.
package homes

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/relay"
)

// flushWait bounds how long a shutdown waits until the last bye is sent.
const flushWait = 300 * time.Millisecond

// RelayConn is a relay connection: the home connection or a guest. Any goroutine may use it;
// its methods do not block.
type RelayConn interface {
	Sender() bind.Sender
	SendSession(to cert.NodeID, frame []byte) error
	// RequestLane asks the relay for a lane with a peer.
	RequestLane(peer cert.NodeID) error
	// Relay returns the relay at the other end, as configured.
	Relay() api.Relay
}

// Config configures New.
type Config struct {
	Self cert.NodeID
	// Dial makes a link to a URL of the relay with this id (relay.DialWith).
	Dial func(ctx context.Context, id, url string) (net.Conn, error)
	// Relays returns the relays that there are now.
	Relays func() []api.Relay
	// LastHome is the ID of the last home relay, "" when there was none.
	LastHome string
	// Idle is how long a guest connection lives without a tunnel through it; 0 means 2
	// minutes.
	Idle time.Duration
	// Bind takes the data plane's messages that arrive.
	Bind *bind.Bind
	// IsServer reports whether a certificate chain belongs to a coordination server,
	// which has a relay of its own, and not to a relay that runs alone.
	IsServer func(chain []*x509.Certificate) bool
	// Versions returns the versions that this node has, for the relay. It must not call
	// Home.
	Versions func() api.Versions
	// Active reports whether there are tunnels. If so, Home reconnects at once.
	Active func() bool
	// State is called at each change of the home connection, from the goroutine of
	// Home.Run. It must not block.
	State func(relay.State)
	// GuestEnded is called when a guest connection has ended, for whatever reason, from its
	// goroutine.
	GuestEnded func(*Guest)
	Events     Events
	Log        *slog.Logger
}

// Home is the node's home connection.
type Home struct{ *relay.Home }

// New makes both. Home.Run makes the home connection, Guests.Connect the guest
// connections.
func New(cfg Config) (*Home, *Guests) {
	if cfg.Idle == 0 {
		cfg.Idle = guestIdle
	}
	h := &Home{}
	g := newGuests(h, cfg.Dial, cfg.Idle, cfg.Log)
	g.handler = func(c *Guest) relay.Handler {
		return &guestInbound{inbound{events: cfg.Events, guests: g, conn: c, source: cfg.Bind.NewSource()}, cfg.Bind}
	}
	g.guestEnded = cfg.GuestEnded
	h.Home = relay.NewHome(relay.HomeConfig{
		Self: cfg.Self, Dial: cfg.Dial, Relays: cfg.Relays, LastHome: cfg.LastHome,
		Handler: func(c *relay.Conn) relay.Handler {
			return &inbound{events: cfg.Events, guests: g, conn: h, source: cfg.Bind.NewSource(), server: cfg.IsServer(c.Certificates())}
		},
		Trying: g.homeMoves, Versions: cfg.Versions, Active: cfg.Active, OnState: cfg.State, Log: cfg.Log,
	})
	return h, g
}

// Flush waits until the relay has received what was sent last, by the answer to a ping,
// for at most flushWait.
func (h *Home) Flush() {
	c := h.Current()
	if c == nil || !h.Connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	c.Ping(ctx)
}

// Connected reports whether the relay has welcomed this node.
func (h *Home) Connected() bool { return h.State().Online }

// Trip returns the round trip to the relay, 0 while there is no connection.
func (h *Home) Trip() time.Duration {
	if c := h.Current(); c != nil {
		return c.Trip()
	}
	return 0
}

// Relay implements RelayConn.
func (h *Home) Relay() api.Relay { return h.State().Relay }

// Sender implements RelayConn.
func (h *Home) Sender() bind.Sender { return h.Home }

// SendSession implements RelayConn.
func (h *Home) SendSession(to cert.NodeID, frame []byte) error {
	err := h.Home.SendSession(to, frame)
	if errors.Is(err, relay.ErrOffline) {
		h.Wake() // it may be in a long wait
	}
	return err
}
