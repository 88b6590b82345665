package tunnels

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filters"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/network"
	"weft/overlay/internal/paths"
	"weft/overlay/status"
)

// Config is what a Table is made of. The functions are called from any goroutine, those
// that say nothing else by the owner of the tunnels too: they do not wait for it.
type Config struct {
	Held      *network.Holder
	Directory *directory.Directory
	Clock     *cert.Clock
	Health    *status.Warnings
	Log       *slog.Logger

	Bind      *bind.Bind
	Forwarder *dataplane.Forwarder
	Plane     dataplane.Plane
	Keys      dataplane.Keys
	Filters   *filters.Table
	Home      *homes.Home
	Guests    *homes.Guests

	UDP  paths.UDP
	Idle time.Duration // how long a tunnel lives without data; 0: idleAfter
	// Unproven: prove no key and believe no proof, as nodes did before; for tests.
	Unproven bool

	// Identity is what this node shows, nil while it is in no network.
	Identity func() *tls.Certificate
	// TakeCRL takes a revocation list that a peer sent. It may wait for the owner of
	// the tunnels, who does not call it.
	TakeCRL func(der []byte) (newer bool, err error)
	// Find and Where ask the directory, and the server if need be; they wait for that,
	// and the owner of the tunnels calls neither.
	Find  func(ctx context.Context, key string) (*directory.Known, error)
	Where func(ctx context.Context, id cert.NodeID) homes.Whereabouts
	// AskTime is how long a question to the server may take that takes least where
	// answers come at once.
	AskTime func(least time.Duration) time.Duration
	// Behind reports whether there may be a newer configuration than the one held.
	Behind func() bool
	// Name is what people call a node.
	Name func(id cert.NodeID) string
}

// Table has all tunnels of a node that is up. One goroutine, Run's, owns it; everybody
// else hands it functions.
type Table struct {
	cfg    Config
	log    *slog.Logger
	bind   *bind.Bind
	intro  *intro.Switch
	home   *homes.Home
	guests *homes.Guests
	paths  *paths.Paths

	forwarder *dataplane.Forwarder
	plane     dataplane.Plane
	keys      dataplane.Keys

	calls chan func() // to run
	ctx   context.Context
	wg    sync.WaitGroup // introductions in progress
	// current is closed once our numbers are known to be current, or after
	// numbersWait; until then nobody is accepted.
	current     chan struct{}
	currentOnce sync.Once
	waitOnce    sync.Once // starts numbersWait

	table    map[cert.NodeID]*peer                // run's
	silent   map[cert.NodeID]time.Time            // run's: who was found silent, and when; see silent.go
	nextLook time.Time                            // run's: when look is due, zero for never
	rekeyed  bool                                 // run's: some tunnels are of an earlier key of this node
	view     atomic.Pointer[map[cert.NodeID]View] // what others may read
	early    early                                // messages of nodes being introduced
}

// New makes the table of a node that is in network self. ctx ends its tunnels; nothing is
// done for them before Run.
func New(ctx context.Context, self *network.Network, cfg Config) *Table {
	cfg.Idle = cmp.Or(cfg.Idle, idleAfter)
	t := &Table{
		cfg: cfg, log: cfg.Log, plane: cfg.Plane, keys: cfg.Keys, forwarder: cfg.Forwarder, bind: cfg.Bind, ctx: ctx,
		home: cfg.Home, guests: cfg.Guests, calls: make(chan func(), 256), current: make(chan struct{}), table: map[cert.NodeID]*peer{},
		silent: map[cert.NodeID]time.Time{},
	}
	t.view.Store(&map[cert.NodeID]View{})
	t.paths = paths.New(paths.Config{
		UDP: cfg.UDP, Bind: cfg.Bind, Held: cfg.Held, Home: cfg.Home, Health: cfg.Health, Log: cfg.Log,
		Stats: cfg.Forwarder.Stats, Session: t.sessionWith, Way: t.wayTo, Changed: t.pathChanged, Name: cfg.Name,
		Do: func(f func()) { t.do(f) }, Hint: t.hint, Go: t.wg.Go,
	})
	pairKey := t.keys.PairKey
	if cfg.Unproven {
		pairKey = nil
	}
	list := func() (number uint64, der []byte) {
		if s, ok := cfg.Held.Get(); ok && s.CRL != nil {
			return s.CRL.Number, s.CRL.Raw
		}
		return 0, nil
	}
	t.intro = intro.New(intro.Config{
		Network:  self.Roots.Network(),
		ID:       self.Self.ID,
		Identity: cfg.Identity,
		Verify:   t.verify,
		Hello: func() intro.Hello {
			k := t.keys.Key()
			number, _ := list()
			return intro.Hello{Boot: k.Boot, Key: k.Public, CRL: number}
		},
		PairKey: pairKey,
		CRL:     list,
		OnCRL: func(der []byte) {
			if _, err := cfg.TakeCRL(der); err != nil {
				t.log.Warn("refused a revocation list that a peer sent", "err", err)
			}
		},
		Send:    t.guests.SendSession,
		Accept:  t.accept,
		Known:   t.knows,
		Live:    t.paths.Live,
		Message: t.paths.Message,
		Heard:   t.heardFrom,
		Closed:  t.sessionClosed,
		OnReset: t.onReset,
		Log:     t.log,
	})
	t.early = early{underWay: t.intro.InProgress, from: map[cert.NodeID][][]byte{}}
	return t
}

// verify is how a certificate shown in an introduction is checked.
func (t *Table) verify(der []byte) (*cert.Node, error) {
	s, ok := t.cfg.Held.Get()
	if !ok {
		return nil, cert.ErrUntrusted
	}
	return s.VerifyShown(der, t.cfg.Clock.Now())
}

// Run owns the table until the context of New ends, then takes every peer down. Between what
// happens it sleeps until the first tunnel needs looking at (see lifetime.go).
func (t *Table) Run() {
	t.paths.Start()
	defer t.paths.Close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var armed time.Time
	t.checkClock() // it may have been set while the node was down
	for {
		if next := soonest(t.nextLook, t.paths.Next()); next != armed {
			armed = next
			if armed.IsZero() {
				timer.Stop()
			} else {
				timer.Reset(time.Until(armed))
			}
		}
		select {
		case <-t.ctx.Done():
			t.takeDown()
			return
		case f := <-t.calls:
			f()
		case <-timer.C:
			armed = time.Time{}
			now := time.Now()
			if due(t.nextLook, now) {
				t.look(now)
			}
			if due(t.paths.Next(), now) {
				t.paths.Look(now)
			}
		}
	}
}

func (t *Table) takeDown() {
	for _, q := range t.table {
		t.drop(q, "down", true)
	}
	t.intro.Close()
	t.wg.Wait()
	t.guests.Close()
	// Introductions that were under way may have left calls behind.
	for {
		select {
		case f := <-t.calls:
			f()
		default:
			for _, q := range t.table {
				t.drop(q, "down", false)
			}
			t.cfg.Filters.Save()
			return
		}
	}
}

// do runs f in the owning goroutine, without waiting. It reports whether the
// node still runs.
func (t *Table) do(f func()) bool {
	select {
	case t.calls <- f:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// hint is do for what a relay says: dropped when there is too much of it.
func (t *Table) hint(f func()) {
	select {
	case t.calls <- f:
	default:
	}
}

// inLoop runs f in the owning goroutine and waits for its result.
func (t *Table) inLoop(f func() error) error {
	done := make(chan error, 1)
	if !t.do(func() { done <- f() }) {
		return ErrDown
	}
	select {
	case err := <-done:
		return err
	case <-t.ctx.Done():
		return ErrDown
	}
}

// soonest returns the earlier of two times, of which zero means never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func due(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }
