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

// hooks are the webhooks in memory.
type hooks struct {
	sender webhook.Sender // constant once anything is sent
	wake   chan struct{}  // capacity 1: wakes runWebhooks
	some   atomic.Bool    // there are webhooks
	coming atomic.Bool    // at least one webhook wants presence events

	mu sync.Mutex // guards the following
	// byID are the webhooks as of their last change. While a webhook is being sent, its state
	// (cursors, attempts) is in the goroutine that sends it.
	byID     map[string]*hook
	sending  int  // number of webhooks that are being sent
	appended bool // there were records since the last call of catchUp
	// shifted are the devices whose state may differ from their last presence event, with the
	// times at which to check them.
	shifted map[cert.NodeID]time.Time
}

// hook is a webhook in memory.
type hook struct {
	w       store.Webhook
	due     bool               // there may be events to send
	sending bool               // a goroutine sends it
	turn    time.Time          // when it last began to send
	stop    context.CancelFunc // cancels the attempt in progress
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

// wantsPresence reports whether a webhook is enabled and wants presence events.
func wantsPresence(w store.Webhook) bool {
	return w.Enabled && (webhook.Matches(w.Events, webhook.PresenceOnline) || webhook.Matches(w.Events, webhook.PresenceOffline))
}

// recorded is called with the records of each commit, on the store's writer goroutine.
func (h *hooks) recorded(records []record) {
	names := make([]string, 0, 4) // most batches have few different operations
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

// catchUp marks all webhooks as due if there were records, so that their cursors advance past
// records that they do not want, and are not far behind at the next start. It is called from time
// to time.
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
