package overlay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"weft/coord/api"
	"weft/coord/client"
	"weft/overlay/cert"
	"weft/overlay/release"
)

// What the server sent becomes what this node goes by: verified, on disk
// first, then in one new snapshot.

// update changes identity and snapshot together, on disk first.
func (n *Node) update(change func(*identity, *snapshot)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, ok := n.snap.get()
	if n.state == nil || n.id == nil || !ok {
		return net.ErrClosed
	}
	id, s := *n.id, *old
	change(&id, &s)
	id.ServerTime = n.clock.Now()
	if err := n.state.saveIdentity(&id); err != nil {
		return err
	}
	n.id = &id
	n.snap.set(&s)
	return nil
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
	if err := n.state.saveJSON(configFile, config); err != nil {
		return err
	}
	n.pinReleaseKey(config.ReleaseKey)
	renamed := config.Self.FQDN != "" && config.Self.FQDN != old.self.FQDN
	err = n.update(func(id *identity, s *snapshot) {
		id.URLs, id.NetworkCAs = mergeURLs(fresh.config.ServerURLs, id.URLs), config.NetworkCAs
		s.config, s.roots, s.serverRoots = fresh.config, fresh.roots, fresh.serverRoots
	})
	if err != nil {
		return err
	}
	n.setRanges(fresh)
	n.cfg.NamesChanged()
	if !config.Directory && old.config.Directory {
		n.dir.forgetListed()
	}
	if renamed {
		// The new name is only ours once a certificate says so.
		n.mu.Lock()
		r := n.running
		n.mu.Unlock()
		if r != nil {
			r.control.want(wanted{renew: true})
		}
	}
	return nil
}

// pinReleaseKey keeps the first key of releases that the server names, and
// warns of another: a server in wrong hands must not be able to hand out
// programs.
func (n *Node) pinReleaseKey(key []byte) {
	if len(key) != ed25519.PublicKeySize {
		return
	}
	pinned, err := os.ReadFile(filepath.Join(n.state.path, releaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = n.state.save(releaseFile, release.EncodeKey(key))
		pinned = release.EncodeKey(key)
	}
	if err != nil {
		n.log.Error("keep the release key", "err", err)
		return
	}
	if bytes.Equal(pinned, release.EncodeKey(key)) {
		n.health.clear("release-key-changed")
		return
	}
	n.health.set("release-key-changed", "the server names another release key than the one this device has trusted since it joined; if the network's owner did that, remove "+filepath.Join(n.state.path, releaseFile)+", if not, the server is in wrong hands")
}

// takeCRL verifies and installs a revocation list that is newer than the one
// held, from wherever it came, and reports whether it was.
func (n *Node) takeCRL(der []byte) bool {
	s, ok := n.snap.get()
	if !ok {
		return false
	}
	crl, err := s.roots.VerifyCRL(der)
	if err != nil {
		n.log.Warn("refused a revocation list", "err", err)
		return false
	}
	if s.crl != nil && crl.Number <= s.crl.Number {
		return false
	}
	n.mu.Lock()
	if cur, ok := n.snap.get(); n.state == nil || !ok || cur.self.ID != s.self.ID || cur.crl != nil && crl.Number <= cur.crl.Number {
		n.mu.Unlock()
		return false
	} else {
		next := *cur
		next.crl = crl
		n.snap.set(&next)
	}
	if err := n.state.save(crlFile, crl.Raw); err != nil {
		n.log.Error("keep the revocation list", "err", err)
	}
	r := n.running
	n.mu.Unlock()
	n.forgetRevoked(crl)
	if r != nil {
		r.peers.crlChanged()
		r.home.home.SendVersions(n.versions())
		r.peers.upToDate()
	}
	n.log.Info("new revocation list", "number", crl.Number, "revoked", crl.Len())
	return true
}

// forgetRevoked takes the nodes on a list out of the directory.
func (n *Node) forgetRevoked(crl *cert.CRL) {
	for _, k := range n.dir.all() {
		if crl.Revoked(k.node.Serial) {
			n.dir.remove(k.node.ID)
		}
	}
}

func (n *Node) fetchDirectory(ctx context.Context, s *snapshot, cl *client.Client) error {
	dir, err := cl.Directory(ctx, n.dir.currentVersion())
	if err != nil {
		return fmt.Errorf("fetch directory: %w", err)
	}
	n.takeDirectory(s, dir)
	return nil
}

// takeChanges takes a short change of the directory that the server's own relay
// sent unasked, if it fits what the node holds. One that begins further back
// than that fits too: it holds all that came since.
func (n *Node) takeChanges(ch *api.Changes) bool {
	have := n.dir.currentVersion()
	s, ok := n.snap.get()
	if !ok || !s.readsDirectory() || ch.Full || have.IsZero() ||
		ch.Since.Epoch != have.Epoch || ch.Version.Epoch != have.Epoch || ch.Since.N > have.N || ch.Version.N <= have.N {
		return false
	}
	n.takeDirectory(s, &ch.Directory)
	return true
}

func (n *Node) takeDirectory(s *snapshot, dir *api.Directory) {
	if refused := n.dir.update(dir, s.verifyListed); refused > 0 {
		n.log.Warn("the directory holds certificates that do not verify", "count", refused)
	}
	if now, ok := n.snap.get(); ok && now.crl != s.crl { // a list came meanwhile
		n.forgetRevoked(now.crl)
	}
	n.cfg.NamesChanged()
	n.checkNames()
	if err := n.state.saveJSON(directoryFile, n.dir.saved()); err != nil {
		n.log.Error("keep the directory", "err", err)
	}
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
	pinned := map[string]cert.NodeID{}
	n.state.loadCache(namesFile, &pinned)
	changed := false
	peers := n.dir.all()
	for _, k := range peers {
		id, ok := pinned[k.node.Name]
		if ok && id != k.node.ID {
			n.health.set("identity-changed:"+k.node.Name, fmt.Sprintf("%s is another device than before (key %s, was %s); if you did not replace it, ask the owner of the server", k.node.Name, k.node.ID, id))
		}
		if !ok && len(pinned) < 10*maxLookedUp {
			pinned[k.node.Name], changed = k.node.ID, true
		}
	}
	if changed {
		if err := n.state.saveJSON(namesFile, pinned); err != nil {
			n.log.Error("keep the names", "err", err)
		}
	}
}
