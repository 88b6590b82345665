package dataplane

import (
	"sync/atomic"
	"time"
)

const (
	// lullAfter is how long traffic must have stopped before there is a lull. Fewer bytes
	// than lullLittle in that time count as stopped.
	lullAfter  = 10 * time.Second
	lullLittle = 256 << 10
	// lullWorth is how many bytes must have been sent and received before a lull counts.
	lullWorth = 4 << 20
)

// lull detects when traffic has stopped. Without traffic there is no timer.
type lull struct {
	tell func() // constant

	moved   atomic.Int64 // bytes in both directions since the last lull
	waiting atomic.Bool  // a timer runs
	before  atomic.Int64 // moved when the timer was set
}

// count is called on the packet path.
func (l *lull) count(n int) {
	if l.moved.Add(int64(n)) >= lullWorth && l.waiting.CompareAndSwap(false, true) {
		l.wait()
	}
}

// wait calls check after lullAfter. Only the goroutine that has set waiting calls it.
func (l *lull) wait() {
	l.before.Store(l.moved.Load())
	time.AfterFunc(lullAfter, l.check)
}

func (l *lull) check() {
	if l.moved.Load()-l.before.Load() > lullLittle {
		l.wait()
		return
	}
	l.moved.Store(0)
	l.waiting.Store(false)
	l.tell()
}
