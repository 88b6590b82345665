package relayserver

import (
	"slices"
	"time"
)

// Two machines with one identity: how the relay notices, and what it does.

const (
	flipWindow = 75 * time.Second // a replaced node waits 30 s: three flips of a clone take a minute and some jitter
	flipAlert  = 3
	flipHold   = 5 * time.Minute  // after flipAlert flips: how long a connection that answers cannot be replaced
	flipAsk    = 2 * time.Second  // how long it has to answer, and the least time between two pings
	alertEvery = 10 * time.Minute // for one node
	maxProcess = 64               // bytes of a relay.Holds.Process
)

// flips records when the connections of a NodeID replaced each other. Once is normal: a
// device reconnects through another network before its old connection has ended. A
// connection of the same process (relay.Holds) does not count. Two machines with one
// identity replace each other for ever: the relay asks each to wait, but cannot rely on
// it. So after flipAlert flips the present connection cannot be replaced for a while, as
// long as it answers; a device whose old connection is dead can still connect. Server.mu
// guards it.
type flips struct {
	at      []int64
	hold    int64 // until when the present connection cannot be replaced
	asked   int64 // when it was last pinged for that
	alerted int64 // when Alert was last called, 0: never
}

// flippedLocked records that a node's connection has replaced another, and reports
// whether to raise an alert.
func (s *Server) flippedLocked(at address, now int64) (alert bool) {
	if now-s.swept > int64(time.Minute) {
		s.swept = now
		for a, f := range s.flips {
			if now-f.at[len(f.at)-1] > int64(alertEvery) {
				delete(s.flips, a)
			}
		}
	}
	f := s.flips[at]
	if f == nil {
		f = new(flips)
		s.flips[at] = f
	}
	f.at = recent(append(f.at, now), now-int64(flipWindow))
	if len(f.at) < flipAlert {
		return false
	}
	f.at = f.at[len(f.at)-1:]
	f.hold = now + int64(flipHold)
	if f.alerted != 0 && now-f.alerted < int64(alertEvery) {
		return false
	}
	f.alerted = now
	return true
}

// identify records the process of c. If c has replaced a connection of the same process,
// that flip no longer counts. The process comes with the first frame, and so before
// another flip.
func (s *Server) identify(c *client, process string) {
	if process == "" || len(process) > maxProcess {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.process = process
	at := address{c.net.id, c.id}
	f := s.flips[at]
	if c.after != process || f == nil {
		return
	}
	i := slices.Index(f.at, c.flipped)
	switch {
	case i < 0:
	case len(f.at) > 1:
		f.at = slices.Delete(f.at, i, i+1)
	case f.hold == 0:
		delete(s.flips, at)
	}
}

func recent(at []int64, since int64) []int64 {
	for len(at) > 0 && at[0] < since {
		at = at[1:]
	}
	return at
}
