package wg

import (
	"math"
	"time"

	"weft/overlay/internal/mono"
)

// A WireGuard handshake initiation carries the wall clock of its sender. A receiver
// ignores every initiation whose time stamp is not greater than the last one under the
// same key. So after a clock was set back, every peer that has received an initiation of
// this node ignores it for as long as the clock went back. A new key has no earlier time
// stamps.

// maxBack is how far back the clock may go without a new key. It delays a handshake by at
// most that time (less, since the peer begins by itself, see firstTurn), while a new key
// costs an introduction for each tunnel. Small steps are common: systemd-timesyncd steps
// by 0.4 s and more, ntpd by 128 ms, and a leap second by one second everywhere at the
// same time. Slewing changes wall and monotonic clock alike. WireGuard's time stamps have
// steps of 17 ms.
const maxBack = 2 * time.Second

// never is lower than any value of aheadNow.
const never = math.MinInt64

// aheadNow returns how far the wall clock is ahead of the monotonic clock, plus a
// constant. It changes only when the wall clock is set or the machine sleeps.
func (d *Device) aheadNow() int64 { return d.wall().UnixNano() - mono.Now() }

// stamped records that an initiation is being sent, and reports whether its time stamp is
// so low that peers may ignore it.
func (d *Device) stamped() (low bool) {
	now := d.aheadNow()
	for {
		most := d.ahead.Load()
		if now <= most {
			return now < most-int64(maxBack)
		}
		if d.ahead.CompareAndSwap(most, now) {
			return false
		}
	}
}

// SetBack reports whether the machine's clock was set back by more than maxBack since a
// handshake was last started under the present key. Rekey fixes that.
func (d *Device) SetBack() bool {
	most := d.ahead.Load()
	return most != never && d.aheadNow() < most-int64(maxBack)
}
