package ops

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/coord/store"
	"weft/coord/webhook"
	"weft/overlay/cert"
)

// hooks holds the webhooks in memory.
type hooks struct {
	sender webhook.Sender // constant once anything is sent
	wake   chan struct{}  // capacity 1: there is something to do
	some   atomic.Bool    // there are webhooks
	coming atomic.Bool    // some of them are for presence

	mu sync.Mutex // guards the following
	// byID are the webhooks as of their last change. Their state (cursors, attempts) belongs
	// to the goroutine that sends.
	byID     map[string]*hook
	sending  int  // goroutines
	appended bool // there were records since catchUp
	// shifted are devices whose state may differ from their last presence event, with the
	// time at which to check.
	shifted map[cert.NodeID]time.Time
}

type hook struct {
	w       store.Webhook
	due     bool // there may be something to send
	sending bool
	turn    time.Time          // when it last began to send
	stop    context.CancelFunc // of what is being sent
}

func newHooks(sender webhook.Sender) *hooks {
	return &hooks{sender: sender, wake: make(chan struct{}, 1), byID: map[string]*hook{}, shifted: map[cert.NodeID]time.Time{}}
}

// load adds the webhooks of the database at the start.
func (h *hooks) load(list []store.Webhook) {
	for _, w := range list {
		h.put(w)
	}
}

// put adds or replaces a webhook. An attempt with its former settings is cancelled.
func (h *hooks) put(w store.Webhook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.byID[w.ID]
	if k == nil {
		k = &hook{stop: func() {}}
		h.byID[w.ID] = k
	}
	k.stop()
	k.w, k.due = w, true
	h.countLocked()
}

// remove removes a webhook that was deleted.
func (h *hooks) remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.byID[id]; k != nil {
		k.stop()
		delete(h.byID, id)
	}
	h.countLocked()
}

func (h *hooks) countLocked() {
	coming := false
	for _, k := range h.byID {
		coming = coming || wantsPresence(k.w)
	}
	h.some.Store(len(h.byID) > 0)
	h.coming.Store(coming)
	h.rouse()
}

// wantsPresence reports whether a webhook wants to know which devices go online and offline.
func wantsPresence(w store.Webhook) bool {
	return w.Enabled && (webhook.Matches(w.Events, webhook.PresenceOnline) || webhook.Matches(w.Events, webhook.PresenceOffline))
}

// recorded is called with the records of each commit. It runs on the store's writer goroutine.
func (h *hooks) recorded(records []record) {
	names := make([]string, 0, 4) // most batches are of few operations
	for _, r := range records {
		if name := webhook.NameOf(r.op, r.refused != ""); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	h.rouseFor(names)
}

// rouseFor marks the webhooks as due that want one of the events.
func (h *hooks) rouseFor(names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.appended = true
	for _, k := range h.byID {
		if !k.due && slices.ContainsFunc(names, func(n string) bool { return webhook.Matches(k.w.Events, n) }) {
			k.due = true
			h.rouse()
		}
	}
}

func (h *hooks) rouse() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// catchUp lets, from time to time, the cursors of all webhooks pass over records that
// they do not want, so that none is far behind at the next start.
func (h *hooks) catchUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.appended {
		return
	}
	h.appended = false
	for _, k := range h.byID {
		k.due = true
	}
	h.rouse()
}

// next returns when a webhook may send; ok is false if it has nothing to send.
func (k *hook) next() (at time.Time, ok bool) {
	if !k.due || !k.w.Enabled || k.w.Paused != nil {
		return at, false
	}
	if k.w.Next != nil {
		at = *k.w.Next
	}
	return at, true
}

// crowded reports whether webhooks wait because maxSending others are sending.
func (h *hooks) crowded(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sending < maxSending {
		return false
	}
	for _, k := range h.byID {
		if at, ok := k.next(); ok && !k.sending && !now.Before(at) {
			return true
		}
	}
	return false
}
