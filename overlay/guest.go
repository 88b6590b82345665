package overlay

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
	"weft/overlay/internal/intro"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// Guest connections: a peer whose home is another relay than this node's is
// reached through that one. The node calls there as a guest, which is a
// connection that does not count as its presence, and the peer answers over
// its home connection, where the call came in. So each side needs to know only
// where the one that it calls lives (see reach.go).
const (
	maxGuests     = 64              // the one not used for longest goes
	guestIdle     = 2 * time.Minute // without a tunnel through it
	guestDialing  = 9 * time.Second // TCP, and then as much as a handshake has at least
	guestFlush    = flushWait
	shunned       = 10 * time.Second // a relay that could not be reached is asked after the others
	notedSessions = 256              // per relay connection: more than introductions can be under way
)

// way is a relay connection through which peers are reached: the home, or a
// guest.
type way interface {
	sender() bind.Sender
	SendSession(to cert.NodeID, frame []byte) error
	relay() api.Relay
}

// guests holds the node's guest connections and knows over which connection
// each introduction goes: an answer goes back where the call came from. Its
// methods may be called from any goroutine; none waits but connect and close.
type guests struct {
	// constant after newGuests
	log     *slog.Logger
	home    way
	dial    func(ctx context.Context, id, url string) (net.Conn, error)
	handler func(*guest) relay.Handler
	lost    func(*guest) // it ended, however that came
	idle    time.Duration
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // one per guest

	mu sync.Mutex
	// mu guards the following, and the fields of guest that say so.
	open     map[string]*guest // by Relay.ID
	homeAt   string            // where the home connection is, or is being made
	failed   map[string]time.Time
	calls    map[cert.NodeID]way // introductions that this node is making
	peers    map[cert.NodeID]way // tunnels
	sessions map[sessionKey]way  // introductions, as far as noted
	atHome   notes
}

type sessionKey struct {
	peer cert.NodeID
	id   uint64
}

// notes bounds what is noted of one connection, so that a relay that makes up
// introductions crowds out none of another's; and that a peer that opens many
// crowds out its own.
type notes struct {
	keys []sessionKey // oldest first
	of   map[cert.NodeID]int
}

// add notes one more and returns the one that is forgotten for it: the oldest of
// the peer that has most.
func (n *notes) add(key sessionKey) (old sessionKey) {
	if n.of == nil {
		n.of = map[cert.NodeID]int{}
	}
	if len(n.keys) >= notedSessions {
		out, most := 0, 0
		for i, k := range n.keys {
			if c := n.of[k.peer]; c > most {
				out, most = i, c
			}
		}
		old = n.keys[out]
		n.keys = slices.Delete(n.keys, out, out+1)
		if n.of[old.peer]--; n.of[old.peer] == 0 {
			delete(n.of, old.peer)
		}
	}
	n.keys = append(n.keys, key)
	n.of[key.peer]++
	return old
}

// guest is one connection.
type guest struct {
	// constant after connect
	g      *guests
	rl     api.Relay
	ctx    context.Context
	cancel context.CancelFunc
	ready  chan struct{} // closed once the following two are constant
	conn   *relay.Conn   // nil when err is not
	err    error

	// Guarded by guests.mu.
	users int // tunnels through it
	used  time.Time
	timer *time.Timer // looks whether it is idle
	notes notes
}

func (c *guest) relay() api.Relay    { return c.rl }
func (c *guest) sender() bind.Sender { return c.conn }
func (c *guest) SendSession(to cert.NodeID, frame []byte) error {
	return c.conn.SendSession(to, frame)
}

func newGuests(home way, dial func(ctx context.Context, id, url string) (net.Conn, error), idle time.Duration, log *slog.Logger) *guests {
	g := &guests{
		log: log, home: home, dial: dial, idle: idle,
		open: map[string]*guest{}, failed: map[string]time.Time{},
		calls: map[cert.NodeID]way{}, peers: map[cert.NodeID]way{}, sessions: map[sessionKey]way{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// connect returns the connection to a relay, made if need be: the home
// connection when that is there, or when no relay is named. It waits for the
// link, not for the relay's welcome.
func (g *guests) connect(ctx context.Context, rl api.Relay) (way, error) {
	atHome := rl.ID == "" || rl.ID == g.home.relay().ID
	g.mu.Lock()
	if g.ctx.Err() != nil {
		g.mu.Unlock()
		return nil, errDown
	}
	if atHome || rl.ID == g.homeAt {
		g.mu.Unlock()
		return g.home, nil
	}
	c := g.open[rl.ID]
	if c == nil {
		g.makeRoomLocked()
		c = &guest{g: g, rl: rl, ready: make(chan struct{})}
		c.ctx, c.cancel = context.WithCancel(g.ctx)
		c.timer = time.AfterFunc(g.idle, c.lookIdle)
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

// makeRoomLocked ends the guest that was not used for longest, one without
// tunnels if there is one.
func (g *guests) makeRoomLocked() {
	if len(g.open) < maxGuests {
		return
	}
	var out *guest
	for _, c := range g.open {
		if out == nil || (c.users > 0) != (out.users > 0) && c.users == 0 || (c.users > 0) == (out.users > 0) && c.used.Before(out.used) {
			out = c
		}
	}
	g.endLocked(out)
}

// endLocked takes a guest off the table; its goroutine does the rest.
func (g *guests) endLocked(c *guest) {
	if g.open[c.rl.ID] == c {
		delete(g.open, c.rl.ID)
	}
	c.timer.Stop()
	c.cancel()
}

// run makes the connection and runs it to its end.
func (c *guest) run() {
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
		if w == way(c) {
			delete(g.sessions, key)
		}
	}
	g.mu.Unlock()
	g.lost(c)
}

func (c *guest) link() (net.Conn, error) {
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
		return nil, errors.New("it has no address")
	}
	return nil, errors.Join(errs...)
}

// lookIdle ends a guest that no tunnel has used for long.
func (c *guest) lookIdle() {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.users > 0 || c.ctx.Err() != nil {
		return // route arms it again
	}
	if left := c.g.idle - time.Since(c.used); left > 0 {
		c.timer.Reset(left)
		return
	}
	c.g.endLocked(c)
}

// homeMoves is told before the home connection is made at a relay: a node is
// connected to a relay once, and the home connection is the one that counts.
func (g *guests) homeMoves(to api.Relay) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.homeAt = to.ID
	if c := g.open[to.ID]; c != nil && to.ID != "" {
		g.endLocked(c)
	}
}

// shuns reports whether a relay could not be reached a moment ago.
func (g *guests) shuns(relayID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.failed[relayID]
	return ok && time.Since(at) < shunned
}

// calling notes over which connection the node introduces itself to a peer,
// until done is called.
func (g *guests) calling(peer cert.NodeID, w way) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls[peer] = w
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.calls, peer)
	}
}

// heard notes over which connection a peer introduces itself.
func (g *guests) heard(w way, from cert.NodeID, frame []byte) {
	id, opens := intro.FrameSession(frame)
	if !opens {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.noteLocked(sessionKey{from, id}, w)
}

// stray notes over which connection a node without a tunnel sends WireGuard
// messages, so that it can be told.
func (g *guests) stray(w way, from cert.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if key := (sessionKey{from, 0}); g.sessions[key] != w {
		g.noteLocked(key, w)
	}
}

func (g *guests) noteLocked(key sessionKey, w way) {
	noted := &g.atHome
	if c, ok := w.(*guest); ok {
		if c.ctx.Err() != nil {
			return
		}
		noted = &c.notes
	}
	if old := noted.add(key); g.sessions[old] == w {
		delete(g.sessions, old)
	}
	g.sessions[key] = w
}

// SendSession sends an introduction frame over the connection that its
// introduction belongs to.
func (g *guests) SendSession(to cert.NodeID, frame []byte) error {
	id, opens := intro.FrameSession(frame)
	key := sessionKey{to, id}
	g.mu.Lock()
	w := g.sessions[key]
	if w == nil {
		w = g.calls[to]
		if w == nil {
			w = g.peers[to]
		}
		if w == nil {
			w = g.home
		}
		if opens {
			g.noteLocked(key, w)
		}
	}
	g.mu.Unlock()
	return w.SendSession(to, frame)
}

// wayOf returns the connection that an introduction belongs to.
func (g *guests) wayOf(peer cert.NodeID, session uint64) way {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.sessions[sessionKey{peer, session}]; w != nil {
		return w
	}
	return g.home
}

// route notes over which connection the tunnel with a peer goes; nil when it
// ended. It reports whether that connection stands.
func (g *guests) route(peer cert.NodeID, w way) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, ok := g.peers[peer].(*guest); ok {
		old.users--
		old.used = time.Now()
		if old.users == 0 && old.ctx.Err() == nil {
			old.timer.Reset(g.idle)
		}
	}
	delete(g.peers, peer)
	if w == nil {
		return false
	}
	if c, ok := w.(*guest); ok {
		if c.ctx.Err() != nil {
			return false
		}
		c.users++
	}
	g.peers[peer] = w
	return true
}

// isHome reports whether the home connection is, or is being made, where a
// guest was.
func (g *guests) isHome(c *guest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.homeAt == c.rl.ID
}

func (g *guests) all() []*guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*guest, 0, len(g.open))
	for _, c := range g.open {
		select {
		case <-c.ready:
			out = append(out, c)
		default:
		}
	}
	return out
}

// keepOnly drops the guests whose relay is not one of these any more.
func (g *guests) keepOnly(relays []api.Relay) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, c := range g.open {
		if !slices.ContainsFunc(relays, func(r api.Relay) bool { return r.ID == id }) {
			g.endLocked(c)
		}
	}
}

// check drops the guests whose relay does not answer in time: the machine may have
// slept, or be in another network.
func (g *guests) check() {
	for _, c := range g.all() {
		g.wg.Go(func() {
			c.conn.Check(c.ctx)
		})
	}
}

// close gives what was sent last a moment to leave, ends all guests and waits
// for them.
func (g *guests) close() {
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

// guestInbound hands on what a guest connection brings. What the relay says
// about this node itself is for the home to say.
type guestInbound struct{ inbound }

func (n *Node) guestHandler(h *home, c *guest) relay.Handler {
	return &guestInbound{inbound{home: h, via: c, source: n.bind.NewSource()}}
}

func (in *guestInbound) Packet(from cert.NodeID, payload []byte) {
	if in.n.bind.Find(from) == nil {
		in.r.peers.guests.stray(in.via, from)
	}
	in.inbound.Packet(from, payload)
}

func (in *guestInbound) Welcome(w relay.Welcome) { in.n.relayTime(w.ServerTime, false) }
func (in *guestInbound) Nudge(relay.Nudge)       {}

// Replaced ends the connection: this node's home is here now, or another guest.
func (in *guestInbound) Replaced() {}

// Draining lets go of the relay; its peers move too.
func (in *guestInbound) Draining(relay.Draining) { in.via.(*guest).cancel() }

// dialRelay makes links for home and guests.
func dialRelay(d *link.Dialer) func(ctx context.Context, id, url string) (net.Conn, error) {
	return relay.DialWith(d)
}
