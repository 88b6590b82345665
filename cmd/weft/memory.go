package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"weft/overlay/limited"
)

// releaseAfter is how long after its start the daemon returns unused memory.
const releaseAfter = 10 * time.Second

// memoryShare is the heap's share of the memory: the garbage collector keeps the heap
// below it. The rest is for the program itself and for the system's buffers.
const memoryShare = 0.6

// limitMemory makes the garbage collector keep the process within its memory, so that
// it is not killed because of garbage. The user's own limit, GOMEMLIMIT, takes
// precedence.
func limitMemory() {
	if memory := limited.Memory(); memory > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(float64(memory) * memoryShare))
	}
}

// releaseMemory returns the memory of buffers to the system once traffic has stopped.
// Otherwise the Go runtime would keep most of it while the daemon idles. It collects
// twice, since a sync.Pool frees its items in the second collection after their last
// use.
func releaseMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}
