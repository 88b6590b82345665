package cert

import (
	"sync"
	"time"
)

const (
	// trustWindow is how far past its floor a clock without contact is believed.
	trustWindow = 90 * 24 * time.Hour
	// relaySlack is how far a relay's clock may be off that of the server.
	relaySlack = 5 * time.Minute
)

// Clock is weft time, by which nodes judge certificates. Devices come up in
// 1970 without a battery, and in 2040 with a bad one; certificates must work
// all the same.
//
//   - After contact with the coordination server in this boot: its last time plus
//     the monotonic time since. Only the server itself takes that back.
//   - Without: the latest of the floor, the machine's clock and what a relay said
//     last, the latter two as far as they lie within 90 days after the floor.
//
// The floor is the later of the build time and the last server time on disk, and
// goes on with the monotonic clock. So a relay that lies about the time brings no
// certificate back that had ended by what this node knows, and a node that has
// heard from the server in this boot does not listen to it at all; a restarted one
// that it leads up to 90 days ahead comes back as soon as the server answers.
//
// A server restored from a backup, or put right, may go back: that is no
// rollback. The numbers of CRL and config protect against that, and the CRL's own
// date (CRL.Since) against certificates that ended long ago.
//
// A Clock may be used from any goroutine.
type Clock struct {
	machine func() moment // constant after New

	mu sync.Mutex
	// mu guards the following.
	floor  reading
	server reading // zero before the first contact
	relay  reading // what a relay said last, while there was no contact
}

// moment is what the machine's clocks show: its wall clock, which may be wrong and
// be set, and its monotonic clock, which stands still while the machine sleeps.
type moment struct {
	wall time.Time
	mono time.Duration // of any origin
}

// reading is what time it was at a moment, for sure.
type reading struct {
	time time.Time
	at   moment
}

func (r reading) known() bool { return !r.time.IsZero() }

// now returns what time it is by a reading and the monotonic clock.
func (r reading) now(m moment) time.Time { return r.time.Add(m.mono - r.at.mono) }

// byWall is now by the machine's wall clock, which goes on while it sleeps.
func (r reading) byWall(m moment) time.Time { return r.time.Add(m.wall.Sub(r.at.wall)) }

// NewClock returns a Clock with the given floor. wall is time.Now but for
// tests of a wrong machine clock; its results carry monotonic readings.
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

// Contact notes the time of the coordination server, authenticated as such. It
// may go down.
func (c *Clock) Contact(server time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.relay = reading{server.Round(0), c.machine()}, reading{}
}

// Server returns weft time if the coordination server was heard in this boot: what
// the next boot may go by.
func (c *Clock) Server() (now time.Time, heard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.server.known() {
		return time.Time{}, false
	}
	return c.server.now(c.machine()), true
}

// Relay notes what time it is by an authenticated relay, and reports whether that
// may be so. After contact with the server it moves nothing, but for a machine
// that slept: when the relay says what the machine's wall clock has counted since
// the contact, that count is right.
func (c *Clock) Relay(said time.Time) (plausible bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machine()
	said = said.Round(0)
	if !c.server.known() {
		floor := c.floor.now(m)
		if said.Before(floor.Add(-relaySlack)) || said.After(floor.Add(trustWindow)) {
			return false
		}
		c.relay = reading{said, m}
		return true
	}
	now := c.server.now(m)
	if said.Sub(now).Abs() <= relaySlack {
		return true
	}
	slept := c.server.byWall(m)
	if slept.Before(now) || said.Sub(slept).Abs() > relaySlack {
		return false
	}
	c.server = reading{slept, m} // not what the relay said: it would gain the slack each time
	return true
}

// Skew returns how far the machine's clock is ahead of weft time, and whether
// the server, or at least a relay, said anything to know it by.
func (c *Clock) Skew() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.server.known() && !c.relay.known() {
		return 0, false
	}
	m := c.machine()
	return m.wall.Sub(c.now(m)), true
}

// Floor raises the floor: a server time found on disk.
func (c *Clock) Floor(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.machine(); t.After(c.floor.now(m)) {
		c.floor = reading{t, m}
	}
}
