// Package follow keeps a node in step with its server: configuration, directory,
// revocation list and the node's own certificate.
//
// There is no stream of changes: the relay says which versions are current (nudge,
// welcome), and the node fetches each part whose version differs, as a whole. A nudge of
// the server's own relay may carry a short change of the directory, which saves the
// fetch. A lost nudge does no harm, because versions are compared.
//
//   - follow.go  the goroutine, and the methods for others
//   - report.go  what it reports to health and to the relay
//   - plan.go    what to ask the server, and when
//   - fetch.go   the requests
//   - parts.go   the state of each part that is fetched
//   - take.go    verifies what the server sent, and applies it
//
// What was fetched is in the network.Holder and the directory at once. Config.Changed
// makes others follow. The package writes no files, and sends requests only through
// Config.Client.
package follow

import (
	"context"
	"crypto/sha256"
	"errors"
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

// crlSpacing is how long pushed lists are ignored after one that was not newer or not
// authentic.
const crlSpacing = time.Second

// behindFor is for how long after the announcement of a configuration this node counts as
// behind. behindAgain is for how long after that further announcements do not count
// unless one was fetched. While it is behind, the node does not give up a peer that it
// cannot find, and a relay could announce a configuration each second that does not
// exist.
const (
	behindFor   = 5 * time.Second
	behindAgain = time.Minute
)

// Config configures New. All fields but Listed are required. The functions are called from the
// Follower's goroutines and from callers of TakeCRL. They may wait for a lock, but not
// for the network or a disk.
type Config struct {
	// Listed is the directory that came with the answer to a join, or nil.
	Listed *api.Directory
	// Client is the server's.
	Client *client.Client
	// Held and Directory are kept in step with the server.
	Held      *network.Holder
	Directory *directory.Directory
	// Clock is weft time.
	Clock  *cert.Clock
	Health *status.Warnings
	Log    *slog.Logger
	// Software is the version of the program, for the server's list of devices.
	Software string

	// Keep schedules a file of the state directory to be written.
	Keep func(file string)
	// Changed is called after Held has changed, and returns once the change is applied
	// everywhere.
	Changed func()
	// NamesChanged is called after Directory has changed.
	NamesChanged func()
	// Tell makes the node send its current versions to the relay.
	Tell func()
	// Current is called when everything that decides who may come in is current, as far
	// as is known.
	Current func()
	// Removed is called when the server says that this node is no longer a member.
	Removed func()
}

// Follower keeps a node in step while Run runs. Its fields belong to Run's goroutine,
// except channels and atomics. Its other methods may be called from any goroutine, and do
// not block unless they say so.
type Follower struct {
	cfg  Config
	wake chan wanted  // capacity 1, holds the latest
	crls chan []byte  // capacity 1, holds the latest list that a relay pushed
	done chan result  // capacity of all parts
	have api.Versions // as last sent to the relay

	unknown  chan struct{} // capacity 1: a relay does not know this node
	giving   atomic.Bool
	bringing atomic.Bool
	sent     atomic.Uint64 // number of the last list that checkRefusal sent
	newest   atomic.Pointer[announced]

	tasks    sync.WaitGroup // requests in progress
	plan     plan
	answered bool // the server has answered since requests were last all done

	warned     time.Time         // when it last warned of a certificate that is not renewed
	useless    time.Time         // when the last useless list was pushed
	refusedSum [sha256.Size]byte // of the last pushed list that was refused
}

// announced is the newest configuration that was announced, and since when one is
// announced that this node does not have.
type announced struct {
	config api.Version
	at     time.Time
}

// Behind reports whether a configuration was announced a moment ago that this node has
// not fetched yet. Any goroutine may call it.
func (c *Follower) Behind() bool {
	a := c.newest.Load()
	return a != nil && time.Since(a.at) < behindFor && a.config != c.versions().Config
}

// New makes a Follower. It starts no goroutine.
func New(cfg Config) *Follower {
	c := &Follower{
		cfg: cfg, wake: make(chan wanted, 1), crls: make(chan []byte, 1), done: make(chan result, parts),
		unknown: make(chan struct{}, 1),
	}
	c.have = c.versions()
	c.plan = newPlan(c.have)
	return c
}

// Versions returns the versions that a node has, to send to its relay.
func Versions(h *network.Holder, dir *directory.Directory) api.Versions {
	var v api.Versions
	if s, ok := h.Get(); ok {
		v.Config = s.Config.Version
		if s.ReadsDirectory() {
			v.Directory = dir.Version() // else zero: the node does not fetch it, so it needs no nudges
		}
		if s.Config.Lookup {
			v.Names = dir.NamesVersion()
		}
		if s.CRL != nil {
			v.CRL = s.CRL.Number
		}
	}
	return v
}

func (c *Follower) versions() api.Versions { return Versions(c.cfg.Held, c.cfg.Directory) }

// Announce takes the current versions from a relay's welcome.
func (c *Follower) Announce(v api.Versions) { c.want(wanted{Versions: v}) }

// Nudge takes the current versions from a nudge, which many nodes may get at once. spread
// is the time over which the server wants them to fetch. changes is the change of the
// directory in the nudge, nil unless it is from the server itself.
func (c *Follower) Nudge(v api.Versions, spread time.Duration, changes *api.Changes) {
	c.want(wanted{Versions: v, spread: spread, nudged: true, changes: changes})
}

// Renew requests another certificate now.
func (c *Follower) Renew() { c.want(wanted{renew: true}) }

// want asks the loop to bring the node to these versions. It does not block.
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

// WantCRL passes on a revocation list that a relay pushed. It does not block: if there is
// no room, the list is fetched at the next nudge.
func (c *Follower) WantCRL(der []byte) {
	select {
	case c.crls <- der:
	default:
	}
}

// Unknown says that a relay does not know this node. It does not block.
func (c *Follower) Unknown() {
	select {
	case c.unknown <- struct{}{}:
	default:
	}
}

// Run fetches until ctx ends. The time of the next fetch is set once and not again with
// each nudge, so that a relay that nudges endlessly makes the node fetch neither more
// often nor never.
func (c *Follower) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer c.tasks.Wait()
	defer cancel()
	c.takeListed()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s, ok := c.cfg.Held.Get()
		if !ok {
			return // only when ctx ends
		}
		timer.Reset(c.begin(ctx, c.at(s, time.Now())))
		select {
		case <-ctx.Done():
			return
		case w := <-c.wake:
			c.hear(s, w, time.Now())
		case der := <-c.crls:
			c.pushed(der, time.Now())
		case <-c.unknown:
			c.checkRefusal(ctx)
		case res := <-c.done:
			c.finish(ctx, res, time.Now())
		case <-timer.C:
		}
	}
}

// takeListed applies the directory that came with a join. It is verified here, while the
// node connects to its relay.
func (c *Follower) takeListed() {
	dir := c.cfg.Listed
	c.cfg.Listed = nil
	s, ok := c.cfg.Held.Get()
	if dir == nil || !ok || !s.ReadsDirectory() || !c.cfg.Directory.Version().IsZero() {
		return
	}
	c.takeDirectory(s, dir)
	c.plan.target.Directory = c.cfg.Directory.Version()
	c.tell()
}

// at returns the moment for the plan.
func (c *Follower) at(s *network.Network, now time.Time) moment {
	return moment{Network: s, held: c.versions(), now: now, weft: c.cfg.Clock.Now()}
}

// hear takes reported current versions.
func (c *Follower) hear(s *network.Network, w wanted, now time.Time) {
	waited := c.plan.waiting(c.at(s, now)) // before the change in w is applied
	w = c.plan.complete(w)
	if w.changes != nil && w.changes.Version == w.Directory && c.takeChanges(w.changes) {
		c.tell()
	}
	c.plan.hear(c.at(s, now), w, waited)
}

// begin sends the requests that are due, and returns after how long to call it again if
// nothing happens before.
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

// finish takes the result of a request.
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
	var answer *client.AnswerError
	if errors.As(err, &answer) {
		refused = !answer.Broke
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
		c.cfg.Log.Warn("refused an answer of the server", "what", partWords[res.part].name, "err", err)
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

// renew takes a new certificate that was requested while asked was the current Network. A
// list received since then may no longer cover it, either.
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
		return errors.New("the server certified another key than this device's")
	case !node.NotAfter.After(now):
		return errors.New("the server sent a certificate that has expired")
	}
	c.plan.renewed = now
	if asked.CRL != nil {
		c.plan.omitted = asked.CRL.Number
	}
	if node.Serial.Cmp(s.Self.Serial) == 0 {
		return nil // it is in force still
	}
	if !c.update(func(id *network.Identity, s *network.Network) { id.Certificate, s.Self = der, node }) {
		return net.ErrClosed
	}
	c.cfg.Changed()
	c.plan.mayFit(partConfig) // its addresses may have been the problem
	return nil
}
