package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// How long a node waits before it connects again.

const (
	// moveAfter is how long a node tries its home before the next relay.
	moveAfter = 5 * time.Second
	// eager is how long a node with active peers retries every 50 to 300 ms before its
	// waits grow.
	eager      = 10 * time.Second
	retryMin   = 50 * time.Millisecond
	retryEager = 300 * time.Millisecond
	retryMax   = 30 * time.Second
	// replacedFor is how long a replaced node waits. Two machines with one identity then
	// alternate slowly enough for the relay to notice.
	replacedFor = 30 * time.Second
	refusedFor  = 30 * time.Second
	refusedSoon = 3 // how many times in a row a refused node waits refusedFor before its waits grow
	// idleSpread is the time over which idle nodes spread their reconnections, unless the
	// relay states another.
	idleSpread = 3 * time.Second
)

// pause returns how long to wait before the next attempt, after err and after fails
// earlier failures in a row that began failing ago, with relays to try in turn.
func (h *Home) pause(err error, fails int, failing time.Duration, relays int) time.Duration {
	var refused *RefusedError
	switch {
	case errors.Is(err, ErrReplaced):
		return replacedFor + rand.N(time.Second)
	case errors.As(err, &refused):
		// The first retries come soon, because the relay may not have heard of a new
		// device yet. A device that was removed retries less and less often, perhaps for
		// years.
		d := refusedFor << min(max(fails-refusedSoon, 0), 5)
		return d/2 + rand.N(d/2)
	case h.cfg.Active() && failing < eager, errors.Is(err, errForgotten):
		return retryMin + rand.N(retryEager-retryMin)
	case fails == 0:
		h.mu.Lock()
		spread := h.spread
		h.mu.Unlock()
		if h.cfg.Active() {
			spread = retryEager
		}
		return retryMin + rand.N(max(spread-retryMin, 1))
	}
	if relays > 1 && failing >= moveAfter && fails%relays != relays-1 {
		return retryMin // the next relay may work
	}
	wait := min(retryMax, retryEager<<min(fails/max(relays, 1), 10))
	return wait/2 + rand.N(wait/2)
}

// sleep waits for d, or until Wake unless full is set.
func (h *Home) sleep(ctx context.Context, d time.Duration, full bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-h.wake:
			if !full {
				return
			}
		}
	}
}

// setSpread takes the relay's value, within bounds. mu is held.
func (h *Home) setSpread(ms int) {
	h.spread = min(max(time.Duration(ms)*time.Millisecond, retryEager), retryMax)
}
