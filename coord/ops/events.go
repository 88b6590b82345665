package ops

import (
	"sync"

	"weft/coord/store"
)

// EventKind says what happened to a device.
type EventKind string

// The kinds of Event.
const (
	EventJoined  EventKind = "joined"
	EventOnline  EventKind = "online"
	EventOffline EventKind = "offline"
	EventRenamed EventKind = "renamed" // or something else that is seen of it changed
	EventDeleted EventKind = "deleted"
)

// Event is one change. Device is the state after it; of a deleted one only ID and Name
// are set.
type Event struct {
	Kind   EventKind `json:"kind"`
	Device Device    `json:"device"`
}

// Subscribe sends events about the devices that the actor may see to a channel, in
// order, until cancel is called, which may be called more than once. Publishing never
// waits for a reader: if a reader lags far behind, its channel is closed, and it has to
// read the state anew.
func (s *Service) Subscribe(a Actor) (events <-chan Event, cancel func()) {
	in, end := s.events.subscribe(a)
	out, done := make(chan Event, 64), make(chan struct{})
	go func() { // ends with cancel, or when the hub drops the subscription
		defer close(out)
		for e := range in {
			ev := Event{Kind: e.kind, Device: Device{Node: e.node}}
			if e.kind != EventDeleted {
				ev.Device = s.View(e.node)
			}
			select {
			case out <- ev:
			case <-done:
				return
			}
		}
	}()
	return out, sync.OnceFunc(func() { close(done); end() })
}

type event struct {
	kind EventKind
	node store.Node
}

// hub hands events to subscribers and never waits for one.
type hub struct {
	mu   sync.Mutex // guards the following
	subs map[*subscription]struct{}
}

type subscription struct {
	actor Actor // who hears of the devices that it may see
	ch    chan event
}

func (sub *subscription) hears(t target) bool { return opDeviceRead.authorize(sub.actor, t) == nil }

// lag is how many events a subscriber may be behind.
const lag = 256

func newHub() *hub { return &hub{subs: map[*subscription]struct{}{}} }

func (h *hub) subscribe(a Actor) (<-chan event, func()) {
	sub := &subscription{actor: a, ch: make(chan event, lag)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[sub] = struct{}{}
	return sub.ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.dropLocked(sub)
	}
}

func (h *hub) dropLocked(sub *subscription) {
	if _, ok := h.subs[sub]; ok {
		delete(h.subs, sub)
		close(sub.ch)
	}
}

// become has what is published from now on go to who of a user's subscribers may see
// it now.
func (h *hub) become(a Actor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		if sub.actor.UserID == a.UserID {
			sub.actor.Role, sub.actor.Tags = a.Role, a.Tags
		}
	}
}

// listening reports whether anybody would hear of a device.
func (h *hub) listening(t target) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		if sub.hears(t) {
			return true
		}
	}
	return false
}

func (h *hub) publish(kind EventKind, node store.Node) {
	t := deviceTarget(node)
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		if sub.hears(t) {
			h.sendLocked(sub, event{kind, node})
		}
	}
}

// moved publishes that a device has other tags or another owner than before. For who no
// longer sees it, it is gone.
func (h *hub) moved(before target, node store.Node) {
	t := deviceTarget(node)
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		switch {
		case sub.hears(t):
			h.sendLocked(sub, event{EventRenamed, node})
		case sub.hears(before):
			h.sendLocked(sub, event{EventDeleted, store.Node{ID: node.ID, Name: node.Name}})
		}
	}
}

func (h *hub) sendLocked(sub *subscription, e event) {
	select {
	case sub.ch <- e:
	default:
		h.dropLocked(sub)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		h.dropLocked(sub)
	}
}
