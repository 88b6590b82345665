// Package age formats how long ago something was, in the same way everywhere in weft.
//
// Not for embedders: it formats weft's own output.
package age

import (
	"fmt"
	"time"
)

// Of formats d in the largest unit of which it has at least two: "40 s", "12 min", "3
// h", "5 days". A negative d is "0 s".
func Of(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", max(d, 0)/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// Ago is Of and "ago". A few seconds are "a moment ago", and so is a time slightly in
// the future by an inaccurate clock.
func Ago(d time.Duration) string {
	if d < 2*time.Second {
		return "a moment ago"
	}
	return Of(d) + " ago"
}
