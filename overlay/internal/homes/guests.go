package homes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/relay"
)

// Guest connections: a peer with another home relay than this node's is reached through
// that relay. The node connects there as a guest, which does not change its presence, and
// the peer answers over its home connection, on which the introduction arrived. So the
// caller needs to know only the home of the peer (see finder.go).
const (
	maxGuests     = 64              // beyond, the least recently used one ends
	guestIdle     = 2 * time.Minute // without a tunnel through it
	guestDialing  = 9 * time.Second // for TCP, and the least for the handshake after it
	guestFlush    = flushWait
	shunned       = 10 * time.Second // how long an unreachable relay is tried after all others
	notedSessions = 256              // per relay connection; more than introductions can be in progress
)

// ErrClosed is returned after Guests.Close.
var ErrClosed = errors.New("the connections to relays are closed")

// Guests holds the node's guest connections and knows the connection of each
// introduction: an answer is sent over the connection on which the introduction arrived.
// Its methods may be called from any goroutine. Only Connect and Close block.
type Guests struct {
	// constant after newGuests
	log        *slog.Logger
	home       RelayConn
	dial       func(ctx context.Context, id, url string) (net.Conn, error)
	handler    func(*Guest) relay.Handler
	guestEnded func(*Guest) // Config.GuestEnded
	idle       time.Duration
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup // one per guest

	mu sync.Mutex
	// mu guards the following, and some fields of Guest.
	open     map[string]*Guest // by Relay.ID
	homeAt   string            // relay of the home connection, or of an attempt to make it
	failed   map[string]time.Time
	calls    map[cert.NodeID]RelayConn // introductions that this node is making
	peers    map[cert.NodeID]RelayConn // tunnels
	sessions map[sessionKey]RelayConn  // introductions of others, up to notedSessions per connection
	atHome   notes
}

// Guest is one guest connection.
type Guest struct {
	// constant after Connect
	g      *Guests
	rl     api.Relay
	ctx    context.Context
	cancel context.CancelFunc
	ready  chan struct{} // closed once the following two are constant
	conn   *relay.Conn   // nil when err is not nil
	err    error

	// Guarded by Guests.mu.
	users int // how many tunnels go through it
	used  time.Time
	timer *time.Timer // runs endIdle
	notes notes
}

// Relay implements RelayConn.
func (c *Guest) Relay() api.Relay { return c.rl }

// Sender implements RelayConn.
func (c *Guest) Sender() bind.Sender { return c.conn }

// RequestLane implements RelayConn.
func (c *Guest) RequestLane(peer cert.NodeID) error { return c.conn.RequestLane(peer) }

// SendSession implements RelayConn.
func (c *Guest) SendSession(to cert.NodeID, frame []byte) error {
	return c.conn.SendSession(to, frame)
}

func newGuests(home RelayConn, dial func(ctx context.Context, id, url string) (net.Conn, error), idle time.Duration, log *slog.Logger) *Guests {
	g := &Guests{
		log: log, home: home, dial: dial, idle: idle,
		open: map[string]*Guest{}, failed: map[string]time.Time{},
		calls: map[cert.NodeID]RelayConn{}, peers: map[cert.NodeID]RelayConn{}, sessions: map[sessionKey]RelayConn{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Connect returns the connection to a relay, and makes it if necessary. It is the home
// connection if that is at the relay, or if rl is zero. Connect waits for the link, not
// for the relay's welcome.
func (g *Guests) Connect(ctx context.Context, rl api.Relay) (RelayConn, error) {
	atHome := rl.ID == "" || rl.ID == g.home.Relay().ID
	g.mu.Lock()
	if g.ctx.Err() != nil {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	if atHome || rl.ID == g.homeAt {
		g.mu.Unlock()
		return g.home, nil
	}
	c := g.open[rl.ID]
	if c == nil {
		g.makeRoomLocked()
		c = &Guest{g: g, rl: rl, ready: make(chan struct{})}
		c.ctx, c.cancel = context.WithCancel(g.ctx)
		c.timer = time.AfterFunc(g.idle, c.endIdle)
		g.open[rl.ID] = c
		g.wg.Go(c.run)
	}
	c.used = time.Now()
	g.mu.Unlock()
	select {
	case <-c.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to relay %s: %w", rl.Name, context.Cause(ctx))
	}
	if c.err != nil {
		return nil, c.err
	}
	return c, nil
}

// makeRoomLocked ends the least recently used guest, one without tunnels if there is one.
func (g *Guests) makeRoomLocked() {
	if len(g.open) < maxGuests {
		return
	}
	var out *Guest
	for _, c := range g.open {
		if out == nil || (c.users > 0) != (out.users > 0) && c.users == 0 || (c.users > 0) == (out.users > 0) && c.used.Before(out.used) {
			out = c
		}
	}
	g.endLocked(out)
}

// endLocked removes a guest from the table and cancels it. Its goroutine does the rest.
func (g *Guests) endLocked(c *Guest) {
	if g.open[c.rl.ID] == c {
		delete(g.open, c.rl.ID)
	}
	c.timer.Stop()
	c.cancel()
}

// run makes the connection and runs it until it ends.
func (c *Guest) run() {
	g := c.g
	nc, err := c.link()
	if err != nil {
		c.err = fmt.Errorf("connect to relay %s: %w", c.rl.Name, err)
		g.mu.Lock()
		if c.ctx.Err() == nil {
			if len(g.failed) >= maxGuests {
				clear(g.failed)
			}
			g.failed[c.rl.ID] = time.Now()
		}
		g.endLocked(c)
		g.mu.Unlock()
		close(c.ready)
		return
	}
	c.conn = relay.NewConn(nc, g.handler(c))
	close(c.ready)
	err = c.conn.Run(c.ctx)
	g.log.Debug("guest connection ended", "relay", c.rl.Name, "err", err)
	g.mu.Lock()
	if c.ctx.Err() == nil {
		g.failed[c.rl.ID] = time.Now()
	}
	g.endLocked(c)
	for key, w := range g.sessions {
		if w == RelayConn(c) {
			delete(g.sessions, key)
		}
	}
	g.mu.Unlock()
	g.guestEnded(c)
}

func (c *Guest) link() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, guestDialing)
	defer cancel()
	errs := []error{}
	for _, url := range c.rl.URLs {
		nc, err := c.g.dial(ctx, c.rl.ID, url)
		if err == nil {
			return nc, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return nil, errors.New("the relay has no address")
	}
	return nil, errors.Join(errs...)
}

// endIdle ends a guest that no tunnel uses and that was idle for long.
func (c *Guest) endIdle() {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.users > 0 || c.ctx.Err() != nil {
		return // SetTunnel starts the timer again
	}
	if left := c.g.idle - time.Since(c.used); left > 0 {
		c.timer.Reset(left)
		return
	}
	c.g.endLocked(c)
}

// homeMoves is called before a home connection to a relay is made. It ends a guest
// connection to the same relay, because a relay accepts one connection of a node.
func (g *Guests) homeMoves(to api.Relay) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.homeAt = to.ID
	if c := g.open[to.ID]; c != nil && to.ID != "" {
		g.endLocked(c)
	}
}

// FailedLately reports whether a relay was unreachable a moment ago.
func (g *Guests) FailedLately(relayID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.failed[relayID]
	return ok && time.Since(at) < shunned
}

// IsHome reports whether the home connection, or an attempt to make it, is at the guest's
// relay.
func (g *Guests) IsHome(c *Guest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.homeAt == c.rl.ID
}

// Len returns the number of guest connections.
func (g *Guests) Len() int { return len(g.all()) }

func (g *Guests) all() []*Guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*Guest, 0, len(g.open))
	for _, c := range g.open {
		select {
		case <-c.ready:
			out = append(out, c)
		default:
		}
	}
	return out
}

// KeepOnly ends the guests whose relay is not one of relays.
func (g *Guests) KeepOnly(relays []api.Relay) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, c := range g.open {
		if !slices.ContainsFunc(relays, func(r api.Relay) bool { return r.ID == id }) {
			g.endLocked(c)
		}
	}
}

// Check pings the relays of all guests and ends those that do not answer in time. It is
// for when the machine may have slept or changed its network.
func (g *Guests) Check() {
	for _, c := range g.all() {
		g.wg.Go(func() {
			c.conn.Check(c.ctx)
		})
	}
}

// Close waits a moment for the last frames to be sent, ends all guests and waits for
// their goroutines.
func (g *Guests) Close() {
	ctx, cancel := context.WithTimeout(g.ctx, guestFlush)
	defer cancel()
	var flush sync.WaitGroup
	for _, c := range g.all() {
		flush.Go(func() { c.conn.Ping(ctx) })
	}
	flush.Wait()
	g.mu.Lock()
	g.cancel()
	for _, c := range g.open {
		g.endLocked(c)
	}
	g.mu.Unlock()
	g.wg.Wait()
}
