package network

import (
	"slices"
	"sync"
)

// Sink adapts a part of the node to the network's state: routes, filters, names. It is
// given the whole desired state.
type Sink interface {
	// Apply gets the current Network and the one of the last call. old is nil at the
	// first call after the node has come up. new is nil at the last call, when the node
	// goes down or leaves: the Sink must then undo what must not remain.
	//
	// Calls come one at a time, in the order of the changes, from any goroutine; one call
	// may cover several changes. A Sink compares the parts that concern it (equal
	// pointers mean equal content, so old.Config != new.Config means another
	// configuration) and does nothing if they have not changed. It must not wait for the
	// network, a peer or a disk, because all other Sinks wait for it: slow work belongs
	// in a goroutine of its own. Failures are reported to health, because nobody takes an
	// error.
	Apply(old, new *Network)
}

// Sinks is an ordered list of Sinks, for the time from up to down. Any goroutine may use
// it.
type Sinks struct {
	holder *Holder
	list   []Sink

	mu sync.Mutex // held during calls of Sinks
	// mu guards the following.
	last  *Network
	ended bool
}

// NewSinks makes the list. It calls no Sink.
func NewSinks(h *Holder, list ...Sink) *Sinks { return &Sinks{holder: h, list: list} }

// Apply calls every Sink with the current Network. It returns when all have applied it,
// in whichever goroutine, and at once when nothing has changed or the node is in no
// network.
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

// End calls every Sink with a nil Network, the last one first. No Sink is called after
// it.
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
