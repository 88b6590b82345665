package overlay

import (
	"log/slog"
	"net/netip"
	"slices"

	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// What follows when the node comes up, and when its Network changes for whatever reason:
// an ordered list of sinks (network.Sink says how they are called). Each is made of
// functions and values, does not depend on the node or on other sinks, and is tested
// alone (sinks_test.go).
//
// A new feature that follows the configuration is a type with an Apply, in a file or a
// package of its own, and a line in sinks.

// sinks returns the list for a running half, in the order of the calls: those that
// withdraw rights come before those that notify.
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
		reporting{set: n.claims.Set, log: n.log},
		renewal{renew: r.follower.Renew},
		membership{renew: r.follower.Renew, lost: n.removal.noticed},
	)
}

// files saves changes in the state directory.
type files struct{ keep func(file string) }

func (f files) Apply(old, new *network.Network) {
	if new == nil {
		return
	}
	if old == nil || old.Config != new.Config {
		f.keep(state.ReleaseFile) // this also compares it with the pinned one
	}
	if old != nil && old.Config != new.Config {
		f.keep(state.ConfigFile)
	}
	if old != nil && old.CRL != new.CRL {
		f.keep(state.CRLFile)
	}
}

// routes tells the host's network which addresses are the overlay's. Wrong ranges of a
// server cost routes, never the node. Routes stay while the node is down, so that packets
// of programs to the overlay do not leave by the default route.
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

// nodes drops nodes that this node may no longer reach or that are no longer in the
// network.
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

// live ends tunnels and changes their filters.
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

// candidates sets the STUN servers to those of the current relays. It asks none: they are
// asked when a path is wanted.
type candidates struct {
	home func() string // Relay.ID
	ask  func(stun []string)
}

func (c candidates) Apply(old, new *network.Network) {
	if old != nil && new != nil && old.Config != new.Config {
		c.ask(new.STUN(c.home()))
	}
}

// relays makes the node choose its relay again, and sends the relay the new versions at
// once, which saves it a push of the revocation list.
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
	// A relay may have refused the earlier certificate.
	if old.Config != new.Config || old.Self != new.Self && !r.connected() {
		r.wake()
	}
}

// current lets introductions in: a revocation list that is newer than the last one is the
// current one, as far as is known.
type current struct{ hear func() }

func (c current) Apply(old, new *network.Network) {
	if old != nil && new != nil && old.CRL != new.CRL {
		c.hear()
	}
}

// named tells the resolver that names may have changed.
type named struct{ changed func() }

func (d named) Apply(old, new *network.Network) {
	if old != nil && new != nil && (old.Config != new.Config || old.CRL != new.CRL) {
		d.changed()
	}
}

// reporting counts introductions while the network's owner has this node report them. It
// goes on counting while the node is down: what was not told yet is told later.
type reporting struct {
	set func(on bool, self cert.NodeID)
	log *slog.Logger
}

func (r reporting) Apply(old, new *network.Network) {
	if new == nil || old != nil && old.Config == new.Config {
		return
	}
	on := new.Config.Introductions
	if on != (old != nil && old.Config.Introductions) {
		r.log.Info("the network's owner has this device report who introduces themselves to it", "reports", on)
	}
	r.set(on, new.Self.ID)
}

// renewal asks for a certificate with a new name, because a name is this node's only once
// a certificate has it; and for one with new tags or a new owner, because other nodes go
// by the certificate. A name with a dot at its end, which no certificate has, is how the
// server asks for that of every version.
type renewal struct{ renew func() }

func (r renewal) Apply(old, new *network.Network) {
	if old == nil || new == nil || old.Config == new.Config {
		return
	}
	if self := new.Config.Self; self.FQDN != "" && (self.FQDN != new.Self.FQDN || self.User != new.Self.User || !slices.Equal(self.Tags, new.Self.Tags)) {
		r.renew()
	}
}

// membership looks for this device's own certificate in the revocation list. A superseded
// one is replaced at once, because other devices refuse it. Any other in the list means
// that the device was deleted.
type membership struct{ renew, lost func() }

func (m membership) Apply(old, new *network.Network) {
	switch {
	case new == nil || old != nil && old.CRL == new.CRL:
	case new.CRL.Superseded(new.Self.Serial):
		m.renew()
	case new.CRL.Revoked(new.Self.Serial):
		m.lost()
	}
}
