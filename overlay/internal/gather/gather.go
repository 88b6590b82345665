// Package gather finds out where its own node can perhaps be reached by UDP
// and what stands between the node and the internet: addresses of interfaces,
// the node's socket as STUN servers see it (RFC 8489), a port mapping by the
// gateway, and what the user said.
//
// A round of gathering asks all STUN servers at once over the node's own UDP
// sockets, at most four times each, and ends after 5 s at the latest. Rounds
// are made when a path is wanted (Want) and the last one is older than 20 s,
// and when the network has changed (Wake). Nothing is sent in between: an
// idle node gathers nothing.
//
// The kind of NAT is told by comparing what two STUN servers saw. One answer
// tells none from some; two ports of one address miss the rare NAT whose
// mapping depends on the address only (Family.Addresses is 1 then). A peer that
// was reached can be the second witness (Observed). Answers of servers in
// private networks count only where no other server answers.
//
//   - gather.go      Gatherer: the goroutine and its timers
//   - resolve.go     names of STUN servers
//   - round.go       the pure core: one round of STUN requests
//   - verdict.go     from answers to a Mapping and candidates
//   - interfaces.go  which addresses of this machine are worth telling
//
// A STUN answer counts when its transaction is one of ours that is open and
// it comes from the address that was asked; anything else changes nothing.
package gather

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/internal/path"
	"weft/overlay/portmap"
	"weft/overlay/stun"
)

// MaxCandidates bounds Snapshot.Candidates.
const MaxCandidates = 32

// Config is what a Gatherer works with.
type Config struct {
	// Send sends a datagram from the node's UDP socket of the family of to.
	// It is called from one goroutine at a time and must not keep b. An
	// error means that there is no way there; nothing is retried for it but
	// the request's own tries. Required.
	Send func(b []byte, to netip.AddrPort) error
	// Ports returns the ports of the node's UDP sockets, 0 where there is no
	// socket of that family. It is read at the start of each round. Required.
	Ports func() (v4, v6 uint16)
	// Changed is called from the Gatherer's goroutine with each new snapshot
	// that differs from the one before in its candidates or mappings, and
	// when a round ends. It must return soon and must not call Close. May be
	// nil.
	Changed func(*Snapshot)
	// Refuse reports overlay addresses, which are never candidates. May be
	// nil.
	Refuse func(netip.Addr) bool
	// Manual are candidates that the user gave (weft run --endpoint); at most
	// 4 are used. The user's router must forward that port to the node's
	// socket, so the node has to listen on a port that does not change.
	Manual []netip.AddrPort
	// PortMap makes a port mapping of the IPv4 port while paths are wanted;
	// nil never asks the gateway, and a network whose STUN servers are all on
	// this machine's loopback does not either. The Gatherer sets its Changed.
	PortMap *portmap.Config
	// Interfaces lists the machine's addresses; nil asks the kernel.
	Interfaces func() ([]Local, error)
	// Resolve looks the name of a STUN server up; nil is
	// net.DefaultResolver.LookupNetIP. It may be called for several at once.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Log gets what happens; nil discards it.
	Log *slog.Logger
}

// Local is an address of an interface that is up.
type Local struct {
	Name       string // of the interface
	Addr       netip.Addr
	Temporary  bool // IPv6 privacy address (RFC 8981)
	Deprecated bool // IPv6 address not to be used for anything new, or not yet usable
}

// Snapshot is what is known; it is immutable.
type Snapshot struct {
	// Candidates are at most MaxCandidates, without doubles: manual, mapped,
	// STUN, then host addresses in the order of their worth.
	Candidates []path.Candidate
	IPv4, IPv6 Family
	// PortMap is the zero value when the gateway is not asked.
	PortMap portmap.Status
	// Answers are the STUN requests of the last round, for netcheck.
	Answers []Answer
	// Started is when the last round was begun, zero before the first.
	// Complete is set once it has ended.
	Started  time.Time
	Complete bool

	round uint64 // which one
}

// Family is the view of one address family.
type Family struct {
	Mapping path.Mapping
	// Local: this machine has an address of the family beyond link-local.
	Local bool
	// UDP: a STUN server answered.
	UDP bool
	// Seen is the node's socket as seen from outside, invalid if unknown.
	Seen netip.AddrPort
	// Asked and Answered count STUN destinations, Addresses the different IP
	// addresses among those whose answers Mapping comes from. A Mapping that
	// is unknown with Addresses = 1 says: only one STUN address.
	Asked, Answered, Addresses int
}

// Answer is one STUN destination.
type Answer struct {
	Server string         // as configured
	Addr   netip.AddrPort // invalid when the name was not found
	Seen   netip.AddrPort // invalid when there was no answer
	RTT    time.Duration  // of the try that was answered
	Err    string         // in plain words, "" when answered or still open
}

// NAT is what peers are told.
func (s *Snapshot) NAT() path.NAT {
	return path.NAT{IPv4: s.IPv4.Mapping, IPv6: s.IPv6.Mapping}
}

const (
	// fresh is how long a round is good for: shorter than the 30 s after
	// which the most forgetful NATs drop an idle mapping.
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
	kick   chan struct{} // an answer, a name, servers, a mapping: look again

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu sync.Mutex
	// mu guards the following. It is never held while calling out.
	started bool
	servers []string
	unasked bool // some of servers are newer than the round
	names   names
	round   *round // nil before the first
	updated chan struct{}
	v4, v6  uint16    // written by the goroutine
	wanted  time.Time // last Want or Keep

	// Owned by the goroutine.
	begun      time.Time // of the last round, zero: none in this network
	locals     []netip.Addr
	last4      Family // of the last complete round in this network
	last6      Family
	lastSeen4  []netip.AddrPort
	lastSeen6  []netip.AddrPort
	lastFailed bool // to list interfaces: said once
}

// New makes a Gatherer. It does no I/O and starts nothing.
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
		pm.Changed = func(portmap.Status) { tell(g.kick) }
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

// Close removes the port mapping, ends the goroutine and waits, at most about
// a second. It may be called more than once.
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

// SetServers gives the STUN servers as "host:port", those of all relays in the
// order of preference; at most 16 are used. It is cheap when nothing changed.
// They are asked in the next round.
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

// Want says that a path is wanted: it starts a round if the last one is old,
// and keeps the port mapping. It is cheap.
func (g *Gatherer) Want() { tell(g.want) }

// Keep says that a direct path is in use: it keeps the port mapping, which
// else goes after ten minutes or more, and makes no round. It is cheap; call
// it at least every five minutes.
func (g *Gatherer) Keep() {
	g.mu.Lock()
	g.wanted = time.Now()
	port, ask := g.v4, g.round != nil && g.mapper != nil && !g.loopbackLocked()
	g.mu.Unlock()
	if ask {
		g.mapper.Want(port)
	}
}

// loopbackLocked reports that all STUN servers are on this machine: a trial,
// of which no router has to know.
func (g *Gatherer) loopbackLocked() bool {
	for _, s := range g.servers {
		if a, err := netip.ParseAddrPort(s); err != nil || !a.Addr().IsLoopback() {
			return false
		}
	}
	return len(g.servers) > 0
}

// Wake says that the network may have changed: what is known is doubtful, and
// is gathered anew if a path was wanted or in use in the last ten minutes,
// else forgotten until one is.
func (g *Gatherer) Wake() { tell(g.wake) }

// STUN takes a datagram that looks like a STUN response, and reports whether
// it was the answer to one of our requests. pkt is only read during the call.
func (g *Gatherer) STUN(pkt []byte, from netip.AddrPort) bool {
	g.mu.Lock()
	ok := g.round != nil && g.round.answer(time.Now(), pkt, from)
	g.mu.Unlock()
	if ok {
		tell(g.kick)
	}
	return ok
}

// Observed takes what an authenticated peer at from says that our socket's
// address is (a pong's Observed). Where only one STUN address answered it tells
// easy from hard: the first peer that is reached spares the others the search.
// What is not asked for now, from private networks, or without news is left
// out.
func (g *Gatherer) Observed(from, seen netip.AddrPort) {
	clean := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	from, seen = clean(from), clean(seen)
	for _, c := range g.Snapshot().Candidates {
		// What came in at a forwarded port goes out from there, too: that is
		// not the NAT's doing.
		if c.Addr == seen && (c.Type == path.TypeMapped || c.Type == path.TypeManual) {
			return
		}
	}
	g.mu.Lock()
	ok := g.round != nil && g.round.observe(time.Now(), from, seen)
	g.mu.Unlock()
	if ok {
		tell(g.kick)
	}
}

// Snapshot returns what is known. It never blocks and is never nil.
func (g *Gatherer) Snapshot() *Snapshot { return g.snap.Load() }

// Check makes a round now and returns what it found, the port mapping
// included, or ctx's error.
func (g *Gatherer) Check(ctx context.Context) (*Snapshot, error) {
	before := g.rounds.Load()
	tell(g.force)
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

func tell(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// loop owns the rounds.
func (g *Gatherer) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var next time.Time
	for {
		var fire <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			fire = timer.C
		}
		select {
		case <-g.ctx.Done():
			return
		case <-g.want:
			g.mu.Lock()
			unasked := g.unasked
			g.mu.Unlock()
			if unasked || g.begun.IsZero() || time.Since(g.begun) > fresh {
				g.begin()
			}
			g.Keep()
		case <-g.force:
			g.begin()
			g.Keep()
		case <-g.wake:
			g.last4, g.last6, g.lastSeen4, g.lastSeen6 = Family{}, Family{}, nil, nil
			g.mu.Lock()
			g.names.expire()
			inUse := !g.wanted.IsZero() && time.Since(g.wanted) < inUse
			g.mu.Unlock()
			if g.mapper != nil {
				g.mapper.Wake()
			}
			if inUse {
				g.begin()
			} else {
				g.forget()
			}
		case <-g.kick:
		case <-fire:
		}
		next = g.step()
	}
}

// begin starts a round: what names are known are asked at once, others as
// they are found.
func (g *Gatherer) begin() {
	now := time.Now()
	g.begun = now
	g.rounds.Add(1)
	v4, v6 := g.cfg.Ports()
	all, err := g.cfg.Interfaces()
	if err != nil && !g.lastFailed {
		g.log.Warn("the addresses of this machine are not known", "err", err)
	}
	g.lastFailed = err != nil
	g.locals = usable(all, g.cfg.Refuse)

	g.mu.Lock()
	defer g.mu.Unlock()
	g.v4, g.v6, g.unasked = v4, v6, false
	g.round = newRound(func() (tx stun.TxID) {
		rand.Read(tx[:])
		return tx
	})
	for _, s := range g.servers {
		g.askLocked(now, s)
	}
}

// forget goes back to before the first round.
func (g *Gatherer) forget() {
	g.begun, g.locals = time.Time{}, nil
	g.mu.Lock()
	defer g.mu.Unlock()
	g.round = nil
}

// step sends what is due, publishes what is known, and returns when to be
// called again; zero is not before something happens.
func (g *Gatherer) step() (next time.Time) {
	now := time.Now()
	if g.begun.IsZero() {
		g.publish(g.view(now, false))
		return time.Time{}
	}
	g.mu.Lock()
	out, next := g.round.due(now)
	over := next.IsZero() && g.names.pending == 0
	g.mu.Unlock()

	var b [64]byte
	for _, q := range out {
		err := g.cfg.Send(stun.AppendRequest(b[:0], q.tx), q.to)
		if err != nil {
			g.log.Debug("send STUN request", "to", q.to, "err", err)
			continue
		}
		g.mu.Lock()
		g.round.sent(q)
		g.mu.Unlock()
	}
	g.publish(g.view(now, over))
	return next
}

// view makes a snapshot.
func (g *Gatherer) view(now time.Time, over bool) *Snapshot {
	s := &Snapshot{Started: g.begun, Complete: over, round: g.rounds.Load()}
	if g.mapper != nil {
		s.PortMap = g.mapper.Status()
	}
	var seen4, seen6 []netip.AddrPort
	g.mu.Lock()
	if g.round != nil {
		s.IPv4, seen4 = g.round.family(true, over, g.locals, g.v4)
		s.IPv6, seen6 = g.round.family(false, over, g.locals, g.v6)
		s.Answers = g.round.answers(now)
	}
	g.mu.Unlock()
	// Until the round is over, what the one before found in this network
	// stays: a peer is not told of a change that is none.
	if !over {
		s.IPv4, seen4 = carryOver(s.IPv4, seen4, g.last4, g.lastSeen4)
		s.IPv6, seen6 = carryOver(s.IPv6, seen6, g.last6, g.lastSeen6)
	} else {
		g.last4, g.lastSeen4, g.last6, g.lastSeen6 = s.IPv4, seen4, s.IPv6, seen6
	}
	var hosts []netip.AddrPort
	for _, a := range g.locals {
		port := g.v6
		if a.Is4() {
			port = g.v4
		}
		hosts = append(hosts, netip.AddrPortFrom(a, port))
	}
	s.Candidates = candidates(g.cfg.Manual, s.PortMap, append(seen4, seen6...), hosts, g.cfg.Refuse)
	return s
}

func carryOver(f Family, seen []netip.AddrPort, last Family, lastSeen []netip.AddrPort) (Family, []netip.AddrPort) {
	switch {
	case !f.UDP:
		asked := f.Asked
		f, seen = last, lastSeen
		f.Asked = max(asked, last.Asked)
	case f.Mapping == path.MappingUnknown && f.Seen.Addr() == last.Seen.Addr():
		f.Mapping, f.Addresses = last.Mapping, last.Addresses
	}
	return f, slices.Clip(seen)
}

// publish tells who waits, and Changed if it matters.
func (g *Gatherer) publish(s *Snapshot) {
	old := g.snap.Swap(s)
	g.mu.Lock()
	close(g.updated)
	g.updated = make(chan struct{})
	g.mu.Unlock()
	if g.cfg.Changed == nil {
		return
	}
	if s.Complete && (!old.Complete || old.round != s.round) || s.NAT() != old.NAT() ||
		s.PortMap.Kind != old.PortMap.Kind || !slices.Equal(s.Candidates, old.Candidates) {
		g.cfg.Changed(s)
	}
}
