// Package rtt estimates how long to wait for an answer. Behind a full uplink a round trip
// of 20 ms takes seconds, and a peer must not be given up for that.
//
// Not for embedders: nodes and relays share it.
package rtt

import "time"

// Estimate is a round-trip time smoothed as in RFC 6298, together with the last
// measurement, since measurements may be far apart. The zero value has none. It has no
// lock.
type Estimate struct {
	mean, dev, last time.Duration
}

// Add takes a measurement; it ignores durations that are not positive.
func (e *Estimate) Add(d time.Duration) {
	if d <= 0 {
		return
	}
	e.last = d
	if e.mean == 0 {
		e.mean, e.dev = d, d/2
		return
	}
	e.dev += ((e.mean - d).Abs() - e.dev) / 4
	e.mean += (d - e.mean) / 8
}

// Trip returns the larger of the smoothed and the last round trip, 0 before the first
// measurement.
func (e Estimate) Trip() time.Duration { return max(e.mean, e.last) }

// Wait returns how long to wait before an answer counts as missing: the longest of three
// smoothed round trips, twice the last one, and the smoothed one plus four deviations,
// but no less than least and no more than most.
func (e Estimate) Wait(least, most time.Duration) time.Duration {
	return min(max(least, 3*e.mean, e.mean+4*e.dev, 2*e.last), most)
}
