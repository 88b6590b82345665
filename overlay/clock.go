package overlay

import (
	"log/slog"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
)

// timeSaved is how old the server's time on disk may get while the server is heard.
const timeSaved = time.Hour

// timekeeper has the clock go by what the server and relays say, and the disk know it.
// Any goroutine may use it.
type timekeeper struct {
	clock      *cert.Clock
	held       *network.Holder
	keep       func(file string)
	log        *slog.Logger
	answeredAt atomic.Pointer[time.Time] // when the server last answered, by the machine's clock
}

// save has the disk know the server's time, unless what is there is off by less than
// slack: no relay leads a restarted node back behind it.
func (k *timekeeper) save(slack time.Duration) {
	t, ok := k.clock.Server()
	if ok && k.held.UpdateIdentity(func(id *network.Identity) bool {
		off := t.Sub(id.ServerTime).Abs()
		id.ServerTime = t
		return off >= slack
	}) {
		k.keep(state.IdentityFile)
	}
}

// server takes the time that came with an answer of the server.
func (k *timekeeper) server(t time.Time) {
	k.clock.Contact(t)
	k.save(timeSaved)
	now := time.Now().UTC()
	k.answeredAt.Store(&now)
}

// answered returns when the server last answered, by the machine's clock; nil: not since
// New.
func (k *timekeeper) answered() *time.Time { return k.answeredAt.Load() }

// relay takes what a relay says what time it is. Only the coordination server, which has
// a relay in it, is believed as such: a relay that runs alone must neither end tunnels by
// making their certificates look expired, nor bring expired ones back (cert.Clock).
func (k *timekeeper) relay(t time.Time, server bool) {
	if server {
		k.clock.Contact(t)
		k.save(timeSaved)
	} else if !k.clock.Relay(t) {
		k.log.Warn("the relay's clock is wrong", "off", t.Sub(k.clock.Now()))
	}
}
