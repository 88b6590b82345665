// Package ratelimit bounds how often somebody does something, in token buckets that are
// kept in bounded memory. It knows no clock: callers say what time it is.
package ratelimit

import (
	"sync"
	"time"
)

// Limiter counts attempts per name in token buckets. It holds at most max names; a full
// bucket says nothing and is dropped first. Its methods may be called from many
// goroutines.
type Limiter struct {
	max int

	// mu guards the following
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	left  float64
	at    time.Time
	limit Limit
}

// Limit is a bucket's size and the time in which it fills up. In that time there are at
// most two times Burst attempts.
type Limit struct {
	Burst float64
	Per   time.Duration
}

// New returns a limiter for at most max names at a time.
func New(max int) *Limiter {
	return &Limiter{max: max, buckets: make(map[string]*bucket)}
}

// State is what is left of a bucket.
type State struct {
	Left int           // attempts
	Wait time.Duration // until there is one more than now
}

// Take uses one attempt of name, if there is one, and says what is left.
func (l *Limiter) Take(name string, lim Limit, now time.Time) (s State, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[name]
	if b == nil {
		if len(l.buckets) >= l.max {
			l.sweepLocked(now)
		}
		b = &bucket{left: lim.Burst, at: now, limit: lim}
		l.buckets[name] = b
	}
	b.fill(now)
	if ok = b.left >= 1; ok {
		b.left--
	}
	return b.state(), ok
}

func (b *bucket) state() State {
	whole := float64(int(b.left))
	return State{int(b.left), time.Duration((1 - (b.left - whole)) / b.limit.Burst * float64(b.limit.Per))}
}

// Refund gives an attempt back that turned out to be right.
func (l *Limiter) Refund(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.buckets[name]; b != nil {
		b.left = min(b.left+1, b.limit.Burst)
	}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.left = min(b.left+d.Seconds()/b.limit.Per.Seconds()*b.limit.Burst, b.limit.Burst)
		b.at = now
	}
}

// sweepLocked drops the full buckets; if that was not enough, the fullest half.
func (l *Limiter) sweepLocked(now time.Time) {
	for _, cutoff := range []float64{1, 0.5} {
		for name, b := range l.buckets {
			if b.fill(now); b.left >= b.limit.Burst*cutoff {
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
