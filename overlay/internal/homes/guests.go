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
	"weft/overlay/internal/intro"
	"weft/overlay/relay"
)

// Guest connections: a peer whose home is another relay than this node's is
// reached through that one. The node calls there as a guest, which is a
// connection that does not count as its presence, and the peer answers over
// its home connection, where the call came in. So each side needs to know only
// where the one that it calls lives (see finder.go).
const (
	maxGuests     = 64              // the one not used for longest goes
	guestIdle     = 2 * time.Minute // without a tunnel through it
	guestDialing  = 9 * time.Second // TCP, and then as much as a handshake has at least
	guestFlush    = flushWait
	shunned       = 10 * time.Second // a relay that could not be reached is asked after the others
	notedSessions = 256              // per relay connection: more than introductions can be under way
)

// ErrClosed is returned once Guests were closed.
var ErrClosed = errors.New("no connections to relays any more")

// Guests holds the node's guest connections and knows over which connection
// each introduction goes: an answer goes back where the call came from. Its
// methods may be called from any goroutine; none waits but Connect and Close.
type Guests struct {
	// constant after newGuests
	log     *slog.Logger
	home    Way
	dial    func(ctx context.Context, id, url string) (net.Conn, error)
	handler func(*Guest) relay.Handler
	lost    func(*Guest) // it ended, however that came
	idle    time.Duration
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // one per guest

	mu sync.Mutex
	// mu guards the following, and the fields of Guest that say so.
	open     map[string]*Guest // by Relay.ID
	homeAt   string            // where the home connection is, or is being made
	failed   map[string]time.Time
	calls    map[cert.NodeID]Way // introductions that this node is making
	peers    map[cert.NodeID]Way // tunnels
	sessions map[sessionKey]Way  // introductions, as far as noted
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

// Guest is one connection.
type Guest struct {
	// constant after Connect
	g      *Guests
	rl     api.Relay
	ctx    context.Context
	cancel context.CancelFunc
	ready  chan struct{} // closed once the following two are constant
	conn   *relay.Conn   // nil when err is not
	err    error

	// Guarded by Guests.mu.
	users int // tunnels through it
	used  time.Time
	timer *time.Timer // looks whether it is idle
	notes notes
}

// Relay implements Way.
func (c *Guest) Relay() api.Relay { return c.rl }

// Sender implements Way.
func (c *Guest) Sender() bind.Sender { return c.conn }

// RequestLane implements Way.
func (c *Guest) RequestLane(peer cert.NodeID) error { return c.conn.RequestLane(peer) }

// SendSession implements Way.
func (c *Guest) SendSession(to cert.NodeID, frame []byte) error {
	return c.conn.SendSession(to, frame)
}

func newGuests(home Way, dial func(ctx context.Context, id, url string) (net.Conn, error), idle time.Duration, log *slog.Logger) *Guests {
	g := &Guests{
		log: log, home: home, dial: dial, idle: idle,
		open: map[string]*Guest{}, failed: map[string]time.Time{},
		calls: map[cert.NodeID]Way{}, peers: map[cert.NodeID]Way{}, sessions: map[sessionKey]Way{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Connect returns the connection to a relay, made if need be: the home
// connection when that is there, or when no relay is named. It waits for the
// link, not for the relay's welcome.
func (g *Guests) Connect(ctx context.Context, rl api.Relay) (Way, error) {
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

// endLocked takes a guest off the table; its goroutine does the rest.
func (g *Guests) endLocked(c *Guest) {
	if g.open[c.rl.ID] == c {
		delete(g.open, c.rl.ID)
	}
	c.timer.Stop()
	c.cancel()
}

// run makes the connection and runs it to its end.
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
		if w == Way(c) {
			delete(g.sessions, key)
		}
	}
	g.mu.Unlock()
	g.lost(c)
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
		return nil, errors.New("it has no address")
	}
	return nil, errors.Join(errs...)
}

// lookIdle ends a guest that no tunnel has used for long.
func (c *Guest) lookIdle() {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.users > 0 || c.ctx.Err() != nil {
		return // Route arms it again
	}
	if left := c.g.idle - time.Since(c.used); left > 0 {
		c.timer.Reset(left)
		return
	}
	c.g.endLocked(c)
}

// homeMoves is told before the home connection is made at a relay: a node is
// connected to a relay once, and the home connection is the one that counts.
func (g *Guests) homeMoves(to api.Relay) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.homeAt = to.ID
	if c := g.open[to.ID]; c != nil && to.ID != "" {
		g.endLocked(c)
	}
}

// Shuns reports whether a relay could not be reached a moment ago.
func (g *Guests) Shuns(relayID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.failed[relayID]
	return ok && time.Since(at) < shunned
}

// Calling notes over which connection the node introduces itself to a peer,
// until done is called.
func (g *Guests) Calling(peer cert.NodeID, w Way) (done func()) {
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
func (g *Guests) heard(w Way, from cert.NodeID, frame []byte) {
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
func (g *Guests) stray(w Way, from cert.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if key := (sessionKey{from, 0}); g.sessions[key] != w {
		g.noteLocked(key, w)
	}
}

func (g *Guests) noteLocked(key sessionKey, w Way) {
	noted := &g.atHome
	if c, ok := w.(*Guest); ok {
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
func (g *Guests) SendSession(to cert.NodeID, frame []byte) error {
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

// Of returns the connection that an introduction belongs to.
func (g *Guests) Of(peer cert.NodeID, session uint64) Way {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.sessions[sessionKey{peer, session}]; w != nil {
		return w
	}
	return g.home
}

// Route notes over which connection the tunnel with a peer goes; nil when it
// ended. It reports whether that connection stands.
func (g *Guests) Route(peer cert.NodeID, w Way) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, ok := g.peers[peer].(*Guest); ok {
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
	if c, ok := w.(*Guest); ok {
		if c.ctx.Err() != nil {
			return false
		}
		c.users++
	}
	g.peers[peer] = w
	return true
}

// IsHome reports whether the home connection is, or is being made, where a
// guest was.
func (g *Guests) IsHome(c *Guest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.homeAt == c.rl.ID
}

// Len returns how many there are.
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

// KeepOnly drops the Guests whose relay is not one of these any more.
func (g *Guests) KeepOnly(relays []api.Relay) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, c := range g.open {
		if !slices.ContainsFunc(relays, func(r api.Relay) bool { return r.ID == id }) {
			g.endLocked(c)
		}
	}
}

// Check drops the Guests whose relay does not answer in time: the machine may have
// slept, or be in another network.
func (g *Guests) Check() {
	for _, c := range g.all() {
		g.wg.Go(func() {
			c.conn.Check(c.ctx)
		})
	}
}

// Close gives what was sent last a moment to leave, ends all Guests and waits
// for them.
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
