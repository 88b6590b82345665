// Package proxy is the way into the overlay for programs on this machine that
// know nothing of it: SOCKS5 (RFC 1928: CONNECT and UDP ASSOCIATE, no
// authentication) and HTTP (CONNECT and absolute-form) on one loopback port.
// The first byte of a connection says which.
//
// A request passes these files in order:
//
//	proxy.go   accept, bounds, the first byte     refuse.go  what those beyond a bound hear
//	socks.go   SOCKS5 greeting and request      socks_udp.go  UDP ASSOCIATE
//	http.go    HTTP requests
//	route.go   where it goes: the overlay, out directly, or refused
//	local.go   short names of this network
//	direct.go  dialling out, with the check of the real address
//
// Names are resolved by the node: short and full names of the overlay and its
// addresses go through the overlay. Everything else is dialled directly, as if
// the proxy were not there (a short name that is no device's: only where the hosts
// file or the search list leads somewhere), except for loopback, link-local, metadata and
// similar addresses: pages and redirects must not reach through the proxy what
// they could not reach by themselves. That check is made on the address that
// is really connected to, whatever spelling or name led there.
//
// The listener is loopback only. Connections that come in through the overlay
// (127.64.0.0/10, see package loopback) are refused, so that a proxy or a forward is
// never the target of another one and loops cannot form.
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

// Node is what the proxy needs from the node; see localapi.Node for the
// contract of each method.
type Node interface {
	Names() *status.Names
	Resolve(ctx context.Context, name string) (status.Peer, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Config is constant after New. Zero values stand for the defaults.
type Config struct {
	Node Node // required
	Log  *slog.Logger

	// Health is told what needs attention, by a stable code, and with an empty
	// message that it does not any more: "connections" when some were refused.
	// It must not block. May be nil.
	Health func(code, message string)

	// MaxConns bounds the connections served at once; 0 is 2048, or 1024 on a
	// machine with little memory, and a third of the files that the process may
	// have. Those beyond are told so and closed. At most a third of them may wait
	// for one destination to answer.
	MaxConns int
	// IdleTimeout is how long a client may take to say what it wants, 30 s if
	// 0. A tunnel, once made, may idle forever.
	IdleTimeout time.Duration
	// DialTimeout bounds one attempt to connect, 30 s if 0.
	DialTimeout time.Duration

	// exempt, if not nil, names addresses that may be dialled directly
	// although they are forbidden. Only tests set it, so that they have
	// somebody to talk to on loopback.
	exempt func(netip.AddrPort) bool
	// local is localName, but in tests.
	local func(ctx context.Context, label, suffix string) string
	// offline, if set, dials nothing directly: fuzzing must not ask the
	// world about random names.
	offline bool
}

// Proxy serves one listener. Its methods may be called from any goroutine.
type Proxy struct {
	// Constant after New.
	cfg  Config
	http *httpSide

	wg sync.WaitGroup // one per connection

	refusals limited.Alarm // connections beyond a bound

	mu     sync.Mutex // guards the following
	closed bool
	l      net.Listener
	open   map[net.Conn]struct{} // also those that are being refused
	served int                   // those that are not
	uses   map[string]*use       // by destination, HOST:PORT
}

// New returns a proxy that does nothing until Serve.
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

// defaultMaxConns is for a machine with so many bytes of memory, 0 if that is not
// known. A connection costs some 25 KB while nothing moves, and 380 KB with all buffers
// full, so that these fit.
func defaultMaxConns(memory int64) int {
	if limited.Short(memory) {
		return limited.ToFiles(1024)
	}
	return limited.ToFiles(2048)
}

// Listen opens a loopback listener for Serve. addr is HOST:PORT, the host an
// IP literal or "localhost"; any address that others could reach is refused.
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
		return nil, fmt.Errorf("listen on %q: only loopback addresses are allowed, the proxy has no password", addr)
	}
	l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		limited.ShrinkSocket(c)
		return loopback.Inline(c)
	}}
	l.SetMultipathTCP(false) // whose listeners pass options of this kind on to nobody
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
			// Out of file descriptors passes; a listener that is gone does not.
			var ne net.Error
			//lint:ignore SA1019 what is temporary about accepting, package net alone knows
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

// Close ends the listener and all connections and waits for their goroutines.
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

// add registers a connection to be served or, when there are too many, to be
// refused; ok is false when there are too many even for that, and on Close.
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

// serve reads the first byte and hands the connection on.
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
		// SOCKS4 sends addresses, not names: "request rejected".
		c.Write([]byte{0, 91, 0, 0, 0, 0, 0, 0})
	case b >= 'A' && b <= 'Z':
		p.http.serve(&sniffed{Conn: c, first: first[:]})
	}
}

func fromOverlay(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && loopback.Peers.Contains(ap.Addr().Unmap())
}

// FromOverlay reports whether a connection or datagram from a was made by a
// peer through the overlay rather than by a program on this machine. weft's
// own listeners refuse those.
func FromOverlay(a net.Addr) bool { return fromOverlay(a) }

// sniffed gives the bytes read ahead back.
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
