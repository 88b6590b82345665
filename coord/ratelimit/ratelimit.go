// Package ratelimit bounds how often something is attempted, with token buckets in bounded
// memory. It reads no clock: callers give the time.
package ratelimit

import (
	"sync"
	"time"
)

// Limiter has a token bucket for each name. It holds at most max names. To make room it drops
// full buckets first, because a name without a bucket starts with a full one. Its methods may
// be called from many goroutines.
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

// Limit is the size of a bucket, and the time in which an empty bucket fills up. Within that
// time at most 2 * Burst attempts are allowed: a full bucket, and what is added meanwhile.
type Limit struct {
	Burst float64 // attempts
	Per   time.Duration
}

// New returns a limiter for at most max names at a time.
func New(max int) *Limiter {
	return &Limiter{max: max, buckets: make(map[string]*bucket)}
}

// State is the state of a bucket.
type State struct {
	Left int           // attempts that are allowed now
	Wait time.Duration // until one more is allowed
}

// Take takes one attempt from the bucket of name. It returns false if there is none left.
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

// Refund returns an attempt to the bucket of name, for example because the attempt succeeded.
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
	// All buckets are nearly empty, because thousands of names are tried at once: drop half
	// of them. Limits by address still bound such an attack.
	n := 0
	for name := range l.buckets {
		if n++; n > l.max/2 {
			return
		}
		delete(l.buckets, name)
	}
}
