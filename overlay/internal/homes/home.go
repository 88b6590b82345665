// Package homes holds a node's connections to relays: the one to its home, and guest
// connections to the homes of its peers. It hands on what they bring, knows over which
// of them each introduction and each tunnel goes, and where a peer may be found.
//
//   - home.go    the home connection
//   - guests.go  the others
//   - inbound.go what comes in
//   - finder.go  at which relay is a peer?
//
// Everything a relay says is a hint: at most it starts a fetch or an introduction. What
// follows from a hint is not decided here: Events are functions.
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

// flushWait bounds how long going down waits for the last bye to leave.
const flushWait = 300 * time.Millisecond

// Way is a relay connection through which peers are reached: the home, or a
// guest. Any goroutine may use it; none of it waits.
type Way interface {
	Sender() bind.Sender
	SendSession(to cert.NodeID, frame []byte) error
	// RequestLane asks the relay for a lane with a peer.
	RequestLane(peer cert.NodeID) error
	// Relay is the relay at its other end, as configured.
	Relay() api.Relay
}

// Config is what Home and Guests are made of.
type Config struct {
	Self cert.NodeID
	// Dial makes a link to a URL of the relay with an id (relay.DialWith).
	Dial func(ctx context.Context, id, url string) (net.Conn, error)
	// Relays returns the relays that there are now.
	Relays func() []api.Relay
	// Sticky is the ID of the last home, "" when there was none.
	Sticky string
	// Idle is how long a guest connection lives without a tunnel through it; 0 is 2
	// minutes.
	Idle time.Duration
	// Bind takes the messages of the data plane that come in.
	Bind *bind.Bind
	// IsServer reports whether a chain is of a coordination server, which has a relay
	// in it, and not of a relay that runs alone.
	IsServer func(chain []*x509.Certificate) bool
	// Versions returns what this node holds, for the relay. It is not to call Home.
	Versions func() api.Versions
	// Active reports whether there are tunnels: then a lost connection is made again at
	// once.
	Active func() bool
	// State is told of each change of the home connection, in the goroutine of Home.Run.
	// It is not to wait.
	State func(relay.State)
	// Lost is told that a guest connection has ended, however that came, in the
	// goroutine of that.
	Lost   func(*Guest)
	Events Events
	Log    *slog.Logger
}

// Home is the node's one connection to its relay.
type Home struct{ *relay.Home }

// New makes both. Home.Run connects; guests connect when they are asked for.
func New(cfg Config) (*Home, *Guests) {
	if cfg.Idle == 0 {
		cfg.Idle = guestIdle
	}
	h := &Home{}
	g := newGuests(h, cfg.Dial, cfg.Idle, cfg.Log)
	g.handler = func(c *Guest) relay.Handler {
		return &guestInbound{inbound{events: cfg.Events, guests: g, via: c, source: cfg.Bind.NewSource()}, cfg.Bind}
	}
	g.lost = cfg.Lost
	h.Home = relay.NewHome(relay.HomeConfig{
		Self: cfg.Self, Dial: cfg.Dial, Relays: cfg.Relays, Sticky: cfg.Sticky,
		Handler: func(c *relay.Conn) relay.Handler {
			return &inbound{events: cfg.Events, guests: g, via: h, source: cfg.Bind.NewSource(), server: cfg.IsServer(c.Certificates())}
		},
		Trying: g.homeMoves, Versions: cfg.Versions, Active: cfg.Active, OnState: cfg.State, Log: cfg.Log,
	})
	return h, g
}

// Flush gives what was sent last a moment to leave: a ping is answered after
// it. It waits for that.
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

// Trip is a round trip to the relay, 0 while there is no connection.
func (h *Home) Trip() time.Duration {
	if c := h.Current(); c != nil {
		return c.Trip()
	}
	return 0
}

// Relay implements Way.
func (h *Home) Relay() api.Relay { return h.State().Relay }

// Sender implements Way.
func (h *Home) Sender() bind.Sender { return h.Home }

// SendSession implements Way.
func (h *Home) SendSession(to cert.NodeID, frame []byte) error {
	err := h.Home.SendSession(to, frame)
	if errors.Is(err, relay.ErrOffline) {
		h.Wake() // it may be patient by now
	}
	return err
}
