// Package dns is the resolver of a node: it answers for the overlay's own
// zones and forwards the rest to other resolvers.
//
// A query passes these stages in order; the first that has an answer gives it:
//
//	udp.go tcp.go  sockets: batches of datagrams, many questions per connection
//	acl.go         who may ask at all, and how often: this machine and the overlay
//	pipeline.go    what is a question: opcode, class, EDNS version
//	special.go     names that never leave the machine (localhost, .local, single labels)
//	own.go         the overlay's zone and its reverse zones (zone.go holds the data,
//	               hosts.go looks up on the server what is not in it)
//	records.go     extra records, for names of other zones too
//	route.go       who is asked for what is left
//	rebind.go      private addresses for public names are taken out
//	cache.go       what was asked already
//	forward.go     asking: failover, one question at a time for the same name
//	               (upstream.go UDP and TCP, stream.go TLS, doh.go HTTPS)
//	finish.go      OPT, extended errors, size
//
// state.go holds what all of them answer from: an immutable snapshot of names
// (Zone) and of what the owner decided (Settings). loop.go, portal.go and
// link.go watch the surroundings; status.go says what is going on, and query.go
// what becomes of one name and why.
//
// Own zones never leak upstream. A name that nobody can decide about, because
// there is no configuration yet or the server is away, is SERVFAIL with an
// extended error (RFC 8914), never NXDOMAIN; a query that was let in is always
// answered, within 5 s. While nobody asks, nothing happens: no timer runs.
//
// The types of the DNS library do not appear in what this package exports.
package dns

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/limited"
)

// ServiceAddr is the resolver's address inside every overlay.
var ServiceAddr = netip.AddrFrom4([4]byte{100, 100, 100, 100})

// ErrNotFound is what Config.Lookup returns for a name or address that surely
// does not exist. Any other error means that nobody knows.
var ErrNotFound = errors.New("no such name")

// Host is one name of the overlay and its addresses.
type Host struct {
	Name string // relative to the zone: "kitchen-pi"
	// Former is the name that was looked up, when it is a former one that
	// still leads to Name. Not for the hosts of a Zone: these have
	// Settings.Aliases.
	Former string
	IPv4   netip.Addr
	IPv6   netip.Addr
}

// Zone is an immutable snapshot of the overlay's names.
type Zone struct {
	// Ready is false as long as there is no configuration at all.
	Ready bool
	// Serial moves with each change.
	Serial uint64
	// Suffix is the zone's name: "weft.internal", no dots at the ends.
	Suffix string
	// IPv4 and IPv6 are the ranges whose reverse zones are ours.
	IPv4, IPv6 netip.Prefix
	Hosts      []Host
	// NoIPv4 says that what devices send over IPv4 does not arrive here: hosts
	// with an IPv6 address are found by that alone.
	NoIPv4 bool
	// Complete says that a name which is not in Hosts does not exist.
	// Otherwise it is looked up.
	Complete bool
	// LookedUp moves when what Lookup said before counts no more.
	LookedUp uint64
}

// Config is constant after New. All functions may be called from many
// goroutines at once, and those that take no context must not block.
type Config struct {
	// Zone returns the current snapshot, the same pointer until something
	// changed. It is called for each batch of queries. Required.
	Zone func() *Zone
	// Settings returns what the owner decided, the same pointer until
	// something changed. nil, the function or what it returns, is none.
	Settings func() *Settings
	// Lookup finds a host that is not in the snapshot, by its name relative
	// to the zone or, if name is empty, by its address. Nil when there is
	// nobody to ask.
	Lookup func(ctx context.Context, name string, addr netip.Addr) (Host, error)
	// ResolvConf is the file that names the machine's own resolvers,
	// /etc/resolv.conf if empty. It is read again when it changes.
	ResolvConf string
	// System returns the machine's own resolvers where these are known better
	// than by ResolvConf; known is false where they are not.
	System func() (servers []netip.AddrPort, known bool)
	// Bootstrap returns the host names of servers and relays: they are always
	// asked of the machine's own resolvers.
	Bootstrap func() []string
	// DefaultSuffix is the zone that is kept from leaking while there is no
	// configuration yet, "weft.internal" if empty.
	DefaultSuffix string
	// ShortNames answers single labels with the overlay's names, where no
	// search list can do that.
	ShortNames bool
	// Dial connects to upstream resolvers; nil is net.Dialer. network is
	// "udp" or "tcp", address IP:port.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialOverlay is the same for resolvers inside the overlay. Nil when
	// there is no way there.
	DialOverlay func(ctx context.Context, network, address string) (net.Conn, error)
	// RootCAs are whom to trust for DNS over TLS and HTTPS; nil is the
	// machine's.
	RootCAs *x509.CertPool
	Log     *slog.Logger
}

// Server is the resolver. Its methods may be called from any goroutine.
type Server struct {
	// Constant after New.
	cfg    Config
	fwd    *forwarder
	stages []stage
	portal portal
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	state     atomic.Pointer[state]
	busy      chan struct{} // a slot per query that waits for somebody else
	turn      atomic.Uint32 // for rotating addresses
	listening atomic.Bool
	hosts     hosts
	cache     cache
	limits    limiter
	counts    counts
	hashKey   maphash.Seed // of names in the log

	making sync.Mutex     // held while a state is made
	wg     sync.WaitGroup // one per goroutine of ours

	mu sync.Mutex
	// mu guards the following.
	closed bool
	open   []io.Closer      // listeners and connections
	own    []netip.AddrPort // what we listen on
	link   *time.Timer      // runs for a moment after LinkChanged
}

// maxBusy bounds the queries that wait for an upstream or the server at once;
// those beyond get SERVFAIL at once. maxTCP bounds the TCP connections.
const (
	maxBusy = 512
	maxTCP  = 128
)

// New returns a resolver that answers Query at once and the network after
// Serve.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Settings == nil {
		cfg.Settings = func() *Settings { return nil }
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.DefaultSuffix == "" {
		cfg.DefaultSuffix = "weft.internal"
	}
	if cfg.Dial == nil {
		// No keepalive: it would wake an idle machine.
		cfg.Dial = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}).DialContext
	}
	s := &Server{cfg: cfg, busy: make(chan struct{}, maxBusy), hashKey: maphash.MakeSeed()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.portal.s = s
	s.fwd = newForwarder(s)
	s.stages = []stage{s.special, s.ownZones, s.outside, s.forward}
	return s
}

// start runs f in a goroutine that Close waits for; false after Close.
func (s *Server) start(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

// serve is start for one request, or for what somebody else says to one: a panic
// in f is logged and ends f alone. failed, unless it is nil, is told of it.
func (s *Server) serve(f func(), failed func(error)) bool {
	return s.start(func() {
		defer limited.Survive(s.cfg.Log, "dns", failed)
		f()
	})
}

// Listen opens UDP and TCP on the same loopback port. addr is IP:PORT; port 0
// takes a free one.
func Listen(addr string) (net.PacketConn, net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %q: want 127.0.0.1:PORT: %w", addr, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Unmap().IsLoopback() {
		return nil, nil, fmt.Errorf("listen on %q: only loopback addresses are allowed, or the resolver would be open to others", addr)
	}
	host = ip.Unmap().String()
	// A free TCP port may be taken for UDP: try again with another.
	for try := 0; ; try++ {
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return nil, nil, err
		}
		p := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		pc, err := listenUDP(net.JoinHostPort(host, p))
		if err == nil {
			return pc, l, nil
		}
		l.Close()
		if port != "0" || try == 10 {
			return nil, nil, err
		}
	}
}

// Serve answers the queries of pc and l, either of which may be nil, until
// Close. It takes both over and returns at once. The kernel's UDP sockets are
// read in batches.
func (s *Server) Serve(pc net.PacketConn, l net.Listener) {
	s.current()
	if pc != nil && s.opened(pc, pc.LocalAddr()) {
		s.start(func() { s.serveUDP(pc) })
	}
	if l != nil {
		l = limited.Listener(l, maxTCP)
		if s.opened(l, l.Addr()) {
			s.start(func() { s.serveTCP(l) })
		}
	}
}

// opened notes what Close closes; it does so at once after Close.
func (s *Server) opened(c io.Closer, addr net.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return false
	}
	s.open = append(s.open, c)
	if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
		ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		if !slices.Contains(s.own, ap) {
			s.own = append(s.own, ap)
		}
	}
	s.listening.Store(true)
	return true
}

// isOwn reports whether asking a would be asking ourselves.
func (s *Server) isOwn(a netip.AddrPort) bool {
	if a.Addr() == ServiceAddr {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.own {
		if o == a || o.Addr().IsUnspecified() && o.Port() == a.Port() {
			return true
		}
	}
	return false
}

// Close ends the listeners and waits for the queries under way, which are
// answered with SERVFAIL. It is idempotent.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	open := s.open
	s.open, s.closed = nil, true
	if s.link != nil {
		s.link.Stop()
	}
	s.mu.Unlock()
	s.fwd.reset()
	for _, c := range open {
		c.Close()
	}
	s.wg.Wait()
	return nil
}
