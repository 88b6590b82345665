package relay

import (
	"bytes"
	"context"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sort"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
)

const (
	// moveAfter is how long a node tries its home before the next relay.
	moveAfter = 5 * time.Second
	// raceTime is how long a new node waits for the first of all relays. It is
	// three round trips and more where the uplink is full.
	raceTime = 12 * time.Second
	// eager is how long a node with active peers tries again every 50 to
	// 300 ms before it becomes patient.
	eager      = 10 * time.Second
	retryMin   = 50 * time.Millisecond
	retryEager = 300 * time.Millisecond
	retryMax   = 30 * time.Second
	// replacedFor is how long a replaced node waits: two machines with one
	// identity then alternate slowly enough to be noticed.
	replacedFor = 30 * time.Second
	refusedFor  = 30 * time.Second
	refusedSoon = 3 // times in a row
	// idleSpread is the spread of idle nodes when the relay named none.
	idleSpread  = 3 * time.Second
	wakeAnswer  = 2 * time.Second // or as long as answers are known to take
	welcomeTime = 10 * time.Second
	maxRace     = 8 // relays that a new node measures
)

var (
	errDraining = errors.New("the relay is about to stop")
	errRemoved  = errors.New("the relay is no longer one of this network's")
)

// ErrOffline is returned by Home's sending methods while there is no
// connection.
var ErrOffline = errors.New("not connected to a relay")

// State is what became of the home connection.
type State struct {
	Relay  api.Relay // the home, zero before there was one
	Online bool      // its welcome was read
	Err    error     // why not, nil while connecting for the first time
	Since  time.Time
	Via    string // "direct" or "websocket", "" while offline
}

// HomeConfig says where a home may be and who is told.
type HomeConfig struct {
	Self cert.NodeID
	// Dial makes a link to a URL of the relay with an id (api.Relay.ID); a
	// link.Dialer's DialRelay. The connection is through its handshake.
	Dial func(ctx context.Context, id, url string) (net.Conn, error)
	// Relays returns the relays of the current config.
	Relays func() []api.Relay
	// Sticky is the ID of the last home, as State said; "" at first.
	Sticky string
	// Handler makes the handler of a new connection. Everything the relay
	// says reaches it; Home looks on.
	Handler func(*Conn) Handler
	// Trying is called from Run's goroutine before a connection to a relay is
	// made, and is not to wait. May be nil.
	Trying func(api.Relay)
	// Versions returns what this node holds; it is sent at each connect and by
	// SendVersions. It is not to call Home.
	Versions func() api.Versions
	// Active reports whether there are peers with live tunnels: then a lost
	// connection is made again at once. nil: never.
	Active func() bool
	// OnState is called from Run's goroutine at each change. May be nil.
	OnState func(State)
	Log     *slog.Logger // nil: nothing is logged
}

// Home keeps a node's one connection to its home relay: chosen by who
// welcomes first when there was none before, then kept as long as it works,
// moved after 5 s of failure along the order of Order. Its methods may be
// called from any goroutine.
type Home struct {
	cfg     HomeConfig // constant after NewHome
	process string     // constant and told to nobody; see processAt

	wake chan struct{}
	gap  gap
	kept chan []gapPacket // sent at the welcome; capacity 1

	// telling is held from Versions to when what it returned is sent: before mu.
	telling sync.Mutex

	mu sync.Mutex
	// mu guards the following.
	cur    *Conn
	state  State
	home   string        // Relay.ID
	spread time.Duration // of idle nodes, as the relay said
	leave  string        // Relay.ID of a relay that is draining
	until  time.Time     // how long to keep away from it

	silence silence // what the network bears

	welcomed bool // the connection that runs or ran last was

	raced net.Conn // Run's: made by race, for connect
}

// NewHome prepares a home; Run keeps it.
func NewHome(cfg HomeConfig) *Home {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Active == nil {
		cfg.Active = func() bool { return false }
	}
	return &Home{cfg: cfg, process: crand.Text(), wake: make(chan struct{}, 1), kept: make(chan []gapPacket, 1), home: cfg.Sticky, spread: idleSpread, state: State{Since: time.Now()}}
}

// DialWith adapts a link.Dialer to HomeConfig.Dial.
func DialWith(d *link.Dialer) func(ctx context.Context, id, url string) (net.Conn, error) {
	return func(ctx context.Context, id, url string) (net.Conn, error) {
		tc, err := d.DialRelay(ctx, id, url)
		if err != nil {
			return nil, err // not a nil *tls.Conn in an interface
		}
		return tc, nil
	}
}

// Order returns relays in the order in which node moves among them, by
// rendezvous hash. A caller that cannot reach a node at its last known home
// tries the same order and finds it while the server is away.
func Order(relays []api.Relay, node cert.NodeID) []api.Relay {
	score := func(r api.Relay) []byte {
		s := sha256.Sum256(append([]byte(r.ID), node[:]...))
		return s[:]
	}
	out := slices.Clone(relays)
	sort.SliceStable(out, func(i, j int) bool { return bytes.Compare(score(out[i]), score(out[j])) > 0 })
	return out
}

// Current returns the live connection, nil when there is none. It is there as
// soon as the link is, before the relay's welcome.
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

// SendPackets is Conn.SendPackets on the live connection, or ErrOffline. What
// is sent between two connections is kept for the next one (see gap.go).
func (h *Home) SendPackets(to cert.NodeID, bufs [][]byte) error {
	if h.gap.open.Load() {
		h.gap.keep(to, bufs)
	}
	if c := h.Current(); c != nil {
		return c.SendPackets(to, bufs)
	}
	return ErrOffline
}

// SendSession is Conn.SendSession on the live connection, or ErrOffline.
func (h *Home) SendSession(to cert.NodeID, frame []byte) error {
	if c := h.Current(); c != nil {
		return c.SendSession(to, frame)
	}
	return ErrOffline
}

// RequestLane is Conn.RequestLane on the live connection, or ErrOffline.
func (h *Home) RequestLane(peer cert.NodeID) error {
	if c := h.Current(); c != nil {
		return c.RequestLane(peer)
	}
	return ErrOffline
}

// SendVersions tells the relay what this node holds now. While there is no
// connection there is nothing to do: the next one begins with it. What is told last
// is what is so: whoever changes what Versions returns, and calls this then, may be
// one of many.
func (h *Home) SendVersions() {
	h.telling.Lock()
	defer h.telling.Unlock()
	if c := h.Current(); c != nil {
		c.SendVersions(h.cfg.Versions())
	}
}

// Wake says that the world may have changed: the device slept, a link came
// up, the list of relays is new, or somebody wants to send. A connection is
// checked at once and dropped if the relay does not answer within 2 s, or as long as
// its answers are known to take; a wait
// between attempts ends. It never waits itself.
func (h *Home) Wake() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Run keeps the connection until ctx ends. All goroutines are gone then.
func (h *Home) Run(ctx context.Context) {
	var fails int
	var since time.Time // of the first failure in a row
	for ctx.Err() == nil {
		rl, ok := h.choose(ctx, fails, since)
		var err error
		if !ok {
			err = errors.New("no relay is known")
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

// choose returns the relay to try next.
func (h *Home) choose(ctx context.Context, fails int, since time.Time) (api.Relay, bool) {
	relays := h.cfg.Relays()
	if len(relays) == 0 {
		return api.Relay{}, false
	}
	if len(relays) == 1 {
		return relays[0], true
	}
	h.mu.Lock()
	home := h.home
	leaving := h.leave == home && time.Now().Before(h.until)
	h.mu.Unlock()
	order := Order(relays, h.cfg.Self)
	i := slices.IndexFunc(order, func(r api.Relay) bool { return r.ID == home })
	if i < 0 {
		if rl, ok := h.race(ctx, order[:min(len(order), maxRace)]); ok {
			return rl, true
		}
		return order[fails%len(order)], true
	}
	own := order[i]
	others := slices.Delete(order, i, i+1)
	switch {
	case leaving:
		return append(others, own)[fails%len(relays)], true
	case since.IsZero() || time.Since(since) < moveAfter:
		return own, true
	}
	// All in their order, again and again.
	return append(others, own)[fails%len(relays)], true
}

// race returns the relay whose link is made first: the one nearest to here,
// counted in round trips. The link is left for connect: a relay that heard of
// two would let the later one count.
func (h *Home) race(ctx context.Context, relays []api.Relay) (api.Relay, bool) {
	ctx, cancel := context.WithTimeout(ctx, raceTime)
	defer cancel()
	type result struct {
		rl api.Relay
		c  net.Conn
	}
	results := make(chan result, len(relays))
	for _, rl := range relays {
		go func() {
			c, err := h.dial(ctx, rl)
			if err != nil {
				c = nil
			}
			results <- result{rl, c}
		}()
	}
	var first result
	for range relays { // all of them, so that no goroutine outlives this
		switch r := <-results; {
		case r.c == nil:
		case first.c == nil:
			first = r
			cancel()
		default:
			link.CloseNow(r.c)
		}
	}
	h.raced = first.c
	return first.rl, first.c != nil
}

func (h *Home) dial(ctx context.Context, rl api.Relay) (net.Conn, error) {
	var errs []error
	for _, url := range rl.URLs {
		c, err := h.cfg.Dial(ctx, rl.ID, url)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return nil, errors.New("the relay has no address")
	}
	return nil, errors.Join(errs...)
}

// processAt returns what a process states (Holds) at the relay with this chain: another
// value at each, so that none learns what it states elsewhere.
func processAt(process string, chain []*x509.Certificate) string {
	mac := hmac.New(sha256.New, []byte(process))
	if len(chain) > 0 {
		mac.Write(chain[0].RawSubjectPublicKeyInfo)
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// connect makes one connection and runs it to its end.
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
	hh.via = "direct"
	if c.lc != nil && c.lc.WebSocket() {
		hh.via = "websocket"
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
	case <-h.kept: // too late for this one
	default:
	}
	if welcomed {
		h.gap.add(c.recent.take(c.now()))
		h.gap.open.Store(true)
	}
	return err
}

// Moved says that this machine is in another network: what was learned about the
// old one is forgotten, and the connection checked.
func (h *Home) Moved() {
	h.mu.Lock()
	h.silence = silence{}
	h.mu.Unlock()
	h.Wake()
}

// allowedSilence returns after how much silence to ask the relay, 0 for never.
func (h *Home) allowedSilence() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.silence.allowed(time.Now())
}

// askAfterSilence pings the relay if there has been silence for as long as is
// allowed, and returns when to look again, 0 for never.
func (h *Home) askAfterSilence(ctx context.Context, c *Conn) time.Duration {
	allowed := h.allowedSilence()
	silent := c.silent()
	if allowed == 0 || silent < allowed {
		return max(allowed-silent, 0)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Answer(silenceAnswer))
	defer cancel()
	_, err := c.Ping(ctx)
	h.mu.Lock()
	if err == nil {
		h.silence.held(silent)
	} else {
		h.silence.failed(time.Now(), silent)
	}
	h.mu.Unlock()
	if err != nil {
		c.fail(errForgotten)
	}
	return h.allowedSilence()
}

// checkOnWake pings when something may have happened to the connection, or may
// happen to it when it is silent for longer, and sends once more what was kept
// for it.
func (h *Home) checkOnWake(ctx context.Context, c *Conn, done chan struct{}) {
	var again *time.Timer
	var due <-chan time.Time
	var kept []gapPacket
	silent := time.NewTimer(shortSilence) // what is allowed is known once there is a welcome
	defer silent.Stop()
	for {
		select {
		case <-silent.C:
			if again := h.askAfterSilence(ctx, c); again > 0 {
				silent.Reset(again)
			}
			continue
		case <-done:
			if again != nil {
				again.Stop()
			}
			return
		case kept = <-h.kept:
			again = time.NewTimer(gapAgain)
			due = again.C
			continue
		case <-due:
			h.gap.open.Store(false)
			c.sendKept(append(kept, h.gap.take()...))
			kept, due = nil, nil
			continue
		case <-h.wake:
		}
		if !h.listed() {
			c.fail(errRemoved)
			continue
		}
		c.Check(ctx)
		silent.Reset(shortSilence) // it may be another network, of which nothing is known
	}
}

// listed reports whether the home is one of the relays there are now. A home
// that was known only by its address gets its name.
func (h *Home) listed() bool {
	relays := h.cfg.Relays()
	h.mu.Lock()
	at := h.state.Relay
	h.mu.Unlock()
	if len(relays) == 0 || at.ID == "" && len(at.URLs) == 0 {
		return true
	}
	i := slices.IndexFunc(relays, func(r api.Relay) bool {
		if at.ID == "" {
			return slices.ContainsFunc(r.URLs, func(u string) bool { return slices.Contains(at.URLs, u) })
		}
		return r.ID == at.ID
	})
	if i < 0 {
		return at.ID == "" // by its address alone nobody can tell
	}
	h.mu.Lock()
	if h.home == at.ID {
		h.home = relays[i].ID
	}
	if h.state.Relay.ID == at.ID {
		h.state.Relay = relays[i]
	}
	h.mu.Unlock()
	return true
}

// pause returns how long to wait after a connection ended, or could not be
// made fails times before, with so many relays to try in turn.
func (h *Home) pause(err error, fails int, failing time.Duration, relays int) time.Duration {
	var refused *RefusedError
	switch {
	case errors.Is(err, ErrReplaced):
		return replacedFor + rand.N(time.Second)
	case errors.As(err, &refused):
		// A few times soon: the relay may learn of a new device. One that was
		// removed asks less and less often, for years perhaps.
		d := refusedFor << min(max(fails-refusedSoon, 0), 5)
		return d/2 + rand.N(d/2)
	case h.cfg.Active() && failing < eager, errors.Is(err, errForgotten):
		return retryMin + rand.N(retryEager-retryMin)
	case fails == 0:
		h.mu.Lock()
		spread := h.spread
		h.mu.Unlock()
		if h.cfg.Active() {
			spread = retryEager
		}
		return retryMin + rand.N(max(spread-retryMin, 1))
	}
	if relays > 1 && failing >= moveAfter && fails%relays != relays-1 {
		return retryMin // the next one may work
	}
	wait := min(retryMax, retryEager<<min(fails/max(relays, 1), 10))
	return wait/2 + rand.N(wait/2)
}

// sleep waits, less when somebody calls Wake. A replaced node waits in full.
func (h *Home) sleep(ctx context.Context, d time.Duration, full bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-h.wake:
			if !full {
				return
			}
		}
	}
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

// homeHandler looks at what a home has to know and passes everything on.
type homeHandler struct {
	Handler
	home  *Home
	conn  *Conn
	relay api.Relay
	via   string
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
		kept := h.gap.take()
		hh.conn.sendKept(kept)
		select {
		case h.kept <- kept:
		default: // of a connection that did not last
		}
	}
	hh.Handler.Welcome(w)
	h.set(State{Relay: hh.relay, Online: true, Via: hh.via})
}

// Draining lets a node that has a choice move at once; the others stay until
// the relay closes.
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

// setSpread takes a relay's word, within bounds. mu is held.
func (h *Home) setSpread(ms int) {
	h.spread = min(max(time.Duration(ms)*time.Millisecond, retryEager), retryMax)
}
