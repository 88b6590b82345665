package coord

import (
	"sync"

	"weft/coord/store"
)

// What happened to a device, for open consoles.
type eventKind string

const (
	eventJoined  eventKind = "joined"
	eventOnline  eventKind = "online"
	eventOffline eventKind = "offline"
	eventRenamed eventKind = "renamed"
	eventDeleted eventKind = "deleted"
)

type event struct {
	kind eventKind
	node store.Node
}

// hub hands events to subscribers and never waits for one: a reader that lags
// has its channel closed and reads the state anew.
type hub struct {
	mu   sync.Mutex // guards the following
	subs map[*subscription]struct{}
}

type subscription struct {
	userID string // owner of the devices it hears of
	ch     chan event
}

// lag is how many events a subscriber may be behind.
const lag = 256

func newHub() *hub { return &hub{subs: map[*subscription]struct{}{}} }

func (h *hub) subscribe(userID string) (<-chan event, func()) {
	sub := &subscription{userID: userID, ch: make(chan event, lag)}
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

// listening reports whether anybody would hear of a device of this owner.
func (h *hub) listening(userID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		if sub.userID == userID {
			return true
		}
	}
	return false
}

func (h *hub) publish(kind eventKind, node store.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		if sub.userID != node.UserID {
			continue
		}
		select {
		case sub.ch <- event{kind, node}:
		default:
			h.dropLocked(sub)
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		h.dropLocked(sub)
	}
}
