// Package pause waits as long as somebody lets it, and never as long as all the
// others.
package pause

import (
	"context"
	"math/rand/v2"
	"time"
)

// Sleep waits for d and reports whether ctx let it.
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

// Jitter returns d give or take a quarter, 0 for what is not positive.
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d*3/4 + rand.N(d/2+1)
}
