package gcm

import (
	"sync/atomic"
	"time"

	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/mono"
)

const (
	// adoptAfter is how long a callee waits for the first datagram under new keys, before
	// it sends under them by itself.
	adoptAfter = time.Second
	// keepaliveAfter is how long after data of the peer an empty datagram tells it that
	// they arrive, if nothing else is sent.
	keepaliveAfter = 10 * time.Second
)

// peer is one node. It is the Carrier of its Entry and the Taker of its Endpoint.
type peer struct {
	*dataplane.Entry // constant
	d                *Device
	gate             dataplane.Gate

	// The sessions; they change with Device.mu held. cur is the one to send with. next
	// replaces it as soon as the peer is known to take it; old is the one before cur. Of
	// all three datagrams are taken.
	cur, next, old atomic.Pointer[session]

	asleep atomic.Int64 // when jump was last called, by mono.Now
	fresh  atomic.Bool  // cur was never adopted: nothing may be sent yet

	silent *time.Timer  // of the keepalive; constant
	alive  atomic.Bool  // it runs …
	unsent atomic.Int64 // … because nothing was sent since then, by mono.Now

	// Device.mu guards the following.
	soon *time.Timer // adopts next
	done bool        // the peer was removed
}

func newPeer(d *Device, cfg dataplane.Peer, now int64) *peer {
	p := &peer{d: d}
	p.Entry = d.fwd.NewEntry(cfg.Endpoint, cfg.Filter, framing(), p)
	p.cur.Store(d.sessionOf(cfg, now))
	p.fresh.Store(true)
	p.silent = time.AfterFunc(time.Hour, p.quiet)
	p.silent.Stop()
	return p
}

func (d *Device) sessionOf(cfg dataplane.Peer, now int64) *session {
	s := newSession(cfg.Secret, cfg.Initiate, now)
	_, s.ahead = d.clocks()
	return s
}

// offerLocked makes next the session with the secret, unless there is one already.
func (p *peer) offerLocked(cfg dataplane.Peer, now int64) {
	if p.cur.Load().has(cfg.Secret) {
		p.next.Store(nil)
		return
	}
	if n := p.next.Load(); n != nil && n.has(cfg.Secret) {
		return
	}
	p.stopSoonLocked()
	p.next.Store(p.d.sessionOf(cfg, now))
}

// adoptLocked sends with next from now on, if there is one, and releases packets that wait.
func (p *peer) adoptLocked(now int64) {
	p.stopSoonLocked()
	if next := p.next.Load(); next != nil {
		last := p.cur.Load()
		last.until.Store(now + int64(oldLife))
		p.old.Store(last)
		p.cur.Store(next)
		p.next.Store(nil)
		last.sender.drop() // reserve looks at cur again
		p.d.after(p, oldLife, func() { p.old.CompareAndSwap(last, nil) })
	}
	p.fresh.Store(false)
	p.ReleaseAt(&p.gate)
	p.Keyed()
}

// adoptSoonLocked adopts next after a while, in case that the peer sends nothing.
func (p *peer) adoptSoonLocked() {
	if p.next.Load() == nil || p.soon != nil {
		return
	}
	p.soon = p.d.after(p, adoptAfter, func() { p.soon = nil; p.adoptLocked(mono.Now()) })
}

func (p *peer) stopSoonLocked() {
	if p.soon != nil {
		p.soon.Stop()
		p.soon = nil
	}
}

// dropLocked drops the keys for sending.
func (p *peer) dropLocked() {
	p.cur.Load().sender.drop()
	if next := p.next.Load(); next != nil {
		next.sender.drop()
	}
	p.Hold(&p.gate)
}

func (p *peer) stopLocked() {
	p.done = true
	p.stopSoonLocked()
	p.silent.Stop()
	p.cur.Load().sender.drop()
}

// Carry implements dataplane.Carrier.
func (p *peer) Carry(_ *dataplane.Entry, bufs [][]byte, sizes []int, offset int) {
	n := 0
	for _, size := range sizes {
		if size > 0 {
			n++
		}
	}
	e, counter := p.reserve(n)
	if e == nil {
		return
	}
	out := p.d.out[:0]
	for i, size := range sizes {
		if size == 0 {
			continue
		}
		out = append(out, e.seal(bufs[i][offset-headerLen:], size, counter))
		counter++
	}
	p.d.bind.Send(out, p.Endpoint())
	p.d.out = out
}

// reserve is sender.reserve, after a look at the clocks. It returns nil if there are no
// keys to send with.
func (p *peer) reserve(n int) (e *sendEpoch, first uint64) {
	s := p.cur.Load()
	now, still := p.d.clock(s.ahead)
	if !still {
		p.jumped()
		return nil, 0
	}
	e, first, ok := s.reserve(n, now)
	if !ok {
		// Perhaps s is no longer the present session.
		if again := p.cur.Load(); again != s {
			return p.reserve(n)
		}
		return nil, 0
	}
	return e, first
}

// jumped makes the Device drop all keys, on another goroutine.
func (p *peer) jumped() {
	now := mono.Now()
	if last := p.asleep.Load(); now-last < int64(time.Second) || !p.asleep.CompareAndSwap(last, now) {
		return
	}
	go p.d.jump()
}

// Take implements bind.Taker.
func (p *peer) Take(msgs [][]byte) {
	now := mono.Now()
	keep, taken := msgs[:0], false
	for _, msg := range msgs {
		opened, ok := p.open(msg, now)
		if !ok {
			continue
		}
		taken = true
		if len(opened) > headerLen {
			keep = append(keep, opened)
		}
	}
	switch {
	case len(keep) > 0:
		p.Write(keep, headerLen)
		if !p.alive.Load() && p.alive.CompareAndSwap(false, true) {
			p.unsent.Store(now)
			p.silent.Reset(keepaliveAfter)
		}
	case taken:
		p.Endpoint().KeptAlive(now)
	}
}

// open opens a datagram of any session.
func (p *peer) open(msg []byte, now int64) (opened []byte, ok bool) {
	h, ok := parse(msg)
	if !ok {
		return nil, false
	}
	cur := p.cur.Load()
	if e := cur.known(h.index, now); e != nil {
		opened, ok = e.open(msg, h)
		if ok && p.fresh.Load() {
			p.confirmed(cur, now)
		}
		return opened, ok
	}
	next, old := p.next.Load(), p.old.Load()
	if old != nil && now >= old.until.Load() {
		old = nil
	}
	for _, s := range [...]*session{next, old} {
		if s == nil {
			continue
		}
		if e := s.known(h.index, now); e != nil {
			opened, ok = e.open(msg, h)
			if ok && s == next {
				p.confirmed(s, now)
			}
			return opened, ok
		}
	}
	for _, s := range [...]*session{cur, next, old} {
		if s == nil {
			continue
		}
		e := s.later(h.index)
		if e == nil {
			continue
		}
		if opened, ok = e.open(msg, h); ok {
			if ending := s.commit(e, now); ending != nil {
				p.d.forgetLater(&s.receiver, ending)
			}
			if s == next {
				p.confirmed(s, now)
			}
		}
		return opened, ok
	}
	return nil, false
}

// forgetLater drops the keys of a receiver's last epoch once their time is over.
func (d *Device) forgetLater(r *receiver, ending *receiveEpoch) {
	time.AfterFunc(oldLife, func() { r.forget(ending) })
}

// confirmed is called when the peer has sent under a session that this node does not send
// with yet: the peer takes those keys, too. It takes a lock, once for each introduction, so
// that an answer to this very packet is sent under the new keys: the peer may have no others.
func (p *peer) confirmed(s *session, now int64) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	switch {
	case p.d.closed || p.done:
	case p.next.Load() == s:
		p.adoptLocked(now)
	case p.cur.Load() == s && p.fresh.Load():
		p.next.Store(nil)
		p.adoptLocked(now)
	}
}

// confirmLocked sends an empty datagram, which makes the callee send under the new keys.
func (p *peer) confirmLocked() {
	if p.d.hireLocked() {
		go func() {
			defer p.d.running.Done()
			p.keepalive()
		}()
	}
}

// keepalive sends an empty datagram.
func (p *peer) keepalive() {
	if e, counter := p.reserve(1); e != nil {
		p.d.bind.Send([][]byte{e.seal(make([]byte, overheadRandom), 0, counter)}, p.Endpoint())
	}
}

// quiet is called by the timer of the keepalive. It sends one if nothing was sent for
// keepaliveAfter although data have arrived, and otherwise sets the timer again if data have
// arrived since.
func (p *peer) quiet() {
	p.d.mu.Lock()
	if p.done || !p.d.hireLocked() {
		p.d.mu.Unlock()
		return
	}
	p.d.mu.Unlock()
	defer p.d.running.Done()
	// In this order: Take counts the data and then looks at alive.
	p.alive.Store(false)
	sent := p.LastTx()
	switch {
	case sent <= p.unsent.Load():
		p.keepalive()
	case p.LastRx() > sent && p.alive.CompareAndSwap(false, true):
		p.unsent.Store(sent)
		p.silent.Reset(max(time.Duration(sent-mono.Now())+keepaliveAfter, time.Millisecond))
	}
}
