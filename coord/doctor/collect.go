package doctor

import (
	"weft/coord/ops"
	"weft/coord/webhook"
)

// OfRelays splits a list of relays into those on machines of their own and the addresses of
// the server, which are those of the built-in relay.
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

// OfWebhooks returns the enabled webhooks. Their errors may contain control characters; the
// caller cleans them before it prints them.
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
