// Package mono is the monotonic clock as one number, for an atomic.Int64. The wall clock
// cannot tell how long ago something happened: after it is set back, its earlier readings
// lie in the future.
package mono

import "time"

// start lies 50 years back, so that 0, which means never, is long ago, even in the
// simulated time of tests, which begins in 2000.
var start = time.Now().Add(-50 * 365 * 24 * time.Hour)

// Now returns nanoseconds since start, which is constant for the life of the process.
func Now() int64 { return int64(time.Since(start)) }

// Of returns what Now returned at the time t, which time.Now has returned.
func Of(t time.Time) int64 { return int64(t.Sub(start)) }

// Time returns the time at which Now returned ns; the zero Time for 0. Compare it with
// time.Now only: its wall clock reading does not follow later changes of the wall clock.
func Time(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return start.Add(time.Duration(ns))
}
