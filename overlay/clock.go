package overlay

import (
	"time"

	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
)

// timeKept is how old the server's time on disk may get while the server is heard.
const timeKept = time.Hour

// keepTime has the disk know the server's time, unless what is there is off by
// less than slack: no relay leads a restarted node back behind it.
func (n *Node) keepTime(slack time.Duration) {
	t, ok := n.clock.Server()
	if ok && n.held.UpdateIdentity(func(id *network.Identity) bool {
		off := t.Sub(id.ServerTime).Abs()
		id.ServerTime = t
		return off >= slack
	}) {
		n.keeper.Keep(state.IdentityFile)
	}
}

// contact takes the time that came with an answer of the server.
func (n *Node) contact(serverTime time.Time) {
	n.clock.Contact(serverTime)
	n.keepTime(timeKept)
	now := time.Now().UTC()
	n.heard.Store(&now)
}

// relayTime takes what a relay says what time it is. Only the coordination
// server, which has a relay in it, is believed as such: a relay that runs alone
// must neither end tunnels by making their certificates look expired, nor bring
// expired ones back (cert.Clock).
func (n *Node) relayTime(t time.Time, server bool) {
	if server {
		n.clock.Contact(t)
		n.keepTime(timeKept)
	} else if !n.clock.Relay(t) {
		n.log.Warn("the relay's clock is wrong", "off", t.Sub(n.clock.Now()))
	}
}
