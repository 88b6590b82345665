// Package mono is the monotonic clock as one number, for an atomic.Int64. The
// wall clock is no good for telling how long ago something was: once it is set
// back, whatever it has stamped lies ahead for as long as it went back.
package mono

import "time"

// start lies years back, so that 0, which means never, is long ago: also in
// simulated time, which begins in 2000.
var start = time.Now().Add(-50 * 365 * 24 * time.Hour)

// Now returns nanoseconds since a moment, years ago, that is constant in one
// process.
func Now() int64 { return int64(time.Since(start)) }

// Time returns the time at which Now returned ns; the zero Time for 0. It is for
// comparisons with time.Now: its wall clock is that of the start of the process
// and not put right since.
func Time(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return start.Add(time.Duration(ns))
}
