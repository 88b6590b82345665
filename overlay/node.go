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
	"weft/overlay/fips"
	"weft/overlay/internal/claims"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filters"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/lookup"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// Config configures New.
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
	// Version is the version of the program, for the server's list of devices.
	Version string
	// Log gets what happens; nil discards it.
	Log *slog.Logger
	// NetDial makes the connections to servers and relays; nil is net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
	// Wall is the machine's clock; nil is time.Now.
	Wall func() time.Time
	// UDP says how direct paths are made.
	UDP UDP
	// Suite says how packets may be encrypted: SuiteAuto, SuiteWireGuard or SuiteAES.
	Suite string
	// NamesChanged is called when names of the network or the owner's settings for them
	// may have changed (Names, DNS). It must return at once and may be nil.
	NamesChanged func()
	// NetworkChanged is called when the machine slept or its interfaces changed. It must
	// return at once and may be nil.
	NetworkChanged func()
	// Lull is called, on a goroutine of its own, once traffic of at least 4 MB has
	// stopped for 10 s. A program that is short of memory can then give back what the
	// traffic took (debug.FreeOSMemory). It is not called after Close and may be nil.
	Lull func()
	// BuildTime is the floor of weft time on a machine without a clock.
	BuildTime time.Time
}

// Node is one member of one network. Its methods may be called from any
// goroutine.
type Node struct {
	// Constant after New.
	cfg     Config
	log     *slog.Logger
	clock   *cert.Clock
	tuning  tuning
	filters *filters.Table
	strict  bool          // FIPS mode is enforced: no WireGuard
	refused *status.Error // why there is no data plane; nil: there is one

	held   network.Holder          // identity and network
	active atomic.Pointer[running] // running, for the packet path
	dir    *directory.Directory
	health status.Warnings
	claims claims.Log // who introduced themselves, while the owner wants to know
	// What outlives a running half. It is made of the above and of functions.
	lookup  *lookup.Resolver
	names   *lookup.Names
	times   timekeeper
	server  serverSide
	removal removal
	disk    disk
	keeper  *state.Writer

	// turn is held while the running half is started or ended, and while the node becomes a
	// member, so that after a logout it is in no network, whatever is called meanwhile. Taken before mu. Nothing for
	// which the running half waits may take it.
	turn sync.Mutex

	asking sync.Mutex // held by Ask: one at a time

	mu sync.Mutex
	// mu guards the following.
	state   *state.Dir // nil before Start
	plane   *plane     // the same
	running *running   // nil while unjoined or down
	closed  bool
	stop    context.CancelFunc
	bg      sync.WaitGroup // goroutines that outlive one running
	bgCtx   context.Context
}

// tuning holds settings that only tests change, before Start.
type tuning struct {
	idle      time.Duration // how long a tunnel lives without data; 0: as package tunnels has it
	guestIdle time.Duration // the same of a guest connection without tunnels; 0: as package homes has it
	aes       bool          // offers AES even where it is slow
	unproven  bool          // proves no WireGuard key and ignores proofs, like nodes before 2026-11-29
	// watchMachine watches for changes of interfaces and clock; tests replace it. stamps
	// is the clock for WireGuard's time stamps, nil for time.Now; it is not Config.Wall.
	watchMachine func(tell func()) (stop func(), err error)
	stamps       func() time.Time
}

// New makes a Node. It starts no goroutine and opens no file.
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
	n := &Node{cfg: cfg, log: cfg.Log, clock: cert.NewClock(cfg.BuildTime, cfg.Wall), tuning: tuning{watchMachine: watchMachine}}
	if fips.Current() == fips.Only {
		n.enforceFIPS()
	}
	n.claims.Now = n.clock.Now
	n.dir = directory.New(time.Now)
	n.filters = filters.New(cfg.Log)
	n.disk = disk{held: &n.held, dir: n.dir, health: &n.health, open: n.stateDir, save: (*state.Dir).Save}
	n.keeper = state.NewWriter(n.disk.files(), n.disk.write, &n.health, cfg.Log)
	n.server = serverSide{held: &n.held, netDial: cfg.NetDial, log: cfg.Log}
	n.times = timekeeper{clock: n.clock, held: &n.held, keep: n.keeper.Mark, log: cfg.Log}
	n.removal = removal{health: &n.health, now: n.clock.Now, log: cfg.Log}
	n.lookup = n.newLookup()
	n.names = n.lookup.NewNames(func() bool { r := n.active.Load(); return r != nil && r.home.Connected() })
	n.bgCtx, n.stop = context.WithCancel(context.Background())
	return n, nil
}

// Start opens the state directory and, if there is an identity or a token, brings the
// node up. An unreachable server is not an error: the node keeps trying (see Status). A
// token that the server refuses is one. After a failed Start nothing is left running, and
// the Node can only be closed.
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
		n.health.Set(status.CodeStateDirectory, fmt.Sprintf("the state directory %s is read-only: changes, such as a renewed certificate, are lost with a restart", dir.Path()))
	}
	id, err := dir.LoadIdentity()
	if err != nil {
		return err
	}
	if err := n.makePlane(); err != nil {
		return err
	}
	n.held.SetIdentity(id)
	epoch, first, last := n.cfg.Net.Outlives()
	n.filters.Open(dir, epoch, first, last, n.plane.now())
	switch {
	case id.Joined():
		return n.run()
	case n.cfg.Token != "":
		return n.startJoining(ctx, n.cfg.Token)
	}
	return nil
}

// Up brings the node up, and first joins with the token if there is one. Both may be
// repeated. It fails if the device was removed from its network. It implements
// localapi.Node.
func (n *Node) Up(ctx context.Context, token string) error {
	id := n.held.Identity()
	var err error
	switch {
	case token != "":
		err = n.join(ctx, token)
	case id.Joined():
		err = n.run()
	default:
		err = lookup.ErrNotJoined
	}
	if err != nil {
		return err
	}
	return n.settle(ctx)
}

// upWait is how long Up waits to find out whether the device is still a member.
const upWait = 2 * time.Second

// settle waits a moment until the relay has accepted this device or the device is known
// to have been removed. An unreachable relay is not an error.
func (n *Node) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upWait)
	defer cancel()
	_, _, err := n.await(ctx, func(st status.State) bool { return st != status.StateConnecting })
	return err
}

// Down stops all traffic but keeps the identity and the addresses: packets of programs to
// the network are refused at once.
func (n *Node) Down(context.Context) error {
	n.turn.Lock()
	defer n.turn.Unlock()
	n.end()
	return nil
}

// end ends the running half, if there is one, and waits for it. The caller holds turn.
func (n *Node) end() {
	n.mu.Lock()
	r := n.running
	n.running = nil
	n.active.Store(nil)
	n.mu.Unlock()
	if r != nil {
		r.close()
		n.times.save(time.Second)
		n.health.Clear(status.CodeRelayOffline) // the connection was ended on purpose
		n.health.Notify()
	}
}

// stateDir returns the open state directory, nil before Start.
func (n *Node) stateDir() *state.Dir {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

// Logout gives the identity up, here and on the server. If the server is unreachable, it
// changes nothing.
func (n *Node) Logout(ctx context.Context) error {
	id := n.held.Identity()
	if !id.Joined() {
		return nil
	}
	if err := n.client().Logout(ctx); err != nil && !follow.RefusedForGood(err) {
		return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("log out on the server: %v", err), Hint: "try again when the server is reachable, or delete the device in the console and remove its state directory"}
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
		return nil // another logout was faster, and perhaps a join followed
	}
	n.end()
	defer n.keeper.Pause()() // nothing of this network is written after the directory is wiped
	if err := n.state.Wipe(); err != nil {
		return fmt.Errorf("remove identity: %w", err)
	}
	n.keeper.Discard()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.plane.newKey(); err != nil {
		return err
	}
	if err := n.cfg.Net.SetAddrs(netip.Addr{}, netip.Addr{}); err != nil {
		return fmt.Errorf("remove addresses: %w", err)
	}
	n.filters.Forgotten()
	n.held.Leave()
	n.dir.Reset()
	n.health.LeaveNetwork()
	return nil
}

// Close stops everything and waits for it. It may be called more than once.
func (n *Node) Close() error {
	n.mu.Lock()
	closed := n.closed
	n.closed = true
	plane, dir := n.plane, n.state
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
	n.keeper.Flush() // it reports errors itself
	if plane != nil {
		plane.close()
	} else {
		n.cfg.Net.Close()
	}
	if dir != nil {
		return dir.Close()
	}
	return nil
}
