// Package proxy connects local programs to the overlay that do not know it: SOCKS5 (RFC
// 1928: CONNECT and UDP ASSOCIATE, no authentication) and HTTP (CONNECT and
// absolute-form) on one loopback port. The first byte of a connection tells the
// protocol.
//
// A request passes these files in order:
//
//	proxy.go   accept, bounds, the first byte     refuse.go  answers beyond a bound
//	socks.go   SOCKS5 greeting and request      socks_udp.go  UDP ASSOCIATE
//	http.go    HTTP requests
//	route.go   the destination: overlay, direct, or refused
//	local.go   short names of this network
//	direct.go  direct dials, with a check of the real address
//
// The node resolves names: short and full names of the overlay and its addresses go
// through the overlay. All other destinations are dialled directly, as if there were no
// proxy; a short name that is not a device only if the hosts file or the search list
// has it. Loopback, link-local, metadata and similar addresses are refused: pages and
// redirects must not reach through the proxy what they could not reach otherwise. The
// check uses the address that is really connected to, whatever name or spelling was
// given.
//
// The listener is on loopback only. It refuses connections from the overlay
// (127.64.0.0/10, see package loopback), so that a proxy or forward is never the target
// of another one and loops cannot form.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"weft/netstack/loopback"
	"weft/overlay/limited"
	"weft/overlay/status"
)

// Node is the part of the node that the proxy needs; localapi.Node documents each
// method.
type Node interface {
	Names() *status.Names
	Resolve(ctx context.Context, name string) (status.Peer, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Config is constant after New. Zero values stand for the defaults.
type Config struct {
	Node Node // required
	Log  *slog.Logger

	// Health receives problems, each under a stable code: "connections" when some were
	// refused. An empty message ends a problem. Health must not block. May be nil.
	Health func(code, message string)

	// MaxConns bounds the connections served at once; 0 means 2048, or 1024 on a
	// machine with little memory, and at most a third of the files that the process may
	// open. Further ones get an error and are closed. At most a third of them may wait
	// for one destination to answer.
	MaxConns int
	// IdleTimeout is how long a client may take to send its request, 30 s if 0. An
	// established tunnel may be idle forever.
	IdleTimeout time.Duration
	// DialTimeout bounds one attempt to connect, 30 s if 0.
	DialTimeout time.Duration

	// exempt, if not nil, selects addresses that may be dialled directly although they
	// are forbidden. Only tests set it, to reach servers on loopback.
	exempt func(netip.AddrPort) bool
	// local is localName, except in tests.
	local func(ctx context.Context, label, suffix string) string
	// offline, if set, dials nothing directly: fuzzing must not look up random names.
	offline bool
}

// Proxy serves one listener. Its methods may be called from any goroutine.
type Proxy struct {
	// Constant after New.
	cfg  Config
	http *httpSide

	wg sync.WaitGroup // one per connection

	refusals limited.Alarm // connections refused by a bound

	mu     sync.Mutex // guards the following
	closed bool
	l      net.Listener
	open   map[net.Conn]struct{} // including those being refused
	served int                   // without those being refused
	uses   map[string]*use       // by destination, HOST:PORT
}

// New returns a proxy that is idle until Serve.
func New(cfg Config) *Proxy {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = defaultMaxConns(limited.Memory())
	}
	if cfg.local == nil {
		cfg.local = localName
	}
	if cfg.offline {
		cfg.local = func(context.Context, string, string) string { return "" }
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 30 * time.Second
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 30 * time.Second
	}
	p := &Proxy{cfg: cfg, open: map[net.Conn]struct{}{}, uses: map[string]*use{}}
	p.refusals = limited.Alarm{Log: cfg.Log, Code: string(status.CodeConnections.Of("proxy")), Health: cfg.Health, Describe: p.describeRefusals}
	p.http = newHTTPSide(p)
	return p
}

// defaultMaxConns is the default for a machine with this much memory in bytes, 0 if
// unknown. A connection costs some 25 KB while idle and 380 KB with all buffers full.
func defaultMaxConns(memory int64) int {
	if limited.Short(memory) {
		return limited.ToFiles(1024)
	}
	return limited.ToFiles(2048)
}

// Listen opens a loopback listener for Serve. addr is HOST:PORT, where HOST is an IP
// literal or "localhost"; addresses that other machines can reach are refused.
func Listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: want 127.0.0.1:PORT: %w", addr, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Unmap().IsLoopback() {
		return nil, fmt.Errorf("listen on %q: want a loopback address: the proxy has no password", addr)
	}
	l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		limited.ShrinkSocket(c)
		return loopback.Inline(c)
	}}
	l.SetMultipathTCP(false) // MPTCP listeners do not pass the socket options on
	return l.Listen(context.Background(), "tcp", net.JoinHostPort(ip.Unmap().String(), port))
}

// Serve accepts connections until Close or an error of the listener. It
// returns net.ErrClosed after Close.
func (p *Proxy) Serve(l net.Listener) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.Close()
		return net.ErrClosed
	}
	p.l = l
	p.mu.Unlock()

	for {
		c, err := l.Accept()
		if err != nil {
			if p.isClosed() {
				return net.ErrClosed
			}
			// Being out of file descriptors passes; a closed listener does not come
			// back.
			var ne net.Error
			//lint:ignore SA1019 only package net knows which accept errors are temporary
			if errors.As(err, &ne) && ne.Temporary() {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return fmt.Errorf("accept proxy connections: %w", err)
		}
		if fromOverlay(c.RemoteAddr()) {
			c.Close()
			continue
		}
		serve, ok := p.add(c)
		if !ok {
			c.Close()
			continue
		}
		go func() {
			defer p.remove(c, serve)
			defer limited.Survive(p.cfg.Log, "proxy", nil)
			if !serve {
				p.refuse(c)
				return
			}
			p.serve(c)
		}()
	}
}

// Close closes the listener and all connections and waits for their goroutines.
// It is idempotent.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	if p.l != nil {
		p.l.Close()
	}
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.http.close()
	p.wg.Wait()
	return nil
}

func (p *Proxy) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// add registers a connection to serve or, if there are too many, to refuse; ok is false
// if there are too many even for that, and after Close.
func (p *Proxy) add(c net.Conn) (serve, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, false
	}
	serve = p.served < p.cfg.MaxConns
	if !serve {
		p.refusals.Raise()
		if len(p.open)-p.served >= maxRefusing {
			return false, false
		}
	} else {
		p.served++
	}
	p.open[c] = struct{}{}
	p.wg.Add(1)
	return serve, true
}

func (p *Proxy) remove(c net.Conn, served bool) {
	c.Close()
	p.mu.Lock()
	delete(p.open, c)
	if served {
		p.served--
	}
	p.mu.Unlock()
	p.wg.Done()
}

// serve reads the first byte and passes the connection on.
func (p *Proxy) serve(c net.Conn) {
	c.SetReadDeadline(time.Now().Add(p.cfg.IdleTimeout))
	var first [1]byte
	if _, err := c.Read(first[:]); err != nil {
		return
	}
	switch b := first[0]; {
	case b == socksVersion:
		p.serveSOCKS(c)
	case b == 4:
		// SOCKS4 sends addresses, not names. Reply "request rejected".
		c.Write([]byte{0, 91, 0, 0, 0, 0, 0, 0})
	case b >= 'A' && b <= 'Z':
		p.http.serve(&sniffed{Conn: c, first: first[:]})
	}
}

func fromOverlay(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && loopback.Peers.Contains(ap.Addr().Unmap())
}

// FromOverlay reports whether a connection or datagram from a came from a peer through
// the overlay and not from a local program. weft's own listeners refuse those.
func FromOverlay(a net.Addr) bool { return fromOverlay(a) }

// sniffed returns the bytes already read first.
type sniffed struct {
	net.Conn
	first []byte
}

func (s *sniffed) Read(p []byte) (int, error) {
	if len(s.first) > 0 && len(p) > 0 {
		n := copy(p, s.first)
		s.first = s.first[n:]
		return n, nil
	}
	return s.Conn.Read(p)
}
