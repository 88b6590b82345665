package webapi

import (
	"context"
	"net/http"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

// WebhookList is all webhooks, the oldest first, without their last attempts.
type WebhookList struct {
	Webhooks []ops.Webhook `json:"webhooks"`
}

// Rotation says how a webhook gets a new secret.
type Rotation struct {
	KeepSeconds *int64 `json:"keep_seconds,omitempty" doc:"for how long requests are signed with the old secret too, 0 to 604800; a day if not given"`
}

func (a *api) webhooks() {
	s := a.ops
	add(a, operation{"GET", "/webhooks", "listWebhooks", "List webhooks, the oldest first", "webhook.read", 0},
		func(ctx context.Context, who ops.Actor, _ *struct{}) (WebhookList, error) {
			list, err := s.Webhooks(ctx, who)
			return WebhookList{list}, err
		})
	add(a, operation{"GET", "/webhooks/{id}", "getWebhook", "Show a webhook and the last attempts to send it", "webhook.read", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Webhook, error) {
			return s.Webhook(ctx, who, in.ID)
		})
	addSent(a, operation{"POST", "/webhooks", "createWebhook", "Create a webhook, which sends events to a URL; only this answer contains the secret that signs them", "webhook.create", http.StatusCreated},
		func(ctx context.Context, who ops.Actor, _ *Sent, body ops.CreateWebhook) (ops.WebhookCreated, error) {
			return do(ctx, a, who, body, same)
		})
	addSent(a, operation{"PATCH", "/webhooks/{id}", "editWebhook", "Change, enable or disable a webhook, or resume one that was paused", "webhook.edit", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, c ops.EditWebhook) (ops.Webhook, error) {
			match, err := in.revisions()
			if err != nil {
				return ops.Webhook{}, err
			}
			c.ID, c.Match = in.ID, match
			return ops.Do(ctx, s, who, c)
		})
	add(a, operation{"DELETE", "/webhooks/{id}", "deleteWebhook", "Delete a webhook", "webhook.delete", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (ops.Webhook, error) {
			return ops.Do(ctx, s, who, ops.DeleteWebhook{ID: in.ID})
		})
	add(a, operation{"POST", "/webhooks/{id}/test", "testWebhook", "Send an event webhook.test to a webhook, and report the result", "webhook.test", 0},
		func(ctx context.Context, who ops.Actor, in *Word) (store.Delivered, error) {
			return s.TestWebhook(ctx, who, in.ID)
		})
	addSent(a, operation{"POST", "/webhooks/{id}/rotate", "rotateWebhook", "Give a webhook a new secret; only this answer contains it", "webhook.rotate", 0},
		func(ctx context.Context, who ops.Actor, in *SentTo, body Rotation) (ops.WebhookCreated, error) {
			keep := ops.DefaultKeepSecret
			if body.KeepSeconds != nil {
				// What is far out of range stays so, and does not wrap around.
				keep = time.Duration(min(max(*body.KeepSeconds, -1), 1e9)) * time.Second
			}
			return do(ctx, a, who, ops.RotateWebhook{ID: in.ID, Keep: keep}, same)
		})
}
