package relay

import (
	"context"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
)

const welcomeTime = 10 * time.Second

var (
	errDraining = errors.New("the relay is about to stop")
	errRemoved  = errors.New("the relay is no longer one of this network's")
)

// State is the state of the home connection.
type State struct {
	Relay     api.Relay // the home relay; zero before the first connection
	Online    bool      // the relay's welcome was received
	Err       error     // why it is offline; nil during the first attempt
	Since     time.Time
	Transport string // "direct" or "websocket", "" while offline
}

// HomeConfig configures NewHome.
type HomeConfig struct {
	Self cert.NodeID
	// Dial makes a link to a URL of the relay with this id (api.Relay.ID), as DialWith
	// does. The handshake of the returned connection is complete.
	Dial func(ctx context.Context, id, url string) (net.Conn, error)
	// Relays returns the relays of the current config.
	Relays func() []api.Relay
	// LastHome is the ID of the last home relay, from State.Relay; "" at first.
	LastHome string
	// Handler makes the handler of a new connection. It gets everything that the relay
	// sends; Home only observes.
	Handler func(*Conn) Handler
	// Trying is called from Run's goroutine before each attempt to connect to a relay. It
	// must not block. May be nil.
	Trying func(api.Relay)
	// Versions returns the versions that this node has. They are sent at each connect and
	// by SendVersions. It must not call Home.
	Versions func() api.Versions
	// Active reports whether there are peers with live tunnels. If so, Home reconnects at
	// once. nil: never.
	Active func() bool
	// OnState is called from Run's goroutine at each change of state. May be nil.
	OnState func(State)
	Log     *slog.Logger // nil: nothing is logged
}

// Home keeps a node connected to its home relay. The first home is the relay that
// connects fastest. It stays home while it works; after 5 s of failure the node moves to
// the next relay in the order that Order returns. The methods of Home may be called from
// any goroutine.
type Home struct {
	cfg     HomeConfig // constant after NewHome
	process string     // constant and never sent; see processAt

	wake chan struct{}
	gap  gap
	held chan []gapPacket // packets that were resent at the welcome; capacity 1

	// telling is held from the call of Versions until its result is sent. Taken before
	// mu.
	telling sync.Mutex

	mu sync.Mutex
	// mu guards the following.
	cur    *Conn
	state  State
	home   string        // Relay.ID
	spread time.Duration // of the reconnections of idle nodes, as the relay stated
	leave  string        // Relay.ID of a relay that is draining
	until  time.Time     // how long to keep away from it

	silence silence // how much silence this network tolerates

	welcomed bool // the current or last connection had a welcome

	raced net.Conn // made by race, for connect; used by Run's goroutine only
}

// NewHome makes a Home; Run connects.
func NewHome(cfg HomeConfig) *Home {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Active == nil {
		cfg.Active = func() bool { return false }
	}
	return &Home{cfg: cfg, process: crand.Text(), wake: make(chan struct{}, 1), held: make(chan []gapPacket, 1), home: cfg.LastHome, spread: idleSpread, state: State{Since: time.Now()}}
}

// DialWith adapts a link.Dialer to HomeConfig.Dial.
func DialWith(d *link.Dialer) func(ctx context.Context, id, url string) (net.Conn, error) {
	return func(ctx context.Context, id, url string) (net.Conn, error) {
		tc, err := d.DialRelay(ctx, id, url)
		if err != nil {
			return nil, err // tc would be a nil *tls.Conn in a non-nil interface
		}
		return tc, nil
	}
}

// Current returns the live connection, nil when there is none. It may not have received
// the relay's welcome yet.
func (h *Home) Current() *Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cur
}

// State returns the current state.
func (h *Home) State() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

// Run connects, and reconnects, until ctx ends. All goroutines have ended when it
// returns.
func (h *Home) Run(ctx context.Context) {
	var fails int
	var since time.Time // of the first failure in a row
	for ctx.Err() == nil {
		rl, ok := h.choose(ctx, fails, since)
		var err error
		if !ok {
			err = errors.New("no relay is configured")
		} else {
			err = h.connect(ctx, rl)
		}
		if h.raced != nil {
			link.CloseNow(h.raced)
			h.raced = nil
		}
		if ctx.Err() != nil {
			break
		}
		h.mu.Lock()
		welcomed := h.welcomed
		h.welcomed = false
		h.mu.Unlock()
		h.set(State{Relay: rl, Err: err})
		if welcomed {
			fails, since = 0, time.Time{}
		}
		if since.IsZero() {
			since = time.Now()
		}
		wait := h.pause(err, fails, time.Since(since), len(h.cfg.Relays()))
		fails++
		h.cfg.Log.Info("relay", "relay", rl.Name, "err", err, "retry", wait)
		h.sleep(ctx, wait, errors.Is(err, ErrReplaced))
	}
	h.set(State{Relay: h.State().Relay, Err: ctx.Err()})
}

// processAt returns the value of Holds.Process for the relay with this certificate chain.
// It differs for each relay, so that no relay learns the value sent to another.
func processAt(process string, chain []*x509.Certificate) string {
	mac := hmac.New(sha256.New, []byte(process))
	if len(chain) > 0 {
		mac.Write(chain[0].RawSubjectPublicKeyInfo)
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// connect makes one connection and runs it until it ends.
func (h *Home) connect(ctx context.Context, rl api.Relay) error {
	if h.cfg.Trying != nil {
		h.cfg.Trying(rl)
	}
	nc := h.raced
	h.raced = nil
	if nc == nil {
		var err error
		if nc, err = h.dial(ctx, rl); err != nil {
			return err
		}
	}
	hh := &homeHandler{home: h, relay: rl}
	c := NewConn(nc, hh)
	c.process = processAt(h.process, c.Certificates())
	hh.conn = c
	hh.Handler = h.cfg.Handler(c)
	hh.transport = "direct"
	if c.lc != nil && c.lc.WebSocket() {
		hh.transport = "websocket"
	}
	h.telling.Lock()
	c.SendVersions(h.cfg.Versions())
	h.mu.Lock()
	h.cur = c
	h.mu.Unlock()
	h.telling.Unlock()
	late := time.AfterFunc(welcomeTime, func() {
		h.mu.Lock()
		welcomed := h.welcomed
		h.mu.Unlock()
		if !welcomed {
			c.fail(ErrDead)
		}
	})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { h.checkOnWake(ctx, c, done) })
	err := c.Run(ctx)
	late.Stop()
	close(done)
	wg.Wait()
	h.mu.Lock()
	h.cur = nil
	welcomed := h.welcomed
	h.mu.Unlock()
	select {
	case <-h.held: // this connection ended before it could resend them
	default:
	}
	if welcomed {
		h.gap.add(c.recent.take(c.now()))
		h.gap.open.Store(true)
	}
	return err
}

func (h *Home) set(s State) {
	s.Since = time.Now()
	h.mu.Lock()
	if s.Online == h.state.Online && s.Relay.ID == h.state.Relay.ID {
		s.Since = h.state.Since
	}
	h.state = s
	h.mu.Unlock()
	if h.cfg.OnState != nil {
		h.cfg.OnState(s)
	}
}

// homeHandler picks out what Home needs and passes everything on.
type homeHandler struct {
	Handler
	home      *Home
	conn      *Conn
	relay     api.Relay
	transport string
}

func (hh *homeHandler) Welcome(w Welcome) {
	h := hh.home
	h.mu.Lock()
	h.welcomed = true
	h.silence.back(time.Now())
	h.home = hh.relay.ID
	h.setSpread(w.SpreadMS)
	h.mu.Unlock()
	if h.gap.open.Load() {
		held := h.gap.take()
		hh.conn.resend(held)
		select {
		case h.held <- held:
		default: // an earlier connection left some and did not last
		}
	}
	hh.Handler.Welcome(w)
	h.set(State{Relay: hh.relay, Online: true, Transport: hh.transport})
}

// Draining makes a node that has other relays move at once; else it stays until the relay
// closes.
func (hh *homeHandler) Draining(d Draining) {
	h := hh.home
	h.mu.Lock()
	h.leave, h.until = hh.relay.ID, time.Now().Add(replacedFor)
	h.setSpread(d.SpreadMS)
	h.mu.Unlock()
	hh.Handler.Draining(d)
	if len(h.cfg.Relays()) > 1 {
		hh.conn.fail(errDraining)
	}
}
