package cert

import (
	"sync"
	"time"
)

// trustWindow is how far past its floor a clock without contact is believed.
const trustWindow = 90 * 24 * time.Hour

// Clock is weft time, by which nodes judge certificates. Devices come up in
// 1970 without a battery, and in 2040 with a bad one; certificates must work
// all the same.
//
//   - After contact in this boot: the last authenticated server or relay time
//     plus the monotonic time since.
//   - Without contact: the machine's clock if it lies within 90 days after the
//     floor, else the floor.
//
// The floor is the later of the build time and the last server time on disk.
// Nothing here protects against rollback; the numbers of CRL and config do.
// A Clock may be used from any goroutine.
type Clock struct {
	wall func() time.Time // constant after New

	mu sync.Mutex
	// mu guards the following.
	floor   time.Time
	server  time.Time // of the last contact, zero before the first
	contact time.Time // our clock then, with its monotonic reading
}

// NewClock returns a Clock with the given floor. wall is time.Now but for
// tests of a wrong machine clock; its results carry monotonic readings.
func NewClock(floor time.Time, wall func() time.Time) *Clock {
	return &Clock{wall: wall, floor: floor}
}

// Now returns weft time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.wall()
	if !c.server.IsZero() {
		return c.server.Add(now.Sub(c.contact))
	}
	if now.Before(c.floor) || now.After(c.floor.Add(trustWindow)) {
		return c.floor
	}
	return now.Round(0)
}

// Contact notes the time of an authenticated server or relay. It may go down.
func (c *Clock) Contact(server time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.contact = server.Round(0), c.wall()
}

// Skew returns how far the machine's clock is ahead of weft time, and whether
// there was contact to know it.
func (c *Clock) Skew() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server.IsZero() {
		return 0, false
	}
	now := c.wall()
	return now.Round(0).Sub(c.server.Add(now.Sub(c.contact))), true
}

// Floor raises the floor: a server time found on disk.
func (c *Clock) Floor(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.floor) {
		c.floor = t
	}
}
