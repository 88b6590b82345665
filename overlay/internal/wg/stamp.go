package wg

import (
	"math"
	"time"

	"weft/overlay/internal/mono"
)

// A WireGuard handshake initiation carries the wall clock of its sender, and who
// receives it ignores every one whose stamp is not greater than the last under
// the same key. A clock that was set back therefore silences this side for as
// long as it went back, with every peer that has had an initiation of it. A new
// key begins anew with everybody.

// maxBack is how far back the clock may go without a new key. It costs at most
// that much time for a handshake (and less, as the peer begins by itself, see
// firstTurn), while a new key costs an introduction for each tunnel. Small steps
// are everyday: systemd-timesyncd steps by 0.4 s and more, ntpd by 128 ms, a leap
// second by one second, everywhere at the same time. Slewing changes both clocks
// alike. WireGuard's stamps have steps of 17 ms.
const maxBack = 2 * time.Second

// never is before all clocks.
const never = math.MinInt64

// ahead is how far the wall clock is ahead of the monotonic one, give or take a
// constant. It changes only when the wall clock is set, or the machine sleeps.
func (d *Device) aheadNow() int64 { return d.wall().UnixNano() - mono.Now() }

// stamped notes that an initiation goes out, and reports whether its stamp is so
// low that peers may ignore it.
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

// SetBack reports whether the machine's clock was set back, by more than moments,
// since a handshake was last begun under the present key. Then Rekey makes it
// good.
func (d *Device) SetBack() bool {
	most := d.ahead.Load()
	return most != never && d.aheadNow() < most-int64(maxBack)
}
