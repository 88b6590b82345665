package overlay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/status"
)

// Keeping in step with the server. There is no stream of changes: the relay
// says which versions are current (nudge, welcome), and whatever differs from
// what is held is fetched as a whole, each part by itself (parts.go). A nudge
// of the server's own relay may bring a short change of the directory along,
// which spares the fetch; lost ones cost nothing, versions are compared anyway.
const (
	jitterDirectory = 300 * time.Millisecond
	jitterConfig    = 2 * time.Second
	pushTime        = time.Second     // for a pushed revocation list to come
	nudgeSpacing    = 2 * time.Second // at most one nudged fetch in this time
	maxSpread       = 10 * time.Minute
	behindFor       = 5 * time.Second // a configuration that was announced is about to be fetched
	renewSpacing    = time.Second
	crlSpacing      = time.Second // after a pushed list that was not newer, or not genuine
)

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
	target   wanted
	steps    [parts]step
	due      time.Time          // of what was nudged for
	last     map[bool]time.Time // by nudged: when something was last asked for
	answered bool               // by the server, since nothing was under way

	renewed time.Time         // weft time of the last renewal in this run
	omitted uint64            // number of the list that the certificate was last renewed for
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

// wanted is what somebody said is current.
type wanted struct {
	api.Versions
	spread time.Duration // the server's wish to space a large network out
	nudged bool
	renew  bool
	// changes is what came with the nudge, if who sent it is believed.
	changes *api.Changes
}

// result is what came of asking for a part.
type result struct {
	part part
	word string // the version that was wanted
	err  error
	cost int64  // bytes that came
	body []byte // of a revocation list
	tag  string // what the server calls it
	// restored: the server knows an older revocation list than this node.
	restored bool
	// use makes what came what the node goes by, in run's goroutine; nil if the
	// server has nothing new. It reports whether anything is new.
	use func() (news bool, err error)
}

func newControl(n *Node, r *running) *control {
	c := &control{
		n: n, r: r, wake: make(chan wanted, 1), crls: make(chan []byte, 1), done: make(chan result, parts),
		strange: make(chan struct{}, 1), last: map[bool]time.Time{},
	}
	c.have = n.versions()
	c.target.Versions = c.have
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

// bring gives the server the revocation list held here, once: this node may be
// strange to it because it was restored from a backup of before the node joined,
// and then it does not know either who was deleted since. Or the node is strange
// to a relay that holds a newer list, which leaves out what ended when this node's
// certificate did: then the node needs that list, and another certificate.
//
// Most of all the node may have been removed. Then the server says so to whatever
// it is asked.
func (c *control) bring(ctx context.Context) {
	s, ok := c.n.snap.get()
	if !ok || !c.bringing.CompareAndSwap(false, true) {
		return
	}
	c.tasks.Go(func() {
		defer c.bringing.Store(false)
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		if _, err := c.n.client().Config(ctx, s.config.Version); refusedForGood(err) {
			c.refused(err)
		}
		if s.crl == nil || s.crl.Number <= c.brought.Load() {
			return
		}
		if err := c.n.client().SendCRL(ctx, s.crl.Raw); err != nil {
			c.n.log.Info("give the server the revocation list", "err", err)
			return
		}
		c.brought.Store(s.crl.Number)
		der, _, err := c.n.client().CRL(ctx, api.CRLTag(s.crl.Number))
		if err != nil {
			c.n.log.Info("fetch the revocation list", "err", err)
		} else if der != nil {
			c.wantCRL(der)
		}
	})
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
		s, ok := c.n.snap.get()
		if !ok {
			return // not before this goroutine was told to end
		}
		timer.Reset(c.begin(ctx, s, time.Now()))
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

// hear takes somebody's word for what is current.
func (c *control) hear(s *snapshot, w wanted, now time.Time) {
	if w.Config.IsZero() { // the relay does not know
		w.Config, w.Directory = c.target.Config, c.target.Directory
	}
	if w.CRL == 0 {
		w.CRL = c.target.CRL
	}
	w.renew = w.renew || c.target.renew
	waiting := c.waiting(s) // before what comes along is taken
	if w.changes != nil && w.changes.Version == w.Directory && c.n.takeChanges(w.changes) {
		c.tell()
	}
	w.changes = nil
	c.target = w
	soonest := c.last[w.nudged].Add(nudgeSpacing)
	if w.nudged {
		soonest = later(soonest, now.Add(c.jitter(w, s)))
	}
	if !waiting || !c.due.After(now) {
		c.due = soonest
	}
	for p := range parts { // the relay has heard from the server: no need to be patient
		if st := &c.steps[p]; st.retry.After(soonest) {
			st.retry = soonest
		}
	}
}

// begin asks for what is wanted and due, and returns how long until it is to be
// called again, should nothing happen before.
func (c *control) begin(ctx context.Context, s *snapshot, now time.Time) time.Duration {
	var next time.Time
	for p := range parts {
		st := &c.steps[p]
		word, have, from := c.wants(s, p, now)
		if st.mended(have) || p == partDirectory && !s.readsDirectory() {
			*st = step{busy: st.busy}
			c.n.health.Clear(partWords[p].code)
		}
		if st.refused == "" && !st.since.IsZero() && (word == "" || from.After(now)) { // it came another way
			st.since, st.reason, st.alone = time.Time{}, "", false
			c.n.health.Clear(partWords[p].code)
		}
		at, ok := st.ready(word)
		if word == "" || !ok {
			continue
		}
		if at = latest(at, from, c.due); at.After(now) {
			next = soonest(next, at)
			continue
		}
		st.busy = true
		c.last[c.target.nudged] = now
		tag := st.tag
		c.tasks.Go(func() { c.done <- c.ask(ctx, s, p, word, tag) })
	}
	if next.IsZero() {
		return math.MaxInt64
	}
	return next.Sub(now)
}

// wants returns which version of a part is wanted, "" if none, what the node has,
// and, where time alone makes it due, from when.
func (c *control) wants(s *snapshot, p part, now time.Time) (word, have string, from time.Time) {
	held := c.n.versions()
	switch p {
	case partList:
		if have = fmt.Sprint(held.CRL); c.target.CRL > held.CRL {
			word = fmt.Sprint(c.target.CRL)
		}
	case partConfig:
		if have = held.Config.String(); c.target.Config != held.Config {
			word = c.target.Config.String()
		}
	case partDirectory:
		if have = held.Directory.String(); s.readsDirectory() && c.target.Directory != held.Directory {
			word = c.target.Directory.String()
		}
	case partCertificate:
		have = s.self.Serial.String()
		word = "after " + have
		if !c.target.renew {
			from = now.Add(max(c.renewIn(s), 0))
		}
	}
	return word, have, from
}

// waiting reports whether something is to be asked for and was not yet.
func (c *control) waiting(s *snapshot) bool {
	now := time.Now()
	for p := range parts {
		word, _, from := c.wants(s, p, now)
		if _, ok := c.steps[p].ready(word); ok && word != "" && !from.After(now) {
			return true
		}
	}
	return false
}

// How long an answer may take to come, and the longer ones to be there.
const (
	fetchTimeout = 30 * time.Second
	longTimeout  = 2 * time.Minute
)

// ask asks the server for a part. It runs beside run and touches nothing of its.
func (c *control) ask(ctx context.Context, s *snapshot, p part, word, tag string) (res result) {
	limit := fetchTimeout
	if p == partList || p == partDirectory {
		limit = longTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cl := c.n.client()
	res = result{part: p, word: word}
	switch p {
	case partList:
		c.askList(ctx, s, cl, tag, &res)
	case partCertificate:
		c.askCertificate(ctx, cl, &res)
	case partConfig:
		c.askConfig(ctx, s, cl, &res)
	case partDirectory:
		have := c.n.dir.currentVersion()
		dir, err := cl.Directory(ctx, have)
		res.err = err
		res.use = func() (bool, error) {
			if c.n.dir.currentVersion() != have {
				return true, nil // a nudge brought a change along: it is asked for again
			}
			now, ok := c.n.snap.get()
			if !ok {
				return false, net.ErrClosed
			}
			c.n.takeDirectory(now, dir)
			return dir.Version != have, nil
		}
	}
	var came *client.AnswerError
	if errors.As(res.err, &came) {
		res.cost, res.body = int64(len(came.Came)), came.Came
	}
	return res
}

func (c *control) askList(ctx context.Context, s *snapshot, cl *client.Client, refused string, res *result) {
	known := []string{refused}
	if s.crl != nil {
		known = append(known, api.CRLTag(s.crl.Number))
	}
	der, tag, err := cl.CRL(ctx, known...)
	res.tag, res.err, res.cost, res.body = tag, err, int64(len(der)), der
	if der != nil {
		res.use = func() (bool, error) { return c.n.takeCRL(der) }
	}
}

func (c *control) askConfig(ctx context.Context, s *snapshot, cl *client.Client, res *result) {
	config, err := cl.Config(ctx, s.config.Version)
	if res.err = err; err != nil || config == nil {
		return
	}
	res.cost = costly + 1 // how long it was is not known
	res.use = func() (bool, error) {
		if err := c.n.takeConfig(config); err != nil {
			return false, err
		}
		if !slices.EqualFunc(s.config.NetworkCAs, config.NetworkCAs, bytes.Equal) {
			c.mayFit(partList, partDirectory)
		}
		c.r.peers.configChanged()
		c.r.home.home.Wake()
		return true, nil
	}
	res.restored = s.crl != nil && config.Versions.CRL < s.crl.Number
}

// give gives a server that was restored from a backup the revocation list held
// here: it does not know who was deleted since. It is tried until it has arrived,
// or a newer list has come: nobody else may hold this one.
func (c *control) give(ctx context.Context) {
	s, ok := c.n.snap.get()
	if !ok || s.crl == nil || !c.giving.CompareAndSwap(false, true) {
		return
	}
	list := s.crl
	c.tasks.Go(func() {
		defer c.giving.Store(false)
		for wait := firstHold; ; wait = min(2*wait, maxHold) {
			one, cancel := context.WithTimeout(ctx, longTimeout)
			err := c.n.client().SendCRL(one, list.Raw)
			cancel()
			if err == nil || ctx.Err() != nil {
				return
			}
			c.n.log.Warn("give the server the revocation list", "err", err)
			if alone(err) || forAll(err) || !sleep(ctx, jitter(wait)) {
				return
			}
			if now, ok := c.n.snap.get(); !ok || now.crl != list {
				return
			}
		}
	})
}

func (c *control) askCertificate(ctx context.Context, cl *client.Client, res *result) {
	c.n.mu.Lock()
	id := c.n.id
	c.n.mu.Unlock()
	if !id.joined() {
		return
	}
	csr, err := cert.NewCSR(id.key)
	if err != nil {
		res.err = err
		return
	}
	answer, err := cl.Renew(ctx, api.RenewRequest{Protocol: api.Protocol, CSR: csr, OS: runtime.GOOS + "/" + runtime.GOARCH, Software: c.n.cfg.Version})
	res.err = err
	res.use = func() (bool, error) { return true, c.renew(answer.Certificate) }
}

// renew takes a new certificate.
func (c *control) renew(der []byte) error {
	s, ok := c.n.snap.get()
	if !ok {
		return net.ErrClosed
	}
	node, err := s.roots.VerifyNodeAnyTime(der)
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
	if s.crl != nil {
		c.omitted = s.crl.Number
	}
	if !c.n.update(func(id *identity, s *snapshot) { id.Certificate, s.self = der, node }) {
		return net.ErrClosed
	}
	if !c.r.home.connected() {
		c.r.home.home.Wake() // a relay may have refused the one before
	}
	c.mayFit(partConfig) // the addresses in it
	return nil
}

// finish takes what came of asking for a part.
func (c *control) finish(ctx context.Context, res result, now time.Time) {
	if ctx.Err() != nil {
		return
	}
	st, weftNow := &c.steps[res.part], c.n.clock.Now()
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
	s, ok := c.n.snap.get()
	if !ok {
		return
	}
	if res.restored {
		c.give(ctx)
	}
	word, have, _ := c.wants(s, res.part, now)
	switch {
	case err == nil && (news || word == ""):
		st.succeed()
		c.forget(res)
	case err == nil:
		st.idle(now, res.cost)
		c.forget(res)
	case refused && res.part != partCertificate:
		c.n.log.Warn("refused what the server sent", "what", partWords[res.part].name, "err", err)
		st.refuse(now, weftNow, res.word, have, res.tag, res.body, res.cost, err)
	default:
		c.n.log.Info("fetch from the server", "what", partWords[res.part].name, "err", err)
		st.fail(now, weftNow, err, refused || alone(err), res.cost)
		if late := status.LateRenewal(s.self, weftNow); late != "" && time.Since(c.warned) > 24*time.Hour {
			c.warned = now
			c.n.log.Warn(late, "err", err)
		}
	}
	c.report(st, res, err, refused)
	for p := range parts {
		if c.steps[p].busy {
			return
		}
	}
	c.answered = false
	c.tell()
	for _, p := range []part{partList, partConfig} { // who may come in
		if word, _, _ := c.wants(s, p, now); word != "" && word != c.steps[p].refused {
			return
		}
	}
	c.r.peers.upToDate()
}

// forget lets go of what was announced, if it is what was asked for: the server
// does not have it. It may be announced again.
func (c *control) forget(res result) {
	have := c.n.versions()
	t := &c.target
	switch res.part {
	case partList:
		if fmt.Sprint(t.CRL) == res.word {
			t.CRL = have.CRL
		}
	case partConfig:
		if t.Config.String() == res.word {
			t.Config = have.Config
		}
	case partDirectory:
		if t.Directory.String() == res.word {
			t.Directory = have.Directory
		}
	case partCertificate:
		t.renew = false
	}
}

// mayFit has what was refused asked for once more: what it was judged by is
// something else now.
func (c *control) mayFit(others ...part) {
	for _, p := range others {
		c.steps[p].refused = ""
	}
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
		if what := lacking(&c.steps); what != "" {
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

// alone reports whether it is one request that failed, at a server that answers.
func alone(err error) bool {
	var e *api.Error
	var came *client.AnswerError
	return errors.As(err, &came) || errors.As(err, &e) && !forAll(err) && e.Status != http.StatusBadGateway &&
		e.Status != http.StatusServiceUnavailable && e.Status != http.StatusGatewayTimeout
}

// forAll reports whether the server refuses this node, whatever it asks for.
func forAll(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Code == api.CodeProtocol || e.Code == api.CodeRevoked || e.Code == api.CodeUnauthorized)
}

// tell tells the relay what this node holds now, if that is something else than
// before.
func (c *control) tell() {
	if have := c.n.versions(); have != c.have {
		c.have = have
		c.r.home.home.SendVersions(have)
	}
}

// pushed takes a revocation list that a relay sent unasked. One that is of no use
// is not looked at again.
func (c *control) pushed(der []byte, now time.Time) {
	if now.Sub(c.useless) <= crlSpacing {
		return
	}
	sum := sha256.Sum256(der)
	if sum == c.spurned || sum == c.steps[partList].sum {
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
	if s.crl.Omits(s.self.NotAfter) && s.crl.Number != c.omitted {
		return 0 // nobody who holds the list believes this certificate, whatever the time is
	}
	return due.Sub(c.n.clock.Now())
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
	return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("%s: the server does not answer: %v", what, err), Hint: "see: weft status"}
}
