// Package overlay is a node of a weft network: it joins with a token,
// introduces itself to other nodes, tunnels to them with WireGuard, and lets a
// program dial and listen by host name, without root and without a port open
// to anybody.
//
// A Node needs a Net, the host's side of the tunnel: package netstack (user
// space) or a kernel interface. Everything else it makes itself.
//
//	net, err := netstack.New(netstack.Config{})
//	node, err := overlay.New(overlay.Config{Net: net, StateDir: "/var/lib/thing", Token: token})
//	err = node.Start(ctx)
//	defer node.Close()
//	conn, err := node.Dial(ctx, "tcp", "kitchen-pi:80")
//
// How a packet finds its way, and where to read on:
//
//   - node.go       Node: New, Start, Up, Down, Logout, Close
//   - net.go        Net: what a node needs of the host's network
//   - plane.go      the data plane and its sockets, and to whom goes what they bring
//   - running.go    what exists between Up and Down
//   - join.go       token in, certificate out
//   - sinks.go      what follows when what the node holds of its network changes
//   - keep.go       what of that gets to disk
//   - clock.go      what time it is, as the server and relays say
//   - dialer.go     the one way to the server side
//   - relays.go     what comes in from relays, and to whom it goes
//   - dial.go       Dial, Listen, Ping, Wait, Resolve
//   - status.go     what weft status is made of
//   - look.go       who is online, asked when somebody looks
//   - removed.go    what a device is told that was deleted
//   - wake*.go      the machine slept, or its network changed
//   - names.go      what the DNS zone is made of; dns.go what the owner decided
//   - netcheck.go   what weft netcheck has the node find out
//
// and below: in internal, for this package alone, tunnels (with whom, how they are made,
// and until when), paths (their better ways than the relay), network (what is held of
// the network, and what follows when it changes), follow (keeping that in step with the
// server), homes (connections to relays, and at which one a peer is), state (the state
// directory), directory (who is that name or address?), intro (introductions), path
// (which way), probe, gather (candidates), dataplane (packets between the host and
// peers), wg (WireGuard), bind (its messages over sockets and relays), filter (what a
// peer may do), filters (those of all peers, which outlive their tunnels); beside them
// portmap, rtt (how long answers take), tun (kernel interface), status (what a node says
// of itself, and how it is made of facts), and what servers and relays know too: api,
// api/client, relay, link, cert.
//
// Lock order: Node.turn, that of network.Sinks, what holds the keeper off
// (Keeper.Pause), Node.mu, that of network.Holder, and last that of the directory, which
// calls nothing. The tunnels are owned by one goroutine (package tunnels) and have no
// lock; it calls nobody who waits for it with one of these.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filters"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// Config is what a Node is made of.
type Config struct {
	// Net is required. The Node closes it.
	Net Net
	// StateDir holds identity and caches (mode 0700); one running Node each.
	// Required.
	StateDir string
	// Token joins a network at Start, unless the state directory already
	// holds an identity.
	Token string
	// Hostname is the name to ask for when joining; the server makes it
	// unique and usable. Default: the machine's.
	Hostname string
	// Version is the program's, for the server's list of devices.
	Version string
	// Log gets what happens; nil discards it.
	Log *slog.Logger
	// NetDial makes the connections to servers and relays; nil is net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
	// Wall is the machine's clock; nil is time.Now.
	Wall func() time.Time
	// UDP says how direct paths are made.
	UDP UDP
	// NamesChanged is called when names of the network or what is decided
	// about them may have changed (Names, DNS). It must return at once and may
	// be nil.
	NamesChanged func()
	// NetworkChanged is called when the machine slept or its links changed. It
	// must return at once and may be nil.
	NetworkChanged func()
	// Lull is called, on a goroutine of its own, once traffic of at least 4 MB
	// has stopped for 10 s: a program that is short of memory gives back then what
	// the traffic took (debug.FreeOSMemory). Not after Close. It may be nil.
	Lull func()
	// BuildTime is the floor of weft time on a machine without a clock.
	BuildTime time.Time
}

// Node is one member of one network. Its methods may be called from any
// goroutine.
type Node struct {
	// Constant after New.
	cfg       Config
	log       *slog.Logger
	clock     *cert.Clock
	idleAfter time.Duration // how long a tunnel lives without data; 0: as package tunnels has it
	guestIdle time.Duration // the same of a guest connection without tunnels; 0: as package homes has it
	unproven  bool          // proves no WireGuard key and believes no proof, as nodes did before; for tests
	// notifyWorld is that function, unless a test says otherwise, and stamps the
	// clock by which WireGuard goes, nil for time.Now: not Config.Wall.
	notifyWorld func(tell func()) (stop func(), err error)
	stamps      func() time.Time
	filters     *filters.Table
	// save is Dir.Save, unless a test says otherwise.
	save func(d *state.Dir, file string, b []byte) error

	held   network.Holder            // who the node is, and what it holds of its network
	heard  atomic.Pointer[time.Time] // when the server last answered, by the machine's clock
	active atomic.Pointer[running]   // running, for the packet path
	refuse chan netip.Addr           // held packets are for there, and the node is down
	dir    *directory.Directory
	names  nameCache
	health status.Warnings
	keeper *state.Keeper
	homeAt atomic.Pointer[string] // Relay.ID of the home, for the keeper

	// turn is held while the running half is begun or ended, so that a logout
	// ends in a node that is in no network whatever is asked of it meanwhile.
	// Taken before mu; nothing that the running half waits for takes it.
	turn sync.Mutex

	mu sync.Mutex
	// mu guards the following.
	forwarder *dataplane.Forwarder // nil before Start
	plane     dataplane.Plane
	keys      dataplane.Keys // the plane's

	state   *state.Dir // nil before Start and after Close
	bind    *bind.Bind
	running *running // nil while unjoined or down
	down    bool     // by weft down
	closed  bool
	stop    context.CancelFunc
	bg      sync.WaitGroup // goroutines that outlive one running
	bgCtx   context.Context
}

// New makes a Node. It starts nothing and touches no file.
func New(cfg Config) (*Node, error) {
	if cfg.Net == nil {
		return nil, errors.New("overlay: no Net given; use netstack.New")
	}
	if cfg.StateDir == "" {
		return nil, errors.New("overlay: no state directory given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	if cfg.NetworkChanged == nil {
		cfg.NetworkChanged = func() {}
	}
	if cfg.NamesChanged == nil {
		cfg.NamesChanged = func() {}
	}
	n := &Node{cfg: cfg, log: cfg.Log, clock: cert.NewClock(cfg.BuildTime, cfg.Wall), notifyWorld: notifyWorld, save: (*state.Dir).Save}
	n.dir = directory.New(time.Now)
	n.filters = filters.New(cfg.Log)
	n.keeper = state.NewKeeper(n.kept(), n.write, &n.health, cfg.Log)
	n.refuse = make(chan netip.Addr, 16)
	n.bgCtx, n.stop = context.WithCancel(context.Background())
	return n, nil
}

// Start opens the state directory and, when there is an identity or a token,
// brings the node up. A server that cannot be reached is no error: the node
// goes on trying (see Status). A token that the server refuses is. A failed
// Start leaves nothing behind; the Node can then only be closed.
func (n *Node) Start(ctx context.Context) (err error) {
	n.mu.Lock()
	if n.state != nil || n.closed {
		n.mu.Unlock()
		return errors.New("overlay: the node was started before")
	}
	n.mu.Unlock()
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	dir, err := state.Open(n.cfg.StateDir)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.state = dir
	n.mu.Unlock()
	if dir.ReadOnly() {
		n.health.Set(status.CodeStateDirectory, fmt.Sprintf("the state directory %s is read-only: what this device learns, its renewed certificate among it, is lost with a restart", dir.Path()))
	}
	id, err := dir.LoadIdentity()
	if err != nil {
		return err
	}
	if err := n.makePlane(); err != nil {
		return err
	}
	n.held.Is(id)
	epoch, first, last := n.cfg.Net.Outlives()
	n.filters.Open(dir, epoch, first, last, n.forwarder.Now())
	switch {
	case id.Joined():
		return n.run()
	case n.cfg.Token != "":
		return n.startJoining(ctx, n.cfg.Token)
	}
	return nil
}

// Up brings the node up, joining with the token first when one is given.
// Repeating either is harmless. It fails when the device was removed from its
// network. It implements localapi.Node.
func (n *Node) Up(ctx context.Context, token string) error {
	id := n.held.Identity()
	if token != "" {
		if err := n.join(ctx, token); err != nil {
			return err
		}
	} else if !id.Joined() {
		return &status.Error{Kind: status.KindNotJoined, Message: "this device has not joined a network", Hint: "run: weft up TOKEN"}
	}
	if err := n.run(); err != nil {
		return err
	}
	return n.settle(ctx)
}

// Down stops all traffic and keeps the identity, and the addresses: what programs
// send into the network is refused at once.
func (n *Node) Down(context.Context) error {
	n.turn.Lock()
	defer n.turn.Unlock()
	n.end()
	return nil
}

// end ends the running half, if there is one, and waits for it. turn is held.
func (n *Node) end() {
	n.mu.Lock()
	r := n.running
	n.running, n.down = nil, true
	n.active.Store(nil)
	n.mu.Unlock()
	if r != nil {
		r.close()
	}
}

// Logout gives the identity up, here and on the server. When the server
// cannot be told, nothing is given up here either.
func (n *Node) Logout(ctx context.Context) error {
	id := n.held.Identity()
	if !id.Joined() {
		return nil
	}
	if err := n.client().Logout(ctx); err != nil && !follow.RefusedForGood(err) {
		return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("tell the server: %v", err), Hint: "try again when the server is there, or delete the device in the console and remove its state directory"}
	}
	n.turn.Lock()
	defer n.turn.Unlock()
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	now := n.held.Identity()
	switch {
	case closed:
		return net.ErrClosed
	case now == nil || now.Key != id.Key:
		return nil // another logout came first, and perhaps a join after it
	}
	n.end()
	defer n.keeper.Pause()() // nothing of this network is written after it is wiped
	if err := n.state.Wipe(); err != nil {
		return fmt.Errorf("remove identity: %w", err)
	}
	n.keeper.Forget()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.keys.NewKey(); err != nil {
		return err
	}
	if err := n.cfg.Net.SetAddrs(netip.Addr{}, netip.Addr{}); err != nil {
		return fmt.Errorf("remove addresses: %w", err)
	}
	n.down = false
	n.filters.Forgotten()
	n.held.Leave()
	n.dir.Reset()
	n.health.Left()
	return nil
}

// Close stops everything and waits for it. It may be called more than once.
func (n *Node) Close() error {
	n.mu.Lock()
	closed := n.closed
	n.closed = true
	plane, forwarder, dir := n.plane, n.forwarder, n.state
	n.mu.Unlock()
	n.stop()
	if !closed {
		n.turn.Lock()
		n.end()
		n.turn.Unlock()
	}
	n.bg.Wait()
	if closed {
		return nil
	}
	n.keeper.Now() // it has said what is wrong, if anything is
	if plane != nil {
		plane.Close()
		forwarder.Close() // closes Net too
	} else {
		n.cfg.Net.Close()
	}
	if dir != nil {
		return dir.Close()
	}
	return nil
}
