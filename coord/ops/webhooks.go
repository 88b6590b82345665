package ops

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"weft/coord/store"
	"weft/coord/webhook"
)

// Bounds of webhooks.
const (
	maxWebhooks    = 32
	maxHookEvents  = 32
	maxHookTargets = 16
	// DefaultKeepSecret is how long requests are signed with the old secret too.
	DefaultKeepSecret = 24 * time.Hour
	maxKeepSecret     = 7 * 24 * time.Hour
)

// Webhook is a webhook as the console and the API show it.
type Webhook struct {
	store.Webhook
	State    string `json:"state"`    // WebhookGood and so on
	Revision string `json:"revision"` // changes with every change by a user: see EditWebhook.Match
}

// The states of a webhook.
const (
	WebhookGood     = "good"
	WebhookFailing  = "failing"  // the last attempt failed, and the event is sent again
	WebhookPaused   = "paused"   // it failed for a day, and sends nothing until somebody enables it
	WebhookDisabled = "disabled" // somebody disabled it
)

// viewWebhook returns a webhook as an actor may see it. An actor who may not change it sees only
// the origin of the URL, because the rest may be a secret of the receiver.
func viewWebhook(a Actor, w store.Webhook, now time.Time) Webhook {
	v := Webhook{Webhook: w, State: WebhookGood, Revision: strconv.FormatUint(w.Revision, 10)}
	switch {
	case !w.Enabled:
		v.State = WebhookDisabled
	case w.Paused != nil:
		v.State = WebhookPaused
	case w.Failing != nil:
		v.State = WebhookFailing
	}
	if w.OldUntil != nil && !now.Before(*w.OldUntil) {
		v.OldUntil = nil
	}
	if opHookEdit.authorize(a, target{}) != nil {
		v.URL = webhook.Origin(w.URL) + "/…"
	}
	return v
}

func hookTarget(w store.Webhook) target {
	return target{kind: "webhook", id: w.ID, name: printable(webhook.Origin(w.URL), 200)}
}

// hookRecord is the value of audit records about a webhook. It contains neither the secret nor
// the path of the URL, which may be secret too.
type hookRecord struct {
	Origin  string         `json:"origin"`
	Note    string         `json:"note"`
	Events  []string       `json:"events"`
	Tags    []string       `json:"tags"`
	Allow   []netip.Prefix `json:"allow_targets"`
	Enabled bool           `json:"enabled"`
}

func recordOf(w store.Webhook) hookRecord {
	return hookRecord{printable(webhook.Origin(w.URL), 200), w.Note, w.Events, w.Tags, w.Allow, w.Enabled}
}

// Webhooks lists the webhooks, the oldest first.
func (s *Service) Webhooks(ctx context.Context, a Actor) ([]Webhook, error) {
	if err := opHookRead.readsAll(a); err != nil {
		return nil, err
	}
	list := []Webhook{}
	err := s.store.Read(ctx, func(r *store.Reader) error {
		hooks, err := r.Webhooks(s.network)
		for _, w := range hooks {
			w.Recent = []store.Delivered{}
			list = append(list, viewWebhook(a, w, s.now()))
		}
		return err
	})
	return list, err
}

// Webhook returns one webhook with its last attempts.
func (s *Service) Webhook(ctx context.Context, a Actor, id string) (Webhook, error) {
	if err := opHookRead.readsAll(a); err != nil {
		return Webhook{}, err
	}
	var w store.Webhook
	err := s.store.Read(ctx, func(r *store.Reader) (err error) { w, err = r.Webhook(s.network, id); return err })
	if err != nil {
		return Webhook{}, About(KindWebhook, id, err)
	}
	return viewWebhook(a, w, s.now()), nil
}
