package relay

import (
	"errors"
	"time"
)

// How long a connection may be silent. Routers should remember a TCP connection for two
// hours (RFC 5382, REQ-5). Some forget it after less than a minute and then drop its
// packets silently. A device behind such a router believes that it is online, but nobody
// can reach it until its relay or the device itself finds out, minutes later. So a node
// pings its relay after a short silence, after a longer one, and after almost as long as
// the relay waits before it pings (three pings, about 1 KB), and then stops pinging. If
// one of these pings has no answer but a new connection works at once, the node knows how
// much silence this network tolerates.

// silenceSteps are the silences to try. The last is a little shorter than the 120 s after
// which a relay pings.
var silenceSteps = []time.Duration{30 * time.Second, 60 * time.Second, 110 * time.Second}

const (
	// shortSilence is used in a network that does not tolerate the first step.
	shortSilence = 15 * time.Second
	// silenceAnswer is how long the answer may take, or longer if answers are known to be
	// slow. A full uplink delays them by seconds.
	silenceAnswer = 8 * time.Second
	// backAtOnce bounds the time between the loss of a connection and the next one if the
	// silence was to blame: otherwise the network itself may have failed.
	backAtOnce = 5 * time.Second
	// silenceLearned is how long a limit applies before the next step is tried again,
	// because the loss may have been a coincidence.
	silenceLearned = 24 * time.Hour
)

// errForgotten ends a connection that did not survive a silence.
var errForgotten = errors.New("the network forgot the connection while it was silent")

// silence is what a node has learned about its network's tolerance of silence. The zero
// value has learned nothing. All times must be of one clock.
type silence struct {
	step    int       // index in silenceSteps of the first that no connection has survived yet
	limited time.Time // when that step was found to be too long; zero: not found to be

	lost   time.Time // when a connection was lost after a silence; zero: none
	before int       // the step of that silence
}

// allowed returns after how much silence to ping the relay, 0 for never.
func (s *silence) allowed(now time.Time) time.Duration {
	switch {
	case !s.limited.IsZero() && now.Sub(s.limited) < silenceLearned:
		if s.step == 0 {
			return shortSilence
		}
		return silenceSteps[s.step-1]
	case s.step == len(silenceSteps):
		return 0
	}
	return silenceSteps[s.step]
}

// survived records that the relay answered after a silence of d.
func (s *silence) survived(d time.Duration) {
	for s.step < len(silenceSteps) && d >= silenceSteps[s.step] {
		s.step, s.limited = s.step+1, time.Time{}
	}
}

// failed records that the relay did not answer after a silence of d.
func (s *silence) failed(now time.Time, d time.Duration) {
	s.lost, s.before = now, 0
	for s.before < len(silenceSteps) && silenceSteps[s.before] <= d {
		s.before++
	}
	s.before = max(s.before-1, 0)
}

// back records that there is a connection again.
func (s *silence) back(now time.Time) {
	if !s.lost.IsZero() && now.Sub(s.lost) < backAtOnce {
		s.step, s.limited = s.before, now
	}
	s.lost = time.Time{}
}
