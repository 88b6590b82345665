package overlay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"weft/coord/api"
	"weft/coord/client"
	"weft/overlay/cert"
	"weft/overlay/localapi"
)

// Keeping in step with the server. There is no stream of changes: the relay
// says which versions are current (nudge, welcome), and whatever differs from
// what is held is fetched as a whole. All fetches run in one goroutine. A nudge
// of the server's own relay may bring a short change of the directory along,
// which spares the fetch; lost ones cost nothing, versions are compared anyway.
const (
	jitterDirectory = 300 * time.Millisecond
	jitterConfig    = 2 * time.Second
	pushTime        = time.Second     // for a pushed revocation list to come
	nudgeSpacing    = 2 * time.Second // at most one nudged fetch in this time
	maxFetchBackoff = time.Minute
	maxSpread       = 10 * time.Minute
	renewSpacing    = time.Second
	crlSpacing      = time.Second // after a pushed list that was not newer, or not genuine
)

// control fetches. Its fields belong to the goroutine in run, but for the
// channels.
type control struct {
	n    *Node
	r    *running
	wake chan wanted // capacity 1, holds the latest
	crls chan []byte // capacity 1, the latest that a relay pushed
	have api.Versions

	strange chan struct{} // capacity 1: a relay does not know this node
	brought uint64        // number of the last list that bring gave away

	renewed time.Time // weft time of the last renewal in this run
}

// wanted is what somebody said is current.
type wanted struct {
	api.Versions
	spread time.Duration // the server's wish to space a large network out
	nudged bool
	renew  bool
	// changes is what came with the nudge, if who sent it is believed.
	changes *api.Changes
}

func newControl(n *Node, r *running) *control {
	c := &control{n: n, r: r, wake: make(chan wanted, 1), crls: make(chan []byte, 1), strange: make(chan struct{}, 1)}
	c.have = n.versions()
	return c
}

// versions is what this node holds, as told to the relay.
func (n *Node) versions() api.Versions {
	var v api.Versions
	if s, ok := n.snap.get(); ok {
		v.Config = s.config.Version
		if s.readsDirectory() {
			v.Directory = n.dir.currentVersion() // else zero: not wanted, so never nudged for
		}
		if s.config.Lookup {
			v.Names = n.dir.namesHeld()
		}
		if s.crl != nil {
			v.CRL = s.crl.Number
		}
	}
	return v
}

// tellVersions tells the relay what this node holds now.
func (n *Node) tellVersions() {
	if r := n.active.Load(); r != nil {
		r.home.home.SendVersions(n.versions())
	}
}

// uses notes that names are looked up here, and returns the round that the
// answer belongs to.
func (n *Node) uses() (round uint64) {
	round, tell := n.dir.looks()
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
	if !n.dir.namesAre(v) {
		return
	}
	n.tellVersions()
	n.cfg.NamesChanged()
}

// want asks the loop to bring the node to these versions. Never blocks.
func (c *control) want(w wanted) {
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

// bring gives the server the revocation list held here, once: this node may be
// strange to it because it was restored from a backup of before the node joined,
// and then it does not know either who was deleted since.
func (c *control) bring(ctx context.Context) {
	s, ok := c.n.snap.get()
	if !ok || s.crl == nil || s.crl.Number <= c.brought {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.n.client().SendCRL(ctx, s.crl.Raw); err != nil {
		c.n.log.Info("give the server the revocation list", "err", err)
		return
	}
	c.brought = s.crl.Number
}

// run is the goroutine. It ends with ctx. When the next fetch is due is decided
// once and not again with each nudge, so that a relay that nudges without end
// neither makes the node fetch more often nor keeps it from fetching.
func (c *control) run(ctx context.Context) {
	var target wanted
	target.Versions = c.have
	var due time.Time            // of a fetch, should one be needed
	var backoff time.Duration    // after a fetch that failed
	last := map[bool]time.Time{} // by nudged: the last fetch
	var refusedCRL time.Time     // when a pushed list was of no use
	var warned time.Time         // of a certificate that is not renewed
	for {
		s, ok := c.n.snap.get()
		if !ok {
			return // not before this goroutine was told to end
		}
		renewIn := c.renewIn(s)
		if target.renew {
			renewIn = 0
		}
		wait := renewIn
		if renewIn <= 0 || c.behind(s, target) {
			wait = time.Until(due)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case w := <-c.wake:
			timer.Stop()
			if w.Config.IsZero() { // the relay does not know
				w.Config, w.Directory = target.Config, target.Directory
			}
			if w.CRL == 0 {
				w.CRL = target.CRL
			}
			waiting := c.behind(s, target) // before what comes along is taken
			if w.changes != nil && w.changes.Version == w.Directory && c.n.takeChanges(w.changes) {
				c.have = c.n.versions()
				c.r.home.home.SendVersions(c.have)
			}
			w.changes = nil
			target = w
			if waiting && backoff == 0 {
				continue // it is due already
			}
			now := time.Now()
			soonest := last[w.nudged].Add(nudgeSpacing)
			if w.nudged {
				soonest = later(soonest, now.Add(c.jitter(w, s)))
			}
			if backoff == 0 || soonest.Before(due) {
				due = soonest // the relay has heard from the server: no need to be patient
			}
			continue
		case der := <-c.crls:
			timer.Stop()
			if time.Since(refusedCRL) > crlSpacing && !c.n.takeCRL(der) {
				refusedCRL = time.Now()
			}
			continue
		case <-c.strange:
			timer.Stop()
			c.bring(ctx)
			continue
		case <-timer.C:
		}
		last[target.nudged] = time.Now()
		if err := c.fetch(ctx, target, renewIn <= 0); err != nil {
			if ctx.Err() != nil {
				return
			}
			c.n.health.set("server-offline", fmt.Sprintf("the coordination server does not answer (%v); known devices stay reachable", err))
			if errors.Is(err, cert.ErrUntrusted) {
				c.n.health.set("server-untrusted", "something else than the server that this device trusts answers in its place")
			}
			if refusedForGood(err) {
				c.refused(err)
			}
			c.n.log.Info("fetch from the server", "err", err)
			if late := c.n.lateRenewal(s.self); late != "" && time.Since(warned) > 24*time.Hour {
				warned = time.Now()
				c.n.log.Warn(late, "err", err)
			}
			backoff = jitter(min(max(2*backoff, time.Second), maxFetchBackoff))
			due = time.Now().Add(backoff)
			continue
		}
		c.n.health.clear("server-offline")
		c.n.health.clear("server-untrusted")
		c.n.health.clear("version")
		backoff, due, target.renew = 0, time.Time{}, false
		target.Versions = c.n.versions()
		c.have = target.Versions
		c.r.home.home.SendVersions(c.have)
		c.r.peers.upToDate()
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// behind reports whether something differs from what the server has.
func (c *control) behind(s *snapshot, w wanted) bool {
	have := c.n.versions()
	return have.Config != w.Config || s.readsDirectory() && have.Directory != w.Directory || w.CRL > have.CRL
}

// readsDirectory reports whether the node holds the list of the nodes it may
// reach: not when it may reach none, and not when there are too many.
func (s *snapshot) readsDirectory() bool { return s.config.Directory && !s.config.Lookup }

// jitter spreads the fetches of many nodes that were nudged at once. When only
// the revocation list is new, the relay is about to push it, at 500 nodes a
// second and first to who knows the revoked device: fetching is for those whom
// that does not reach.
func (c *control) jitter(w wanted, s *snapshot) time.Duration {
	span, least := jitterDirectory, time.Duration(0)
	spread := min(w.spread, maxSpread)
	switch {
	case w.Config != s.config.Version:
		span = jitterConfig
	case !s.readsDirectory() || w.Directory == c.n.versions().Directory:
		span, least = pushTime, pushTime
		spread *= 2
	}
	return least + rand.N(max(span, spread))
}

// renewIn is how long until the certificate must be renewed. A certificate
// that is due for renewal as soon as it is there, because its life is short or
// the server wants to keep us busy, is not renewed without end: its life is
// counted from when it came.
func (c *control) renewIn(s *snapshot) time.Duration {
	percent := s.config.RenewAfter
	if percent <= 0 || percent >= 100 {
		percent = 66
	}
	share := func(from time.Time) time.Time {
		return from.Add(s.self.NotAfter.Sub(from) * time.Duration(percent) / 100)
	}
	due := share(s.self.NotBefore)
	if !c.renewed.IsZero() {
		due = later(due, later(share(c.renewed), c.renewed.Add(renewSpacing)))
	}
	return due.Sub(c.n.clock.Now())
}

// fetch brings the node up to date: CRL first, since it protects.
func (c *control) fetch(ctx context.Context, w wanted, renew bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cl := c.n.client()
	have := c.n.versions()
	if w.CRL > have.CRL {
		der, err := cl.CRL(ctx)
		if err != nil {
			return fmt.Errorf("fetch CRL: %w", err)
		}
		c.n.takeCRL(der)
	}
	if renew {
		if err := c.renew(ctx, cl); err != nil {
			return fmt.Errorf("renew certificate: %w", err)
		}
	}
	if w.Config != have.Config {
		config, err := cl.Config(ctx, have.Config)
		if err != nil {
			return fmt.Errorf("fetch config: %w", err)
		}
		if config != nil {
			if err := c.n.takeConfig(config); err != nil {
				return fmt.Errorf("take config: %w", err)
			}
			if s, ok := c.n.snap.get(); ok && s.crl != nil && config.Versions.CRL < s.crl.Number {
				// It was restored from a backup, and does not know who was
				// deleted since.
				if err := cl.SendCRL(ctx, s.crl.Raw); err != nil {
					c.n.log.Warn("give the server the revocation list", "err", err)
				}
			}
			c.r.peers.policyChanged()
			c.r.home.home.Wake()
		}
	}
	s, ok := c.n.snap.get()
	if ok && s.readsDirectory() && w.Directory != c.n.dir.currentVersion() {
		if err := c.n.fetchDirectory(ctx, s, cl); err != nil {
			return err
		}
	}
	return nil
}

func (c *control) renew(ctx context.Context, cl *client.Client) error {
	c.n.mu.Lock()
	id := c.n.id
	s, ok := c.n.snap.get()
	c.n.mu.Unlock()
	if !id.joined() || !ok {
		return nil
	}
	csr, err := cert.NewCSR(id.key)
	if err != nil {
		return err
	}
	res, err := cl.Renew(ctx, api.RenewRequest{Protocol: api.Protocol, CSR: csr, OS: runtime.GOOS + "/" + runtime.GOARCH, Software: c.n.cfg.Version})
	if err != nil {
		return err
	}
	node, err := s.roots.VerifyNodeAnyTime(res.Certificate)
	if err != nil {
		return err
	}
	now := c.n.clock.Now()
	switch {
	case node.ID != s.self.ID:
		return errors.New("the server certified another key than ours")
	case !node.NotAfter.After(now):
		return errors.New("the server sent a certificate that has expired")
	}
	c.renewed = now
	return c.n.update(func(id *identity, s *snapshot) {
		id.Certificate, s.self = res.Certificate, node
	})
}

// refused handles a server that says that this node exists no more, or is too
// old. The node keeps its state: the owner decides, and a mistake on the server
// must not cost the device its identity.
func (c *control) refused(err error) {
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeProtocol {
		c.n.health.clear("server-offline") // it answers
		c.n.health.set("version", "this weft and the server are too far apart in version; known devices stay reachable as long as the certificates last: "+e.Error())
	}
	if errors.As(err, &e) && (e.Code == api.CodeRevoked || e.Code == api.CodeUnauthorized) {
		c.n.health.set("revoked", "this device was deleted on the server: "+e.Message+"; run: weft logout, then weft up TOKEN to join anew")
	}
}

// sleep waits for d and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// jitter returns d give or take a quarter.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d*3/4 + rand.N(d/2+1)
}

// unavailable is the answer when nobody could be asked.
func unavailable(what string, err error) error {
	return &localapi.Error{Kind: localapi.KindUnavailable, Message: fmt.Sprintf("%s: the server does not answer: %v", what, err), Hint: "see: weft status"}
}
