// Package pause sleeps until a context ends, and spreads waiting times so that nodes do
// not act in step.
package pause

import (
	"context"
	"math/rand/v2"
	"time"
)

// Sleep waits for d. It returns false at once when ctx ends first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Jitter returns a random duration between 3/4 d and 5/4 d, or 0 if d is not positive.
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d*3/4 + rand.N(d/2+1)
}
