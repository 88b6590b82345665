package overlay

import (
	"log/slog"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
)

// timeSaved is how old the server's time on disk may become while the server answers.
const timeSaved = time.Hour

// timekeeper sets the clock by the times of the server and of relays, and saves the
// server's time. Any goroutine may use it.
type timekeeper struct {
	clock      *cert.Clock
	held       *network.Holder
	keep       func(file string)
	log        *slog.Logger
	answeredAt atomic.Pointer[time.Time] // when the server last answered, by the machine's clock
}

// save saves the server's time unless the saved one differs by less than slack. After a
// restart no relay can set the node's time back behind it.
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

// server takes the time in an answer of the server.
func (k *timekeeper) server(t time.Time) {
	k.clock.Contact(t)
	k.save(timeSaved)
	now := time.Now().UTC()
	k.answeredAt.Store(&now)
}

// answered returns when the server last answered, by the machine's clock; nil if it has
// not since New.
func (k *timekeeper) answered() *time.Time { return k.answeredAt.Load() }

// relay takes a time from a relay; server says that the relay is the coordination
// server's own, which is trusted like the server. A relay that runs alone must neither
// end tunnels by making certificates look expired, nor revive expired ones (cert.Clock).
func (k *timekeeper) relay(t time.Time, server bool) {
	if server {
		k.clock.Contact(t)
		k.save(timeSaved)
	} else if !k.clock.Relay(t) {
		k.log.Warn("the relay's clock is wrong", "off", t.Sub(k.clock.Now()))
	}
}
