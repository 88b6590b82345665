// Package follow keeps a node in step with its server: configuration, directory,
// revocation list and the node's own certificate.
//
// There is no stream of changes: the relay says which versions are current (nudge,
// welcome), and whatever differs from what is held is fetched as a whole, each part by
// itself. A nudge of the server's own relay may bring a short change of the directory
// along, which spares the fetch; lost ones cost nothing, versions are compared anyway.
//
//   - follow.go  the goroutine between them, and what others tell it
//   - plan.go    what is asked of the server, and when
//   - fetch.go   asking it
//   - parts.go   what is remembered of each thing that is fetched
//   - take.go    what it sent is verified, and then what the node goes by
//
// What was taken is in the network.Holder and the directory at once; what follows from
// it is told by Config.Changed and done elsewhere. The package writes no file, and asks
// nobody but Config.Client.
package follow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// crlSpacing is how long no pushed list is looked at after one that was not newer, or
// not genuine.
const crlSpacing = time.Second

// behindFor is how long a configuration that was announced is about to be fetched,
// and behindAgain how long after that another one counts while none has come: a relay
// may announce a new one each second that does not exist, and as long as this node
// is behind it gives no peer up that is nowhere.
const (
	behindFor   = 5 * time.Second
	behindAgain = time.Minute
)

// Config is what a Follower is made of. All of it is required. The functions are called
// from Follower's goroutines and from those that call TakeCRL, and may wait for a lock
// but not for the network or a disk.
type Config struct {
	// Client is the server's.
	Client *client.Client
	// Held and Directory are what is kept in step.
	Held      *network.Holder
	Directory *directory.Directory
	// Clock is weft time.
	Clock  *cert.Clock
	Health *status.Warnings
	Log    *slog.Logger
	// Software is the version of the program, for the server's list of devices.
	Software string

	// Keep has a file of the state directory written again.
	Keep func(file string)
	// Changed is called after something of Held has changed, and returns when what
	// follows from it holds.
	Changed func()
	// NamesChanged is called after something of Directory has.
	NamesChanged func()
	// Tell has the relay told which versions are held now.
	Tell func()
	// Current is called when all that says who may come in is held, as far as
	// anybody knows.
	Current func()
	// Removed is called when the server says that this node is no member any more.
	Removed func()
}

// Follower keeps a node in step, for as long as Run runs. Its fields belong to the
// goroutine in Run, but for the channels and what is atomic. Its other methods may be
// called from any goroutine, and do not wait unless they say so.
type Follower struct {
	cfg  Config
	wake chan wanted  // capacity 1, holds the latest
	crls chan []byte  // capacity 1, the latest that a relay pushed
	done chan result  // capacity of all parts
	have api.Versions // as the relay was last told

	strange  chan struct{} // capacity 1: a relay does not know this node
	giving   atomic.Bool
	bringing atomic.Bool
	brought  atomic.Uint64 // number of the last list that bring gave away
	newest   atomic.Pointer[announced]

	tasks    sync.WaitGroup // what was asked and not answered yet
	plan     plan
	answered bool // by the server, since nothing was under way

	warned  time.Time         // of a certificate that is not renewed
	useless time.Time         // when a pushed list was of no use
	spurned [sha256.Size]byte // over a pushed list that was refused
}

// announced is the newest configuration that somebody spoke of, and since when one is
// spoken of that this node does not hold.
type announced struct {
	config api.Version
	at     time.Time
}

// Behind reports whether this node heard a moment ago of a configuration that it has
// not fetched yet. Any goroutine may ask.
func (c *Follower) Behind() bool {
	a := c.newest.Load()
	return a != nil && time.Since(a.at) < behindFor && a.config != c.versions().Config
}

// New makes a Follower. It starts nothing.
func New(cfg Config) *Follower {
	c := &Follower{
		cfg: cfg, wake: make(chan wanted, 1), crls: make(chan []byte, 1), done: make(chan result, parts),
		strange: make(chan struct{}, 1),
	}
	c.have = c.versions()
	c.plan = newPlan(c.have)
	return c
}

// Versions is what a node holds, as told to the relay.
func Versions(h *network.Holder, dir *directory.Directory) api.Versions {
	var v api.Versions
	if s, ok := h.Get(); ok {
		v.Config = s.Config.Version
		if s.ReadsDirectory() {
			v.Directory = dir.Version() // else zero: not wanted, so never nudged for
		}
		if s.Config.Lookup {
			v.Names = dir.NamesHeld()
		}
		if s.CRL != nil {
			v.CRL = s.CRL.Number
		}
	}
	return v
}

func (c *Follower) versions() api.Versions { return Versions(c.cfg.Held, c.cfg.Directory) }

// Hear takes a relay's word for what is current, as it welcomes the node.
func (c *Follower) Hear(v api.Versions) { c.want(wanted{Versions: v}) }

// Nudge is Hear of a relay that tells many nodes at once. spread is the server's wish
// to have them ask one after another; changes is what came along, nil unless it is of
// the server itself.
func (c *Follower) Nudge(v api.Versions, spread time.Duration, changes *api.Changes) {
	c.want(wanted{Versions: v, spread: spread, nudged: true, changes: changes})
}

// Renew asks for another certificate now.
func (c *Follower) Renew() { c.want(wanted{renew: true}) }

// want asks the loop to bring the node to these versions. Never blocks.
func (c *Follower) want(w wanted) {
	if a := c.newest.Load(); !w.Config.IsZero() && (a == nil || a.config != w.Config) {
		at := time.Now()
		if a != nil && at.Sub(a.at) < behindAgain && a.config != c.versions().Config {
			at = a.at
		}
		c.newest.Store(&announced{w.Config, at})
	}
	for {
		select {
		case c.wake <- w:
			return
		default:
		}
		select {
		case old := <-c.wake:
			w.renew = w.renew || old.renew
		default:
		}
	}
}

// WantCRL hands over a revocation list that a relay pushed. Never blocks: a
// list that finds no room is fetched at the next nudge.
func (c *Follower) WantCRL(der []byte) {
	select {
	case c.crls <- der:
	default:
	}
}

// IsStrange takes a relay's word that it does not know this node. Never blocks.
func (c *Follower) IsStrange() {
	select {
	case c.strange <- struct{}{}:
	default:
	}
}

// Run is the goroutine. It ends with ctx. When the next fetch is due is decided
// once and not again with each nudge, so that a relay that nudges without end
// neither makes the node fetch more often nor keeps it from fetching.
func (c *Follower) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer c.tasks.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s, ok := c.cfg.Held.Get()
		if !ok {
			return // not before this goroutine was told to end
		}
		timer.Reset(c.begin(ctx, c.at(s, time.Now())))
		select {
		case <-ctx.Done():
			return
		case w := <-c.wake:
			c.hear(s, w, time.Now())
		case der := <-c.crls:
			c.pushed(der, time.Now())
		case <-c.strange:
			c.bring(ctx)
		case res := <-c.done:
			c.finish(ctx, res, time.Now())
		case <-timer.C:
		}
	}
}

// at is what the plan is judged by.
func (c *Follower) at(s *network.Network, now time.Time) moment {
	return moment{Network: s, held: c.versions(), now: now, weft: c.cfg.Clock.Now()}
}

// hear takes somebody's word for what is current.
func (c *Follower) hear(s *network.Network, w wanted, now time.Time) {
	waited := c.plan.waiting(c.at(s, now)) // before what comes along is taken
	w = c.plan.complete(w)
	if w.changes != nil && w.changes.Version == w.Directory && c.takeChanges(w.changes) {
		c.tell()
	}
	c.plan.hear(c.at(s, now), w, waited)
}

// begin asks for what is wanted and due, and returns how long until it is to be
// called again, should nothing happen before.
func (c *Follower) begin(ctx context.Context, m moment) time.Duration {
	ask, well, wait := c.plan.next(m)
	for _, p := range well {
		c.cfg.Health.Clear(partWords[p].code)
	}
	for _, q := range ask {
		c.tasks.Go(func() { c.done <- c.ask(ctx, m.Network, q) })
	}
	return wait
}

// finish takes what came of asking for a part.
func (c *Follower) finish(ctx context.Context, res result, now time.Time) {
	if ctx.Err() != nil {
		return
	}
	st, weftNow := &c.plan.steps[res.part], c.cfg.Clock.Now()
	st.busy = false
	news, err := false, res.err
	refused := false
	if err == nil && res.use != nil {
		news, err = res.use()
		refused = err != nil
	}
	var came *client.AnswerError
	if errors.As(err, &came) {
		refused = !came.Broke
	}
	s, ok := c.cfg.Held.Get()
	if !ok {
		return
	}
	if res.restored {
		c.give(ctx)
	}
	m := c.at(s, now)
	word, have, _ := c.plan.wants(m, res.part)
	switch {
	case err == nil && (news || word == ""):
		st.succeed()
		c.plan.forget(m.held, res.part, res.word)
	case err == nil:
		st.idle(now, res.cost)
		c.plan.forget(m.held, res.part, res.word)
	case refused && res.part != partCertificate:
		c.cfg.Log.Warn("refused what the server sent", "what", partWords[res.part].name, "err", err)
		st.refuse(now, weftNow, res.word, have, res.tag, res.body, res.cost, err)
	default:
		c.cfg.Log.Info("fetch from the server", "what", partWords[res.part].name, "err", err)
		st.fail(now, weftNow, err, refused || alone(err), res.cost)
		if late := status.LateRenewal(s.Self, weftNow); late != "" && time.Since(c.warned) > 24*time.Hour {
			c.warned = now
			c.cfg.Log.Warn(late, "err", err)
		}
	}
	c.report(st, res, err, refused)
	if c.plan.busy() {
		return
	}
	c.answered = false
	c.tell()
	if c.plan.lets(m) {
		c.cfg.Current()
	}
}

// renew takes a new certificate, which was asked for when asked was held. A list that
// has come since then may leave it out too.
func (c *Follower) renew(asked *network.Network, der []byte) error {
	s, ok := c.cfg.Held.Get()
	if !ok {
		return net.ErrClosed
	}
	node, err := s.Roots.VerifyNodeAnyTime(der)
	if err != nil {
		return err
	}
	now := c.cfg.Clock.Now()
	switch {
	case node.ID != s.Self.ID:
		return errors.New("the server certified another key than ours")
	case !node.NotAfter.After(now):
		return errors.New("the server sent a certificate that has expired")
	}
	c.plan.renewed = now
	if asked.CRL != nil {
		c.plan.omitted = asked.CRL.Number
	}
	if !c.update(func(id *network.Identity, s *network.Network) { id.Certificate, s.Self = der, node }) {
		return net.ErrClosed
	}
	c.cfg.Changed()
	c.plan.mayFit(partConfig) // the addresses in it
	return nil
}

// report keeps health up to date. The server is away only when it answered
// nothing of all that was asked at a time.
func (c *Follower) report(st *step, res result, err error, refused bool) {
	h := c.cfg.Health
	if err == nil || refused || alone(err) || forAll(err) {
		c.answered = true
		h.Clear(status.CodeServerOffline)
		h.Clear(status.CodeServerUntrusted)
	}
	if err == nil {
		h.Clear(status.CodeVersion)
		h.Clear(status.CodeRevoked)
	}
	switch {
	case err != nil && forAll(err):
		c.refused(err)
		h.Clear(partWords[res.part].code)
		return
	case err != nil && !c.answered:
		why := fmt.Sprintf("the coordination server does not answer (%v); known devices stay reachable", err)
		if what := lacking(&c.plan.steps); what != "" {
			why += "; not known to be current: " + what
		}
		h.Set(status.CodeServerOffline, why)
		if errors.Is(err, cert.ErrUntrusted) {
			h.Set(status.CodeServerUntrusted, "something else than the server that this device trusts answers in its place")
		}
	}
	if why := st.warning(res.part); why != "" {
		h.Set(partWords[res.part].code, why)
	} else {
		h.Clear(partWords[res.part].code)
	}
}

// tell tells the relay what this node holds now, if that is something else than
// before.
func (c *Follower) tell() {
	if have := c.versions(); have != c.have {
		c.have = have
		c.cfg.Tell()
	}
}

// pushed takes a revocation list that a relay sent unasked. One that is of no use
// is not looked at again.
func (c *Follower) pushed(der []byte, now time.Time) {
	if now.Sub(c.useless) <= crlSpacing {
		return
	}
	sum := sha256.Sum256(der)
	if sum == c.spurned || sum == c.plan.steps[partList].sum {
		return
	}
	newer, err := c.TakeCRL(der)
	if err != nil {
		c.cfg.Log.Warn("refused a revocation list that a relay sent", "err", err)
		c.spurned = sum
	}
	if !newer {
		c.useless = now
	}
}

// refused handles a server that says that this node exists no more, or is too
// old. The node keeps its state: the owner decides, and a mistake on the server
// must not cost the device its identity.
func (c *Follower) refused(err error) {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeProtocol {
		c.cfg.Health.Set(status.CodeVersion, "this weft and the server are too far apart in version; known devices stay reachable as long as the certificates last: "+e.Error())
	}
	if errors.As(err, &e) && (e.Code == api.CodeRevoked || e.Code == api.CodeUnauthorized) {
		c.cfg.Removed()
	}
}
