package status

import (
	"sort"
	"sync"
)

// maxWarnings bounds the warnings; without it, codes with an Of could grow without
// limit.
const maxWarnings = 64

// Warnings are the current problems. Goroutines that wait for a change of the node's
// state also wait on them. The zero Warnings are empty. Any goroutine may use them,
// with any lock held, since they call nothing.
type Warnings struct {
	mu sync.Mutex
	// mu guards the following.
	messages map[Code]string
	wake     chan struct{} // nil: no waiters
}

// Set adds a warning, or changes the message of an existing one. It drops a warning if
// there is no room.
func (w *Warnings) Set(code Code, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.messages == nil {
		w.messages = map[Code]string{}
	}
	if _, ok := w.messages[code]; ok || len(w.messages) < maxWarnings {
		w.messages[code] = message
	}
	w.notifyLocked()
}

// Clear removes a warning, if it exists.
func (w *Warnings) Clear(code Code) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.messages[code]; ok {
		delete(w.messages, code)
		w.notifyLocked()
	}
}

// LeaveNetwork removes the warnings about the network that the node has left.
func (w *Warnings) LeaveNetwork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for code := range w.messages {
		if code.Meaning().OfNetwork {
			delete(w.messages, code)
		}
	}
	w.notifyLocked()
}

// Has reports whether a warning exists.
func (w *Warnings) Has(code Code) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.messages[code]
	return ok
}

// List returns the warnings, sorted by code and message, with Of separated from the
// code.
func (w *Warnings) List() []Health {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]Health, 0, len(w.messages))
	for code, message := range w.messages {
		code, of := code.Cut()
		out = append(out, Health{Code: code, Message: message, Of: of})
	}
	sort.Slice(out, func(i, j int) bool {
		return string(out[i].Code)+out[i].Message+out[i].Of < string(out[j].Code)+out[j].Message+out[j].Of
	})
	return out
}

// Notify wakes the goroutines that hold a channel of Changed: something else that they
// may wait for has changed.
func (w *Warnings) Notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notifyLocked()
}

// Changed returns a channel that is closed at the next change.
func (w *Warnings) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wake == nil {
		w.wake = make(chan struct{})
	}
	return w.wake
}

func (w *Warnings) notifyLocked() {
	if w.wake != nil {
		close(w.wake)
		w.wake = nil
	}
}
