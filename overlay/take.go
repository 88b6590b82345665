package overlay

import (
	"fmt"
	"net"
	"time"

	"weft/overlay/api"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// What the server sent becomes what this node goes by: verified, then at once in
// one new snapshot, and then on disk (keep.go).

// update changes identity and snapshot together. It reports false when the node
// is in no network any more.
func (n *Node) update(change func(*network.Identity, *network.Network)) bool {
	if !n.held.Update(func(id *network.Identity, s *network.Network) {
		change(id, s)
		if t, ok := n.clock.Server(); ok {
			id.ServerTime = t
		}
	}) {
		return false
	}
	n.keeper.Keep(state.IdentityFile)
	return true
}

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

// follow has all that depends on what is held follow it.
func (n *Node) follow() {
	if s := n.following.Load(); s != nil {
		s.Apply()
	}
}

// takeConfig makes a fetched configuration the current one.
func (n *Node) takeConfig(config *api.Config) error {
	id := n.held.Identity()
	if id == nil {
		return net.ErrClosed
	}
	fresh, err := network.New(id, config, nil)
	if err != nil {
		return err
	}
	if config.Network != "" && config.Network != id.Network.String() {
		return fmt.Errorf("it is of another network, %s", config.Network)
	}
	if !n.update(func(id *network.Identity, s *network.Network) {
		id.URLs, id.NetworkCAs = network.MergeURLs(fresh.Config.ServerURLs, id.URLs), config.NetworkCAs
		s.Config, s.Roots, s.ServerRoots = fresh.Config, fresh.Roots, fresh.ServerRoots
	}) {
		return net.ErrClosed
	}
	n.follow()
	return nil
}

// takeCRL verifies a revocation list that is newer than the one held, from
// wherever it came, and ends all dealings with whom it revokes. It reports whether it was newer. Of several at once the one with the
// highest number is what is left, in memory and on disk.
func (n *Node) takeCRL(der []byte) (newer bool, err error) {
	s, ok := n.held.Get()
	if !ok {
		return false, net.ErrClosed
	}
	crl, err := s.Roots.VerifyCRL(der)
	if err != nil {
		return false, err
	}
	var cur *network.Network
	n.held.While(s, func(now *network.Network) *network.Network {
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
	n.follow()
	n.log.Info("new revocation list", "number", crl.Number, "revoked", crl.Len())
	return true, nil
}

// takeChanges takes a short change of the directory that the server's own relay
// sent unasked, if it fits what the node holds. One that begins further back
// than that fits too: it holds all that came since.
func (n *Node) takeChanges(ch *api.Changes) bool {
	have := n.dir.Version()
	s, ok := n.held.Get()
	if !ok || !s.ReadsDirectory() || ch.Full || have.IsZero() ||
		ch.Since.Epoch != have.Epoch || ch.Version.Epoch != have.Epoch || ch.Since.N > have.N || ch.Version.N <= have.N {
		return false
	}
	n.takeDirectory(s, &ch.Directory)
	return true
}

func (n *Node) takeDirectory(s *network.Network, dir *api.Directory) {
	if refused := n.dir.Update(dir, s.VerifyListed); refused > 0 {
		n.log.Warn("the directory holds certificates that do not verify", "count", refused)
	}
	if now, ok := n.held.Get(); ok && now.CRL != s.CRL { // a list came meanwhile
		n.dir.Forget(now.CRL.Revoked)
	}
	n.cfg.NamesChanged()
	n.checkNames()
	n.keeper.Keep(state.DirectoryFile)
}

// checkNames pins name -> NodeID at first contact and warns when a name has
// come to mean another key: while the network CA lives on the server, whoever
// owns the server could do that.
func (n *Node) checkNames() {
	others, pinned := n.dir.PinNew()
	for _, o := range others {
		n.health.Set(status.CodeIdentityChanged.Of(o.Name), fmt.Sprintf("%s is another device than before (key %s, was %s); if you did not replace it, ask the owner of the server", o.Name, o.Now, o.Was))
	}
	if pinned {
		n.keeper.Keep(state.NamesFile)
	}
}
