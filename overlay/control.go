package overlay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// Keeping in step with the server. There is no stream of changes: the relay
// says which versions are current (nudge, welcome), and whatever differs from
// what is held is fetched as a whole, each part by itself. A nudge of the server's
// own relay may bring a short change of the directory along, which spares the
// fetch; lost ones cost nothing, versions are compared anyway. What is asked for
// and when is decided in plan.go, asking is in fetch.go; here is the goroutine
// between them.

// crlSpacing is how long no pushed list is looked at after one that was not newer, or
// not genuine.
const crlSpacing = time.Second

// behindFor is how long a configuration that was announced is about to be fetched.
const behindFor = 5 * time.Second

// control fetches. Its fields belong to the goroutine in run, but for the
// channels and what is atomic.
type control struct {
	n    *Node
	r    *running
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

// announced is the newest configuration that somebody spoke of, and when that was
// first.
type announced struct {
	config api.Version
	at     time.Time
}

// behind reports whether this node heard a moment ago of a configuration that it has
// not fetched yet. Any goroutine may ask.
func (c *control) behind() bool {
	a := c.newest.Load()
	return a != nil && time.Since(a.at) < behindFor && a.config != c.n.versions().Config
}

func newControl(n *Node, r *running) *control {
	c := &control{
		n: n, r: r, wake: make(chan wanted, 1), crls: make(chan []byte, 1), done: make(chan result, parts),
		strange: make(chan struct{}, 1), have: n.versions(),
	}
	c.plan = newPlan(c.have)
	return c
}

// versions is what this node holds, as told to the relay.
func (n *Node) versions() api.Versions {
	var v api.Versions
	if s, ok := n.held.Get(); ok {
		v.Config = s.Config.Version
		if s.ReadsDirectory() {
			v.Directory = n.dir.Version() // else zero: not wanted, so never nudged for
		}
		if s.Config.Lookup {
			v.Names = n.dir.NamesHeld()
		}
		if s.CRL != nil {
			v.CRL = s.CRL.Number
		}
	}
	return v
}

// tellVersions tells the relay what this node holds now.
func (n *Node) tellVersions() {
	if r := n.active.Load(); r != nil {
		r.home.home.SendVersions()
	}
}

// uses notes that names are looked up here, and returns the round that the
// answer belongs to.
func (n *Node) uses() (round uint64) {
	round, tell := n.dir.Looks()
	if tell {
		n.tellVersions()
	}
	return round
}

// namesAre takes a relay's word for which version of all names is the current
// one. A node that looks names up fetches nothing for that: it looks up again
// what is asked for from now on, and says that it remembers no names until then,
// so that a device on which nobody uses names is not woken for them.
func (n *Node) namesAre(v api.Version) {
	if !n.dir.NamesAre(v) {
		return
	}
	n.tellVersions()
	n.cfg.NamesChanged()
}

// want asks the loop to bring the node to these versions. Never blocks.
func (c *control) want(w wanted) {
	if a := c.newest.Load(); !w.Config.IsZero() && (a == nil || a.config != w.Config) {
		c.newest.Store(&announced{w.Config, time.Now()})
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

// wantCRL hands over a revocation list that a relay pushed. Never blocks: a
// list that finds no room is fetched at the next nudge.
func (c *control) wantCRL(der []byte) {
	select {
	case c.crls <- der:
	default:
	}
}

// isStrange takes a relay's word that it does not know this node. Never blocks.
func (c *control) isStrange() {
	select {
	case c.strange <- struct{}{}:
	default:
	}
}

// run is the goroutine. It ends with ctx. When the next fetch is due is decided
// once and not again with each nudge, so that a relay that nudges without end
// neither makes the node fetch more often nor keeps it from fetching.
func (c *control) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer c.tasks.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s, ok := c.n.held.Get()
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
func (c *control) at(s *network.Network, now time.Time) moment {
	return moment{Network: s, held: c.n.versions(), now: now, weft: c.n.clock.Now()}
}

// hear takes somebody's word for what is current.
func (c *control) hear(s *network.Network, w wanted, now time.Time) {
	waited := c.plan.waiting(c.at(s, now)) // before what comes along is taken
	w = c.plan.complete(w)
	if w.changes != nil && w.changes.Version == w.Directory && c.n.takeChanges(w.changes) {
		c.tell()
	}
	c.plan.hear(c.at(s, now), w, waited)
}

// begin asks for what is wanted and due, and returns how long until it is to be
// called again, should nothing happen before.
func (c *control) begin(ctx context.Context, m moment) time.Duration {
	ask, well, wait := c.plan.next(m)
	for _, p := range well {
		c.n.health.Clear(partWords[p].code)
	}
	for _, q := range ask {
		c.tasks.Go(func() { c.done <- c.ask(ctx, m.Network, q) })
	}
	return wait
}

// finish takes what came of asking for a part.
func (c *control) finish(ctx context.Context, res result, now time.Time) {
	if ctx.Err() != nil {
		return
	}
	st, weftNow := &c.plan.steps[res.part], c.n.clock.Now()
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
	s, ok := c.n.held.Get()
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
		c.n.log.Warn("refused what the server sent", "what", partWords[res.part].name, "err", err)
		st.refuse(now, weftNow, res.word, have, res.tag, res.body, res.cost, err)
	default:
		c.n.log.Info("fetch from the server", "what", partWords[res.part].name, "err", err)
		st.fail(now, weftNow, err, refused || alone(err), res.cost)
		if late := status.LateRenewal(s.Self, weftNow); late != "" && time.Since(c.warned) > 24*time.Hour {
			c.warned = now
			c.n.log.Warn(late, "err", err)
		}
	}
	c.report(st, res, err, refused)
	if c.plan.busy() {
		return
	}
	c.answered = false
	c.tell()
	if c.plan.lets(m) {
		c.r.peers.upToDate()
	}
}

// renew takes a new certificate.
func (c *control) renew(der []byte) error {
	s, ok := c.n.held.Get()
	if !ok {
		return net.ErrClosed
	}
	node, err := s.Roots.VerifyNodeAnyTime(der)
	if err != nil {
		return err
	}
	now := c.n.clock.Now()
	switch {
	case node.ID != s.Self.ID:
		return errors.New("the server certified another key than ours")
	case !node.NotAfter.After(now):
		return errors.New("the server sent a certificate that has expired")
	}
	c.plan.renewed = now
	if s.CRL != nil {
		c.plan.omitted = s.CRL.Number
	}
	if !c.n.update(func(id *network.Identity, s *network.Network) { id.Certificate, s.Self = der, node }) {
		return net.ErrClosed
	}
	c.n.follow()
	c.plan.mayFit(partConfig) // the addresses in it
	return nil
}

// report keeps health up to date. The server is away only when it answered
// nothing of all that was asked at a time.
func (c *control) report(st *step, res result, err error, refused bool) {
	h := &c.n.health
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
func (c *control) tell() {
	if have := c.n.versions(); have != c.have {
		c.have = have
		c.r.home.home.SendVersions()
	}
}

// pushed takes a revocation list that a relay sent unasked. One that is of no use
// is not looked at again.
func (c *control) pushed(der []byte, now time.Time) {
	if now.Sub(c.useless) <= crlSpacing {
		return
	}
	sum := sha256.Sum256(der)
	if sum == c.spurned || sum == c.plan.steps[partList].sum {
		return
	}
	newer, err := c.n.takeCRL(der)
	if err != nil {
		c.n.log.Warn("refused a revocation list that a relay sent", "err", err)
		c.spurned = sum
	}
	if !newer {
		c.useless = now
	}
}

// refused handles a server that says that this node exists no more, or is too
// old. The node keeps its state: the owner decides, and a mistake on the server
// must not cost the device its identity.
func (c *control) refused(err error) {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeProtocol {
		c.n.health.Set(status.CodeVersion, "this weft and the server are too far apart in version; known devices stay reachable as long as the certificates last: "+e.Error())
	}
	if errors.As(err, &e) && (e.Code == api.CodeRevoked || e.Code == api.CodeUnauthorized) {
		c.n.removed()
	}
}
