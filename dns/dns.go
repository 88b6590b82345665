// Package dns is the resolver of a node: it answers for the overlay's own
// zones and forwards the rest to the resolvers that the machine had anyway.
//
// A query passes these stages in order (pipeline.go); the first that has an
// answer gives it:
//
//	acl.go         who may ask at all: this machine and the overlay
//	pipeline.go    what is a question: opcode, class, EDNS version
//	special.go     names that never leave the machine (localhost, .local, single labels)
//	own.go         the overlay's zone and its reverse zones (zone.go holds the data)
//	forward.go     everything else, to the resolvers of resolvconf.go
//	finish.go      OPT, extended errors, size
//
// Own zones never leak upstream. A name that nobody can decide about, because
// there is no configuration yet or the server is away, is SERVFAIL with an
// extended error (RFC 8914), never NXDOMAIN; a query that was let in is always
// answered. Own data has a TTL of 5 s.
//
// The types of the DNS library do not appear in what this package exports.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ServiceAddr is the resolver's address inside every overlay.
var ServiceAddr = netip.AddrFrom4([4]byte{100, 100, 100, 100})

// ErrNotFound is what Config.Lookup returns for a name or address that surely
// does not exist. Any other error means that nobody knows.
var ErrNotFound = errors.New("no such name")

// Host is one name of the overlay and its addresses.
type Host struct {
	Name string // relative to the zone: "kitchen-pi"
	IPv4 netip.Addr
	IPv6 netip.Addr
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
	// Complete says that a name which is not in Hosts does not exist.
	// Otherwise it is looked up.
	Complete bool
}

// Config is constant after New.
type Config struct {
	// Zone returns the current snapshot, the same pointer until something
	// changed. It is called for each query. Required.
	Zone func() *Zone
	// Lookup finds a host that is not in the snapshot, by its name relative
	// to the zone or, if name is empty, by its address. Nil when there is
	// nobody to ask.
	Lookup func(ctx context.Context, name string, addr netip.Addr) (Host, error)
	// ResolvConf is the file that names the upstream resolvers,
	// /etc/resolv.conf if empty. It is read again when it changes.
	ResolvConf string
	// DefaultSuffix is the zone that is kept from leaking while there is no
	// configuration yet, "weft.internal" if empty.
	DefaultSuffix string
	// Dial connects to upstream resolvers; nil is net.Dialer. network is
	// "udp" or "tcp", address IP:port.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// Server is the resolver. Its methods may be called from any goroutine.
type Server struct {
	// Constant after New.
	cfg    Config
	fwd    *forwarder
	stages []stage

	index  atomic.Pointer[index] // of the last snapshot seen
	busy   chan struct{}         // a slot per query that waits for somebody else
	wg     sync.WaitGroup        // one per listener
	ctx    context.Context       // ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex // guards the following
	closed bool
	open   []*dns.Server
	own    []netip.AddrPort // what we listen on
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
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.DefaultSuffix == "" {
		cfg.DefaultSuffix = "weft.internal"
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	s := &Server{cfg: cfg, busy: make(chan struct{}, maxBusy)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.fwd = newForwarder(cfg, s.isOwn)
	s.stages = []stage{s.special, s.ownZones, s.forward}
	return s
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
		pc, err := net.ListenPacket("udp", net.JoinHostPort(host, p))
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
// Close. It takes both over and returns at once.
func (s *Server) Serve(pc net.PacketConn, l net.Listener) {
	if pc != nil {
		// Each timeout is a wake-up of an idle device, and nothing comes of
		// it: a datagram has no rest to wait for. Close ends the wait.
		s.start(&dns.Server{PacketConn: pc, ReadTimeout: 24 * time.Hour}, pc.LocalAddr(), pc.Close)
	}
	if l != nil {
		s.start(&dns.Server{Listener: limitListener(l, maxTCP), ReadTimeout: 5 * time.Second}, l.Addr(), l.Close)
	}
}

func (s *Server) start(srv *dns.Server, addr net.Addr, closer func() error) {
	srv.Handler = dns.HandlerFunc(s.serve)
	srv.MsgAcceptFunc = accept
	srv.UDPSize = 4096
	srv.WriteTimeout = 5 * time.Second
	srv.IdleTimeout = func() time.Duration { return 10 * time.Second }
	srv.MaxTCPQueries = -1

	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		closer()
		return
	}
	s.open = append(s.open, srv)
	if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
		s.own = append(s.own, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	s.wg.Add(1)
	s.mu.Unlock()
	failed := make(chan struct{})
	go func() {
		defer s.wg.Done()
		defer close(failed)
		if err := srv.ActivateAndServe(); err != nil && s.ctx.Err() == nil {
			s.cfg.Log.Warn("dns: listener ended", "addr", addr, "err", err)
		}
	}()
	// Shutdown before the server has started would be lost.
	select {
	case <-started:
	case <-failed:
	}
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
	s.mu.Unlock()
	for _, srv := range open {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		srv.ShutdownContext(ctx)
		cancel()
	}
	s.wg.Wait()
	return nil
}

// limitListener accepts at most n connections at a time and closes others.
func limitListener(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, n)}
}

type limitedListener struct {
	net.Listener
	slots chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: c, slots: l.slots}, nil
		default:
			c.Close()
		}
	}
}

type limitedConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}
