package client

import (
	"context"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
	"weft/coord/webapi"
)

// Webhooks returns all webhooks, the oldest first, without their last attempts.
func (c *Client) Webhooks(ctx context.Context) ([]ops.Webhook, error) {
	var list webapi.WebhookList
	err := c.call(ctx, "GET", "/webhooks", nil, nil, &list)
	return list.Webhooks, err
}

// Webhook returns one webhook with its last attempts.
func (c *Client) Webhook(ctx context.Context, id string) (w ops.Webhook, err error) {
	if err := named("webhook", id); err != nil {
		return w, err
	}
	err = c.call(ctx, "GET", "/webhooks/"+segment(id), nil, nil, &w)
	return w, err
}

// CreateWebhook makes a webhook.
func (c *Client) CreateWebhook(ctx context.Context, w ops.CreateWebhook) (made ops.WebhookCreated, err error) {
	err = c.call(ctx, "POST", "/webhooks", nil, w, &made)
	return made, err
}

// EditWebhook changes what is given of a webhook: if e.Match is not nil, only if it is as
// of one of these revisions (ops.Webhook.Revision).
func (c *Client) EditWebhook(ctx context.Context, id string, e ops.EditWebhook) (w ops.Webhook, err error) {
	if err := named("webhook", id); err != nil {
		return w, err
	}
	err = c.call(ctx, "PATCH", "/webhooks/"+segment(id), ifMatch(e.Match), e, &w)
	return w, err
}

// DeleteWebhook deletes a webhook, and returns what it was.
func (c *Client) DeleteWebhook(ctx context.Context, id string) (w ops.Webhook, err error) {
	if err := named("webhook", id); err != nil {
		return w, err
	}
	err = c.call(ctx, "DELETE", "/webhooks/"+segment(id), nil, nil, &w)
	return w, err
}

// TestWebhook sends an event to a webhook. What the receiver did is in the answer, and no
// error.
func (c *Client) TestWebhook(ctx context.Context, id string) (d store.Delivered, err error) {
	if err := named("webhook", id); err != nil {
		return d, err
	}
	err = c.call(ctx, "POST", "/webhooks/"+segment(id)+"/test", nil, nil, &d)
	return d, err
}

// RotateWebhook gives a webhook a new secret; requests are signed with the old one too
// for keep, which is rounded up to whole seconds.
func (c *Client) RotateWebhook(ctx context.Context, id string, keep time.Duration) (made ops.WebhookCreated, err error) {
	if err := named("webhook", id); err != nil {
		return made, err
	}
	sec := int64((keep + time.Second - 1) / time.Second)
	err = c.call(ctx, "POST", "/webhooks/"+segment(id)+"/rotate", nil, webapi.Rotation{KeepSeconds: &sec}, &made)
	return made, err
}
