package network

import (
	"slices"
	"sync"
)

// Sink makes something of the node what the network says that it should be: routes,
// what is open to whom, names. It is handed the whole state that is wanted.
type Sink interface {
	// Apply is told what is held now, and what was held at the last call. old is
	// nil at the first call after the node has come up; new is nil at the last,
	// when the node goes down or leaves: what must not stay then is undone.
	//
	// Calls come one at a time, in the order in which things changed, from any
	// goroutine; several changes may come as one. A Sink compares what it is about
	// (old.Config != new.Config says that there is another configuration; pointers
	// that are equal are of the same content) and does nothing when that did not
	// change. It must not wait for the network, a peer or a disk: all other Sinks
	// wait for it. What takes long goes to a goroutine of its own, and what fails is
	// said to health, since there is nobody to return it to.
	Apply(old, new *Network)
}

// Sinks is an ordered list of them, for the time from up to down. Any goroutine may
// use it.
type Sinks struct {
	holder *Holder
	list   []Sink

	mu sync.Mutex // held while Sinks are called
	// mu guards the following.
	last  *Network
	ended bool
}

// NewSinks makes the list. Apply is the first to call any of it.
func NewSinks(h *Holder, list ...Sink) *Sinks { return &Sinks{holder: h, list: list} }

// Apply has every Sink follow what is held now. It returns when all have, also when
// another goroutine was faster; and at once when nothing has changed, or the node is
// in no network.
func (s *Sinks) Apply() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, ok := s.holder.Get()
	if s.ended || !ok || now == s.last {
		return
	}
	for _, sink := range s.list {
		sink.Apply(s.last, now)
	}
	s.last = now
}

// End has every Sink undo what must not stay, the last one first. No Sink is called
// after it.
func (s *Sinks) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended = true; s.last == nil {
		return
	}
	for _, sink := range slices.Backward(s.list) {
		sink.Apply(s.last, nil)
	}
	s.last = nil
}
