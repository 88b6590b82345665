package netstack

import (
	"sync"
	"time"
)

// deadline is a point in time that can be moved. Its channel is closed once the time
// has passed.
type deadline struct {
	// mu guards the following.
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{} // nil until wait or set needs it
}

// set moves the deadline; the zero time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		// The timer has fired or is about to close the old channel, the only one that
		// its function knows.
		d.passed = nil
	}
	d.timer = nil
	if d.passed != nil {
		select {
		case <-d.passed:
			d.passed = nil
		default:
		}
	}
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	if wait := time.Until(t); wait > 0 {
		passed := d.passed
		d.timer = time.AfterFunc(wait, func() { close(passed) })
		return
	}
	close(d.passed)
}

// wait returns the channel of the current deadline.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed // nil, which blocks, while no deadline was ever set
}

// expired reports whether a channel of wait is closed.
func expired(passed <-chan struct{}) bool {
	select {
	case <-passed:
		return true
	default:
		return false
	}
}

// stop releases the timer.
func (d *deadline) stop() {
	d.mu.Lock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
}
