package limited

import (
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// alarmEvery is the interval at which a lasting problem is logged.
	alarmEvery = time.Minute
	// alarmQuiet is the number of such intervals without a Raise that ends the problem.
	alarmQuiet = 3
)

// Alarm tells the owner of the machine that a bound was reached: at once, then once a
// minute while it continues, and that it is over after three minutes without a Raise.
// No timer runs while there is no problem. The zero Alarm is ready to use once its
// fields are set, before the first Raise; they are constant from then on.
type Alarm struct {
	Log  *slog.Logger // required
	Code string       // of the health warning

	// Health sets the warning; an empty message clears it. May be nil.
	Health func(code, message string)

	// Describe says in a sentence what happened n times (n ≥ 1) since its last call. It
	// runs in a goroutine of its own, one call at a time.
	Describe func(n int) string

	raised atomic.Int64
	active atomic.Bool
}

// Raise counts one event. It does not block, so that it may be called on the packet
// path.
func (a *Alarm) Raise() {
	a.raised.Add(1)
	if !a.active.Load() && a.active.CompareAndSwap(false, true) {
		time.AfterFunc(0, func() { a.tick(0) })
	}
}

// tick runs in the goroutine that has set active.
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
		if a.raised.Load() > 0 && a.active.CompareAndSwap(false, true) { // raised in this moment
			quiet = 0
		} else {
			return
		}
	}
	time.AfterFunc(alarmEvery, func() { a.tick(quiet) })
}
