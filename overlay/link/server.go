package link

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/overlay/fips"
	"weft/overlay/limited"
)

// The stages of a connection: Serve or webSocket -> enter (bounds unauthenticated
// connections) -> handshake -> pick (by ALPN) -> relay, API or site (place.go bounds the
// latter two).

const (
	defaultHandshakes = 8192
	handshakeTimeout  = 10 * time.Second
	bodyLimit         = 1 << 20
	bodyTimeout       = 10 * time.Second
)

// ServerConfig says what the port serves.
type ServerConfig struct {
	// Certificate returns the leaf under the server CA, its chain included.
	Certificate func() *tls.Certificate
	// Public is the configuration of the public site's certificate; nil when
	// there is no public site.
	Public *tls.Config
	// API answers weft-api/1; the caller's certificate is r.TLS.PeerCertificates[0].
	// Nothing of it was verified, except that the caller has its key. nil: the protocol
	// is not offered.
	API http.Handler
	// Relay serves one weft-relay/1 connection until it ends or ctx does. It
	// runs in a goroutine of its own; the connection is closed when it
	// returns. nil: the protocol is not offered.
	Relay func(ctx context.Context, c *tls.Conn)
	// Site serves the public site, except /weft.
	Site http.Handler
	// RemoteAddr returns the client's address for a request that came through a trusted
	// reverse proxy. nil: the address of the connection is used.
	RemoteAddr func(*http.Request) net.Addr
	// Trusts reports whether a trusted reverse proxy has this address. nil: there is
	// none.
	Trusts func(netip.Addr) bool
	// Log gets what an operator may want to know; failures of unauthenticated clients are
	// at level Debug. nil: nothing is logged.
	Log *slog.Logger
	// MaxHandshakes bounds connections that are not authenticated yet. When there would
	// be more, the oldest one of the address that has most is closed. 0: 8,192.
	MaxHandshakes int
	// MaxSite bounds the connections to the site and the requests that come through a
	// trusted reverse proxy, together; MaxSiteEach those of one address. 0: 512 and 32.
	MaxSite, MaxSiteEach int
	// WriteTimeout is how long a client may take 16 KB of a response to read. 0:
	// 30 s.
	WriteTimeout time.Duration
}

// Server is the listening half. A client has 10 s for the handshake, and then 10 s for a
// request's head and 10 s for its body of at most 1 MiB. A response may take any time
// while the client keeps reading: WriteTimeout applies to each 16 KB.
//
// Handshakes, API and site have bounds of their own, so that filling one does not block
// the others. Relay connections count in none of them.
type Server struct {
	// constant after NewServer
	cfg    ServerConfig
	weft   *tls.Config
	named  *tls.Config // weft-site/1
	entry  *tls.Config // chooses weft, named or public
	inner  *tls.Config // inside a WebSocket: weft only
	api    *http.Server
	site   *http.Server
	apiIn  *listener
	siteIn *listener
	cpu    *slots // bounds the handshakes that compute at a time

	handshakes, apis, sites, refusals *limited.Budget

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu sync.Mutex
	// mu guards the following.
	closed    bool
	listeners map[net.Listener]struct{}
}

// NewServer prepares a server; Serve starts it.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxHandshakes == 0 {
		cfg.MaxHandshakes = defaultHandshakes
	}
	if cfg.MaxSite == 0 {
		cfg.MaxSite = siteConns
	}
	if cfg.MaxSiteEach == 0 {
		cfg.MaxSiteEach = siteConnsEach
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = writeTimeout
	}
	s := &Server{
		cfg:        cfg,
		cpu:        &slots{free: max(2, runtime.GOMAXPROCS(0))},
		listeners:  map[net.Listener]struct{}{},
		handshakes: limited.NewBudget(cfg.MaxHandshakes, 0),
		apis:       limited.NewBudget(apiConns, 0),
		sites:      limited.NewBudget(cfg.MaxSite, cfg.MaxSiteEach),
		refusals:   limited.NewBudget(refusals, refusalsEach),
		apiIn:      newListener(),
		siteIn:     newListener(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.weft = s.weftConfig()
	s.named = s.weft.Clone()
	s.named.NextProtos, s.named.ClientAuth = []string{ProtoSite}, tls.NoClientCert
	s.entry = &tls.Config{GetConfigForClient: s.pick}
	s.inner = &tls.Config{GetConfigForClient: s.pickInner}
	quiet := slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)
	if cfg.API != nil {
		s.api = &http.Server{
			Handler:           http.MaxBytesHandler(withTLS(s.unhurried(cfg.API)), bodyLimit),
			ConnContext:       apiContext,
			ConnState:         connState,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       bodyTimeout,
			WriteTimeout:      cfg.WriteTimeout,
			IdleTimeout:       15 * time.Second,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          quiet,
		}
	}
	s.site = &http.Server{
		Handler:           withTLS(s.siteHandler()),
		ConnContext:       siteContext,
		ConnState:         connState,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      cfg.WriteTimeout,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          siteStreams,
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerConnection: 64 << 10,
			MaxReceiveBufferPerStream:     32 << 10,
			SendPingTimeout:               30 * time.Second,
			WriteByteTimeout:              cfg.WriteTimeout,
		},
		ErrorLog: quiet,
	}
	s.run(s.api, s.apiIn)
	s.run(s.site, s.siteIn)
	return s
}

// apiConn hides the TLS connection from net/http, which would refuse to serve HTTP/1 with
// an ALPN name that it does not know: of the API, and of ProtoSite.
type apiConn struct {
	net.Conn
	tls *tls.Conn
}

type stateKey struct{}

func apiContext(ctx context.Context, c net.Conn) context.Context {
	state := c.(apiConn).tls.ConnectionState()
	return context.WithValue(ctx, stateKey{}, &state)
}

// withTLS sets r.TLS, which apiConn has hidden, for a handler.
func withTLS(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(stateKey{}).(*tls.ConnectionState); ok {
			r.TLS = state
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) run(srv *http.Server, in *listener) {
	if srv != nil {
		s.wg.Go(func() { srv.Serve(in) })
	}
}

func (s *Server) weftConfig() *tls.Config {
	var protos []string
	if s.cfg.API != nil {
		protos = append(protos, ProtoAPI)
	}
	if s.cfg.Relay != nil {
		protos = append(protos, ProtoRelay)
	}
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		CurvePreferences:            fips.Hybrids(),
		NextProtos:                  protos,
		ClientAuth:                  tls.RequireAnyClientCert,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
	}
}

func (s *Server) certificate() (*tls.Certificate, error) {
	if c := s.cfg.Certificate(); c != nil {
		return c, nil
	}
	return nil, errors.New("no server certificate yet")
}

// Serve accepts connections on l until Shutdown, then returns nil. The
// listener is closed when it returns.
func (s *Server) Serve(l net.Listener) error {
	return s.accept(l, func(c *Conn) { s.start(c, s.entry) })
}

// ServePlain is Serve for the public site alone, without TLS.
func (s *Server) ServePlain(l net.Listener) error {
	return s.accept(l, func(c *Conn) {
		c.plain = true
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			c.Close()
			return
		}
		s.wg.Go(func() { s.toSite(c, c) })
	})
}

func (s *Server) accept(l net.Listener, serve func(*Conn)) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		l.Close()
		return net.ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		l.Close()
	}()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
		case s.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of file descriptors, or the client has disconnected already
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Log.Warn("accept", "err", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
				return nil
			}
			continue
		}
		if tcp, ok := nc.(*net.TCPConn); ok {
			tcp.SetKeepAlive(false)
		}
		serve(newConn(nc))
	}
}

// webSocket accepts the WebSocket at /weft. Its place at the site is given back once the
// handshake inside is complete, because a whole fleet may be behind one address.
func (s *Server) webSocket(w http.ResponseWriter, r *http.Request, place *limited.Place) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "weft nodes connect here, with a WebSocket", http.StatusUpgradeRequired)
		return
	}
	var remote net.Addr
	if s.cfg.RemoteAddr != nil {
		remote = s.cfg.RemoteAddr(r)
	}
	if remote == nil {
		if ap, err := net.ResolveTCPAddr("tcp", r.RemoteAddr); err == nil {
			remote = ap
		}
	}
	ws, err := acceptWebSocket(w, r)
	if err != nil {
		s.cfg.Log.Debug("websocket", "remote", r.RemoteAddr, "err", err)
		return
	}
	if place.Gone() { // Accept has lifted the deadline that would have ended the connection
		ws.CloseNow()
		return
	}
	c := newConn(newWSConn(ws))
	c.ws, c.remote, c.outer, c.place = true, remote, connOf(r), place
	<-s.start(c, s.inner)
}

// start runs the handshake in a goroutine of its own, so that its large stack is freed
// before the connection becomes idle. The channel is closed when the handshake is over.
func (s *Server) start(c *Conn, cfg *tls.Config) <-chan struct{} {
	over := make(chan struct{})
	place := s.enter(c)
	if place == nil {
		c.Close()
		close(over)
		return over
	}
	go func() {
		defer s.wg.Done()
		s.handshake(c, tls.Server(c, cfg), place)
		close(over)
	}()
	return over
}

// enter counts an unauthenticated connection. When there are too many, the oldest of the
// address that has most is closed. It returns nil after Shutdown.
func (s *Server) enter(c *Conn) *limited.Place {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.wg.Add(1)
	s.mu.Unlock()
	place, err := s.handshakes.Take(addrOf(c.RemoteAddr()), func() { c.Conn.Close() })
	if err != nil { // after Shutdown
		s.wg.Done()
		return nil
	}
	place.Idle(true) // it may be closed for another at any time
	c.slot = &slot{cpu: s.cpu, done: s.ctx.Done()}
	return place
}

func (s *Server) handshake(c *Conn, tc *tls.Conn, place *limited.Place) {
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	begun := time.Now()
	err := tc.Handshake()
	c.trip = time.Since(begun)
	c.slot.release()
	c.slot = nil
	place.Release()
	if err != nil {
		s.cfg.Log.Debug("handshake", "remote", c.RemoteAddr(), "err", err)
		c.Close()
		return
	}
	c.place.Release() // the place of a WebSocket at the site
	c.place = nil
	c.SetDeadline(time.Time{})
	switch tc.ConnectionState().NegotiatedProtocol {
	case ProtoRelay:
		s.wg.Add(1) // safe: this goroutine still counts in wg
		go s.relay(tc)
	case ProtoAPI:
		s.toAPI(tc, c)
	case ProtoSite:
		s.toSite(apiConn{tc, tc}, c)
	default:
		s.toSite(tc, c)
	}
}

// pick chooses the TLS configuration for a ClientHello by its ALPN names.
func (s *Server) pick(h *tls.ClientHelloInfo) (*tls.Config, error) {
	if slices.Contains(h.SupportedProtos, ProtoSite) && s.cfg.Public != nil {
		return s.named, s.take(h)
	}
	if !offersWeft(h) {
		if s.cfg.Public == nil {
			return nil, errors.New("no public site here")
		}
		if f := s.cfg.Public.GetConfigForClient; f != nil {
			if cfg, err := f(h); cfg != nil && err == nil {
				return cfg, s.take(h)
			} else if err != nil {
				return nil, err
			}
		}
		return s.cfg.Public, s.take(h)
	}
	return s.weft, s.take(h)
}

// pickInner is pick inside a WebSocket, where there is no public site.
func (s *Server) pickInner(h *tls.ClientHelloInfo) (*tls.Config, error) {
	if !offersWeft(h) {
		return nil, errors.New("no weft protocol offered")
	}
	return s.weft, s.take(h)
}

func (s *Server) take(h *tls.ClientHelloInfo) error {
	c := h.Conn.(*Conn)
	return c.slot.take(c)
}

func offersWeft(h *tls.ClientHelloInfo) bool {
	return slices.ContainsFunc(h.SupportedProtos, func(p string) bool { return strings.HasPrefix(p, "weft-") })
}

func (s *Server) relay(tc *tls.Conn) {
	defer s.wg.Done()
	defer CloseNow(tc)
	s.cfg.Relay(s.ctx, tc)
}

// Shutdown closes the listeners and every unauthenticated connection, ends the context of
// relay connections at once, lets requests finish until ctx ends, and waits for all
// goroutines. To end relay connections gently, shut the relay down first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.handshakes.Close()
	var errs []error
	for _, srv := range []*http.Server{s.api, s.site} {
		if srv == nil {
			continue
		}
		if err := srv.Shutdown(ctx); err != nil {
			errs = append(errs, err)
			srv.Close()
		}
	}
	s.apiIn.Close()
	s.siteIn.Close()
	s.wg.Wait()
	return errors.Join(errs...)
}

// listener hands connections whose handshake is complete to an http.Server.
type listener struct {
	in   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newListener() *listener {
	return &listener{in: make(chan net.Conn), done: make(chan struct{})}
}

// put hands over c, which is tc or a wrapper of it.
func (l *listener) put(c, tc net.Conn) {
	select {
	case l.in <- c:
	case <-l.done:
		CloseNow(tc)
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }
