package cert

import (
	"testing"
	"time"
)

// stagedClock is a Clock on a machine whose clocks the test sets.
type stagedClock struct {
	*Clock
	m moment
}

func newStagedClock(floor, wall time.Time) *stagedClock {
	s := &stagedClock{m: moment{wall: wall}}
	s.Clock = newClock(floor, func() moment { return s.m })
	return s
}

func (s *stagedClock) run(d time.Duration)   { s.m.wall, s.m.mono = s.m.wall.Add(d), s.m.mono+d }
func (s *stagedClock) sleep(d time.Duration) { s.m.wall = s.m.wall.Add(d) }

// After contact with the server relays do not move the time. Before it the latest of
// floor, machine and relay counts, up to 90 days after the floor.
func TestRelayTime(t *testing.T) {
	const day = 24 * time.Hour
	floor := testNow
	for name, c := range map[string]struct {
		wall, said time.Time
		plausible  bool
		want       time.Time
	}{
		"1970, relay right":                 {time.Unix(1000, 0), floor.Add(10 * day), true, floor.Add(10 * day)},
		"2040, relay right":                 {floor.AddDate(14, 0, 0), floor.Add(10 * day), true, floor.Add(10 * day)},
		"slow, relay right":                 {floor.Add(day), floor.Add(10 * day), true, floor.Add(10 * day)},
		"right, relay behind":               {floor.Add(10 * day), floor.Add(day), true, floor.Add(10 * day)},
		"right, relay before the floor":     {floor.Add(10 * day), floor.Add(-day), false, floor.Add(10 * day)},
		"right, relay years behind":         {floor.Add(10 * day), floor.AddDate(-5, 0, 0), false, floor.Add(10 * day)},
		"1970, relay years behind":          {time.Unix(1000, 0), floor.AddDate(-5, 0, 0), false, floor},
		"1970, relay 10 years ahead":        {time.Unix(1000, 0), floor.AddDate(10, 0, 0), false, floor},
		"right, relay 10 years ahead":       {floor.Add(10 * day), floor.AddDate(10, 0, 0), false, floor.Add(10 * day)},
		"2040, relay says so too":           {floor.AddDate(14, 0, 0), floor.AddDate(14, 0, 0), false, floor},
		"1970, relay a moment behind":       {time.Unix(1000, 0), floor.Add(-time.Second), true, floor},
		"1970, relay 91 days ahead":         {time.Unix(1000, 0), floor.Add(91 * day), false, floor},
		"slow, relay as far as is believed": {floor, floor.Add(90 * day), true, floor.Add(90 * day)},
	} {
		clock := newStagedClock(floor, c.wall)
		if got := clock.Relay(c.said); got != c.plausible || !clock.Now().Equal(c.want) {
			t.Errorf("%s: %v, weft time %v, want %v", name, got, clock.Now(), c.want)
		}
		before := clock.Now()
		clock.run(time.Hour)
		if got := clock.Now().Sub(before); got != time.Hour {
			t.Errorf("%s: weft time went on by %v in an hour", name, got)
		}
		if _, heard := clock.Server(); heard {
			t.Errorf("%s: the relay is taken for the server", name)
		}

		server := floor.Add(20 * day)
		clock.Contact(server)
		for _, lie := range []time.Duration{-10000 * day, -day, -10 * time.Minute, 10 * time.Minute, day, 10000 * day} {
			if clock.Relay(server.Add(lie)) || !clock.Now().Equal(server) {
				t.Errorf("%s: after the server a relay that is off by %v makes it %v", name, lie, clock.Now())
			}
		}
		for range 1000 { // nor in small steps
			clock.Relay(clock.Now().Add(4 * time.Minute))
		}
		if !clock.Now().Equal(server) {
			t.Errorf("%s: relays have moved the time to %v", name, clock.Now())
		}
		clock.Contact(server.Add(-365 * day)) // only the server can set it back
		if !clock.Now().Equal(server.Add(-365 * day)) {
			t.Errorf("%s: the server is not followed back: %v", name, clock.Now())
		}
	}
}

// The monotonic clock of a machine that slept stood still. A relay that agrees with the
// machine's wall clock on how long is believed; one that disagrees is not, and no relay
// can move the time in small steps.
func TestRelayAfterSleep(t *testing.T) {
	const day = 24 * time.Hour
	for name, wall := range map[string]time.Time{"right": testNow, "1970": time.Unix(1000, 0), "2040": testNow.AddDate(14, 0, 0)} {
		clock := newStagedClock(testNow, wall)
		clock.Contact(testNow)
		clock.run(time.Hour)
		clock.sleep(60 * day)
		now := testNow.Add(time.Hour + 60*day)
		for _, lie := range []time.Duration{-30 * day, -time.Hour, time.Hour, day, 3650 * day} {
			if clock.Relay(now.Add(lie)) || !clock.Now().Equal(testNow.Add(time.Hour)) {
				t.Errorf("%s: a relay that is off by %v makes it %v", name, lie, clock.Now())
			}
		}
		if !clock.Relay(now.Add(4*time.Minute)) || !clock.Now().Equal(now) {
			t.Errorf("%s: after 60 days of sleep it is %v, want %v", name, clock.Now(), now)
		}
		for range 1000 {
			clock.Relay(clock.Now().Add(4 * time.Minute))
		}
		if !clock.Now().Equal(now) {
			t.Errorf("%s: relays have moved the time to %v", name, clock.Now())
		}
		if skew, ok := clock.Skew(); !ok || skew.Abs() > 0 != (name != "right") {
			t.Errorf("%s: skew %v, %v", name, skew, ok)
		}
		if at, ok := clock.Server(); !ok || !at.Equal(now) {
			t.Errorf("%s: for the next boot: %v, %v", name, at, ok)
		}
	}
}
