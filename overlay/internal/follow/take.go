package follow

import (
	"fmt"
	"net"

	"weft/overlay/api"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// What the server sent is verified, applied in one new network.Network, and then followed
// by everything that depends on it.

// update changes identity and network together. It returns false when the node is no
// longer in a network.
func (c *Follower) update(change func(*network.Identity, *network.Network)) bool {
	if !c.cfg.Held.Update(func(id *network.Identity, s *network.Network) {
		change(id, s)
		if t, ok := c.cfg.Clock.Server(); ok {
			id.ServerTime = t
		}
	}) {
		return false
	}
	c.cfg.Keep(state.IdentityFile)
	return true
}

// TakeConfig makes a fetched configuration the current one.
func (c *Follower) TakeConfig(config *api.Config) error {
	id := c.cfg.Held.Identity()
	if id == nil {
		return net.ErrClosed
	}
	fresh, err := network.New(id, config, nil)
	if err != nil {
		return err
	}
	if config.Network != "" && config.Network != id.Network.String() {
		return fmt.Errorf("it belongs to another network, %s", config.Network)
	}
	if !c.update(func(id *network.Identity, s *network.Network) {
		id.URLs, id.NetworkCAs = network.MergeURLs(fresh.Config.ServerURLs, id.URLs), config.NetworkCAs
		s.Config, s.Overdue, s.Roots, s.ServerRoots = fresh.Config, fresh.Overdue, fresh.Roots, fresh.ServerRoots
	}) {
		return net.ErrClosed
	}
	c.cfg.Changed()
	return nil
}

// TakeCRL verifies a revocation list from any source, and if it is newer than this
// node's, applies it: sessions and tunnels of revoked nodes end. It reports whether the
// list was newer. Of several concurrent lists the one with the highest number remains, in
// memory and on disk.
func (c *Follower) TakeCRL(der []byte) (newer bool, err error) {
	s, ok := c.cfg.Held.Get()
	if !ok {
		return false, net.ErrClosed
	}
	crl, err := s.Roots.VerifyCRL(der)
	if err != nil {
		return false, err
	}
	var cur *network.Network
	c.cfg.Held.UpdateIn(s, func(now *network.Network) *network.Network {
		if now.CRL != nil && crl.Number <= now.CRL.Number {
			return nil
		}
		next := *now
		next.CRL = crl
		cur = &next
		return cur
	})
	if cur == nil {
		return false, nil
	}
	c.cfg.Changed()
	c.cfg.Log.Info("new revocation list", "number", crl.Number, "revoked", crl.Len())
	return true, nil
}

// takeChanges applies a change of the directory from a nudge of the server's own relay,
// if it fits the node's version, and reports whether it did. A change from an older
// version fits too: it contains all later ones.
func (c *Follower) takeChanges(ch *api.Changes) bool {
	have := c.cfg.Directory.Version()
	s, ok := c.cfg.Held.Get()
	if !ok || !s.ReadsDirectory() || ch.Full || have.IsZero() ||
		ch.Since.Epoch != have.Epoch || ch.Version.Epoch != have.Epoch || ch.Since.N > have.N || ch.Version.N <= have.N {
		return false
	}
	c.takeDirectory(s, &ch.Directory)
	return true
}

func (c *Follower) takeDirectory(s *network.Network, dir *api.Directory) {
	if refused := c.cfg.Directory.Update(dir, s.VerifyListed); refused > 0 {
		c.cfg.Log.Warn("the directory has certificates that cannot be verified", "count", refused)
	}
	if now, ok := c.cfg.Held.Get(); ok && now.CRL != s.CRL { // a revocation list came meanwhile
		c.cfg.Directory.Forget(now.CRL.Revoked)
	}
	c.cfg.NamesChanged()
	PinNames(c.cfg.Directory, c.cfg.Health, c.cfg.Keep)
	c.cfg.Keep(state.DirectoryFile)
}

// PinNames pins the NodeID of each name at first contact and warns when a name belongs to
// another key: while the network CA is on the server, whoever controls the server could
// do that.
func PinNames(dir *directory.Directory, health *status.Warnings, keep func(file string)) {
	others, pinned := dir.PinNew()
	for _, o := range others {
		health.Set(status.CodeIdentityChanged.Of(o.Name), fmt.Sprintf("%s is another device than before (key %s, was %s); if you did not replace it, ask the owner of the server", o.Name, o.Now, o.Was))
	}
	if pinned {
		keep(state.NamesFile)
	}
}
