package limited

import (
	"container/list"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stalledAfter is how long a place may make no progress while others want it. It is
	// longer than the heartbeat of an event stream.
	stalledAfter = 20 * time.Second
	// tenure is how long a place with progress cannot be taken away, unless its address
	// holds more than its share.
	tenure = 10 * time.Second
	// candidates is the number of places from which one is chosen to be evicted.
	candidates = 64
)

// Why there is no place.
var (
	ErrAddress = errors.New("too much at once from this address")
	ErrFull    = errors.New("too much at once")
	ErrClosed  = errors.New("closed")
)

// Budget bounds the places (for connections or requests) that unauthenticated clients
// hold at one time, in total and per address, and shares them fairly: when all are
// taken, an address with few places gets one from the address with the most. An IPv6
// /64 counts as one address.
//
// The evicted place is the one that has been idle for longest, or else one without
// progress for 20 s, or else the oldest one that is older than 10 s and not kept (see
// Place.Keep). If there is none of these, an address loses a place only if it has at
// least two more than the newcomer's; otherwise the newcomer is refused.
// The methods may be called from any goroutine.
type Budget struct {
	// constant after NewBudget
	total, each int
	began       time.Time

	mu sync.Mutex
	// mu guards the following.
	closed  bool
	n       int // places in use
	waiting int
	waiters map[netip.Addr][]*waiter // by address, oldest first
	freed   chan struct{}            // closed and replaced when a place is released while there are waiters
	guests  map[netip.Addr]*guest
	sizes   map[int]*list.List // of *guest, by the number of their places
	most    int                // the greatest key of sizes, 0 if there is none
}

// waiter is a caller that waits for a place.
type waiter struct {
	addr netip.Addr
	out  chan struct{} // closed when another waiter replaces this one
}

// guest is one address that holds places.
type guest struct {
	addr   netip.Addr
	places list.List     // of *Place, oldest first
	elem   *list.Element // in the list of its size
}

// Place is one place of a Budget. A nil Place works like one that nobody else wants.
type Place struct {
	b     *Budget
	g     *guest
	elem  *list.Element // in g.places; guarded by Budget.mu; nil: released
	since int64         // nanoseconds since Budget.began
	evict func()

	moved atomic.Int64 // nanoseconds since Budget.began
	idle  atomic.Bool
	kept  atomic.Int32
	gone  atomic.Bool // evicted
}

// NewBudget makes a Budget with total places, of which one address gets at most each;
// each 0 means no bound per address.
func NewBudget(total, each int) *Budget {
	return &Budget{total: total, each: each, began: time.Now(), freed: make(chan struct{}), guests: map[netip.Addr]*guest{}, waiters: map[netip.Addr][]*waiter{}, sizes: map[int]*list.List{}}
}

func (b *Budget) now() int64 { return int64(time.Since(b.began)) }

// Take takes a place for an address, or returns why there is none (ErrAddress, ErrFull,
// ErrClosed). If the place is later evicted, evict is called, at most once and from any
// goroutine; it must not block, and should end the work of that place.
func (b *Budget) Take(addr netip.Addr, evict func()) (*Place, error) {
	b.mu.Lock()
	p, victim, err := b.takeLocked(addr, evict)
	b.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return p, err
}

// Wait is Take for callers that can wait: for d, or until done is closed. There are at
// most as many waiters as places; beyond that, a new waiter of an address with few
// replaces the oldest waiter of the address with the most.
func (b *Budget) Wait(done <-chan struct{}, d time.Duration, addr netip.Addr, evict func()) (*Place, error) {
	end := time.NewTimer(d)
	defer end.Stop()
	// Another place may pass its 10 or 20 s without a release.
	again := time.NewTicker(time.Second)
	defer again.Stop()
	var w *waiter
	for {
		b.mu.Lock()
		p, victim, err := b.takeLocked(addr, evict)
		switch {
		case err == nil || b.closed:
			b.leaveLocked(w)
			w = nil
		case w == nil:
			w = b.queueLocked(addr)
		}
		freed := b.freed
		b.mu.Unlock()
		if victim != nil {
			victim.evict()
		}
		if w == nil {
			return p, err
		}
		select {
		case <-freed:
			continue
		case <-again.C:
			continue
		case <-end.C:
		case <-done:
		case <-w.out:
		}
		b.mu.Lock()
		b.leaveLocked(w)
		b.mu.Unlock()
		return nil, err
	}
}

// queueLocked adds a waiter for an address, or returns nil.
func (b *Budget) queueLocked(addr netip.Addr) *waiter {
	addr = counted(addr)
	if b.waiting >= b.total {
		var most []*waiter
		for _, ws := range b.waiters {
			if len(ws) > len(most) {
				most = ws
			}
		}
		if len(most) <= len(b.waiters[addr])+1 {
			return nil
		}
		close(most[0].out)
		b.leaveLocked(most[0])
	}
	w := &waiter{addr, make(chan struct{})}
	b.waiters[addr] = append(b.waiters[addr], w)
	b.waiting++
	return w
}

// leaveLocked removes a waiter, if it is still queued.
func (b *Budget) leaveLocked(w *waiter) {
	if w == nil {
		return
	}
	ws := b.waiters[w.addr]
	i := slices.Index(ws, w)
	if i < 0 {
		return
	}
	b.waiting--
	if ws = slices.Delete(ws, i, i+1); len(ws) == 0 {
		delete(b.waiters, w.addr)
	} else {
		b.waiters[w.addr] = ws
	}
}

// counted maps an address to the one under which it counts.
func counted(addr netip.Addr) netip.Addr {
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		net, _ := addr.Prefix(64) // no error for 64 bits of 128
		addr = net.Addr()
	}
	return addr
}

func (b *Budget) takeLocked(addr netip.Addr, evict func()) (p, victim *Place, err error) {
	if b.closed {
		return nil, nil, ErrClosed
	}
	addr = counted(addr)
	g, own, now := b.guests[addr], 0, b.now()
	if g != nil {
		own = g.places.Len()
	}
	switch {
	case b.each > 0 && own >= b.each:
		victim, err = choose(&g.places, nil, now, false), ErrAddress
	case b.n < b.total:
	case own > 0 && own >= b.most:
		victim, err = choose(&g.places, nil, now, false), ErrFull
	default:
		victim, err = choose(nil, b.sizes[b.most], now, own+1 < b.most), ErrFull
	}
	if victim != nil {
		b.removeLocked(victim)
		victim.gone.Store(true)
		err = nil
	}
	if err != nil {
		return nil, nil, err
	}
	if g = b.guests[addr]; g == nil { // its last place may just have been evicted
		g = &guest{addr: addr}
		b.guests[addr] = g
	}
	p = &Place{b: b, g: g, since: now, evict: evict}
	p.moved.Store(now)
	b.leaveSizeLocked(g)
	p.elem = g.places.PushBack(p)
	b.enterSizeLocked(g)
	b.n++
	return p, victim, nil
}

// choose returns the place to evict among some of the places, or those of some guests;
// nil for none. With force it always returns one.
func choose(places, guests *list.List, now int64, force bool) (victim *Place) {
	const never = 4
	worst, since := never, int64(0)
	seen := 0
	look := func(places *list.List) {
		for e := places.Front(); e != nil && seen < candidates; e, seen = e.Next(), seen+1 {
			p := e.Value.(*Place)
			rank, at := never, p.moved.Load()
			switch {
			case p.idle.Load():
				rank = 0
			case now-at >= int64(stalledAfter):
				rank = 1
			case now-p.since >= int64(tenure) && p.kept.Load() == 0:
				rank, at = 2, p.since
			case force:
				rank = 3
			}
			if rank < worst || rank == worst && rank < never && at < since {
				victim, worst, since = p, rank, at
			}
		}
	}
	if places != nil {
		look(places)
		return victim
	}
	for e := guests.Front(); e != nil && seen < candidates; e = e.Next() {
		look(&e.Value.(*guest).places)
	}
	return victim
}

func (b *Budget) leaveSizeLocked(g *guest) {
	if g.elem == nil {
		return
	}
	n := g.places.Len()
	same := b.sizes[n]
	same.Remove(g.elem)
	g.elem = nil
	if same.Len() == 0 {
		delete(b.sizes, n)
	}
}

func (b *Budget) enterSizeLocked(g *guest) {
	n := g.places.Len()
	if n > 0 {
		if b.sizes[n] == nil {
			b.sizes[n] = list.New()
		}
		g.elem = b.sizes[n].PushBack(g)
	}
	b.most = max(b.most, n)
	for b.most > 0 && b.sizes[b.most] == nil { // sizes change by one, so this is at most one step
		b.most--
	}
}

func (b *Budget) removeLocked(p *Place) {
	if p.elem == nil {
		return
	}
	b.leaveSizeLocked(p.g)
	p.g.places.Remove(p.elem)
	p.elem = nil
	b.enterSizeLocked(p.g)
	if p.g.places.Len() == 0 {
		delete(b.guests, p.g.addr)
	}
	b.n--
	if b.waiting > 0 {
		close(b.freed)
		b.freed = make(chan struct{})
	}
}

// Len returns the number of places in use.
func (b *Budget) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// Close closes the Budget: it evicts all places and gives no more.
func (b *Budget) Close() {
	b.mu.Lock()
	b.closed = true
	var out []*Place
	for _, g := range b.guests {
		for e := g.places.Front(); e != nil; e = e.Next() {
			out = append(out, e.Value.(*Place))
		}
	}
	for _, p := range out {
		b.removeLocked(p)
		p.gone.Store(true)
	}
	b.mu.Unlock()
	for _, p := range out {
		p.evict()
	}
}

// Moved records progress: the place is not stalled.
func (p *Place) Moved() {
	if p != nil {
		p.moved.Store(p.b.now())
	}
}

// Idle says whether the place has no work in progress, so that evicting it does no
// harm. A new place is not idle.
func (p *Place) Idle(idle bool) {
	if p != nil {
		p.moved.Store(p.b.now())
		p.idle.Store(idle)
	}
}

// Gone reports whether the place was evicted.
func (p *Place) Gone() bool { return p != nil && p.gone.Load() }

// Keep protects the work of the place for as long as it makes progress, until the
// returned func is called.
func (p *Place) Keep() (done func()) {
	if p == nil {
		return func() {}
	}
	p.kept.Add(1)
	return func() { p.kept.Add(-1) }
}

// Release releases the place. It may be called again, and after an eviction.
func (p *Place) Release() {
	if p == nil {
		return
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.removeLocked(p)
}
