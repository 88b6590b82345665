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
	// stalledAfter is how long nothing may move at a place that others want. It
	// is longer than the heartbeat of an event stream.
	stalledAfter = 20 * time.Second
	// tenure is for how long a place cannot be taken away while something moves
	// there, unless its address holds more than its share.
	tenure = 10 * time.Second
	// candidates is among how many places one is chosen to be vacated.
	candidates = 64
)

// Why there was no place.
var (
	ErrAddress = errors.New("too much at once from this address")
	ErrFull    = errors.New("too much at once")
	ErrClosed  = errors.New("closed")
)

// Budget bounds how many places (of connections, of requests) strangers hold at
// a time, in all and for each address, and shares them fairly: when there are
// none left, an address that holds few takes one from the address that holds
// most. An IPv6 /64 counts as one address.
//
// Who loses a place is the one that has been idle for longest, else the one at
// which nothing moved for 20 s, else the oldest that is older than 10 s and not
// kept (see Place.Keep). If there is none of these, only an address with at
// least two places more than the newcomer's has to give one up; else the newcomer
// is refused.
//
// The methods may be called from any goroutine.
type Budget struct {
	// constant after NewBudget
	total, each int
	began       time.Time

	mu sync.Mutex
	// mu guards the following.
	closed  bool
	n       int // places taken
	waiting int
	waiters map[netip.Addr][]*waiter // by address, oldest first
	freed   chan struct{}            // closed, and made anew, when a place was given back while somebody waited
	guests  map[netip.Addr]*guest
	sizes   map[int]*list.List // of *guest, by how many places they hold
	most    int                // the greatest key of sizes, 0 for none
}

// waiter is one who waits for a place.
type waiter struct {
	addr netip.Addr
	out  chan struct{} // closed when another waits in its stead
}

// guest is one address that holds places.
type guest struct {
	addr   netip.Addr
	places list.List     // of *Place, oldest first
	elem   *list.Element // in the list of its size
}

// Place is one of a Budget's. A nil Place may be used as one that nobody wants.
type Place struct {
	b     *Budget
	g     *guest
	elem  *list.Element // in g.places; Budget.mu guards it; nil: given back
	since int64         // nanoseconds since Budget.began
	evict func()

	moved atomic.Int64 // nanoseconds since Budget.began
	idle  atomic.Bool
	kept  atomic.Int32
	gone  atomic.Bool // given to somebody else
}

// NewBudget makes a Budget of so many places in all, and for each address; 0
// for each: as many as there are.
func NewBudget(total, each int) *Budget {
	return &Budget{total: total, each: each, began: time.Now(), freed: make(chan struct{}), guests: map[netip.Addr]*guest{}, waiters: map[netip.Addr][]*waiter{}, sizes: map[int]*list.List{}}
}

func (b *Budget) now() int64 { return int64(time.Since(b.began)) }

// Take takes a place for an address, or says why there is none (ErrAddress,
// ErrFull, ErrClosed). evict is called, once at most and from any goroutine,
// when the place was given to somebody else, and must not wait; then what was
// done there should end.
func (b *Budget) Take(addr netip.Addr, evict func()) (*Place, error) {
	b.mu.Lock()
	p, victim, err := b.takeLocked(addr, evict)
	b.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return p, err
}

// Wait is Take for one who can wait: for d, until done is closed. At most as
// many wait as there are places; when they do, an address of which few wait has the
// oldest of the address go of which most do.
func (b *Budget) Wait(done <-chan struct{}, d time.Duration, addr netip.Addr, evict func()) (*Place, error) {
	end := time.NewTimer(d)
	defer end.Stop()
	// Somebody's 10 or 20 s may be over without a place having been given back.
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

// queueLocked has one more of an address wait, or returns nil.
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

// leaveLocked takes somebody off those who wait, if it still is there.
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

// counted is what counts as one address.
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
	if g = b.guests[addr]; g == nil { // its last place may just have gone
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

// choose returns who has to go among some of the places, or those of some guests:
// nil for nobody. by force: somebody.
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
	for b.most > 0 && b.sizes[b.most] == nil { // one step: sizes change by one
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

// Len returns how many places are taken.
func (b *Budget) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// Close ends the Budget: it evicts everybody and gives no more places.
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

// Moved notes that something moved: it is not stalled.
func (p *Place) Moved() {
	if p != nil {
		p.moved.Store(p.b.now())
	}
}

// Idle says whether nothing is under way at the place, so that it can be taken
// away without harm. A new place is not idle.
func (p *Place) Idle(idle bool) {
	if p != nil {
		p.moved.Store(p.b.now())
		p.idle.Store(idle)
	}
}

// Gone reports whether the place was given to somebody else.
func (p *Place) Gone() bool { return p != nil && p.gone.Load() }

// Keep lets what is under way at the place go on for as long as something moves,
// until the func that it returns is called.
func (p *Place) Keep() (done func()) {
	if p == nil {
		return func() {}
	}
	p.kept.Add(1)
	return func() { p.kept.Add(-1) }
}

// Release gives the place back. It may be called again, and after the place was
// taken away.
func (p *Place) Release() {
	if p == nil {
		return
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.removeLocked(p)
}
