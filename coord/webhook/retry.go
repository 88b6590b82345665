package webhook

import "time"

const (
	// GiveUp is how long an event is retried before its webhook is paused.
	GiveUp = 24 * time.Hour
	// MaxWait is the longest time between two attempts.
	MaxWait   = time.Hour
	firstWait = 5 * time.Second
)

// Wait returns the time from the nth failed attempt, n >= 1, to the next one: 5 s, 10 s, 20 s,
// and so on up to an hour, or asked, the Retry-After of the receiver, if that is longer (but
// an hour at most). random, a number in [0, 1), makes the result up to a quarter longer, so
// that many webhooks do not retry at the same moment.
func Wait(n int, random float64, asked time.Duration) time.Duration {
	d := MaxWait
	if n < 11 { // 5 s << 10 is more than an hour
		d = min(MaxWait, firstWait<<max(0, n-1))
	}
	d = max(d, min(asked, MaxWait))
	return d + time.Duration(random*float64(d)/4)
}
