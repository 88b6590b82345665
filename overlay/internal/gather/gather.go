// Package gather finds the candidates of its own node and the kind of NAT in front of it.
// Candidates are addresses of interfaces, the node's socket as STUN servers see it (RFC
// 8489), a port mapping of the gateway, and addresses that the user gave.
//
// A round asks all STUN servers at once from the node's own UDP sockets, at most four
// times each, and ends after 5 s at the latest. A round starts when a path is wanted
// (Want) and the last round is older than 20 s, and when the network has changed (Wake).
// Nothing is sent in between: an idle node gathers nothing.
//
// The kind of NAT follows from the addresses that two STUN servers saw. One answer only
// shows whether there is a NAT. Two ports of one address do not reveal the rare NAT whose
// mapping depends on the address only (Family.Addresses is 1 then). A peer can take the
// place of the second server (Observed). Answers of servers in private networks count
// only if no other server answers.
//
//   - gather.go      Gatherer, its methods
//   - loop.go        what the goroutine does in a round
//   - snapshot.go    the result
//   - resolve.go     names of STUN servers
//   - round.go       the pure core: one round of STUN requests
//   - verdict.go     from answers to a Mapping and candidates
//   - interfaces.go  which addresses of this machine can be candidates
//
// A STUN answer counts only if its transaction is open and it comes from the address that
// was asked.
package gather

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/internal/path"
	"weft/overlay/portmap"
)

// Config configures New.
type Config struct {
	// Send sends a datagram from the node's UDP socket of the family of to. It is called
	// from one goroutine at a time and must not keep b. An error means that to is
	// unreachable; it causes no extra tries. Required.
	Send func(b []byte, to netip.AddrPort) error
	// Ports returns the ports of the node's UDP sockets, 0 where there is no socket of
	// that family. It is called at the start of each round. Required.
	Ports func() (v4, v6 uint16)
	// Changed is called from the Gatherer's goroutine when candidates or mappings have
	// changed, and when a round ends. It must return soon and must not call Close. May be
	// nil.
	Changed func(*Snapshot)
	// Refuse reports overlay addresses, which are never candidates. May be
	// nil.
	Refuse func(netip.Addr) bool
	// Manual are candidates that the user gave (weft run --endpoint); at most 4 are used.
	// The user's router must forward their port to the node's socket, so the node must
	// listen on a fixed port.
	Manual []netip.AddrPort
	// PortMap requests a mapping of the IPv4 port from the gateway while paths are
	// wanted. nil requests none; nor does a network whose STUN servers are all on this
	// machine's loopback. The Gatherer sets its Changed.
	PortMap *portmap.Config
	// Interfaces lists the machine's addresses; nil asks the kernel.
	Interfaces func() ([]Local, error)
	// Resolve looks up the name of a STUN server; nil is net.DefaultResolver.LookupNetIP.
	// It may be called concurrently.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Log gets what happens; nil discards it.
	Log *slog.Logger
}

// Local is an address of an interface that is up.
type Local struct {
	Name       string // of the interface
	Addr       netip.Addr
	Temporary  bool // IPv6 privacy address (RFC 8981)
	Deprecated bool // IPv6 address that new flows should not use, or cannot use yet
}

const (
	// fresh is how long the result of a round counts. It is shorter than the 30 s after
	// which many NATs drop an idle mapping.
	fresh = 20 * time.Second
	// inUse is how long a Want or a Keep counts.
	inUse = 10 * time.Minute
	// maxManual bounds the user's endpoints.
	maxManual = 4
)

// Gatherer gathers candidates for one node. Its methods may be called from any
// goroutine. One goroutine, started by Start, does the work.
type Gatherer struct {
	cfg    Config
	log    *slog.Logger
	mapper *portmap.Mapper // nil: off

	snap   atomic.Pointer[Snapshot]
	rounds atomic.Uint64 // begun
	want   chan struct{} // each of capacity 1
	wake   chan struct{}
	force  chan struct{}
	kick   chan struct{} // something changed (answer, name, servers, mapping): run step

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu sync.Mutex
	// mu guards the following. It is not held during calls of Config's functions.
	started bool
	servers []string
	unasked bool // servers has some that the round has not asked
	names   names
	round   *round // nil before the first
	updated chan struct{}
	v4, v6  uint16    // ports; set by the goroutine
	wanted  time.Time // last Want or Keep

	// Owned by the goroutine.
	begun      time.Time // when the last round started; zero: none in this network
	locals     []netip.Addr
	last4      Family // of the last complete round in this network
	last6      Family
	lastSeen4  []netip.AddrPort
	lastSeen6  []netip.AddrPort
	lastFailed bool // listing interfaces failed; logged once
}

// New makes a Gatherer. It does no I/O and starts no goroutine.
func New(cfg Config) *Gatherer {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = interfaces
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	cfg.Manual = slices.Clone(cfg.Manual[:min(len(cfg.Manual), maxManual)])
	g := &Gatherer{
		cfg: cfg, log: cfg.Log, updated: make(chan struct{}),
		want: make(chan struct{}, 1), wake: make(chan struct{}, 1), force: make(chan struct{}, 1), kick: make(chan struct{}, 1),
	}
	g.snap.Store(&Snapshot{})
	g.ctx, g.stop = context.WithCancel(context.Background())
	if cfg.PortMap != nil {
		pm := *cfg.PortMap
		pm.Changed = func(portmap.Status) { signal(g.kick) }
		if pm.Log == nil {
			pm.Log = cfg.Log
		}
		g.mapper = portmap.New(pm)
	}
	return g
}

// Start starts the goroutine. Nothing is sent before Want, Wake or Check.
func (g *Gatherer) Start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started || g.ctx.Err() != nil {
		return
	}
	g.started = true
	if g.mapper != nil {
		g.mapper.Start()
	}
	g.wg.Go(g.loop)
}

// Close removes the port mapping, ends the goroutine and waits for both, for about a
// second at most. It may be called more than once.
func (g *Gatherer) Close() error {
	g.mu.Lock()
	g.stop()
	g.mu.Unlock()
	g.wg.Wait()
	if g.mapper != nil {
		return g.mapper.Close()
	}
	return nil
}

// SetServers sets the STUN servers of all relays as "host:port", the preferred first; at
// most 16 are used. They are asked in the next round. It is cheap when nothing has
// changed.
func (g *Gatherer) SetServers(list []string) {
	list = list[:min(len(list), maxServers)]
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Equal(g.servers, list) {
		g.unasked = g.unasked || slices.ContainsFunc(list, func(s string) bool { return !slices.Contains(g.servers, s) })
		g.servers = slices.Clone(list)
		g.names.keep(list)
	}
}

// Want says that a path is wanted: it starts a round if the last one is old, and prolongs
// the port mapping. It is cheap.
func (g *Gatherer) Want() { signal(g.want) }

// Keep says that a direct path is in use: it prolongs the port mapping, which otherwise
// ends after ten minutes or more, and starts no round. It is cheap; call it at least
// every five minutes.
func (g *Gatherer) Keep() {
	g.mu.Lock()
	g.wanted = time.Now()
	port, ask := g.v4, g.round != nil && g.mapper != nil && !g.loopbackLocked()
	g.mu.Unlock()
	if ask {
		g.mapper.Want(port)
	}
}

// loopbackLocked reports whether all STUN servers are on this machine. Then this is a
// trial and the router need not be asked.
func (g *Gatherer) loopbackLocked() bool {
	for _, s := range g.servers {
		if a, err := netip.ParseAddrPort(s); err != nil || !a.Addr().IsLoopback() {
			return false
		}
	}
	return len(g.servers) > 0
}

// Wake says that the network may have changed. If a path was wanted or in use within ten
// minutes, it starts a round; otherwise it drops what was found.
func (g *Gatherer) Wake() { signal(g.wake) }

// STUN takes a datagram that looks like a STUN response, and reports whether it answers
// one of our requests. It does not keep pkt.
func (g *Gatherer) STUN(pkt []byte, from netip.AddrPort) bool {
	g.mu.Lock()
	ok := g.round != nil && g.round.answer(time.Now(), pkt, from)
	g.mu.Unlock()
	if ok {
		signal(g.kick)
	}
	return ok
}

// Observed takes the address of our socket as an authenticated peer at from has seen it
// (Observed of a pong). If only one STUN address has answered, it distinguishes an easy
// NAT from a hard one, so that later peers need no search. It is ignored if from is in a
// private network or adds nothing new.
func (g *Gatherer) Observed(from, seen netip.AddrPort) {
	clean := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	from, seen = clean(from), clean(seen)
	for _, c := range g.Snapshot().Candidates {
		// An answer to what arrived at a forwarded port leaves from that port, too. It
		// shows nothing about the NAT.
		if c.Addr == seen && (c.Type == path.TypeMapped || c.Type == path.TypeManual) {
			return
		}
	}
	g.mu.Lock()
	ok := g.round != nil && g.round.observe(time.Now(), from, seen)
	g.mu.Unlock()
	if ok {
		signal(g.kick)
	}
}

// Snapshot returns the latest result, never nil. It does not block.
func (g *Gatherer) Snapshot() *Snapshot { return g.snap.Load() }

// Check makes a round now and returns the result, port mapping included, or the error of
// ctx.
func (g *Gatherer) Check(ctx context.Context) (*Snapshot, error) {
	before := g.rounds.Load()
	signal(g.force)
	for {
		g.mu.Lock()
		updated := g.updated
		mapping := g.mapper != nil && !g.loopbackLocked()
		g.mu.Unlock()
		s := g.Snapshot()
		if s.Complete && s.round > before && (!mapping || s.PortMap.Settled()) {
			return s, nil
		}
		select {
		case <-updated:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-g.ctx.Done():
			return nil, net.ErrClosed
		}
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
