package console

import (
	"sync"
	"time"
)

// limiter counts attempts per name in token buckets. It holds at most max
// names; a full bucket says nothing and is dropped first.
type limiter struct {
	max int

	// mu guards the following
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	left  float64
	at    time.Time
	limit limit
}

// limit is a bucket's size and the time in which it fills up.
type limit struct {
	burst float64
	per   time.Duration
}

// Attempts to sign in. A window of a minute sees at most burst + refill, so the
// bucket holds 5 and gains 5 a minute: at most 10 in any minute.
var (
	perAccount = limit{5, time.Minute}
	perAddr    = limit{30, time.Minute}
)

func newLimiter(max int) *limiter {
	return &limiter{max: max, buckets: make(map[string]*bucket)}
}

// take uses one attempt of name; if there is none it says how long to wait.
func (l *limiter) take(name string, lim limit, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[name]
	if b == nil {
		if len(l.buckets) >= l.max {
			l.sweepLocked(now)
		}
		b = &bucket{left: lim.burst, at: now, limit: lim}
		l.buckets[name] = b
	}
	b.fill(now)
	if b.left < 1 {
		return time.Duration((1 - b.left) / lim.burst * float64(lim.per)), false
	}
	b.left--
	return 0, true
}

// refund gives an attempt back that turned out to be right.
func (l *limiter) refund(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.buckets[name]; b != nil {
		b.left = min(b.left+1, b.limit.burst)
	}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.left = min(b.left+d.Seconds()/b.limit.per.Seconds()*b.limit.burst, b.limit.burst)
		b.at = now
	}
}

// sweepLocked drops the full buckets; if that was not enough, the fullest half.
func (l *limiter) sweepLocked(now time.Time) {
	for _, cutoff := range []float64{1, 0.5} {
		for name, b := range l.buckets {
			if b.fill(now); b.left >= b.limit.burst*cutoff {
				delete(l.buckets, name)
			}
		}
		if len(l.buckets) < l.max*3/4 {
			return
		}
	}
	// Thousands of names are being guessed at once, each to its limit: the
	// per-address limit is what holds then.
	n := 0
	for name := range l.buckets {
		if n++; n > l.max/2 {
			return
		}
		delete(l.buckets, name)
	}
}
