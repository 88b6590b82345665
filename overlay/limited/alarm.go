package limited

import (
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// alarmEvery is how often a trouble that goes on is logged.
	alarmEvery = time.Minute
	// alarmQuiet is after how many of these without a raise it is over.
	alarmQuiet = 3
)

// Alarm tells the owner of the machine that a bound was reached: at once, then
// once a minute while it goes on, and that it is over after three minutes
// without. While nothing is wrong no timer runs. The zero Alarm, with its fields
// set before the first Raise, is ready; they are constant from then on.
type Alarm struct {
	Log  *slog.Logger // required
	Code string       // of the health warning

	// Health sets the warning, or takes it back with an empty message. May be nil.
	Health func(code, message string)

	// Describe says in a sentence what happened n times, n ≥ 1, since it was
	// called last. It runs in a goroutine of its own, one call at a time.
	Describe func(n int) string

	raised atomic.Int64
	active atomic.Bool
}

// Raise counts one event. It neither blocks nor waits, so that it may be called
// where packets pass.
func (a *Alarm) Raise() {
	a.raised.Add(1)
	if !a.active.Load() && a.active.CompareAndSwap(false, true) {
		time.AfterFunc(0, func() { a.tick(0) })
	}
}

// tick belongs to whoever has set active.
func (a *Alarm) tick(quiet int) {
	if n := int(a.raised.Swap(0)); n > 0 {
		message := a.Describe(n)
		a.Log.Warn(message)
		if a.Health != nil {
			a.Health(a.Code, message)
		}
		quiet = 0
	} else if quiet++; quiet >= alarmQuiet {
		if a.Health != nil {
			a.Health(a.Code, "")
		}
		a.active.Store(false)
		if a.raised.Load() > 0 && a.active.CompareAndSwap(false, true) { // just now
			quiet = 0
		} else {
			return
		}
	}
	time.AfterFunc(alarmEvery, func() { a.tick(quiet) })
}
