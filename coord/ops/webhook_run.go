package ops

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"weft/coord/store"
	"weft/coord/webhook"
)

// Events are sent to webhooks from the database. Each webhook has two cursors, one in the audit
// and one in the presence events, which advance when the receiver has accepted an event. So
// there is no queue, and a receiver that is away for a day costs only its row. If the process
// is killed, the events after the cursors are sent again, with the same ids.
//
// One goroutine (runWebhooks) sleeps until a commit has added records that a webhook wants, or a
// retry is due. It starts a goroutine for each webhook that has events to send: at most one for a
// webhook, and at most maxSending in all.

const (
	maxSending  = 8
	hookPage    = 64                 // events of a webhook that are in memory at a time: at most two megabytes
	hookScan    = 2000               // records that are searched for them at a time
	hookSave    = time.Second        // how often the cursors are stored while events are being sent
	hookTurn    = 10 * time.Second   // after which a webhook stops sending if others wait
	minAttempts = 20                 // before a webhook is paused
	hookMaxAge  = 7 * 24 * time.Hour // of events that are sent
	hookRecent  = 20                 // attempts that are remembered
	hookUnread  = time.Minute        // until the next attempt after the database could not be read
	maxHookText = 300                // bytes of an error
)

// runWebhooks sends events to webhooks until ctx ends. It returns when no attempt is in progress
// any more.
func (s *Service) runWebhooks(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	var told presenceTold
	for {
		next := s.sendDue(ctx, &sending)
		if at := s.tellPresence(ctx, &told); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(max(next.Sub(s.now()), 10*time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.hooks.wake:
		case <-timer:
		}
	}
}

// sendDue starts goroutines for the webhooks that are due, first for those that have not sent for
// the longest time. It returns when the next webhook is due, the zero time if unknown.
func (s *Service) sendDue(ctx context.Context, sending *sync.WaitGroup) (next time.Time) {
	h, now := s.hooks, s.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	var due []*hook
	for _, k := range h.byID {
		at, ok := k.next()
		switch {
		case !ok || k.sending:
		// After the clock was set back, a webhook must not wait longer than MaxWait.
		case now.Before(at) && at.Sub(now) <= 2*webhook.MaxWait:
			if next.IsZero() || at.Before(next) {
				next = at
			}
		default:
			due = append(due, k)
		}
	}
	slices.SortFunc(due, func(a, b *hook) int { return a.turn.Compare(b.turn) })
	for _, k := range due[:min(len(due), maxSending-h.sending)] {
		hctx, stop := context.WithCancel(ctx)
		k.due, k.sending, k.turn, k.stop = false, true, now, stop
		h.sending++
		w := k.w
		sending.Go(func() {
			defer stop()
			sent, more := s.send(hctx, w)
			h.mu.Lock()
			defer h.mu.Unlock()
			h.sending--
			k.sending, k.due = false, k.due || more
			if k.w.Revision == sent.Revision {
				k.w.WebhookState = sent.WebhookState
			}
			h.rouse()
		})
	}
	return next
}

// send sends the events of a webhook, in order, until there are no more, an event fails, other
// webhooks have waited for hookTurn, or ctx ends. It returns the webhook with its new state,
// which has been stored, and whether there may be more to send.
func (s *Service) send(ctx context.Context, w store.Webhook) (_ store.Webhook, more bool) {
	to, broken := s.hooks.sender.Receiver(w.URL, w.Allow)
	if broken == nil {
		defer to.Close()
	}
	if w.Attempts == 0 {
		w.Next = nil // it was set because the database could not be read
	}
	began, stored := s.now(), s.now()
	save := func() {
		if err := s.saveHook(w); err != nil {
			s.log.Error("store the state of a webhook", "id", w.ID, "err", err)
		}
		stored = s.now()
	}
	for {
		page, err := s.hookEvents(w)
		if err != nil {
			if !errors.Is(err, store.ErrClosed) {
				s.log.Error("read the events for a webhook", "id", w.ID, "err", err)
			}
			again := s.now().Add(hookUnread)
			w.Next = &again
			return w, true
		}
		if page.missed > 0 {
			s.log.Warn("events for a webhook were never sent, because their records were removed or they became too old", "id", w.ID, "to", webhook.Origin(w.URL), "events", page.missed)
			w.Missed += page.missed
			w.MissedAt = orNil(s.now())
			// Lost events are counted once, even if nothing can be sent now.
			w.Audit, w.Presence = max(w.Audit, page.lostAudit), max(w.Presence, page.lostPresence)
			save()
		}
		for _, e := range page.events {
			var d store.Delivered
			var wait time.Duration
			if broken != nil {
				d = failedAttempt(s.now(), e.Op, broken)
				d.Event = e.ID
			} else if d, wait, err = s.post(ctx, to, w, e.Event); err != nil {
				d = failedAttempt(s.now(), e.Op, err)
			}
			if ctx.Err() != nil { // the event may not have been accepted: send it again later
				save()
				return w, true
			}
			w.Recent = append([]store.Delivered{d}, w.Recent[:min(len(w.Recent), hookRecent-1)]...)
			if d.Error != "" {
				s.hookFailed(&w, d, wait)
				return w, true
			}
			w.Audit, w.Presence = e.audit, e.presence
			w.Delivered++
			w.Last, w.Attempts, w.Failing, w.Next = orNil(d.At), 0, nil, nil
			if s.now().Sub(stored).Abs() >= hookSave {
				save()
			}
			if s.now().Sub(began) >= hookTurn && s.hooks.crowded(s.now()) {
				save()
				return w, true
			}
		}
		moved := len(page.events) > 0 || w.Audit != page.audit || w.Presence != page.presence
		w.Audit, w.Presence = page.audit, page.presence
		if moved && (!page.more || s.now().Sub(stored).Abs() >= hookSave) {
			save()
		}
		if !page.more {
			return w, false
		}
		if ctx.Err() != nil {
			save()
			return w, true
		}
	}
}

// post makes one attempt, and returns how long the receiver asks to wait before the
// next one.
func (s *Service) post(ctx context.Context, to *webhook.Receiver, w store.Webhook, e webhook.Event) (store.Delivered, time.Duration, error) {
	secret, err := s.hookSecret(w.Salt)
	if err != nil {
		return store.Delivered{}, 0, err
	}
	secrets := []string{secret}
	began := s.now()
	if w.OldUntil != nil && began.Before(*w.OldUntil) {
		if secret, err = s.hookSecret(w.OldSalt); err != nil {
			return store.Delivered{}, 0, err
		}
		secrets = append(secrets, secret)
	}
	res := to.Post(ctx, e, secrets, began)
	d := store.Delivered{Event: e.ID, Op: e.Op, At: began.UTC().Truncate(time.Millisecond), TookMS: s.now().Sub(began).Milliseconds(), Status: res.Status}
	if res.Err != nil {
		d.Error = cmp.Or(printable(res.Err.Error(), maxHookText), "it failed")
	}
	return d, res.RetryAfter, nil
}

// failedAttempt is an attempt that failed before anything was sent.
func failedAttempt(at time.Time, op string, err error) store.Delivered {
	return store.Delivered{Op: op, At: at.UTC().Truncate(time.Millisecond), Error: cmp.Or(printable(err.Error(), maxHookText), "it failed")}
}

// hookFailed records that an event was not accepted, and when the next attempt is. After GiveUp
// and minAttempts it pauses the webhook.
func (s *Service) hookFailed(w *store.Webhook, d store.Delivered, asked time.Duration) {
	now := s.now()
	w.Attempts++
	w.LastError = d.Error
	if w.Failing == nil {
		w.Failing = orNil(now)
		s.log.Warn("an event was not accepted by a webhook; it will be sent again", "id", w.ID, "to", webhook.Origin(w.URL), "why", d.Error)
	}
	var err error
	if now.Sub(*w.Failing) >= webhook.GiveUp && w.Attempts >= minAttempts { // minAttempts in case the clock was set forward
		w.Next, w.Paused = nil, orNil(now)
		_, err = Do(context.Background(), s, System(), pauseWebhook{*w})
	} else {
		next := now.Add(webhook.Wait(w.Attempts, rand.Float64(), asked)).UTC()
		w.Next = &next
		err = s.saveHook(*w)
	}
	if err != nil {
		s.log.Error("store the state of a webhook", "id", w.ID, "err", err)
	}
}

// pauseWebhook stores that a webhook is paused.
type pauseWebhook struct{ w store.Webhook }

func (pauseWebhook) operation() *Operation { return opHookPause }

func (c pauseWebhook) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	err = tx.SetWebhookState(tx.s.network, c.w)
	if isNotFound(err) { // the webhook was changed or deleted meanwhile
		return none, nil
	}
	if err == nil {
		tx.did(hookTarget(c.w), nil, struct {
			Error    string     `json:"error"`
			Attempts int        `json:"attempts"`
			Failing  *time.Time `json:"failing_since"`
		}{c.w.LastError, c.w.Attempts, c.w.Failing})
	}
	return none, err
}

// saveHook stores the state of a webhook, unless the webhook was changed or deleted meanwhile.
func (s *Service) saveHook(w store.Webhook) error {
	err := s.store.Write(context.Background(), func(tx *store.Tx) error { return tx.SetWebhookState(s.network, w) })
	if isNotFound(err) {
		return nil
	}
	return err
}
