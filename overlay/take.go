package overlay

import (
	"fmt"
	"net"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/status"
)

// What the server sent becomes what this node goes by: verified, then at once in
// one new snapshot, and then on disk (keep.go).

// update changes identity and snapshot together. It reports false when the node
// is in no network any more.
func (n *Node) update(change func(*identity, *snapshot)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, ok := n.snap.get()
	if n.id == nil || !ok {
		return false
	}
	id, s := *n.id, *old
	change(&id, &s)
	if t, ok := n.clock.Server(); ok {
		id.ServerTime = t
	}
	n.id = &id
	n.snap.set(&s)
	n.keep(identityFile)
	return true
}

// timeKept is how old the server's time on disk may get while the server is heard.
const timeKept = time.Hour

// keepTime has the disk know the server's time, unless what is there is off by
// less than slack: no relay leads a restarted node back behind it.
func (n *Node) keepTime(slack time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.clock.Server()
	if !ok || n.state == nil || !n.id.joined() || t.Sub(n.id.ServerTime).Abs() < slack {
		return
	}
	id := *n.id
	id.ServerTime = t
	n.id = &id
	n.keep(identityFile)
}

// takeConfig makes a fetched configuration the current one.
func (n *Node) takeConfig(config *api.Config) error {
	n.mu.Lock()
	id := n.id
	old, ok := n.snap.get()
	n.mu.Unlock()
	if id == nil || !ok {
		return net.ErrClosed
	}
	fresh, err := makeSnapshot(id, config, nil)
	if err != nil {
		return err
	}
	if config.Network != "" && config.Network != id.Network.String() {
		return fmt.Errorf("it is of another network, %s", config.Network)
	}
	if !n.update(func(id *identity, s *snapshot) {
		id.URLs, id.NetworkCAs = mergeURLs(fresh.config.ServerURLs, id.URLs), config.NetworkCAs
		s.config, s.roots, s.serverRoots = fresh.config, fresh.roots, fresh.serverRoots
	}) {
		return net.ErrClosed
	}
	n.keep(configFile)
	n.keep(releaseFile)
	n.setRanges(fresh)
	n.cfg.NamesChanged()
	if !config.Directory && old.config.Directory {
		n.dir.ForgetListed()
	}
	if config.Self.FQDN != "" && config.Self.FQDN != old.self.FQDN {
		// The new name is only ours once a certificate says so.
		if r := n.active.Load(); r != nil {
			r.control.want(wanted{renew: true})
		}
	}
	return nil
}

// takeCRL verifies a revocation list that is newer than the one held, from
// wherever it came, ends all dealings with whom it revokes, and has it kept on
// disk. It reports whether it was newer. Of several at once the one with the
// highest number is what is left, in memory and on disk.
func (n *Node) takeCRL(der []byte) (newer bool, err error) {
	s, ok := n.snap.get()
	if !ok {
		return false, net.ErrClosed
	}
	crl, err := s.roots.VerifyCRL(der)
	if err != nil {
		return false, err
	}
	n.mu.Lock()
	cur, ok := n.snap.get()
	if !ok || cur.self.ID != s.self.ID || cur.crl != nil && crl.Number <= cur.crl.Number {
		n.mu.Unlock()
		return false, nil
	}
	next := *cur
	next.crl = crl
	n.snap.set(&next)
	r := n.running
	n.mu.Unlock()
	n.forgetRevoked(crl)
	if r != nil {
		r.peers.crlChanged()
		r.home.home.SendVersions()
		r.peers.upToDate()
	}
	n.keep(crlFile)
	if crl.Revoked(cur.self.Serial) {
		n.removed()
	}
	n.log.Info("new revocation list", "number", crl.Number, "revoked", crl.Len())
	return true, nil
}

// forgetRevoked takes the nodes on a list out of the directory.
func (n *Node) forgetRevoked(crl *cert.CRL) {
	for _, k := range n.dir.All() {
		if crl.Revoked(k.Node.Serial) {
			n.dir.Remove(k.Node.ID)
		}
	}
}

// takeChanges takes a short change of the directory that the server's own relay
// sent unasked, if it fits what the node holds. One that begins further back
// than that fits too: it holds all that came since.
func (n *Node) takeChanges(ch *api.Changes) bool {
	have := n.dir.Version()
	s, ok := n.snap.get()
	if !ok || !s.readsDirectory() || ch.Full || have.IsZero() ||
		ch.Since.Epoch != have.Epoch || ch.Version.Epoch != have.Epoch || ch.Since.N > have.N || ch.Version.N <= have.N {
		return false
	}
	n.takeDirectory(s, &ch.Directory)
	return true
}

func (n *Node) takeDirectory(s *snapshot, dir *api.Directory) {
	if refused := n.dir.Update(dir, s.verifyListed); refused > 0 {
		n.log.Warn("the directory holds certificates that do not verify", "count", refused)
	}
	if now, ok := n.snap.get(); ok && now.crl != s.crl { // a list came meanwhile
		n.forgetRevoked(now.crl)
	}
	n.cfg.NamesChanged()
	n.checkNames()
	n.keep(directoryFile)
}

// verifyListed is how certificates from the server are checked: signed by our
// network's CA and not revoked. Dates are judged when a peer shows its own.
func (s *snapshot) verifyListed(der []byte) (*cert.Node, error) {
	node, err := s.roots.VerifyNodeAnyTime(der)
	switch {
	case err != nil:
		return nil, err
	case s.crl.Revoked(node.Serial):
		return nil, cert.ErrRevoked
	}
	return node, s.belongs(node)
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
		n.keep(namesFile)
	}
}
