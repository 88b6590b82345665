package gcm

import (
	"time"

	"weft/overlay/internal/mono"
)

// A virtual machine that is resumed twice from one snapshot has all keys and counters
// twice, and would seal different packets under the same nonce. The monotonic clock stands
// still while a machine sleeps or does not exist, and the wall clock does not. So a jump
// between the two drops the keys for sending before anything more is sealed.

// maxJump is how much the difference of the clocks may change. The clock's daemon slews
// both alike. A step by it costs an introduction.
const maxJump = 250 * time.Millisecond

// clocks returns mono.Now, and how far the wall clock is ahead of the monotonic clock, plus
// a constant.
func (d *Device) clocks() (now, ahead int64) {
	t := time.Now()
	now = mono.Of(t)
	if d.wall != nil {
		t = d.wall()
	}
	return now, t.UnixNano() - now
}

// clock returns mono.Now, and whether the clocks have not jumped since clocks returned
// ahead. The kernel may interrupt between the readings of the two, but hardly three times.
func (d *Device) clock(ahead int64) (now int64, still bool) {
	for range 3 {
		n, a := d.clocks()
		if by := a - ahead; by > -int64(maxJump) && by < int64(maxJump) {
			return n, true
		}
	}
	return 0, false
}

// CheckClock drops all keys for sending if the machine has slept or its clock was set, and
// reports whether that was so. What is sent to a peer waits for its next introduction.
// Datagrams of the peers are taken as before. The packet path does the same before each
// run of packets, so this only makes it happen earlier.
func (d *Device) CheckClock() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	dropped := false
	for _, p := range d.peers {
		s := p.cur.Load()
		if s.sender.cur.Load() == nil {
			continue
		}
		if _, still := d.clock(s.ahead); !still {
			dropped = true
			p.dropLocked()
		}
	}
	return dropped
}

// jump is called on the packet path when the clocks have jumped.
func (d *Device) jump() {
	if d.CheckClock() {
		d.jumped()
	}
}
