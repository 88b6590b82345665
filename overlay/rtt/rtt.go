// Package rtt estimates how long an answer takes, so that nobody is given up who
// only sits behind a full uplink: there a round trip of 20 ms becomes one of seconds
// as soon as somebody uploads.
//
// Not for embedders: nodes and relays share it.
package rtt

import "time"

// Estimate is of a round trip, smoothed as in RFC 6298, and the last one as it was:
// measurements may be far apart. The zero value knows nothing. It has no lock.
type Estimate struct {
	mean, dev, last time.Duration
}

// Add takes a measurement.
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

// Trip returns what a round trip takes, 0 when none was measured.
func (e Estimate) Trip() time.Duration { return max(e.mean, e.last) }

// Wait returns how long to wait for an answer before it counts as missing: three
// round trips, or two of the last one, or more where they vary much, but at least
// least and at most most.
func (e Estimate) Wait(least, most time.Duration) time.Duration {
	return min(max(least, 3*e.mean, e.mean+4*e.dev, 2*e.last), most)
}
