package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/bind"
	"weft/overlay/cert"
	"weft/overlay/filter"
	"weft/overlay/intro"
	"weft/overlay/localapi"
	"weft/overlay/wg"
)

// How long a tunnel lives. A WireGuard peer is made by an introduction and
// ends only by bye, revocation, the end of a certificate, policy or
// replacement. Whatever a relay says or does costs at most another
// introduction.
const (
	idleAfter      = 10 * time.Minute // without data: say bye and drop the peer
	silentAfter    = 12 * time.Second // data sent, nothing heard, not even WireGuard's keepalive after 10 s: ask over the session
	pingAnswer     = 2 * time.Second  // no answer to that: introduce anew
	recently       = 2 * time.Second  // data sent this short ago is traffic
	resetSpacing   = 5 * time.Second  // introductions made because of resets or lost sessions, per peer
	calledTurn     = 3 * time.Second  // a lost session is redialled by the side that did not call after this
	redialMax      = 30 * time.Second
	sameTime       = 200 * time.Millisecond // who wants the same introduction within this wants the same one
	dialTimeout    = 12 * time.Second       // two attempts of intro.HandshakeTimeout, and a little
	numbersWait    = 2 * time.Second        // accept nobody before our CRL is current, this long
	heldStrangers  = 64                     // senders whose WireGuard packets are held during their introduction
	heldPerSender  = 4
	maxKept        = 256
	heldPacketSize = 2048 // WireGuard handshakes and small data; larger ones are not held
)

// peer is one introduced node, or one being introduced. It belongs to the
// goroutine of peers.run.
type peer struct {
	id       cert.NodeID
	node     *cert.Node     // as its certificate said in the last introduction; nil before the first
	session  *intro.Session // nil when lost; the WireGuard peer goes on without
	hello    intro.Hello
	endpoint *bind.Endpoint
	filter   *filter.Peer
	made     time.Time // the WireGuard peer; zero while there is none
	ours     bool      // this node called

	dial       *dialing
	failures   int       // of introductions in a row
	nextRedial time.Time // not before
	nextHint   time.Time // no introduction before only because a relay may have meddled
	lost       time.Time // when the session was lost, if there is none
	gone       time.Time // when the relay last said that it is not there

	watchers []chan struct{} // closed when the relay says that the peer is gone
	renewed  []chan struct{} // closed when the tunnel was made anew
	rtt      time.Duration   // of the last ping through the tunnel

	unanswered time.Time // first data sent after the last received, zero when answered
	pinging    time.Time // a ping over the session is on its way since
	proved     time.Time // when one was last answered
}

// kept is the filter of a peer that went idle: a flow that pauses for longer
// still belongs to who began it when the tunnel is back.
type kept struct {
	filter *filter.Peer
	node   *cert.Node
}

func (p *peer) installed() bool { return !p.made.IsZero() }

// dialing is an introduction in progress, with those who wait for it.
type dialing struct {
	waiters []chan error
	joined  []chan error // came when it had been under way: its failure says nothing to them
	began   time.Time
	cancel  context.CancelCauseFunc

	// late says that there was a tunnel under the same key already: it goes on
	// with the keys it has until the peer has accepted, so that an introduction
	// that comes to nothing leaves it alone.
	late      bool
	overtaken bool // the peer's own introduction was accepted meanwhile: its keys are newer
}

// peers owns all tunnels of a running node. One goroutine, run, owns the
// table; everybody else hands it functions.
type peers struct {
	n      *Node
	r      *running
	log    *slog.Logger
	device *wg.Device
	bind   *bind.Bind
	intro  *intro.Switch

	calls chan func() // to run
	ctx   context.Context
	wg    sync.WaitGroup // introductions in progress
	// current is closed once our numbers are known to be current, or after
	// numbersWait; until then nobody is accepted.
	current     chan struct{}
	currentOnce sync.Once

	table    map[cert.NodeID]*peer                    // run's
	nextLook time.Time                                // run's: when look is due, zero for never
	kept     map[cert.NodeID]kept                     // run's: filters of peers gone idle, at most maxKept
	view     atomic.Pointer[map[cert.NodeID]peerView] // what others may read
	held     struct {
		sync.Mutex
		// Mutex guards the following.
		from map[cert.NodeID][][]byte // WireGuard packets of nodes being introduced
	}
}

// peerView is a copy of a peer for status.
type peerView struct {
	node *cert.Node
	made time.Time
	gone time.Time
	rtt  time.Duration // of the last ping through the tunnel, 0 before
}

func newPeers(ctx context.Context, n *Node, r *running, self *snapshot) *peers {
	p := &peers{
		n: n, r: r, log: n.log, device: n.device, bind: n.bind, ctx: ctx,
		calls: make(chan func(), 256), current: make(chan struct{}), table: map[cert.NodeID]*peer{}, kept: map[cert.NodeID]kept{},
	}
	p.held.from = map[cert.NodeID][][]byte{}
	p.view.Store(&map[cert.NodeID]peerView{})
	p.intro = intro.New(intro.Config{
		Network:  self.roots.Network(),
		ID:       self.self.ID,
		Identity: n.shownCertificate,
		Verify:   n.verifyNode,
		Hello: func() intro.Hello {
			h := intro.Hello{Boot: n.boot, Key: p.device.PublicKey()}
			if s := n.snap.Load(); s != nil && s.crl != nil {
				h.CRL = s.crl.Number
			}
			return h
		},
		CRL: func() (uint64, []byte) {
			if s := n.snap.Load(); s != nil && s.crl != nil {
				return s.crl.Number, s.crl.Raw
			}
			return 0, nil
		},
		OnCRL:   func(der []byte) { n.takeCRL(der) },
		Send:    r.home.home.SendSession,
		Accept:  p.accept,
		Closed:  p.sessionClosed,
		OnReset: p.onReset,
		Log:     n.log,
	})
	return p
}

// verifyNode is how a certificate shown in an introduction is checked.
func (n *Node) verifyNode(der []byte) (*cert.Node, error) {
	s := n.snap.Load()
	if s == nil {
		return nil, cert.ErrUntrusted
	}
	node, err := s.roots.VerifyNode(der, n.clock.Now(), s.crl)
	if err != nil {
		return nil, err
	}
	return node, s.belongs(node)
}

// run owns the table until ctx ends, then takes every peer down. Between what
// happens it sleeps until the first tunnel needs looking at (see lifetime.go).
func (p *peers) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var armed time.Time
	for {
		if p.nextLook != armed {
			armed = p.nextLook
			if armed.IsZero() {
				timer.Stop()
			} else {
				timer.Reset(time.Until(armed))
			}
		}
		select {
		case <-ctx.Done():
			p.takeDown()
			return
		case f := <-p.calls:
			f()
		case <-timer.C:
			armed = time.Time{}
			p.look(time.Now())
		}
	}
}

// do runs f in the owning goroutine, without waiting. It reports whether the
// node still runs.
func (p *peers) do(f func()) bool {
	select {
	case p.calls <- f:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// hint is do for what a relay says: dropped when there is too much of it.
func (p *peers) hint(f func()) {
	select {
	case p.calls <- f:
	default:
	}
}

// miss is called by the WireGuard device once per destination for which it
// holds packets.
func (n *Node) miss(dst netip.Addr) {
	if r := n.active.Load(); r != nil {
		r.peers.miss(dst)
	} // else the packets held expire
}

func (p *peers) miss(dst netip.Addr) {
	// The caller is the device's reader: it must not wait for us, and we may
	// be waiting for it.
	p.wg.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
		defer cancel()
		// Answers to whoever called us go there whatever the directory says.
		k, _ := p.n.dir.find(dst.String())
		if k == nil {
			var err error
			if k, err = p.n.lookup(ctx, dst.String()); err != nil {
				p.device.Fail(dst, failReason(err))
				return
			}
		}
		if err := p.ensure(ctx, k.node.ID); err != nil {
			p.device.Fail(dst, failReason(err))
		}
	})
}

func failReason(err error) wg.Reason {
	if localapi.KindOf(err) == localapi.KindDenied {
		return wg.Prohibited
	}
	return wg.Unreachable
}

// ensure returns once there is a WireGuard peer for the node, introducing it
// if need be. A peer that exists already costs nothing.
func (p *peers) ensure(ctx context.Context, id cert.NodeID) error {
	if _, ok := (*p.view.Load())[id]; ok {
		return nil
	}
	done := make(chan error, 1)
	ok := p.do(func() {
		q := p.table[id]
		if q != nil && q.installed() && q.dial == nil {
			done <- nil
			return
		}
		if q == nil {
			q = &peer{id: id}
			p.table[id] = q
		}
		p.call(q, done)
	})
	if !ok {
		return errDown
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ctx.Done():
		return errDown
	}
}

var errDown = &localapi.Error{Kind: localapi.KindFailed, Message: "weft is down", Hint: "run: weft up"}

// call starts an introduction as the caller, or joins the one in progress.
// waiter, when not nil, gets its result. Packets flow one round trip earlier,
// as soon as the keys are known (install).
func (p *peers) call(q *peer, waiter chan error) {
	if q.dial != nil {
		switch {
		case waiter == nil:
		case time.Since(q.dial.began) < sameTime:
			q.dial.waiters = append(q.dial.waiters, waiter)
		default:
			q.dial.joined = append(q.dial.joined, waiter)
		}
		return
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	d := &dialing{cancel: cancel, began: time.Now()}
	if waiter != nil {
		d.waiters = append(d.waiters, waiter)
	}
	q.dial = d
	p.wg.Go(func() {
		defer cancel(nil)
		ctx, stop := context.WithTimeout(ctx, dialTimeout)
		defer stop()
		s, err := p.intro.Dial(ctx, q.id, func(s *intro.Session) {
			p.inLoop(func() error { return p.established(q, d, s) })
		})
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil && !errors.Is(cause, context.DeadlineExceeded) {
				err = cause
			}
		}
		p.do(func() { p.called(q, d, s, err) })
	})
}

// established takes the keys of an introduction that this node started, before
// the peer has accepted it.
func (p *peers) established(q *peer, d *dialing, s *intro.Session) error {
	if d.late = q.installed() && q.hello.Key == s.Remote.Key; d.late {
		return nil
	}
	return p.install(q, s, true)
}

// inLoop runs f in the owning goroutine and waits for its result.
func (p *peers) inLoop(f func() error) error {
	done := make(chan error, 1)
	if !p.do(func() { done <- f() }) {
		return errDown
	}
	select {
	case err := <-done:
		return err
	case <-p.ctx.Done():
		return errDown
	}
}

// called takes the result of an introduction that this node started.
func (p *peers) called(q *peer, d *dialing, s *intro.Session, err error) {
	if q.dial == d {
		q.dial = nil
	}
	var denied *intro.DenyError
	switch {
	case err == nil:
		q.failures = 0
		q.gone = time.Time{}
		if s.Initiator && d.late && !d.overtaken && s.Err() == nil {
			if ierr := p.install(q, s, true); ierr != nil {
				p.log.Warn("cannot renew a tunnel", "peer", q.id, "err", ierr)
			}
		}
		if s.Err() == nil {
			q.session = s // installed before; it may have ended since
		}
		p.n.dir.setPresence(q.id, true, time.Time{})
		p.publish()
	case errors.As(err, &denied):
		if q.installed() && q.ours {
			p.drop(q, "denied", false)
		}
		err = p.deniedError(q, denied)
	case errors.Is(err, intro.ErrDialing), errors.Is(err, intro.ErrReplaced):
		// The peer called at the same time and its call counts.
		if q.installed() {
			err = nil
		}
	}
	if err != nil && !d.overtaken && q.session != nil && (d.late || q.session.Err() != nil) {
		// The peer may have accepted all the same. Then it has newer keys, for
		// the next handshake, and knows the old session no more.
		q.session.Close()
		q.session, q.lost = nil, time.Now()
		p.lookAt(q.lost.Add(time.Second))
	}
	if err != nil {
		q.failures++
		q.nextRedial = time.Now().Add(min(time.Second<<min(q.failures, 5), redialMax))
		p.log.Debug("introduction failed", "peer", q.id, "err", err)
		if localapi.KindOf(err) == localapi.KindFailed {
			err = p.unreachable(q, err)
		}
	}
	if err != nil && len(d.joined) > 0 && q.dial == nil && denied == nil && p.ctx.Err() == nil && (p.table[q.id] == q || p.table[q.id] == nil) {
		// Once more: the peer may have come back after this one began.
		p.table[q.id] = q
		p.call(q, nil)
		q.dial.waiters, d.joined = d.joined, nil
	}
	for _, w := range append(d.waiters, d.joined...) {
		w <- err
	}
	d.waiters, d.joined = nil, nil
	if !q.installed() && q.dial == nil && q.session == nil && p.table[q.id] == q {
		delete(p.table, q.id)
	}
}

func (p *peers) deniedError(q *peer, e *intro.DenyError) error {
	name := p.n.nameOf(q.id)
	msg := fmt.Sprintf("%s does not let this device in: %s", name, e.Reason)
	if e.Text != "" {
		msg += ": " + e.Text
	}
	return &localapi.Error{Kind: localapi.KindDenied, Message: msg, Hint: "the network's policy decides; ask its owner"}
}

func (p *peers) unreachable(q *peer, err error) error {
	name := p.n.nameOf(q.id)
	if !q.gone.IsZero() {
		return &localapi.Error{Kind: localapi.KindUnreachable, Message: name + " is offline"}
	}
	return &localapi.Error{Kind: localapi.KindUnreachable, Message: fmt.Sprintf("%s does not answer: %v", name, err), Hint: "see: weft status"}
}

// install makes or refreshes the WireGuard peer with a session's keys: before
// accept goes out on the called side, as soon as the keys are known on the
// calling side.
func (p *peers) install(q *peer, s *intro.Session, ours bool) error {
	snap := p.n.snap.Load()
	if snap == nil {
		return errDown
	}
	node := s.Peer
	addrs := []netip.Addr{node.IPv4, node.IPv6}
	ports := filter.Compile(snap.config.Rules, node)
	if k, ok := p.kept[q.id]; ok && q.filter == nil {
		q.filter, q.node = k.filter, k.node
	}
	delete(p.kept, q.id)
	if q.filter == nil || !q.node.Has(node.IPv4) || !q.node.Has(node.IPv6) {
		q.filter = filter.NewPeer([]netip.Addr{snap.self.IPv4, snap.self.IPv6}, addrs, ports)
	} else {
		q.filter.SetPorts(ports)
	}
	if q.endpoint == nil {
		q.endpoint = bind.NewEndpoint(q.id, node.IPv4)
		q.endpoint.SetSender(p.r.home.home)
	}
	err := p.device.SetPeer(wg.Peer{
		ID: q.id, Key: s.Remote.Key, PSK: s.PSK, IPs: addrs,
		Endpoint: q.endpoint, Filter: q.filter, Initiate: s.Initiator,
	})
	if err != nil {
		return fmt.Errorf("install peer %s: %w", node.Name, err)
	}
	p.bind.Admit(q.endpoint)
	if !q.installed() || q.hello.Boot != s.Remote.Boot {
		p.log.Info("tunnel", "peer", node.Name, "id", q.id, "called", ours)
		for _, w := range q.renewed {
			close(w)
		}
		q.renewed = nil
	}
	q.node, q.hello, q.ours, q.session = node, s.Remote, ours, s
	q.gone = time.Time{} // whatever the relay said
	q.unanswered, q.pinging = time.Time{}, time.Time{}
	if !q.installed() {
		q.made = time.Now()
		p.lookAt(q.made.Add(min(silentAfter, p.n.idleAfter)))
	}
	p.lookAt(p.expiry(node))
	p.n.dir.learn(&known{node: node, online: true, lastSeen: p.n.clock.Now(), stranger: !ours})
	p.publish()
	p.releaseHeld(q.id)
	return nil
}

// accept is asked by intro for each introduction by another node.
func (p *peers) accept(s *intro.Session) *intro.Deny {
	select {
	case <-p.current:
	case <-time.After(numbersWait):
	case <-p.ctx.Done():
		return &intro.Deny{Reason: intro.DenyBusy, Text: "going down"}
	}
	var deny *intro.Deny
	err := p.inLoop(func() error {
		snap := p.n.snap.Load()
		q := p.table[s.Peer.ID]
		// A list that came while we waited may have revoked the caller.
		if snap == nil || snap.crl.Revoked(s.Peer.Serial) {
			deny = &intro.Deny{Reason: intro.DenyCertificate, Text: "revoked"}
			return nil
		}
		known := q != nil && (q.installed() || q.dial != nil)
		if !known && !filter.Compile(snap.config.Rules, s.Peer).Any() {
			deny = &intro.Deny{Reason: intro.DenyPolicy, Text: fmt.Sprintf("nothing on %s is open to %s", snap.self.Name, s.Peer.Name)}
			return nil
		}
		if q == nil {
			q = &peer{id: s.Peer.ID}
			p.table[q.id] = q
		}
		if err := p.install(q, s, q.installed() && q.ours); err != nil {
			if !q.installed() && q.dial == nil {
				delete(p.table, q.id)
			}
			return err
		}
		q.failures, q.gone = 0, time.Time{}
		if q.dial != nil {
			q.dial.overtaken = true
		}
		return nil
	})
	if err != nil {
		p.log.Warn("cannot accept an introduction", "peer", s.Peer.Name, "err", err)
		return &intro.Deny{Reason: intro.DenyConflict, Text: err.Error()}
	}
	if deny != nil {
		p.forgetHeld(s.Peer.ID)
	}
	return deny
}

// sessionClosed is told by intro that a session ended. Only a proven bye and
// a certificate that no longer holds end the tunnel.
func (p *peers) sessionClosed(s *intro.Session, err error) {
	p.do(func() {
		q := p.table[s.Peer.ID]
		if q == nil || q.session != s {
			return
		}
		q.session, q.lost = nil, time.Now()
		p.lookAt(q.lost.Add(time.Second))
		switch {
		case errors.Is(err, intro.ErrBye):
			redial := p.hasTraffic(q, time.Now())
			p.drop(q, "bye", false)
			if redial {
				p.redial(s.Peer.ID)
			}
		case errors.Is(err, cert.ErrRevoked), errors.Is(err, cert.ErrUntrusted), errors.Is(err, cert.ErrExpired):
			p.drop(q, err.Error(), false)
		}
	})
}

// redial introduces this node anew to a peer that it has just dropped.
func (p *peers) redial(id cert.NodeID) {
	q := &peer{id: id}
	p.table[id] = q
	p.call(q, nil)
}

// hasTraffic reports whether data went either way a moment ago.
func (p *peers) hasTraffic(q *peer, now time.Time) bool {
	st, ok := p.device.Stats(q.id)
	return ok && now.Sub(st.LastTx) < recently
}

// onReset: the peer, or only the relay, says that it has no tunnel with us.
func (p *peers) onReset(from cert.NodeID) {
	p.hint(func() {
		q := p.table[from]
		now := time.Now()
		if q == nil || !q.installed() || q.dial != nil || now.Before(q.nextRedial) || now.Before(q.nextHint) {
			return
		}
		q.nextHint = now.Add(resetSpacing)
		p.call(q, nil)
	})
}

// goneHint: the relay says that a peer is not connected to it.
func (p *peers) goneHint(id cert.NodeID) {
	p.hint(func() {
		p.n.dir.setPresence(id, false, time.Time{})
		q := p.table[id]
		if q == nil {
			return
		}
		q.gone = time.Now()
		p.lookAt(q.gone.Add(time.Second)) // is it, when data still come?
		for _, w := range q.watchers {
			close(w)
		}
		q.watchers = nil
		if q.dial != nil {
			q.dial.cancel(errGone)
		}
		p.publish()
	})
}

var errGone = errors.New("not connected to the relay")

// stranger is called by the bind for a WireGuard packet from a node that has
// no endpoint: held while that node is being introduced, answered with a
// reset otherwise.
func (n *Node) stranger(from cert.NodeID, pkt []byte) {
	r := n.active.Load()
	if r == nil {
		return
	}
	p := r.peers
	if !p.intro.InProgress(from) {
		p.intro.Reset(from)
		return
	}
	if len(pkt) > heldPacketSize {
		return
	}
	p.held.Lock()
	q := p.held.from[from]
	room := len(q) < heldPerSender && (q != nil || len(p.held.from) < heldStrangers)
	if room {
		p.held.from[from] = append(q, bytes.Clone(pkt))
	}
	p.held.Unlock()
	if p.bind.Find(from) != nil { // admitted meanwhile
		p.releaseHeld(from)
	}
}

// releaseHeld hands the packets that came too early to WireGuard.
func (p *peers) releaseHeld(id cert.NodeID) {
	p.held.Lock()
	pkts := p.held.from[id]
	delete(p.held.from, id)
	p.held.Unlock()
	for _, pkt := range pkts {
		p.bind.Deliver(id, pkt)
	}
}

func (p *peers) forgetHeld(id cert.NodeID) {
	p.held.Lock()
	delete(p.held.from, id)
	p.held.Unlock()
}

// reconnected is told when the relay has welcomed the node again. What the
// relay said before about who is gone holds no more.
func (p *peers) reconnected() {
	p.hint(func() {
		for _, q := range p.table {
			q.gone, q.nextRedial = time.Time{}, time.Time{}
		}
		p.publish()
	})
}

// worldChanged lets every peer be tried again at once: what failed before may
// have been the old network's fault.
func (p *peers) worldChanged() {
	p.do(func() {
		for _, q := range p.table {
			q.nextRedial = time.Time{}
		}
	})
}

// policyChanged applies new rules to every tunnel, live flows included.
func (p *peers) policyChanged() {
	p.do(func() {
		snap := p.n.snap.Load()
		if snap == nil {
			return
		}
		for _, q := range p.table {
			if !q.installed() {
				continue
			}
			ports := filter.Compile(snap.config.Rules, q.node)
			q.filter.SetPorts(ports)
			if !ports.Any() && !q.ours && !q.filter.Began(p.device.Now()) {
				p.drop(q, "policy", true)
			}
		}
	})
}

// crlChanged drops every tunnel and session whose certificate is revoked.
func (p *peers) crlChanged() {
	p.intro.Recheck()
	p.do(func() {
		snap := p.n.snap.Load()
		if snap == nil {
			return
		}
		for _, q := range p.table {
			if q.node != nil && snap.crl.Revoked(q.node.Serial) {
				p.drop(q, "revoked", false)
			}
		}
	})
}

// upToDate lets introductions in: our numbers are current, or nobody can say.
func (p *peers) upToDate() { p.currentOnce.Do(func() { close(p.current) }) }

// drop ends the tunnel with a peer. bye tells the peer so.
func (p *peers) drop(q *peer, why string, bye bool) {
	if q.dial != nil {
		q.dial.cancel(fmt.Errorf("tunnel dropped: %s", why))
	}
	if s := q.session; s != nil {
		q.session = nil
		if bye {
			s.Bye()
		} else {
			s.Close()
		}
	}
	if q.installed() {
		p.log.Info("tunnel ended", "peer", p.n.nameOf(q.id), "why", why)
		if bye && len(p.kept) < maxKept {
			p.kept[q.id] = kept{q.filter, q.node}
		}
		p.device.RemovePeer(q.id)
		p.bind.Drop(q.id)
		q.made, q.endpoint = time.Time{}, nil
	}
	if p.table[q.id] == q {
		delete(p.table, q.id)
	}
	p.publish()
}

func (p *peers) takeDown() {
	for _, q := range p.table {
		p.drop(q, "down", true)
	}
	p.intro.Close()
	p.wg.Wait()
	// Introductions that were under way may have left calls behind.
	for {
		select {
		case f := <-p.calls:
			f()
		default:
			for _, q := range p.table {
				p.drop(q, "down", false)
			}
			return
		}
	}
}

// publish makes a fresh copy of the table for readers.
func (p *peers) publish() {
	v := make(map[cert.NodeID]peerView, len(p.table))
	for id, q := range p.table {
		if q.installed() {
			v[id] = peerView{node: q.node, made: q.made, gone: q.gone, rtt: q.rtt}
		}
	}
	p.view.Store(&v)
}
