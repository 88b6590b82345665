package doctor

import (
	"weft/coord/ops"
	"weft/coord/webhook"
)

// What a server says of itself, as facts.

// OfRelays returns the relays that run alone, and the addresses of the server.
func OfRelays(list []ops.RelayInfo) (relays []Relay, urls []string) {
	for _, r := range list {
		if r.Builtin {
			urls = r.URLs
			continue
		}
		relay := Relay{Name: r.Name, Online: r.Online}
		if r.Heard != nil {
			relay.Heard = *r.Heard
		}
		relays = append(relays, relay)
	}
	return relays, urls
}

// OfWebhooks returns the webhooks that are enabled. Their errors are not fit for a
// terminal yet.
func OfWebhooks(list []ops.Webhook) (hooks []Webhook) {
	for _, w := range list {
		if !w.Enabled {
			continue
		}
		h := Webhook{ID: w.ID, To: webhook.Origin(w.URL), Paused: w.Paused != nil, Error: w.LastError, Missed: w.Missed}
		if w.Failing != nil {
			h.Failing = *w.Failing
		}
		if w.MissedAt != nil {
			h.Lost = *w.MissedAt
		}
		hooks = append(hooks, h)
	}
	return hooks
}
