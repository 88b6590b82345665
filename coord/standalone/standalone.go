// Package standalone implements `weft-server relay`: a relay that runs on a machine of its
// own, without a coordination server. Its counterpart at the server is in package coord/ops
// (relay_*.go).
//
// The relay joins the server once with a token (join.go) and keeps its identity in its data
// directory (state.go). It admits nodes by their certificates and the revocation list
// (admit.go), so it can start and serve while the server is away. From the server it learns at
// once of revocations and of the versions that connected nodes should have (sync.go). To the
// server it reports which nodes are connected (report.go).
package standalone

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"weft/coord/ca"
	"weft/coord/datadir"
	"weft/coord/listen"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/filelock"
	"weft/overlay/link"
	"weft/overlay/relay/relayserver"
)

const (
	lockWait   = 3 * time.Second
	closeGrace = 2 * time.Second
	goneFor    = 10 * time.Minute // how long a node is refused after the server said that it does not know the node
	maxGone    = 10_000           // such nodes that are remembered
	slackNodes = 1024             // see forgetAbsentLocked
)

// Options configure Start.
type Options struct {
	Data   string // the data directory
	Server string // https://HOST:PORT; "" for the addresses in the token
	Token  string // needed until the relay has joined
	Listen listen.Address
	STUN   listen.Address
	URLs   []string // at which nodes reach this relay; none for the address of the default route
	Name   string   // shown to people; "" for the host name
	// Software is the version of weft-server.
	Software string
	Log      *slog.Logger
	Now      func() time.Time // the machine's clock; nil means time.Now
	// NetDial makes connections to the server; nil means net.Dialer.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Relay is a running relay. Its methods may be called from any goroutine.
type Relay struct {
	// constant after Start
	o      Options
	log    *slog.Logger
	clock  *cert.Clock
	run    string // random: tells the server that reports of an earlier process are void
	stun   []string
	lock   *os.File
	tcp    net.Listener
	udp    listen.UDPPorts // none if STUN is off
	site   *tls.Certificate
	dialer *link.Dialer
	client *client.Client
	link   *link.Server
	relay  *relayserver.Server

	cancel context.CancelFunc // ends the goroutines that wg counts
	wg     sync.WaitGroup
	failed chan error // capacity 1: a listener ended by itself, or the server removed the relay
	ready  atomic.Bool
	once   sync.Once
	away   atomic.Bool   // the server did not answer the last request, or was not asked yet
	synced atomic.Int64  // when the server last answered, unix nanoseconds; 0 for never
	news   chan struct{} // capacity 1: wakes reportLoop

	id  atomic.Pointer[identity] // replaced by Start, then by syncLoop only
	crl atomic.Pointer[cert.CRL] // nil if the file is lost: then no node is admitted

	mu sync.RWMutex
	// mu guards the following.
	versions map[cert.NodeID]api.Versions
	names    api.Version                       // of all names, zero until known
	admitted map[cert.NodeID]*big.Int          // serial of the certificate that the node showed last
	gone     map[cert.NodeID]time.Time         // when the server said that it does not know the node
	online   map[cert.NodeID]relayserver.Event // home connections
	pending  map[cert.NodeID]relayserver.Event // events to report
	instance string                            // of the server, as of its last answer
	owed     string                            // that instance, until all connected nodes have been reported to it; then ""
}

// Start opens all listeners, joins the server unless the relay has joined before, and starts
// serving. If the relay has to join and the server does not answer, Start tries again until
// ctx ends; a relay that has joined does not need the server to start. If Start returns an
// error nothing is left running. The caller must Close the relay.
func Start(ctx context.Context, o Options) (_ *Relay, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Relay{
		o: o, log: o.Log, clock: cert.NewClock(time.Time{}, o.Now), run: rand.Text(), cancel: func() {},
		failed: make(chan error, 1), news: make(chan struct{}, 1),
		versions: map[cert.NodeID]api.Versions{}, admitted: map[cert.NodeID]*big.Int{}, gone: map[cert.NodeID]time.Time{},
		online: map[cert.NodeID]relayserver.Event{}, pending: map[cert.NodeID]relayserver.Event{},
	}
	defer func() {
		if err != nil {
			r.closeFiles()
		}
	}()
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	if !r.id.Load().joined() {
		if err := r.join(ctx); err != nil {
			return nil, err
		}
	}
	r.away.Store(r.o.Token == "")
	r.build()
	r.start()
	return r, nil
}

// open opens the ports, then locks the data directory and reads it. Nothing is written before
// the ports are open.
func (r *Relay) open(ctx context.Context) (err error) {
	o := &r.o
	if o.Data == "" {
		return errors.New("no data directory given")
	}
	if _, err := os.Stat(filepath.Join(o.Data, "weft.db")); err == nil {
		return fmt.Errorf("%s is the data directory of a server; give the relay one of its own with --data DIR", o.Data)
	}
	if r.tcp, err = listen.TCP(o.Listen, "--listen ADDR:PORT"); err != nil {
		return err
	}
	if o.STUN.Addr != "" {
		r.udp, err = listen.UDP(o.STUN, "--stun")
		if err = o.STUN.Optional(err, r.log); err != nil {
			return err
		}
	}
	if len(o.URLs) == 0 {
		o.URLs = []string{listen.DefaultURL(r.tcp.Addr())}
		r.log.Warn("no --url given: devices will connect to this relay at " + o.URLs[0] + "; if they cannot reach that address, start with --url https://HOST:PORT")
	}
	for _, u := range o.URLs {
		if err := cert.CheckURL(u); err != nil {
			return err
		}
	}
	r.stun = listen.STUNAddrs(o.URLs, r.udp)
	if err := os.MkdirAll(o.Data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if r.lock, err = datadir.Lock(ctx, o.Data, lockWait); err != nil {
		return err
	}
	id, err := loadIdentity(o.Data)
	if err != nil {
		return err
	}
	if id, err = r.identityFor(id); err != nil {
		return err
	}
	r.clock.Floor(id.ServerTime)
	r.id.Store(id)
	if id.joined() {
		if der, err := os.ReadFile(filepath.Join(o.Data, crlFile)); err == nil {
			if crl, err := id.roots.VerifyCRL(der); err == nil {
				r.crl.Store(crl)
			}
		}
		if r.crl.Load() == nil {
			r.log.Warn("the revocation list on disk is not usable; no device is admitted until the server answers", "file", filepath.Join(o.Data, crlFile))
		}
	}
	if r.site, err = ca.Site(o.Data, o.URLs, o.Now()); err != nil {
		return err
	}
	r.dialer = &link.Dialer{
		URLs:     func() []string { return r.id.Load().URLs },
		Roots:    func() *cert.ServerRoots { return r.id.Load().serverRoots },
		Identity: func() *tls.Certificate { return r.id.Load().leaf },
		NetDial:  o.NetDial, Log: r.log,
	}
	r.client = client.New(r.dialer.Transport(), r.clock.Contact)
	return nil
}

func (r *Relay) build() {
	r.relay = relayserver.New(relayserver.Config{
		Verify:   r.verify,
		Versions: func(_ cert.NetworkID, node cert.NodeID) api.Versions { return r.versionsOf(node) },
		CRL: func(cert.NetworkID) []byte {
			if crl := r.crl.Load(); crl != nil {
				return crl.Raw
			}
			return nil
		},
		Presence: r.presence,
		Away:     r.away.Load,
		Alert: func(_ cert.NetworkID, node cert.NodeID) {
			r.log.Warn("two machines use the identity of one device", "id", node)
		},
		Now: r.clock.Now,
		Log: r.log,
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if !r.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte("stopping\n"))
			return
		}
		w.Write([]byte("ok\n"))
	})
	r.link = link.NewServer(link.ServerConfig{
		Certificate: func() *tls.Certificate { return r.id.Load().leaf },
		Public:      &tls.Config{Certificates: []tls.Certificate{*r.site}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12},
		Relay:       r.relay.Serve,
		Site:        mux,
		Log:         r.log,
	})
}

func (r *Relay) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.wg.Go(func() { r.fail("listener", r.link.Serve(r.tcp)) })
	r.wg.Go(func() { r.fail("UDP port", r.udp.Serve(ctx, r.relay)) })
	r.wg.Go(func() { r.syncLoop(ctx) })
	r.wg.Go(func() { r.reportLoop(ctx) })
	r.ready.Store(true)
}

func (r *Relay) fail(what string, err error) {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) || !r.ready.Load() {
		return
	}
	select {
	case r.failed <- fmt.Errorf("%s: %w", what, err):
	default:
	}
}

// Failed delivers one error if a listener ended by itself, or if the server said that it has
// removed this relay. In the second case the clients have been told to go elsewhere.
func (r *Relay) Failed() <-chan error { return r.failed }

// Addr returns the address of the TLS listener.
func (r *Relay) Addr() net.Addr { return r.tcp.Addr() }

// Name returns the relay's name in the network.
func (r *Relay) Name() string { return r.id.Load().Name }

// Network returns the network that the relay serves.
func (r *Relay) Network() cert.NetworkID { return r.id.Load().Network }

// URLs returns the addresses at which nodes are told to reach the relay.
func (r *Relay) URLs() []string { return r.o.URLs }

// Synced returns when the server last answered, the zero time for never.
func (r *Relay) Synced() time.Time {
	if ns := r.synced.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Stats returns the relay's counters.
func (r *Relay) Stats() relayserver.Stats { return r.relay.Stats() }

// Close tells the clients, stops serving and waits for all goroutines. It may be called more
// than once.
func (r *Relay) Close() (err error) {
	r.once.Do(func() {
		r.ready.Store(false)
		r.tcp.Close() // first, so that clients that are sent away cannot connect again
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		err = r.relay.Shutdown(ctx)
		r.cancel()
		r.link.Shutdown(ctx)
		r.udp.Close()
		r.wg.Wait()
		r.closeFiles()
	})
	return err
}

func (r *Relay) closeFiles() {
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
	if r.tcp != nil {
		r.tcp.Close()
	}
	r.udp.Close()
	if r.lock != nil {
		filelock.Release(r.lock)
	}
}
