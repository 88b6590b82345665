package coord

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"weft/coord/ca"
	"weft/coord/console"
	"weft/coord/install"
	"weft/coord/listen"
	"weft/coord/metrics"
	"weft/coord/ops"
	"weft/coord/webapi"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay/relayserver"
)

// The default addresses to listen on.
const (
	DefaultListen  = ":8443"
	DefaultConsole = "127.0.0.1:8080"
	DefaultSTUN    = ":3478"
)

// closeGrace is how long Close waits for requests to finish. The process has to end within 5 s.
const closeGrace = 2 * time.Second

// lockWait is how long a starting server waits for a CLI verb, or for the server that it
// replaces, to release the data directory.
const lockWait = 3 * time.Second

// Address is where to listen.
type Address = listen.Address

// ServerOptions configure NewServer.
type ServerOptions struct {
	ops.Options
	Listen         Address // TCP, TLS: nodes, relay and site
	Console        Address // TCP, plain HTTP on loopback: site
	STUN           Address // UDP
	TrustedProxies []netip.Prefix
	ACME           ACMEOptions
	PasskeyDomain  string // see ops.SetSignIn; "" for no change
	Releases       string // directory of the release for devices; "" for DATA/releases

	siteTimeout time.Duration // link.ServerConfig.WriteTimeout
}

// Server is a Service with everything that listens: nodes, relay, site, STUN,
// and the admin socket.
type Server struct {
	// constant after NewServer
	*ops.Service
	log      *slog.Logger
	now      func() time.Time
	trusted  []netip.Prefix
	timeout  time.Duration // for writes to the site's clients; 0 for that of package link
	domain   string        // "" without ACME
	releases string        // directory
	tcp      net.Listener
	plain    net.Listener    // nil if off
	udp      listen.UDPPorts // none if off
	admin    net.Listener
	site     *tls.Certificate
	acme     *acmeSite // nil without a domain
	link     *link.Server
	relay    *relayserver.Server
	adminH   *http.Server
	console  *console.Console
	api      http.Handler
	release  *install.Releases

	requests *metrics.Requests

	stopACME func()

	cancel context.CancelFunc // ends the goroutines that wg counts
	wg     sync.WaitGroup
	failed chan error // capacity 1: a listener ended by itself
	ready  atomic.Bool
	once   sync.Once
}

// NewServer opens all listeners and the data directory, and starts serving. If it returns an
// error nothing is left running. The caller must Close the server.
func NewServer(ctx context.Context, o ServerOptions) (_ *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{log: o.Log, now: o.Now, trusted: o.TrustedProxies, timeout: o.siteTimeout, domain: o.ACME.Domain, failed: make(chan error, 1), cancel: func() {}, stopACME: func() {}, requests: metrics.NewRequests()}
	defer func() {
		if err != nil {
			s.stopACME()
			s.closeListeners()
			if s.Service != nil {
				s.Service.Close()
			}
		}
	}()
	if err := s.listen(o); err != nil {
		return nil, err
	}
	o.Create = true
	// A CLI verb may be using the directory just now.
	o.LockWait = lockWait
	urls := o.URLs
	if len(urls) == 0 {
		urls = []string{listen.DefaultURL(s.tcp.Addr())}
	}
	switch {
	case len(o.URLs) == 0 && o.ACME.Domain != "":
		urls = []string{domainURL(o.ACME.Domain, s.tcp.Addr())}
	case len(o.URLs) == 0:
		o.Log.Warn("no --url given: devices will look for this server at " + urls[0] + "; if they cannot reach that address, start with --url https://HOST:PORT")
	}
	o.Options.URLs = urls
	o.Options.STUN = listen.STUNAddrs(urls, s.udp)
	if s.Service, err = ops.OpenService(ctx, o.Options); err != nil {
		return nil, err
	}
	if o.PasskeyDomain != "" {
		if _, err = ops.Do(ctx, s.Service, ops.System(), ops.SetSignIn{PasskeyDomain: &o.PasskeyDomain}); err != nil {
			return nil, err
		}
	}
	if s.site, err = ca.Site(o.Data, urls, o.Now()); err != nil {
		return nil, err
	}
	if s.admin, err = webapi.Listen(o.Data); err != nil {
		return nil, err
	}
	releases := cmp.Or(o.Releases, filepath.Join(o.Data, "releases"))
	s.releases = releases
	s.release = install.New(releases, o.Log)
	if _, err := s.release.Current(); o.Releases != "" && errors.Is(err, install.ErrNone) { // Current logs other errors
		o.Log.Warn("--releases: " + err.Error() + "; the console cannot show a command that installs weft until a release is copied there: make one with scripts/release --key FILE")
	}
	if o.ACME.Domain != "" {
		ctx, cancel := context.WithCancel(context.Background())
		if s.acme, err = newACME(ctx, o.ACME, o.Data, s.tcp.Addr(), s.site, o.Log); err != nil {
			cancel()
			return nil, err
		}
		s.stopACME = func() { cancel(); s.acme.close() }
	}
	s.SetReleaseKey(s.release.Key)
	s.build()
	s.start()
	return s, nil
}

// listen opens the ports before anything is written to the data directory.
func (s *Server) listen(o ServerOptions) (err error) {
	if s.tcp, err = listen.TCP(o.Listen, "--listen ADDR:PORT"); err != nil {
		return err
	}
	if o.Console.Addr != "" {
		if err := checkConsoleAddr(o.Console.Addr, len(o.TrustedProxies) > 0); err != nil {
			return err
		}
		s.plain, err = listen.TCP(o.Console, "--console")
		if err = o.Console.Optional(err, s.log); err != nil {
			return err
		}
	}
	if o.STUN.Addr != "" {
		s.udp, err = listen.UDP(o.STUN, "--stun")
		if err = o.STUN.Optional(err, s.log); err != nil {
			return err
		}
	}
	return nil
}

// checkConsoleAddr refuses addresses other than loopback for plain HTTP, because passwords and
// cookies would cross the network unencrypted. With trusted proxies it accepts any address.
func checkConsoleAddr(addr string, proxied bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return ops.Invalid("--console %q: want ADDR:PORT, such as 127.0.0.1:8080", addr)
	}
	ip, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && ip.IsLoopback() || proxied {
		return nil
	}
	return ops.Invalid("--console %s: this is plain HTTP and must be on loopback, such as %s; other machines use --listen (or name your reverse proxy with --trusted-proxy)", addr, DefaultConsole)
}

// build wires relay, link, console and admin around the service.
func (s *Server) build() {
	s.relay = relayserver.New(relayserver.Config{
		Verify: s.VerifyClient,
		Versions: func(_ cert.NetworkID, node cert.NodeID) api.Versions {
			return s.Versions(node)
		},
		Changes: func(_ cert.NetworkID, node cert.NodeID, held api.Version) *api.Changes {
			return s.Changes(context.Background(), node, held)
		},
		CRL:   func(cert.NetworkID) []byte { return s.CRL() },
		Holds: func(_ cert.NetworkID, node cert.NodeID, v api.Versions) { s.Holds(node, v) },
		Presence: func(e relayserver.Event) {
			s.Presence(e.Node, e.Conn, e.Online, e.At, e.Addr.Addr())
		},
		Alert: func(_ cert.NetworkID, node cert.NodeID) {
			s.log.Warn("two machines use the identity of one device", "id", node)
		},
		Now: s.now,
		Log: s.log,
	})
	s.SetRelay(s.relay)
	s.console = console.New(console.Config{Service: s.Service, Log: s.log, Now: s.now, TrustedProxies: s.trusted, Offer: s.offer, TrustedSite: s.trustedSite, Style: fromSource(s.Software()), Health: s.health})
	s.api = webapi.New(s.Service, s.log)
	site := s.siteHandler()
	public := &tls.Config{Certificates: []tls.Certificate{*s.site}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	if s.acme != nil {
		public = s.acme.config()
	}
	s.link = link.NewServer(link.ServerConfig{
		Certificate: func() *tls.Certificate {
			c, err := s.Leaf()
			if err != nil {
				s.log.Error("make server certificate", "err", err)
			}
			return c
		},
		Public:     public,
		API:        s.requests.Count(s.API()),
		Relay:      s.relay.Serve,
		Site:       site,
		RemoteAddr: s.remoteAddr,
		Trusts:     s.trusts,
		Log:        s.log,

		WriteTimeout: s.timeout,
	})
	quiet := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	s.adminH = &http.Server{Handler: webapi.OnSocket(s.api), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet, ConnContext: webapi.PeerContext}
	s.SetConsoleURL(s.ConsoleURL())
}

// fromSource reports whether a version is that of a program that was built without a release's
// version.
func fromSource(version string) bool { return version == "dev" || strings.HasPrefix(version, "dev-") }

// start starts the goroutines of the server. Close waits for them.
func (s *Server) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() { s.Run(ctx) })
	s.wg.Go(func() { s.countRelayed(ctx) })
	s.wg.Go(func() { s.fail("listener", s.link.Serve(s.tcp)) })
	s.wg.Go(func() { s.fail("admin socket", s.adminH.Serve(s.admin)) })
	if s.plain != nil {
		s.wg.Go(func() { s.fail("console listener", s.link.ServePlain(s.plain)) })
	}
	s.wg.Go(func() { s.fail("UDP port", s.udp.Serve(ctx, s.relay)) })
	s.ready.Store(true)
}

func (s *Server) fail(what string, err error) {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) || !s.ready.Load() {
		return
	}
	select {
	case s.failed <- fmt.Errorf("%s: %w", what, err):
	default:
	}
}

// Failed delivers the error of a listener that ended by itself.
func (s *Server) Failed() <-chan error { return s.failed }

// Addr returns the address of the TLS listener.
func (s *Server) Addr() net.Addr { return s.tcp.Addr() }

// ConsoleURL returns the address of the console: that of --console if it listens there, else the
// server's first URL.
func (s *Server) ConsoleURL() string {
	if s.plain != nil {
		return "http://" + s.plain.Addr().String()
	}
	return s.Network().URLs[0]
}

// Fingerprint returns the SHA-256 of the site's self-signed certificate as browsers show it.
func (s *Server) Fingerprint() string { return ca.Fingerprint(s.site.Certificate[0]) }

// Close stops serving: the relay tells its clients, requests get closeGrace to finish, the times
// when devices were last seen are written, and the database is closed. It takes less than 5 s,
// and may be called more than once.
func (s *Server) Close() (err error) {
	s.once.Do(func() { err = s.close() })
	return err
}

func (s *Server) close() error {
	s.ready.Store(false)
	// Close the ports first: nodes that lose their connections try again many times a second, and
	// handshakes with them would delay the end.
	s.tcp.Close()
	if s.plain != nil {
		s.plain.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	s.console.Close()
	s.CloseStreams()
	s.stopACME()
	// Write the last-seen times before the relay forgets which nodes are online.
	s.cancel()
	var errs []error
	if err := s.relay.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		errs = append(errs, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if s.adminH.Shutdown(ctx) != nil {
			s.adminH.Close()
		}
	})
	wg.Go(func() { s.link.Shutdown(ctx) }) // cuts off requests that do not finish in time
	wg.Wait()
	s.closeListeners()
	s.wg.Wait()
	s.release.Close()
	return errors.Join(append(errs, s.Service.Close())...)
}

func (s *Server) closeListeners() {
	for _, l := range []net.Listener{s.tcp, s.plain, s.admin} {
		if l != nil {
			l.Close()
		}
	}
	s.udp.Close()
}
