package tunnels

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/filters"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/network"
	"weft/overlay/rtt"
	"weft/overlay/status"
)

// How long a tunnel lives. It is made by an introduction and
// ends only by bye, revocation, the end of a certificate, policy or
// replacement. Whatever a relay says or does costs at most another
// introduction.
const (
	idleAfter      = 10 * time.Minute // without data: say bye and drop the peer
	silentAfter    = 2 * time.Second  // data sent and sent again by UDP, nothing heard: ask over the session
	insistAfter    = time.Second      // "again": this long after the first of them. The last word of a talk is said once
	keptQuietAfter = 12 * time.Second // the same where nobody need answer: by now WireGuard's keepalive would have, after 10 s
	pingAnswer     = 5 * time.Second  // no answer to that, or for longer where round trips do: introduce anew
	answerMost     = 10 * time.Second // the most that any answer is waited for
	askedAnswer    = 2 * time.Second  // the same where somebody waits: introduce anew as well
	recently       = 2 * time.Second  // data sent this short ago is traffic
	resetSpacing   = 5 * time.Second  // introductions made because of resets or lost sessions, per peer
	waitedSpacing  = time.Second      // the same while somebody waits for the peer
	calledTurn     = 3 * time.Second  // a lost session is redialled by the side that did not call after this
	redialMax      = 30 * time.Second
	lastShare      = 6                      // a peer with traffic is introduced anew in the last sixth of its certificate's life
	expirySlack    = time.Second            // a certificate is good until its last second is over
	renewMin       = 500 * time.Millisecond // between such introductions
	dialTimeout    = 22 * time.Second       // four times intro.HandshakeTimeout, and a little
	numbersWait    = 2 * time.Second        // accept nobody before our CRL is current, this long after the first who comes
	heldStrangers  = 128                    // senders whose messages are held during their introduction
	heldPerSender  = 4
	heldPacketSize = 2048 // handshakes and small data; larger ones are not held
)

// peer is one introduced node, or one being introduced. It belongs to the
// goroutine of peers.run.
type peer struct {
	id       cert.NodeID
	node     *cert.Node     // as its certificate said in the last introduction; nil before the first
	session  *intro.Session // nil when lost; the tunnel goes on without
	hello    intro.Hello
	local    uint64    // boot id that this node was introduced with
	rekey    time.Time // when to tell it of another, at the latest; see rekey.go
	endpoint *bind.Endpoint
	filter   *filter.Peer
	made     time.Time // the tunnel; zero while there is none
	ours     bool      // this node called
	way      homes.Way // relay connection that carries what goes there; nil: lost

	dial       *dialing
	failures   int       // of introductions in a row
	nextRedial time.Time // not before
	nextHint   time.Time // no introduction before only because a relay may have meddled
	nextRenew  time.Time // no introduction before only because its certificate is about to end
	lost       time.Time // when the session was lost, if there is none
	gone       time.Time // when the relay last said that it is not there

	path pathOf // what it has for better ways than the relay

	trip  rtt.Estimate // of introductions, and of what is said in the session
	asked time.Time    // there, the first thing that it has not answered; zero: nothing

	silence silence // of which it is waited for whether it counts; zero: none

	watchers []chan struct{} // closed when the relay says that the peer is gone
	renewed  []chan struct{} // closed when the tunnel was made anew
	rtt      time.Duration   // of the last ping through the tunnel

	unanswered time.Time // first data sent after the last received, zero when answered
	pinging    time.Time // a ping over the session is on its way since
	proved     time.Time // when one was last answered, or the keys were agreed upon
	oneWay     time.Time // when the peer was last known to have nothing to say to what it is sent
}

func (q *peer) installed() bool { return !q.made.IsZero() }

// waiter is somebody who waits for the result of an introduction.
type waiter struct {
	came   time.Time
	result chan<- error // capacity 1
}

// dialing is an introduction in progress, with those who wait for it.
type dialing struct {
	id cert.NodeID // constant: the goroutine that dials reads it

	waiters []waiter
	tried   time.Time // when the last attempt began: its failure says nothing to who came later
	cancel  context.CancelCauseFunc
	heard   bool                    // the peer has answered the attempt under way
	way     homes.Way               // relay connection of it
	gone    context.CancelCauseFunc // ends that attempt

	// late says that there was a tunnel under the same key already: it goes on
	// with the keys it has until the peer has accepted, so that an introduction
	// that comes to nothing leaves it alone. Or another node holds the key, and
	// may have to give it up then.
	late      bool
	session   *intro.Session // of the tunnel that was made before the peer accepted
	overtaken bool           // the peer's own introduction was accepted meanwhile: its keys are newer
}

// peers owns all tunnels of a running node. One goroutine, run, owns the
// table; everybody else hands it functions.
type Table struct {
	cfg    Config
	log    *slog.Logger
	bind   *bind.Bind
	intro  *intro.Switch
	home   *homes.Home
	guests *homes.Guests
	paths  *paths

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
	held     struct {
		sync.Mutex
		// Mutex guards the following.
		from map[cert.NodeID][][]byte // messages of nodes being introduced
	}
}

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

	UDP  UDP
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

// New makes the table of a node that is in network self. Nothing happens before Run.
func New(ctx context.Context, self *network.Network, cfg Config) *Table {
	cfg.Idle = cmp.Or(cfg.Idle, idleAfter)
	t := &Table{
		cfg: cfg, log: cfg.Log, plane: cfg.Plane, keys: cfg.Keys, forwarder: cfg.Forwarder, bind: cfg.Bind, ctx: ctx,
		home: cfg.Home, guests: cfg.Guests, calls: make(chan func(), 256), current: make(chan struct{}), table: map[cert.NodeID]*peer{},
		silent: map[cert.NodeID]time.Time{},
	}
	t.held.from = map[cert.NodeID][][]byte{}
	t.view.Store(&map[cert.NodeID]View{})
	t.paths = newPaths(t)
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
		Live:    t.sessionLive,
		Message: t.message,
		Heard:   t.heardFrom,
		Closed:  t.sessionClosed,
		OnReset: t.onReset,
		Log:     t.log,
	})
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

// Run owns the table until ctx ends, then takes every peer down. Between what
// happens it sleeps until the first tunnel needs looking at (see lifetime.go).
func (t *Table) Run() {
	t.paths.start()
	defer t.paths.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var armed time.Time
	t.checkClock() // it may have been set while the node was down
	for {
		if next := soonest(t.nextLook, t.paths.next); next != armed {
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
			if due(t.paths.next, now) {
				t.lookPaths(now)
			}
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

// Reconnected is told when the relay has welcomed the node again. What the
// relay said before about who is gone holds no more.
func (t *Table) Reconnected() {
	t.hint(func() {
		for _, q := range t.table {
			q.gone, q.nextRedial = time.Time{}, time.Time{}
			t.tellAgain(q)
		}
		t.publish()
	})
}

// WorldChanged lets every peer be tried again at once: what failed before may
// have been the old network's fault.
func (t *Table) WorldChanged() {
	t.do(func() {
		for _, q := range t.table {
			q.nextRedial = time.Time{}
		}
	})
	t.pathsWake()
	t.guests.Check()
}

// ConfigChanged lets go of relays that the config names no more, and applies new
// rules to every tunnel, live flows included.
func (t *Table) ConfigChanged() {
	if s, ok := t.cfg.Held.Get(); ok {
		t.guests.KeepOnly(s.Config.Relays)
	}
	t.do(func() {
		snap, ok := t.cfg.Held.Get()
		if !ok {
			return
		}
		var list []filters.Opening
		for _, q := range t.table {
			if q.installed() {
				list = append(list, filters.Opening{Filter: q.filter, Ports: filter.Compile(snap.Config.Rules, q.node)})
			}
		}
		t.cfg.Filters.Set(list)
		t.paths.servers()
		for _, q := range t.table {
			if q.path.lane.unheard {
				t.paths.gatherer.Want()
			}
		}
		for _, q := range t.table {
			if q.installed() && !q.filter.Ports().Any() && !q.ours && !q.filter.Began(t.forwarder.Now()) {
				t.drop(q, "policy", true)
			}
		}
	})
}

// CRLChanged drops every tunnel and session whose certificate the list does not
// let stand.
func (t *Table) CRLChanged() {
	t.intro.Recheck()
	t.do(func() {
		snap, ok := t.cfg.Held.Get()
		if !ok {
			return
		}
		for _, q := range t.table {
			if q.node == nil {
				continue
			}
			if err := snap.CRL.Check(q.node); errors.Is(err, cert.ErrRevoked) {
				t.drop(q, "revoked", false)
			} else if err != nil && q.installed() {
				t.endAndRedial(q, "its certificate has expired", true)
			}
		}
	})
}

// UpToDate lets introductions in: our numbers are current, or nobody can say.
func (t *Table) UpToDate() { t.currentOnce.Do(func() { close(t.current) }) }

// drop ends the tunnel with a peer, and an introduction to it that is under way.
// bye tells the peer so.
func (t *Table) drop(q *peer, why string, bye bool) {
	if q.dial != nil {
		q.dial.cancel(fmt.Errorf("tunnel dropped: %s", why))
	}
	t.endTunnel(q, why, bye)
	if t.table[q.id] == q {
		delete(t.table, q.id)
	}
	t.publish()
}

// endAndRedial ends a tunnel that the peer, or time, has ended. Who still has
// traffic for the peer is introduced anew. An introduction that is under way is
// about the next tunnel and goes on.
func (t *Table) endAndRedial(q *peer, why string, bye bool) {
	redial := t.hasTraffic(q, time.Now())
	t.endTunnel(q, why, bye)
	switch {
	case q.dial != nil:
	case redial:
		t.call(q, nil)
	default:
		delete(t.table, q.id)
	}
	t.publish()
}

// endTunnel takes the tunnel and the session away, and leaves of q what
// it was before the first introduction, but for the filter.
func (t *Table) endTunnel(q *peer, why string, bye bool) {
	if s := q.session; s != nil {
		if bye {
			s.Bye()
		} else {
			s.Close()
		}
	}
	if q.installed() {
		t.log.Info("tunnel ended", "peer", t.cfg.Name(q.id), "why", why)
		t.endAgent(q)
		t.plane.RemovePeer(q.id)
		t.cfg.Filters.Release(q.id, t.forwarder.Now())
		t.bind.Drop(q.id)
		t.guests.Route(q.id, nil)
	}
	*q = peer{
		id: q.id, node: q.node, filter: q.filter, dial: q.dial, ours: q.ours,
		failures: q.failures, nextRedial: q.nextRedial, nextHint: q.nextHint,
		watchers: q.watchers, renewed: q.renewed, trip: q.trip,
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

// soonest returns the earlier of two times, of which zero means never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func due(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }
