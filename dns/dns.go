// Package dns is the resolver of a node: it answers for the overlay's own zones and
// forwards other questions to other resolvers.
//
// A query passes these stages in order; the first one with an answer answers it:
//
//	udp.go tcp.go  sockets: batches of datagrams, many questions per connection
//	acl.go         access and rate limit: this machine and the overlay
//	pipeline.go    valid questions: opcode, class, EDNS version
//	special.go     names that never leave the machine (localhost, .local, single labels)
//	own.go         the overlay's zone and its reverse zones (zone.go holds the data,
//	               hosts.go asks the server for names that are not in it)
//	records.go     extra records, for names of other zones too
//	route.go       chooses the upstreams for all other names
//	rebind.go      removes private addresses from answers for public names
//	cache.go       answers of earlier questions
//	forward.go     one request for equal questions
//	exchange.go    upstreams and failover (upstream.go UDP and TCP, stream.go TLS,
//	               doh.go HTTPS)
//	finish.go      OPT, extended errors, size
//
// state.go holds the data of all stages: an immutable snapshot of the names (Zone) and
// of the owner's settings (Settings). loop.go, portal.go and link.go watch the network;
// status.go reports the state, and query.go explains one answer.
//
// Own zones never leak upstream. While a name cannot be decided, because there is no
// configuration yet or the server is away, the answer is SERVFAIL with an extended
// error (RFC 8914), never NXDOMAIN. A query that passed the ACL is always answered,
// within 5 s. No timer runs while there are no queries.
//
// This package exports no types of the DNS library.
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

// ErrNotFound is what Config.Lookup returns for a name or address that certainly does
// not exist. Any other error means that the answer is unknown.
var ErrNotFound = errors.New("no such name")

// Host is one name of the overlay and its addresses.
type Host struct {
	Name string // relative to the zone: "kitchen-pi"
	// Former is the name that was looked up if that is a former name of the device. It
	// is not set in the hosts of a Zone, which use Settings.Aliases.
	Former string
	IPv4   netip.Addr
	IPv6   netip.Addr
}

// Zone is an immutable snapshot of the overlay's names.
type Zone struct {
	// Ready is false while there is no configuration.
	Ready bool
	// Serial changes with each change of the zone.
	Serial uint64
	// Suffix is the zone's name: "weft.internal", no dots at the ends.
	Suffix string
	// IPv4 and IPv6 are the ranges whose reverse zones we answer.
	IPv4, IPv6 netip.Prefix
	Hosts      []Host
	// NoIPv4 means that IPv4 packets from devices do not arrive here: hosts that have
	// an IPv6 address are answered with that only.
	NoIPv4 bool
	// Complete means that a name that is not in Hosts does not exist. Otherwise it is
	// looked up.
	Complete bool
	// LookedUp changes when earlier results of Lookup are no longer valid.
	LookedUp uint64
}

// Config is constant after New. All functions may be called from several goroutines at
// once; those without a context must not block.
type Config struct {
	// Zone returns the current snapshot, the same pointer until the names change. It is
	// called for each batch of queries. Required.
	Zone func() *Zone
	// Settings returns the owner's settings, the same pointer until they change. A nil
	// function or result means no settings.
	Settings func() *Settings
	// Lookup finds a host that is not in the snapshot, by its name relative to the zone
	// or, if name is empty, by its address. Nil if there is no server to ask.
	Lookup func(ctx context.Context, name string, addr netip.Addr) (Host, error)
	// ResolvConf is the file with the machine's own resolvers, /etc/resolv.conf if
	// empty. It is read again when it changes.
	ResolvConf string
	// System returns the machine's own resolvers where another source is better than
	// ResolvConf; known is false where there is none.
	System func() (servers []netip.AddrPort, known bool)
	// Bootstrap returns the host names of servers and relays: only the machine's own
	// resolvers are asked for them.
	Bootstrap func() []string
	// DefaultSuffix is the zone that must not leak while there is no configuration yet,
	// "weft.internal" if empty.
	DefaultSuffix string
	// ShortNames answers single labels with the overlay's names, where there is no
	// search list.
	ShortNames bool
	// Dial connects to upstream resolvers; nil is net.Dialer. network is
	// "udp" or "tcp", address IP:port.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialOverlay is Dial for resolvers inside the overlay. Nil if the overlay cannot
	// be dialled.
	DialOverlay func(ctx context.Context, network, address string) (net.Conn, error)
	// RootCAs are the roots for DNS over TLS and HTTPS; nil means the machine's.
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
	busy      chan struct{} // a slot per query that waits for the server or an upstream
	turn      atomic.Uint32 // for rotating addresses
	listening atomic.Bool
	hosts     hosts
	cache     cache
	limits    limiter
	counts    counts
	hashKey   maphash.Seed // hashes names in the log

	making sync.Mutex     // held while a state is built
	wg     sync.WaitGroup // one per goroutine of ours

	mu sync.Mutex
	// mu guards the following.
	closed bool
	open   []io.Closer      // listeners and connections
	own    []netip.AddrPort // addresses that we listen on
	link   *time.Timer      // runs for linkQuiet after LinkChanged
}

// maxBusy bounds the queries that wait for an upstream or the server; further ones get
// SERVFAIL at once. maxTCP bounds the TCP connections.
const (
	maxBusy = 512
	maxTCP  = 128
)

// New returns a resolver that answers Query at once, and queries from the network after
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

// serve is start for one request or one reply to it: it logs a panic in f, which ends f
// alone, and calls failed with it unless failed is nil.
func (s *Server) serve(f func(), failed func(error)) bool {
	return s.start(func() {
		defer limited.Survive(s.cfg.Log, "dns", failed)
		f()
	})
}

// Listen opens UDP and TCP on the same loopback port. addr is IP:PORT; port 0 picks a
// free one.
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
		return nil, nil, fmt.Errorf("listen on %q: want a loopback address, so that no other machine can use the resolver", addr)
	}
	host = ip.Unmap().String()
	// The free TCP port may be taken for UDP: try another.
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

// Serve answers the queries of pc and l, either of which may be nil, until Close. It
// takes over both and returns at once. The system's UDP sockets are read in batches.
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

// opened registers what Close has to close; after Close it closes it at once.
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

// isOwn reports whether a is an address of this resolver.
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

// Close ends the listeners and waits for the queries in progress, which are answered
// with SERVFAIL. It is idempotent.
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
