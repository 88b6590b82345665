package overlay

import (
	"log/slog"
	"net/netip"

	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// What follows when the node comes up, and when what it holds of its network changes,
// wherever the news came from: an ordered list of sinks (network.Sink says how they
// are called). Each is made of functions and values, knows nothing of the node or of
// the others, and is tested alone (sinks_test.go).
//
// A new feature that follows the configuration is a type with an Apply, in a file or a
// package of its own, and a line in sinks.

// sinks is the list of a running half, in the order in which they are called: what
// withdraws a right comes before what gives notice of it.
func (n *Node) sinks(r *running) *network.Sinks {
	return network.NewSinks(&n.held,
		files{keep: n.keeper.Mark},
		routes{set: n.cfg.Net.SetRanges, health: &n.health, log: n.log},
		nodes{dir: n.dir},
		live{revoked: r.peers.CRLChanged, decided: r.peers.ConfigChanged},
		candidates{home: func() string { return r.home.Relay().ID }, ask: r.peers.AskServers},
		relays{connected: r.home.Connected, wake: r.home.Wake, tell: r.home.SendVersions},
		current{hear: r.peers.UpToDate},
		named{changed: n.cfg.NamesChanged},
		renewal{renew: r.follower.Renew},
		membership{lost: n.removal.noticed},
	)
}

// files has what is new written to the state directory.
type files struct{ keep func(file string) }

func (f files) Apply(old, new *network.Network) {
	if new == nil {
		return
	}
	if old == nil || old.Config != new.Config {
		f.keep(state.ReleaseFile) // or compared with what is there
	}
	if old != nil && old.Config != new.Config {
		f.keep(state.ConfigFile)
	}
	if old != nil && old.CRL != new.CRL {
		f.keep(state.CRLFile)
	}
}

// routes tells the host's network which addresses are the overlay's. What a server may
// say wrong here costs routes, never the node. They stay while the node is down, so
// that what programs send there does not go the way of all other packets.
type routes struct {
	set    func(v4, v6 netip.Prefix) error
	health *status.Warnings
	log    *slog.Logger
}

func (r routes) Apply(old, new *network.Network) {
	if new == nil || old != nil && old.Config == new.Config {
		return
	}
	if err := r.set(new.Ranges()); err != nil {
		r.health.Set(status.CodeRoutes, "routes to the network cannot be set: "+err.Error())
		r.log.Warn("cannot set routes", "err", err)
		return
	}
	r.health.Clear(status.CodeRoutes)
}

// known forgets whom the node may not reach any more, or who is in the network no
// more.
type nodes struct{ dir *directory.Directory }

func (k nodes) Apply(old, new *network.Network) {
	if old == nil || new == nil {
		return
	}
	if old.Config.Directory && !new.Config.Directory {
		k.dir.ForgetListed()
	}
	if old.CRL != new.CRL {
		k.dir.Forget(new.CRL.Revoked)
	}
}

// live tunnels end, and their filters change.
type live struct {
	revoked func() // there is another revocation list
	decided func() // there are other rules, or relays
}

func (t live) Apply(old, new *network.Network) {
	if old == nil || new == nil {
		return
	}
	if old.CRL != new.CRL {
		t.revoked()
	}
	if old.Config != new.Config {
		t.decided()
	}
}

// candidates are gathered with the STUN servers of the relays that there are now. A node
// that comes up wants none yet: whoever wants a path has them asked.
type candidates struct {
	home func() string // Relay.ID
	ask  func(stun []string)
}

func (c candidates) Apply(old, new *network.Network) {
	if old != nil && new != nil && old.Config != new.Config {
		c.ask(new.STUN(c.home()))
	}
}

// relays are chosen anew, and told of a new list at once: it spares others the push.
type relays struct {
	connected  func() bool
	wake, tell func()
}

func (r relays) Apply(old, new *network.Network) {
	if old == nil || new == nil {
		return
	}
	if old.CRL != new.CRL {
		r.tell()
	}
	// A relay may have refused the certificate of before.
	if old.Config != new.Config || old.Self != new.Self && !r.connected() {
		r.wake()
	}
}

// current lets introductions in: a list that is newer than the one held is the current
// one as far as anybody can say.
type current struct{ hear func() }

func (c current) Apply(old, new *network.Network) {
	if old != nil && new != nil && old.CRL != new.CRL {
		c.hear()
	}
}

// named tells the resolver of names that may have changed.
type named struct{ changed func() }

func (d named) Apply(old, new *network.Network) {
	if old != nil && new != nil && (old.Config != new.Config || old.CRL != new.CRL) {
		d.changed()
	}
}

// renewal asks for a certificate with the new name: it is only ours once one says so.
type renewal struct{ renew func() }

func (r renewal) Apply(old, new *network.Network) {
	if old == nil || new == nil || old.Config == new.Config {
		return
	}
	if name := new.Config.Self.FQDN; name != "" && name != new.Self.FQDN {
		r.renew()
	}
}

// membership is lost when the revocation list has this device's own certificate.
type membership struct{ lost func() }

func (m membership) Apply(old, new *network.Network) {
	if new != nil && (old == nil || old.CRL != new.CRL) && new.CRL.Revoked(new.Self.Serial) {
		m.lost()
	}
}
