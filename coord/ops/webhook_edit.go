package ops

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"weft/coord/store"
	"weft/coord/webhook"
)

// CreateWebhook makes a webhook, which sends events from now on.
type CreateWebhook struct {
	URL    string   `json:"url" required:"true" doc:"https://HOST/PATH"`
	Events []string `json:"events,omitempty" doc:"events to send: *, device.*, device.rename, presence.offline, refused.*; all if not given"`
	Tags   []string `json:"tags,omitempty" doc:"send only events about devices and keys with one of these tags"`
	Allow  []string `json:"allow_targets,omitempty" doc:"addresses to which events may be sent although they are loopback, link-local or overlay addresses; also without TLS"`
	Note   string   `json:"note,omitempty" doc:"a note for people, at most 100 bytes"`
}

func (CreateWebhook) operation() *Operation { return opHookCreate }

func (c CreateWebhook) run(tx *Tx) (none WebhookCreated, err error) {
	s := tx.s
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	list, err := tx.Webhooks(s.network)
	if err != nil {
		return none, err
	}
	if len(list) >= maxWebhooks {
		return none, Invalid("there are %d webhooks, which is the maximum; delete one first (weft-server webhooks delete ID)", maxWebhooks)
	}
	if len(c.Events) == 0 {
		c.Events = []string{"*"}
	}
	w := store.Webhook{ID: newID(), Created: tx.now.UTC().Truncate(time.Second), Enabled: true, Salt: newSalt()}
	if err := (EditWebhook{URL: &c.URL, Events: &c.Events, Tags: &c.Tags, Allow: &c.Allow, Note: &c.Note}).apply(tx, &w); err != nil {
		return none, err
	}
	if w.Revision, err = tx.Bump(s.network); err != nil {
		return none, err
	}
	if err := tx.toEnd(&w); err != nil {
		return none, err
	}
	if err := tx.CreateWebhook(s.network, w); err != nil {
		return none, err
	}
	tx.changed(w.Revision, store.HookChanged, w.ID)
	tx.did(hookTarget(w), nil, recordOf(w))
	secret, err := s.hookSecret(w.Salt)
	return WebhookCreated{viewWebhook(tx.actor, w, tx.now), secret}, err
}

// EditWebhook changes the given fields of a webhook. New Events and Tags also apply to events
// that have happened but were not sent yet. A webhook that was paused, or that waits for its
// next attempt, is tried at once. A webhook that was disabled does not send the events of the
// time in which it was.
type EditWebhook struct {
	ID    string   `json:"-"`
	Match []string `json:"-"` // Webhook.Revision must be one of these; nil for any

	URL     *string   `json:"url,omitempty"`
	Events  *[]string `json:"events,omitempty"`
	Tags    *[]string `json:"tags,omitempty"`
	Allow   *[]string `json:"allow_targets,omitempty"`
	Note    *string   `json:"note,omitempty"`
	Enabled *bool     `json:"enabled,omitempty"`
}

func (EditWebhook) operation() *Operation { return opHookEdit }

func (c EditWebhook) run(tx *Tx) (none Webhook, err error) {
	s := tx.s
	w, err := tx.webhook(c.ID)
	if err != nil {
		return none, err
	}
	if err := matches(c.Match, strconv.FormatUint(w.Revision, 10)); err != nil {
		return none, About(KindWebhook, w.ID, err)
	}
	before := w
	if err := c.apply(tx, &w); err != nil {
		return none, err
	}
	if w.Enabled && !before.Enabled {
		if err := tx.toEnd(&w); err != nil {
			return none, err
		}
	}
	if wantsPresence(w) && !wantsPresence(before) {
		if w.Presence, err = tx.LastPresence(s.network); err != nil {
			return none, err
		}
	}
	w.Attempts, w.Failing, w.Next, w.Paused = 0, nil, nil, nil
	if err := tx.saveWebhook(&w); err != nil {
		return none, err
	}
	tx.did(hookTarget(w), recordOf(before), recordOf(w))
	return viewWebhook(tx.actor, w, tx.now), nil
}

// apply checks the given fields and sets them in w.
func (c EditWebhook) apply(tx *Tx, w *store.Webhook) error {
	old := *w
	if c.Allow != nil {
		w.Allow = []netip.Prefix{}
		for _, t := range *c.Allow {
			p, err := webhook.ParseTarget(t)
			if err != nil {
				return Invalid("target %q: %v", printable(t, 64), err)
			}
			w.Allow = append(w.Allow, p)
		}
		slices.SortFunc(w.Allow, netip.Prefix.Compare)
		w.Allow = slices.Compact(w.Allow)
		if len(w.Allow) > maxHookTargets {
			return Invalid("%d allowed targets are given, and at most %d are possible", len(w.Allow), maxHookTargets)
		}
	}
	if c.URL != nil {
		w.URL = *c.URL
	}
	if c.URL != nil || c.Allow != nil {
		if len(w.Allow) > 0 && (w.URL != old.URL || !slices.Equal(w.Allow, old.Allow)) {
			// Only owners may allow addresses of this machine and its neighbours.
			if err := opHookAllow.authorize(tx.actor, target{}); err != nil {
				return err
			}
		}
		if err := webhook.CheckURL(w.URL, webhook.Targets{Network: tx.s.prefixes(), Allow: w.Allow}); err != nil {
			return Invalid("URL of the webhook: %s", printable(err.Error(), 300))
		}
	}
	if c.Events != nil {
		w.Events = slices.Compact(slices.Sorted(slices.Values(*c.Events)))
		for _, p := range w.Events {
			if err := webhook.CheckPattern(p, eventOps()); err != nil {
				return Invalid("event %q: %v", printable(p, 64), err)
			}
		}
		if len(w.Events) == 0 || len(w.Events) > maxHookEvents {
			return Invalid("%d events are given: want 1 to %d", len(w.Events), maxHookEvents)
		}
	}
	if c.Tags != nil {
		tags, err := checkTags(*c.Tags)
		if err != nil {
			return err
		}
		w.Tags = append([]string{}, tags...)
	}
	if c.Note != nil {
		w.Note = printable(*c.Note, 100)
	}
	if c.Enabled != nil {
		w.Enabled = *c.Enabled
	}
	return nil
}

// eventOps returns the names of the operations that leave audit records.
func eventOps() (names []string) {
	for _, o := range Operations {
		if o.Writes {
			names = append(names, o.Name)
		}
	}
	return names
}

// prefixes returns the overlay's own prefixes.
func (s *Service) prefixes() []netip.Prefix { return []netip.Prefix{s.ipv4, s.ipv6} }

// DeleteWebhook deletes a webhook. An attempt in progress is cancelled.
type DeleteWebhook struct{ ID string }

func (DeleteWebhook) operation() *Operation { return opHookDelete }

func (c DeleteWebhook) run(tx *Tx) (none Webhook, err error) {
	w, err := tx.webhook(c.ID)
	if err != nil {
		return none, err
	}
	if err := tx.DeleteWebhook(tx.s.network, w.ID); err != nil {
		return none, err
	}
	n, err := tx.Bump(tx.s.network)
	if err != nil {
		return none, err
	}
	tx.changed(n, store.HookChanged, w.ID)
	tx.did(hookTarget(w), recordOf(w), nil)
	return viewWebhook(tx.actor, w, tx.now), nil
}

// webhook reads a webhook, and returns an error if the actor may not do the operation.
func (tx *Tx) webhook(id string) (w store.Webhook, err error) {
	if err := tx.may(target{}); err != nil {
		return w, err
	}
	if w, err = tx.Webhook(tx.s.network, id); err != nil {
		err = About(KindWebhook, id, err)
	}
	return w, err
}

// toEnd moves the cursors of a webhook past all events so far.
func (tx *Tx) toEnd(w *store.Webhook) error {
	end, err := tx.AuditEnd(tx.s.network)
	if err != nil {
		return err
	}
	w.Audit = end.Seq
	w.Presence, err = tx.LastPresence(tx.s.network)
	return err
}

// saveWebhook stores a changed webhook.
func (tx *Tx) saveWebhook(w *store.Webhook) (err error) {
	if w.Revision, err = tx.Bump(tx.s.network); err != nil {
		return err
	}
	tx.changed(w.Revision, store.HookChanged, w.ID)
	return tx.EditWebhook(tx.s.network, *w)
}
