// Package age says how long ago something was, in the words that all of weft uses.
//
// Not for embedders: a program has words of its own.
package age

import (
	"fmt"
	"time"
)

// Of is how long d is, in the largest unit that leaves at least two of it: "40 s",
// "12 min", "3 h", "5 days". What is below zero is "0 s".
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

// Ago is Of and "ago". What is not a matter of seconds yet is not counted in them:
// nor is what a clock that is a little off puts in the future.
func Ago(d time.Duration) string {
	if d < 2*time.Second {
		return "a moment ago"
	}
	return Of(d) + " ago"
}
