package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"weft/netstack"
	"weft/overlay/limited"
)

const (
	// releaseAfter is how long nothing much has to have moved before memory
	// goes back to the system; fewer bytes than releaseLittle are not much.
	releaseAfter  = 10 * time.Second
	releaseLittle = 256 << 10
	// releaseWorth is how many bytes have to have moved for it to be worth it.
	releaseWorth = 4 << 20
)

// thrifty is a user-space network that gives the memory of the buffers back
// to the system once traffic has stopped. The Go runtime would keep most of it
// for as long as the daemon idles. While nothing moves no timer runs.
type thrifty struct {
	*netstack.Net
	release func() // constant

	moved   atomic.Int64 // bytes, both ways, since the last release
	waiting atomic.Bool  // a timer runs
	before  atomic.Int64 // moved when the timer was set
}

func newThrifty(n *netstack.Net) *thrifty { return &thrifty{Net: n, release: releaseMemory} }

// Read is netstack.Net's.
func (t *thrifty) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := t.Net.Read(bufs, sizes, offset)
	sum := 0
	for _, size := range sizes[:n] {
		sum += size
	}
	t.count(sum)
	return n, err
}

// Write is netstack.Net's.
func (t *thrifty) Write(bufs [][]byte, offset int) (int, error) {
	sum := 0
	for _, b := range bufs {
		sum += len(b) - offset
	}
	t.count(sum)
	return t.Net.Write(bufs, offset)
}

func (t *thrifty) count(n int) {
	if t.moved.Add(int64(n)) >= releaseWorth && t.waiting.CompareAndSwap(false, true) {
		t.wait()
	}
}

// wait looks again after releaseAfter. It belongs to who has set waiting.
func (t *thrifty) wait() {
	t.before.Store(t.moved.Load())
	time.AfterFunc(releaseAfter, t.check)
}

func (t *thrifty) check() {
	if t.moved.Load()-t.before.Load() > releaseLittle {
		t.wait()
		return
	}
	t.moved.Store(0)
	t.waiting.Store(false)
	t.release()
}

// memoryShare is the part of the memory that the heap may take before the garbage
// collector works as hard as it has to; the rest is for the program itself and
// for what the system keeps for it.
const memoryShare = 0.6

// limitMemory has the garbage collector keep within what the process may use, so
// that it is not killed for garbage. A limit of the user's own, GOMEMLIMIT, goes
// before.
func limitMemory() {
	if memory := limited.Memory(); memory > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(float64(memory) * memoryShare))
	}
}

// releaseMemory collects twice: a sync.Pool lets go of what it holds in the
// second collection after its last use.
func releaseMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}
