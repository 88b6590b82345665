package limited

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	flooder = netip.MustParseAddr("192.0.2.1")
	person  = netip.MustParseAddr("192.0.2.2")
)

// crowd takes places and records which were evicted.
type crowd struct {
	t   *testing.T
	b   *Budget
	out []string
}

func (c *crowd) take(name string, addr netip.Addr, want error) *Place {
	c.t.Helper()
	p, err := c.b.Take(addr, func() { c.out = append(c.out, name) })
	if !errors.Is(err, want) || (p == nil) == (err == nil) {
		c.t.Errorf("%s: %v, want %v", name, err, want)
	}
	return p
}

func (c *crowd) lost(want ...string) {
	c.t.Helper()
	if !slices.Equal(c.out, want) {
		c.t.Errorf("%v were evicted, want %v", c.out, want)
	}
	c.out = nil
}

// An address with its maximum of places loses one that is idle, stalled or old, in this
// order; otherwise its request is refused.
func TestEachAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{t: t, b: NewBudget(100, 3)}
		kept, old, idle := c.take("kept", flooder, nil), c.take("old", flooder, nil), c.take("idle", flooder, nil)
		defer kept.Keep()()
		c.take("more", flooder, ErrAddress)
		c.take("other", person, nil)
		idle.Idle(true)
		c.take("first", flooder, nil)
		c.lost("idle")
		time.Sleep(tenure)
		kept.Moved()
		old.Moved()
		c.take("second", flooder, nil)
		c.lost("old")
		old.Release() // already evicted
		c.take("third", flooder, nil)
		c.lost("first")
		c.take("fourth", flooder, ErrAddress)
		time.Sleep(stalledAfter - 1)
		kept.Moved()
		time.Sleep(time.Nanosecond)
		c.take("fifth", flooder, nil)
		c.lost("second")
		if n := c.b.Len(); n != 4 {
			t.Errorf("%d places are in use", n)
		}
	})
}

// If no places are left, the address with the most loses one: at once to an address
// with two fewer, otherwise only an idle, stalled or old one.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{t: t, b: NewBudget(4, 0)}
		for i := range 4 {
			c.take(fmt.Sprint(i), flooder, nil)
			time.Sleep(time.Millisecond)
		}
		c.take("more of the same", flooder, ErrFull)
		c.take("person", person, nil)
		c.lost("0")
		c.take("person again", person, nil)
		c.lost("1")
		c.take("third of the person", person, ErrFull)
		c.take("late", netip.MustParseAddr("192.0.2.3"), nil)
		c.lost("2")
		time.Sleep(tenure)
		c.take("last", netip.MustParseAddr("192.0.2.4"), nil)
		c.lost("person")
		c.take("too late", netip.MustParseAddr("192.0.2.5"), nil)
		if len(c.out) != 1 || c.b.Len() != 4 {
			t.Errorf("evicted %v, %d are in use", c.out, c.b.Len())
		}
	})
}

// The addresses of one IPv6 /64 count as one, and so do an IPv4 address and its
// IPv4-mapped form.
func TestPrefix(t *testing.T) {
	c := &crowd{t: t, b: NewBudget(100, 1)}
	c.take("a", netip.MustParseAddr("2001:db8::1"), nil)
	c.take("b", netip.MustParseAddr("2001:db8::ffff:2"), ErrAddress)
	c.take("c", netip.MustParseAddr("2001:db8:0:1::1"), nil)
	c.take("d", netip.MustParseAddr("192.0.2.1"), nil)
	c.take("e", netip.MustParseAddr("::ffff:192.0.2.1"), ErrAddress)
	c.take("f", netip.Addr{}, nil) // of an unknown address
	c.take("g", netip.Addr{}, ErrAddress)
}

// A waiter gets a place that is released or evicted, but waits no longer than its time;
// the number of waiters is bounded.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(2, 0)
		first, _ := b.Take(flooder, func() {})
		b.Take(flooder, func() {})
		var wg sync.WaitGroup
		wait := func(d time.Duration, want error, after time.Duration) {
			wg.Go(func() {
				start := time.Now()
				if _, err := b.Wait(nil, d, flooder, func() {}); !errors.Is(err, want) || time.Since(start) != after {
					t.Errorf("waited %s: %v; want %s, %v", time.Since(start), err, after, want)
				}
			})
			synctest.Wait()
		}
		wait(5*time.Second, nil, 2*time.Second)
		time.Sleep(2 * time.Second)
		first.Release()
		wg.Wait()
		wait(3*time.Second, ErrFull, 3*time.Second)
		wg.Wait()
		wait(time.Second, ErrFull, time.Second)
		wait(time.Second, ErrFull, time.Second)
		wait(time.Minute, ErrFull, 0) // two are waiting already
		wg.Wait()
		wait(time.Minute, nil, tenure-6*time.Second) // the second is old by then
		wg.Wait()
		b.Close()
		wait(time.Minute, ErrClosed, 0)
		wg.Wait()
		if b.waiting != 0 || b.Len() != 0 {
			t.Errorf("%d are waiting, %d places are in use", b.waiting, b.Len())
		}
	})
}

// Whatever happens, the bounds hold, released places are not counted, and no state is
// kept for addresses without places.
func TestBudgetHolds(t *testing.T) {
	b := NewBudget(50, 8)
	r := rand.New(rand.NewPCG(1, 2))
	held := map[*Place]bool{}
	for range 20_000 {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(40))})
		switch r.IntN(3) {
		case 0, 1:
			p, err := b.Take(addr, func() {})
			if err != nil {
				continue
			}
			for old := range held {
				if old.gone.Load() {
					delete(held, old)
				}
			}
			held[p] = true
			p.Idle(r.IntN(4) == 0)
		case 2:
			for p := range held {
				p.Release()
				delete(held, p)
				break
			}
		}
		each := map[netip.Addr]int{}
		most := 0
		for p := range held {
			each[p.g.addr]++
			most = max(most, each[p.g.addr])
		}
		if b.n != len(held) || b.n > 50 || most > 8 || most != b.most || len(b.guests) != len(each) {
			t.Fatalf("%d places, %d held, most %d of %d, %d addresses of %d", b.n, len(held), most, b.most, len(b.guests), len(each))
		}
	}
	b.Close()
	if len(b.guests) != 0 || len(b.sizes) != 0 || b.most != 0 {
		t.Errorf("left: %v %v %d", b.guests, b.sizes, b.most)
	}
}

// A nil Place does nothing.
func TestNoPlace(t *testing.T) {
	var p *Place
	p.Moved()
	p.Idle(true)
	p.Keep()()
	p.Release()
}

// An address with many waiters does not keep others from waiting.
func TestWaitIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(4, 1)
		b.Take(flooder, func() {})
		fleet, _ := b.Take(person, func() {})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { b.Wait(nil, time.Minute, flooder, func() {}) })
		}
		synctest.Wait()
		var got error
		wg.Go(func() { _, got = b.Wait(nil, 5*time.Second, person, func() {}) })
		synctest.Wait()
		time.Sleep(time.Second)
		fleet.Release()
		synctest.Wait()
		if got != nil {
			t.Errorf("no place for the waiter: %v", got)
		}
		if b.waiting > 4 || len(b.waiters) > 1 {
			t.Errorf("%d are waiting, of %d addresses", b.waiting, len(b.waiters))
		}
		b.Close()
		wg.Wait()
		if b.waiting != 0 || len(b.waiters) != 0 {
			t.Errorf("left: %d, %v", b.waiting, b.waiters)
		}
	})
}
