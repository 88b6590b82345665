package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"weft/overlay/limited"
)

// releaseAfter is how long after its start the daemon gives back what it took.
const releaseAfter = 10 * time.Second

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

// releaseMemory gives the memory of the buffers back to the system once traffic has
// stopped. The Go runtime would keep most of it for as long as the daemon idles. It
// collects twice: a sync.Pool lets go of what it holds in the second collection after
// its last use.
func releaseMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}
