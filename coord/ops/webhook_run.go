package ops

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
	"weft/coord/webhook"
	"weft/overlay/cert"
)

// Webhooks are sent from the database: each has a cursor in the audit, and one among the
// presence events, that moves on once the receiver has taken an event. So nothing is
// queued, a receiver that is away for a day costs a row, and whenever the process is
// killed the events after the cursor are sent again, with the same ids.
//
// One goroutine (runWebhooks) sleeps until a commit has added records that some webhook
// is for, or a retry is due, and starts a goroutine for each webhook that has something
// to do: one at a time for a webhook, maxSending at a time in all.

const (
	maxSending  = 8
	hookPage    = 64               // events that a webhook holds in memory at a time: two megabytes at most
	hookScan    = 2000             // records that are looked through at once for them
	hookSave    = time.Second      // how often the cursor is stored while events are being sent
	hookTurn    = 10 * time.Second // after which a webhook lets others send
	minAttempts = 20               // before a webhook is paused
	hookMaxAge  = 7 * 24 * time.Hour
	hookRecent  = 20
	hookUnread  = time.Minute // until the database is asked again after it could not be read
	maxHookText = 300         // of an error
)

// hooks is what memory has of webhooks.
type hooks struct {
	sender webhook.Sender // constant once anything is sent
	wake   chan struct{}  // capacity 1: there is something to do
	some   atomic.Bool    // there are webhooks
	coming atomic.Bool    // some of them are for presence

	mu sync.Mutex // guards the following
	// byID are the webhooks as of their last change, and how far they are, which belongs
	// to the goroutine that sends.
	byID     map[string]*hook
	sending  int  // goroutines
	appended bool // there were records since catchUp
	// shifted are devices whose state may be another one than webhooks were told, with
	// the time at which to look.
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

func (h *hooks) rouse() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// load takes what is in the database at the start.
func (h *hooks) load(list []store.Webhook) {
	for _, w := range list {
		h.put(w)
	}
}

// put takes a webhook that was made or changed. What is being sent as it was before is
// broken off.
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

// remove takes it that there is no such webhook any more.
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

// wantsPresence reports whether a webhook is for devices that come or go.
func wantsPresence(w store.Webhook) bool {
	return w.Enabled && (webhook.Matches(w.Events, webhook.PresenceOnline) || webhook.Matches(w.Events, webhook.PresenceOffline))
}

// recorded hears of records that were committed. It runs on the store's writer goroutine.
func (h *hooks) recorded(records []record) {
	names := make([]string, 0, 4) // most batches are of few operations
	for _, r := range records {
		if name := webhook.NameOf(r.op, r.refused != ""); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	h.rouseFor(names)
}

// rouseFor has those webhooks send that are for one of the events.
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

// catchUp has the cursors of all pass over what they are not for, from time to time, so
// that none is far behind at the next start.
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

// crowded reports whether webhooks wait because as many as may are sending.
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

// next is when a webhook wants to send; not ok when it does not.
func (k *hook) next() (at time.Time, ok bool) {
	if !k.due || !k.w.Enabled || k.w.Paused != nil {
		return at, false
	}
	if k.w.Next != nil {
		at = *k.w.Next
	}
	return at, true
}

// runWebhooks sends webhooks until ctx ends. It returns when nothing is being sent any
// more.
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

// sendDue starts sending the webhooks that are due, those first that sent the longest ago,
// and returns when the next one is; the zero time if that is not known.
func (s *Service) sendDue(ctx context.Context, sending *sync.WaitGroup) (next time.Time) {
	h, now := s.hooks, s.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	var due []*hook
	for _, k := range h.byID {
		at, ok := k.next()
		switch {
		case !ok || k.sending:
		// A clock that was set back makes nobody wait for longer than ever.
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

// send sends what there is for a webhook, in order, until there is nothing more, an event
// is not taken, others have to have their turn, or ctx ends. It returns how far that came,
// which is stored by then, and whether there may be more to send.
func (s *Service) send(ctx context.Context, w store.Webhook) (_ store.Webhook, more bool) {
	to, broken := s.hooks.sender.Receiver(w.URL, w.Allow)
	if broken == nil {
		defer to.Close()
	}
	if w.Attempts == 0 {
		w.Next = nil // it was the database that failed
	}
	began, stored := s.now(), s.now()
	save := func() {
		if err := s.saveHook(w); err != nil {
			s.log.Error("store how far a webhook is", "id", w.ID, "err", err)
		}
		stored = s.now()
	}
	for {
		page, err := s.hookEvents(w)
		if err != nil {
			if !errors.Is(err, store.ErrClosed) {
				s.log.Error("read what a webhook sends", "id", w.ID, "err", err)
			}
			again := s.now().Add(hookUnread)
			w.Next = &again
			return w, true
		}
		if page.missed > 0 {
			s.log.Warn("events were removed or too old before a webhook could be sent", "id", w.ID, "to", webhook.Origin(w.URL), "events", page.missed)
			w.Missed += page.missed
			w.MissedAt = orNil(s.now())
			// What is lost is counted once, also if nothing can be sent now.
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
			if ctx.Err() != nil { // whether it was taken is not known: it is sent again
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

// hookFailed notes that an event was not taken, and when it is sent again, or that this
// was tried for long enough. It stores that.
func (s *Service) hookFailed(w *store.Webhook, d store.Delivered, asked time.Duration) {
	now := s.now()
	w.Attempts++
	w.LastError = d.Error
	if w.Failing == nil {
		w.Failing = orNil(now)
		s.log.Warn("a webhook was not taken; it is sent again", "id", w.ID, "to", webhook.Origin(w.URL), "why", d.Error)
	}
	var err error
	if now.Sub(*w.Failing) >= webhook.GiveUp && w.Attempts >= minAttempts { // the clock may have been set
		w.Next, w.Paused = nil, orNil(now)
		_, err = Do(context.Background(), s, System(), pauseWebhook{*w})
	} else {
		next := now.Add(webhook.Wait(w.Attempts, rand.Float64(), asked)).UTC()
		w.Next = &next
		err = s.saveHook(*w)
	}
	if err != nil {
		s.log.Error("store how far a webhook is", "id", w.ID, "err", err)
	}
}

// pauseWebhook stores that a webhook is tried no more.
type pauseWebhook struct{ w store.Webhook }

func (pauseWebhook) operation() *Operation { return opHookPause }

func (c pauseWebhook) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	err = tx.SetWebhookState(tx.s.network, c.w)
	if isNotFound(err) { // somebody changed it meanwhile
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

// saveHook stores how far a webhook is, unless somebody has changed it meanwhile.
func (s *Service) saveHook(w store.Webhook) error {
	err := s.store.Write(context.Background(), func(tx *store.Tx) error { return tx.SetWebhookState(s.network, w) })
	if isNotFound(err) {
		return nil
	}
	return err
}

// post makes one attempt, and says how long the receiver asks to wait for the next.
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

// failedAttempt is one that could not even begin.
func failedAttempt(at time.Time, op string, err error) store.Delivered {
	return store.Delivered{Op: op, At: at.UTC().Truncate(time.Millisecond), Error: cmp.Or(printable(err.Error(), maxHookText), "it failed")}
}

// outgoing is an event, and where the cursors are once it is taken.
type outgoing struct {
	webhook.Event
	at              time.Time
	audit, presence uint64
}

// hookPart is what comes next for a webhook.
type hookPart struct {
	events          []outgoing // in their order
	audit, presence uint64     // the cursors once they are all taken
	more            bool       // there may be more behind that
	missed          uint64     // events before these that are lost, up to these cursors
	lostAudit       uint64
	lostPresence    uint64
}

// hookEvents reads what comes next for a webhook.
func (s *Service) hookEvents(w store.Webhook) (p hookPart, err error) {
	oldest := s.now().Add(-hookMaxAge)
	var records, moves []outgoing
	var recordsEnd, movesEnd uint64 // up to which all was looked at
	moreRecords, moreMoves := false, false
	err = s.store.Read(context.Background(), func(r *store.Reader) (err error) {
		if records, recordsEnd, moreRecords, err = s.hookRecords(r, w, oldest, &p); err != nil {
			return err
		}
		moves, movesEnd, moreMoves, err = s.hookMoves(r, w, oldest, &p)
		return err
	})
	if err != nil {
		return hookPart{}, err
	}
	// Both in the order of their times, as far as that can be known.
	p.audit, p.presence = w.Audit, w.Presence
	for len(p.events) < hookPage {
		var e outgoing
		switch {
		case len(records) == 0 && moreRecords, len(moves) == 0 && moreMoves, len(records) == 0 && len(moves) == 0:
		case len(moves) == 0 || len(records) > 0 && !moves[0].at.Before(records[0].at):
			e, records = records[0], records[1:]
			p.audit = e.audit
		default:
			e, moves = moves[0], moves[1:]
			p.presence = e.presence
		}
		if e.ID == "" {
			break
		}
		e.audit, e.presence = p.audit, p.presence
		p.events = append(p.events, e)
	}
	if len(records) == 0 {
		p.audit = recordsEnd
	}
	if len(moves) == 0 {
		p.presence = movesEnd
	}
	p.more = moreRecords || moreMoves || len(records) > 0 || len(moves) > 0
	return p, nil
}

// hookRecords reads the audit behind a webhook's cursor.
func (s *Service) hookRecords(r *store.Reader, w store.Webhook, oldest time.Time, p *hookPart) (events []outgoing, end uint64, more bool, err error) {
	end = w.Audit
	enough := errors.New("enough")
	seen, last := 0, w.Audit
	var found []audit.Record
	var hashes []audit.Hash
	err = r.EachAudit(s.network, store.AuditFilter{Oldest: true, Cursor: w.Audit, Limit: hookScan}, func(rec audit.Record, h audit.Hash) error {
		if gone := rec.Seq - last - 1; gone > 0 && seen == 0 { // retention was faster
			p.missed, p.lostAudit = p.missed+gone, rec.Seq-1
		}
		seen, last = seen+1, rec.Seq
		switch {
		case !webhook.Matches(w.Events, webhook.NameOf(rec.Op, rec.Refused != "")), rec.Op == opHookTest.Name && rec.ID == w.ID: // a test is sent by itself
		default:
			found, hashes = append(found, rec), append(hashes, h)
		}
		if len(found) == hookPage {
			return enough
		}
		return nil
	})
	if more = errors.Is(err, enough) || seen == hookScan; err != nil && !errors.Is(err, enough) {
		return nil, 0, false, err
	}
	if end = last; seen == 0 {
		// All that there was may be removed.
		if c, err := r.AuditCheckpoint(s.network); err == nil && c.Seq > w.Audit {
			p.missed += c.Seq - w.Audit
			p.lostAudit, end = c.Seq, c.Seq
		} else if err != nil && !isNotFound(err) {
			return nil, 0, false, err
		}
	}
	for i, rec := range found {
		if len(w.Tags) > 0 && !carries(w.Tags, s.recordTags(r, rec)) {
			continue
		}
		if rec.At.Before(oldest) && len(events) == 0 {
			p.missed, p.lostAudit = p.missed+1, rec.Seq
			continue
		}
		events = append(events, outgoing{Event: webhook.OfRecord(s.network.String(), rec, hashes[i]), at: rec.At, audit: rec.Seq})
	}
	return events, end, more, nil
}

// hookMoves reads the presence events behind a webhook's cursor.
func (s *Service) hookMoves(r *store.Reader, w store.Webhook, oldest time.Time, p *hookPart) (events []outgoing, end uint64, more bool, err error) {
	if end = w.Presence; !wantsPresence(w) {
		return nil, end, false, nil
	}
	list, gone, err := r.PresenceEvents(s.network, w.Presence, hookPage)
	if err != nil {
		return nil, 0, false, err
	}
	if gone > 0 {
		p.missed, p.lostPresence = p.missed+gone, list[0].N-1
	}
	for _, m := range list {
		end = m.N
		e := webhook.OfPresence(s.network.String(), m.ID, m.At, webhook.Target{Kind: "device", ID: m.Node.String(), Name: m.Name}, m.Online)
		if !webhook.Matches(w.Events, e.Op) || len(w.Tags) > 0 && !carries(w.Tags, m.Tags) {
			continue
		}
		if m.At.Before(oldest) && len(events) == 0 {
			p.missed, p.lostPresence = p.missed+1, m.N
			continue
		}
		events = append(events, outgoing{Event: e, at: m.At, presence: m.N})
	}
	return events, end, len(list) == hookPage, nil
}

func carries(wanted, tags []string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(wanted, t) })
}

// recordTags are the tags of what a record is about: as it is now, or as the record has
// them when it is gone.
func (s *Service) recordTags(r *store.Reader, rec audit.Record) []string {
	switch rec.Kind {
	case "device":
		if id, err := cert.ParseNodeID(rec.ID); err == nil {
			if _, ok := s.index.has(id); ok {
				return s.index.targetOf(id).tags
			}
		}
	case "key":
		if k, err := r.Key(s.network, rec.ID); err == nil {
			return k.Tags
		}
	}
	for _, b := range []json.RawMessage{rec.After, rec.Before} {
		var v struct {
			Tags []string `json:"tags"`
		}
		if json.Unmarshal(b, &v) == nil && len(v.Tags) > 0 {
			return v.Tags
		}
	}
	return nil
}
