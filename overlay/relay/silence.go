package relay

import (
	"errors"
	"time"
)

// How long a connection may be silent. Routers should remember a TCP connection
// for two hours (RFC 5382, REQ-5); some forget it after less than a minute, and
// drop what they do not know without a word. A device behind such a one believes
// to be online, and nobody reaches it until its relay or itself finds out, minutes
// later. So a node asks its relay after a little silence, after more, and after
// as much as the relay itself waits before it asks (three pings, about 1 KB), and
// then is quiet for good. The first one without an answer, while a new connection
// is made at once, says what this network can bear.

// silenceSteps are the silences that are tried. The last is a little under the
// 120 s after which a relay asks.
var silenceSteps = []time.Duration{30 * time.Second, 60 * time.Second, 110 * time.Second}

const (
	// shortSilence is for a network that did not bear the first step.
	shortSilence = 15 * time.Second
	// silenceAnswer is how long the answer may take, or longer if it is known to. An
	// uplink that is full of uploads delays it by seconds.
	silenceAnswer = 8 * time.Second
	// backAtOnce: a connection that is made this soon after the loss of another
	// shows that the network itself works.
	backAtOnce = 5 * time.Second
	// silenceLearned is how long a limit counts before the next step is tried
	// again: a loss may have been by chance.
	silenceLearned = 24 * time.Hour
)

// errForgotten ends a connection that did not survive a silence.
var errForgotten = errors.New("the network forgot the connection while it was silent")

// silence is what a node has learned of the network that it is in. The zero
// value knows nothing. Times are of any one clock.
type silence struct {
	step    int       // of silenceSteps: the first that was not survived yet
	limited time.Time // when that step was found to be too long; zero: it was not

	lost   time.Time // a connection was, by the silence before; zero: none
	before int       // the step that it was then
}

// allowed returns after how much silence to ask the relay, 0 for never.
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

// held notes that the relay answered after a silence.
func (s *silence) held(d time.Duration) {
	for s.step < len(silenceSteps) && d >= silenceSteps[s.step] {
		s.step, s.limited = s.step+1, time.Time{}
	}
}

// failed notes that the relay did not answer after a silence.
func (s *silence) failed(now time.Time, d time.Duration) {
	s.lost, s.before = now, 0
	for s.before < len(silenceSteps) && silenceSteps[s.before] <= d {
		s.before++
	}
	s.before = max(s.before-1, 0)
}

// back notes that there is a connection again.
func (s *silence) back(now time.Time) {
	if !s.lost.IsZero() && now.Sub(s.lost) < backAtOnce {
		s.step, s.limited = s.before, now
	}
	s.lost = time.Time{}
}
