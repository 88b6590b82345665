package ops

import (
	"crypto/rand"
	"time"

	"weft/coord/webhook"
)

// secretPurpose separates the secrets of webhooks from other secrets of the CA.
const secretPurpose = "weft webhook secret v1"

// WebhookCreated is a webhook with its new secret. Only this answer contains the secret.
type WebhookCreated struct {
	Webhook
	Secret string `json:"secret"`
}

// Made implements maker.
func (w WebhookCreated) Made() string { return "the secret of the webhook " + w.ID }

// RotateWebhook gives a webhook a new secret. For some time requests are signed with the old
// secret too, so that the receiver keeps working until it is given the new one.
type RotateWebhook struct {
	ID   string        `json:"-"`
	Keep time.Duration `json:"-"` // how long requests are signed with the old secret too, 0 to 7 days
}

func (RotateWebhook) operation() *Operation { return opHookRotate }

func (c RotateWebhook) run(tx *Tx) (none WebhookCreated, err error) {
	w, err := tx.webhook(c.ID)
	if err != nil {
		return none, err
	}
	if c.Keep < 0 || c.Keep > maxKeepSecret {
		return none, Invalid("the old secret can be used for 0 to 7 more days, not %s", spanText(c.Keep))
	}
	w.OldSalt, w.OldUntil = nil, nil
	if c.Keep > 0 {
		until := tx.now.Add(c.Keep).UTC().Truncate(time.Second)
		w.OldSalt, w.OldUntil = w.Salt, &until
	}
	w.Salt = newSalt()
	if err := tx.saveWebhook(&w); err != nil {
		return none, err
	}
	tx.did(hookTarget(w), nil, struct {
		OldUntil *time.Time `json:"old_secret_until"`
	}{w.OldUntil})
	secret, err := tx.s.hookSecret(w.Salt)
	return WebhookCreated{viewWebhook(tx.actor, w, tx.now), secret}, err
}

func newSalt() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

// hookSecret derives a webhook's secret from its salt.
func (s *Service) hookSecret(salt []byte) (string, error) {
	b, err := s.auth.Secret(secretPurpose, salt)
	return webhook.Secret(b), err
}
