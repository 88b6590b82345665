package cert

import (
	"sync"
	"time"
)

const (
	// trustWindow is how far past the floor the machine's clock and relays are believed
	// before contact with the server.
	trustWindow = 90 * 24 * time.Hour
	// relaySlack is how much a relay's clock may differ from the server's.
	relaySlack = 5 * time.Minute
)

// Clock keeps weft time, the time at which nodes check certificates. The clock of a
// device may say 1970 when it has no battery, or 2040 when the battery is bad;
// certificates must work all the same.
//
//   - After contact with the coordination server in this boot: the server's last time
//     plus the monotonic time since then. Only the server can set it back.
//   - Before contact: the latest of the floor, the machine's clock and the last time from
//     a relay. The clock and the relay count only up to 90 days after the floor.
//
// The floor is the later of the build time and the last server time on disk, and advances
// with the monotonic clock. So a relay that lies about the time cannot revive a
// certificate that this node knows has expired. A node that has had contact with the
// server in this boot ignores relays; one that a relay has led up to 90 days ahead
// returns to the right time as soon as the server answers.
//
// The server's time may go back, after a restore or a correction. Protection against
// rollback does not depend on time: it comes from the numbers of CRL and config, and, for
// certificates that expired long ago, from the date in the CRL (CRL.Since).
//
// A Clock may be used from any goroutine.
type Clock struct {
	machine func() moment // constant after New

	mu sync.Mutex
	// mu guards the following.
	floor  reading
	server reading // zero before the first contact in this boot
	relay  reading // last time from a relay before contact with the server
}

// moment holds the machine's clocks: the wall clock, which may be wrong or be set, and
// the monotonic clock, which stops while the machine sleeps.
type moment struct {
	wall time.Time
	mono time.Duration // since any fixed moment
}

// reading is a time that somebody stated, with the moment at which it arrived.
type reading struct {
	time time.Time
	at   moment
}

func (r reading) known() bool { return !r.time.IsZero() }

// now returns the time now, counted from the reading with the monotonic clock.
func (r reading) now(m moment) time.Time { return r.time.Add(m.mono - r.at.mono) }

// byWall is now counted with the wall clock, which goes on while the machine sleeps.
func (r reading) byWall(m moment) time.Time { return r.time.Add(m.wall.Sub(r.at.wall)) }

// NewClock returns a Clock with the given floor. wall is time.Now, or in tests a wrong
// clock; its results must carry monotonic readings.
func NewClock(floor time.Time, wall func() time.Time) *Clock {
	start := wall()
	return newClock(floor, func() moment {
		now := wall()
		return moment{now.Round(0), now.Sub(start)}
	})
}

func newClock(floor time.Time, machine func() moment) *Clock {
	return &Clock{machine: machine, floor: reading{floor, machine()}}
}

// Now returns weft time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now(c.machine())
}

func (c *Clock) now(m moment) time.Time {
	if c.server.known() {
		return c.server.now(m)
	}
	now := c.floor.now(m)
	top := now.Add(trustWindow)
	for _, t := range []time.Time{m.wall, c.relay.now(m)} {
		if t.After(now) && !t.After(top) {
			now = t
		}
	}
	return now
}

// Contact records a time from the authenticated coordination server. It may be earlier
// than the last one.
func (c *Clock) Contact(server time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.relay = reading{server.Round(0), c.machine()}, reading{}
}

// Server returns weft time for the next boot to start from; ok is false if there was no
// contact with the coordination server in this boot.
func (c *Clock) Server() (now time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.server.known() {
		return time.Time{}, false
	}
	return c.server.now(c.machine()), true
}

// Relay records a time from an authenticated relay and reports whether it is plausible.
// After contact with the server it changes weft time only when the machine slept: if the
// relay's time agrees with what the wall clock has counted since the contact, that count
// is taken.
func (c *Clock) Relay(stated time.Time) (plausible bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machine()
	stated = stated.Round(0)
	if !c.server.known() {
		floor := c.floor.now(m)
		if stated.Before(floor.Add(-relaySlack)) || stated.After(floor.Add(trustWindow)) {
			return false
		}
		c.relay = reading{stated, m}
		return true
	}
	now := c.server.now(m)
	if stated.Sub(now).Abs() <= relaySlack {
		return true
	}
	slept := c.server.byWall(m)
	if slept.Before(now) || stated.Sub(slept).Abs() > relaySlack {
		return false
	}
	c.server = reading{slept, m} // not the relay's time, which could gain relaySlack with each call
	return true
}

// Skew returns how far the machine's clock is ahead of weft time. The second result is
// false while neither the server nor a relay has stated a time.
func (c *Clock) Skew() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.server.known() && !c.relay.known() {
		return 0, false
	}
	m := c.machine()
	return m.wall.Sub(c.now(m)), true
}

// Floor raises the floor to t, the server time saved on disk, if that is later.
func (c *Clock) Floor(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.machine(); t.After(c.floor.now(m)) {
		c.floor = reading{t, m}
	}
}
