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
	"weft/overlay/internal/claims"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filters"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/network"
	"weft/overlay/internal/paths"
	"weft/overlay/status"
)

// Config configures New. The functions are called from any goroutine and, unless they say
// otherwise, from the owner of the tunnels: they must not wait for it.
type Config struct {
	Held      *network.Holder
	Directory *directory.Directory
	Clock     *cert.Clock
	Health    *status.Warnings
	Log       *slog.Logger

	Bind      *bind.Bind
	Forwarder *dataplane.Forwarder
	Plane     dataplane.Plane // WireGuard
	Keys      dataplane.Keys
	AES       AESPlane // nil: this node does not offer it
	OnlyAES   bool     // refuse peers that cannot use it
	Filters   *filters.Table
	Home      *homes.Home
	Guests    *homes.Guests

	// Refused is why this node makes no tunnel with anybody, nil if it does.
	Refused *status.Error

	UDP  paths.UDP
	Idle time.Duration // how long a tunnel lives without data; 0: idleAfter
	// Unproven makes the node prove no key and ignore proofs, like nodes before
	// 2026-11-29; for tests.
	Unproven bool

	// Identity returns the certificate that this node presents, nil while it is in no
	// network.
	Identity func() *tls.Certificate
	// Claims counts introductions, while it is on.
	Claims *claims.Log
	// TakeCRL takes a revocation list that a peer has sent. The owner of the tunnels does
	// not call it, so it may wait for the owner.
	TakeCRL func(der []byte) (newer bool, err error)
	// Find and Where look a node up in the directory, and at the server if necessary.
	// They block for that; the owner of the tunnels calls neither.
	Find  func(ctx context.Context, key string) (*directory.Entry, error)
	Where func(ctx context.Context, id cert.NodeID) homes.Presence
	// AskTime returns how long a request to the server may take: least, or more if round
	// trips are slow.
	AskTime func(least time.Duration) time.Duration
	// Behind reports whether there may be a newer configuration than this node's.
	Behind func() bool
	// Name returns the name of a node for users.
	Name func(id cert.NodeID) string
}

// AESPlane is the plane of intro.SuiteAES (package gcm).
type AESPlane interface {
	dataplane.Plane
	// CheckClock drops the keys of all peers if the machine has slept or its clock was
	// set, and reports whether that was so.
	CheckClock() bool
}

// Table holds all tunnels of a node that is up. One goroutine, Run's, owns it; others
// pass functions to it.
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
	aes       AESPlane

	calls chan func() // functions for the owner to run
	ctx   context.Context
	wg    sync.WaitGroup // introductions in progress
	// missing guards down: Miss comes from another goroutine than the owner's, and starts
	// nothing once the owner waits for wg.
	missing sync.Mutex
	down    bool
	// current is closed once this node's CRL is known to be current, or after
	// numbersWait. Until then callers wait.
	current     chan struct{}
	currentOnce sync.Once
	waitOnce    sync.Once // starts numbersWait

	table     map[cert.NodeID]*peer                // owned by Run
	silent    map[cert.NodeID]time.Time            // owned by Run: peers that counted as silent, and when; see silent.go
	nextCheck time.Time                            // owned by Run: when check is due; zero for never
	rekeyed   bool                                 // owned by Run: some tunnels have an earlier key of this node
	view      atomic.Pointer[map[cert.NodeID]View] // what others may read
	early     early                                // messages of nodes being introduced
}

// New makes the table of a node in network self. The tunnels end with ctx. Nothing is
// done before Run.
func New(ctx context.Context, self *network.Network, cfg Config) *Table {
	cfg.Idle = cmp.Or(cfg.Idle, idleAfter)
	if cfg.Claims == nil {
		cfg.Claims = &claims.Log{} // off
	}
	t := &Table{
		cfg: cfg, log: cfg.Log, plane: cfg.Plane, keys: cfg.Keys, aes: cfg.AES, forwarder: cfg.Forwarder, bind: cfg.Bind, ctx: ctx,
		home: cfg.Home, guests: cfg.Guests, calls: make(chan func(), 256), current: make(chan struct{}), table: map[cert.NodeID]*peer{},
		silent: map[cert.NodeID]time.Time{},
	}
	t.view.Store(&map[cert.NodeID]View{})
	t.paths = paths.New(paths.Config{
		UDP: cfg.UDP, Bind: cfg.Bind, Held: cfg.Held, Home: cfg.Home, Health: cfg.Health, Log: cfg.Log,
		Stats: cfg.Forwarder.Stats, Session: t.sessionWith, RelayConn: t.connTo, Changed: t.pathChanged, Name: cfg.Name,
		Do: func(f func()) { t.do(f) }, Hint: t.hint, Go: t.wg.Go,
	})
	pairKey := t.keys.PairKey
	if cfg.Unproven || cfg.Refused != nil {
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
			return intro.Hello{Boot: k.Boot, Key: k.Public, CRL: number, AES: t.aes != nil, Only: cfg.OnlyAES}
		},
		PairKey: pairKey,
		CRL:     list,
		OnCRL: func(der []byte) {
			if _, err := cfg.TakeCRL(der); err != nil {
				t.log.Warn("refused a revocation list from a peer", "err", err)
			}
		},
		Send:         t.guests.SendSession,
		Accept:       t.accept,
		Known:        t.knows,
		Live:         t.paths.Live,
		Message:      t.paths.Message,
		LastReceived: t.receivedFrom,
		Closed:       t.sessionClosed,
		OnReset:      t.onReset,
		Log:          t.log,
	})
	t.early = early{pending: t.intro.InProgress, from: map[cert.NodeID][][]byte{}}
	return t
}

// verify checks a certificate that a peer presents in an introduction.
func (t *Table) verify(der []byte) (*cert.Node, error) {
	s, ok := t.cfg.Held.Get()
	if !ok {
		return nil, cert.ErrUntrusted
	}
	return s.VerifyShown(der, t.cfg.Clock.Now())
}

// Run owns the table until the context of New ends, and then ends every tunnel. Between
// events it sleeps until a tunnel is due for a check (see lifetime.go).
func (t *Table) Run() {
	t.paths.Start()
	defer t.paths.Close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var armed time.Time
	t.checkClock() // it may have been set while the node was down
	for {
		if next := soonest(t.nextCheck, t.paths.Next()); next != armed {
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
			if due(t.nextCheck, now) {
				t.check(now)
			}
			if due(t.paths.Next(), now) {
				t.paths.Check(now)
			}
		}
	}
}

func (t *Table) takeDown() {
	for _, q := range t.table {
		t.drop(q, "down", true)
	}
	t.intro.Close()
	t.missing.Lock()
	t.down = true
	t.missing.Unlock()
	t.wg.Wait()
	t.guests.Close()
	// Introductions that were in progress may have left calls in the queue.
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

// do runs f in the owner's goroutine. It waits for room in the queue, not for f. It
// reports whether the node is still running.
func (t *Table) do(f func()) bool {
	select {
	case t.calls <- f:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// hint is do for hints: f is dropped when the queue is full.
func (t *Table) hint(f func()) {
	select {
	case t.calls <- f:
	default:
	}
}

// inLoop runs f in the owner's goroutine and waits for its result. After ErrDown f may still
// run: the caller uses nothing that f sets.
func (t *Table) inLoop(f func() error) error {
	if err, ok := fromLoop(t, f); ok {
		return err
	}
	return ErrDown
}

// fromLoop runs f in the owner's goroutine and returns what it returns, or not ok once the
// node is going down.
func fromLoop[T any](t *Table, f func() T) (v T, ok bool) {
	done := make(chan T, 1)
	if !t.do(func() { done <- f() }) {
		return v, false
	}
	select {
	case v = <-done:
		return v, true
	case <-t.ctx.Done():
		return v, false
	}
}

// soonest returns the earlier of two times; zero means never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func due(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }
