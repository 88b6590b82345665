package ops

import (
	"context"

	"weft/coord/store"
	"weft/coord/webhook"
)

// testWebhook checks that the actor may test a webhook, and records the test.
type testWebhook struct{ ID string }

func (testWebhook) operation() *Operation { return opHookTest }

func (c testWebhook) run(tx *Tx) (store.Webhook, error) {
	w, err := tx.webhook(c.ID)
	if err == nil {
		tx.did(hookTarget(w), nil, nil)
	}
	return w, err
}

// TestWebhook sends the event webhook.test to a webhook, even if it is disabled or paused, and
// returns the result. A failure of the receiver is in the result, and is not an error.
func (s *Service) TestWebhook(ctx context.Context, a Actor, id string) (store.Delivered, error) {
	w, err := Do(ctx, s, a, testWebhook{id})
	if err != nil {
		return store.Delivered{}, err
	}
	to, err := s.hooks.sender.Receiver(w.URL, w.Allow)
	if err != nil {
		return failedAttempt(s.now(), opHookTest.Name, err), nil
	}
	defer to.Close()
	by := webhook.Actor{User: a.User, UserID: a.UserID, Role: string(a.Role), Via: string(a.Via)}
	e := webhook.OfTest(s.network.String(), opHookTest.Name, "t"+newID(), s.now(), by, webhook.Target{Kind: "webhook", ID: w.ID, Name: hookTarget(w).name})
	d, _, err := s.post(ctx, to, w, e)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return d, err
}
