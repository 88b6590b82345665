package dataplane

import (
	"sync/atomic"
	"time"
)

const (
	// lullAfter is how long nothing much has to have moved before there is a
	// lull; fewer bytes than lullLittle are not much.
	lullAfter  = 10 * time.Second
	lullLittle = 256 << 10
	// lullWorth is how many bytes have to have moved for it to be worth it.
	lullWorth = 4 << 20
)

// lull tells when traffic has stopped. While nothing moves no timer runs.
type lull struct {
	tell func() // constant

	moved   atomic.Int64 // bytes, both ways, since the last lull
	waiting atomic.Bool  // a timer runs
	before  atomic.Int64 // moved when the timer was set
}

// count is called on the packet path.
func (l *lull) count(n int) {
	if l.moved.Add(int64(n)) >= lullWorth && l.waiting.CompareAndSwap(false, true) {
		l.wait()
	}
}

// wait looks again after lullAfter. It belongs to who has set waiting.
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
