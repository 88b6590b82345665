package ops

import (
	"crypto/rand"
	"maps"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// relaySession is the server's state about one standalone relay, in memory only.
type relaySession struct {
	wake chan struct{} // capacity 1: wakes the relay's sync
	load relayLoad

	mu sync.Mutex
	// mu guards the following.
	instance string                       // random, and new each time the server forgets the relay's nodes
	run      string                       // api.RelayReport.Run: changes when the relay restarts
	all      bool                         // the relay has reported all nodes that are connected to it
	seq      uint64                       // of the last answer with news
	heard    time.Time                    // when something last arrived from the relay
	members  map[cert.NodeID]struct{}     // nodes that the relay reports as connected
	sent     map[cert.NodeID]api.Versions // the versions of these nodes that the relay was sent
	names    api.Version                  // the version of all names that the relay was sent
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

// relaySessions are the sessions of all standalone relays.
type relaySessions struct {
	done chan struct{} // closed when the server stops, so that waiting syncs are answered

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

// toldAll reports whether a relay has reported all nodes that are connected to it.
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

// end forgets a relay that was removed, and wakes its sync, which tells the relay so.
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
