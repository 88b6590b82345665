package ops

import (
	"crypto/rand"
	"maps"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// relaySession is what the server remembers of one relay that runs alone,
// until either starts anew.
type relaySession struct {
	wake chan struct{} // capacity 1: something changed
	load relayLoad

	mu sync.Mutex
	// mu guards the following.
	instance string // another one each time the server forgets
	run      string // of the relay
	all      bool   // the relay has said who is connected to it, and since then who came and went
	seq      uint64
	heard    time.Time
	members  map[cert.NodeID]struct{}     // who it says is connected
	sent     map[cert.NodeID]api.Versions // what it was told of them
	names    api.Version                  // the same of all names
}

func newRelaySession(now time.Time) *relaySession {
	return &relaySession{
		wake: make(chan struct{}, 1), instance: rand.Text(), heard: now,
		members: map[cert.NodeID]struct{}{}, sent: map[cert.NodeID]api.Versions{},
	}
}

func (rs *relaySession) rouse() {
	select {
	case rs.wake <- struct{}{}:
	default:
	}
}

// relaySessions are those of all relays.
type relaySessions struct {
	done chan struct{} // closed when the server stops: syncs are answered

	mu sync.Mutex
	// mu guards the following.
	closed bool
	byID   map[string]*relaySession
}

func newRelaySessions() *relaySessions {
	return &relaySessions{done: make(chan struct{}), byID: map[string]*relaySession{}}
}

func (rs *relaySessions) of(id string, now time.Time) *relaySession {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	s := rs.byID[id]
	if s == nil {
		s = newRelaySession(now)
		rs.byID[id] = s
	}
	return s
}

func (rs *relaySessions) all() map[string]*relaySession {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return maps.Clone(rs.byID)
}

// toldAll reports whether a relay has said who is connected to it.
func (rs *relaySessions) toldAll(id string) bool {
	rs.mu.Lock()
	s := rs.byID[id]
	rs.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// end forgets a relay that was removed, and has it hear that it was.
func (rs *relaySessions) end(id string) {
	rs.mu.Lock()
	s := rs.byID[id]
	delete(rs.byID, id)
	rs.mu.Unlock()
	if s != nil {
		s.rouse()
	}
}

func (rs *relaySessions) rouse() {
	for _, s := range rs.all() {
		s.rouse()
	}
}

func (rs *relaySessions) close() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if !rs.closed {
		rs.closed = true
		close(rs.done)
	}
}
