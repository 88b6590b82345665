package overlay

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/hostname"
)

const (
	// maxLookedUp bounds the peers known by lookup rather than from the
	// directory; the one not used for longest goes first.
	maxLookedUp = 1000
	// lookedUpTTL is how long what the server said of a node is believed, as
	// long as it can be asked again: the node may have got another name.
	lookedUpTTL = 30 * time.Second
	// negativeTTL is how long "no such name" is believed.
	negativeTTL = 5 * time.Second
	// maxListed bounds the peers from the directory: a server with more than
	// 1,000 tells its nodes to look up instead.
	maxListed   = 10_000
	maxNegative = 1000
)

// known is what this node knows about another one. The certificate is
// verified; the rest is presence, a hint. It is immutable but for used.
type known struct {
	node     *cert.Node
	relay    string // Relay.ID of its home, "" when unknown
	online   bool
	told     time.Time // when online was last said; zero: never, it was read from disk
	lastSeen time.Time // zero when never, or not known
	unsaid   bool      // whether it is online was not said with the rest
	listed   bool      // in the directory, not only looked up
	stranger bool      // known only because it called: policy may not let us call it
	used     time.Time // directory.mu guards it
	learned  time.Time // when it was told; directory.mu guards it
	round    uint64    // directory.round when it was asked for
	// aliases are former names that still lead here, by the server's word. They
	// never take a name that a certificate holds.
	aliases []api.Alias
}

// directory answers "who is that name or address?" from memory. It is filled
// from the server's directory, from lookups and from the certificates that
// peers showed in introductions. Any goroutine may use it.
type directory struct {
	now func() time.Time // constant after new

	mu sync.Mutex
	// mu guards the following.
	version  api.Version
	byID     map[cert.NodeID]*known
	byName   map[string]*known // short name
	byAlias  map[string]cert.NodeID
	byAddr   map[netip.Addr]*known
	negative map[string]time.Time   // key of a lookup that found nothing -> until when
	changes  uint64                 // moves with each change of names or addresses
	pinned   map[string]cert.NodeID // name -> who had it at first contact
	// Of what was looked up: names is the version of all names that a relay
	// said last, looked that somebody was asked since it moved. What was asked
	// for in an earlier round is asked for again.
	names  api.Version
	looked bool
	round  uint64
}

func newDirectory(now func() time.Time) *directory {
	d := &directory{now: now, round: 1}
	d.reset()
	return d
}

// reset forgets everything: this node is another one now.
func (d *directory) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version = api.Version{}
	d.byID = map[cert.NodeID]*known{}
	d.byName = map[string]*known{}
	d.byAlias = map[string]cert.NodeID{}
	d.byAddr = map[netip.Addr]*known{}
	d.negative = map[string]time.Time{}
	d.pinned = map[string]cert.NodeID{}
	d.names, d.looked = api.Version{}, false
	d.changes++
}

// looks notes that what was or is about to be looked up is of use: the relay is
// to say when names change. It returns the round that the answer belongs to,
// and whether the relay does not know that yet.
func (d *directory) looks() (round uint64, tell bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	tell = !d.looked
	d.looked = true
	return d.round, tell
}

// namesAre takes a relay's word for which version of all names is the current
// one. It reports whether what was looked up before is to be looked up again;
// that is done when somebody wants it, and until then nothing is waited for.
func (d *directory) namesAre(v api.Version) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.IsZero() || v == d.names {
		return false
	}
	d.names = v
	if !d.looked {
		return false
	}
	d.looked = false
	d.round++
	clear(d.negative)
	d.changes++
	return true
}

// namesHeld returns the version of names that what was looked up is of: zero
// when there is nothing that a change would matter to.
func (d *directory) namesHeld() api.Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.looked {
		return api.Version{}
	}
	return d.names
}

// currentRound moves when what was looked up is to be looked up again.
func (d *directory) currentRound() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.round
}

// update takes a directory or a delta on one that the server sent now. verify turns
// a certificate into the node it is of; those that it refuses are left out and
// counted, so that one bad row never hides the others.
func (d *directory) update(dir *api.Directory, verify func(der []byte) (*cert.Node, error)) (refused int) {
	return d.updateAsOf(d.now(), dir, verify)
}

// restore takes the directory that was kept on disk, which says nothing of presence.
func (d *directory) restore(saved savedDirectory, verify func(der []byte) (*cert.Node, error)) {
	d.updateAsOf(time.Time{}, &api.Directory{Version: saved.Version, Full: true, Peers: saved.Peers}, verify)
}

func (d *directory) updateAsOf(told time.Time, dir *api.Directory, verify func(der []byte) (*cert.Node, error)) (refused int) {
	list := dir.Peers
	if len(list) > maxListed {
		refused, list = len(list)-maxListed, list[:maxListed]
	}
	fresh := make([]*known, 0, len(list))
	for _, p := range list {
		k, err := knownOf(p, verify)
		if err != nil {
			refused++
			continue
		}
		k.listed, k.told = true, told
		fresh = append(fresh, k)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if dir.Full {
		keep := map[cert.NodeID]bool{}
		for _, k := range fresh {
			keep[k.node.ID] = true
		}
		for id, k := range d.byID {
			if k.listed && !keep[id] {
				d.removeLocked(id)
			}
		}
	}
	for _, hex := range dir.Removed {
		if id, err := cert.ParseNodeID(hex); err == nil {
			d.removeLocked(id)
		}
	}
	for _, k := range fresh {
		if d.byID[k.node.ID] == nil && len(d.byID) >= maxListed+maxLookedUp {
			refused++
			continue
		}
		d.putLocked(k)
	}
	d.version = dir.Version
	clear(d.negative)
	return refused
}

func knownOf(p api.Peer, verify func(der []byte) (*cert.Node, error)) (*known, error) {
	n, err := verify(p.Certificate)
	if err != nil {
		return nil, err
	}
	k := &known{node: n, relay: p.Relay, online: p.Online, unsaid: p.Unknown && !p.Online}
	if p.LastSeen != nil {
		k.lastSeen = *p.LastSeen
	}
	for _, a := range p.Aliases[:min(len(p.Aliases), api.MaxAliases)] {
		if key, ok := nameKey(a.Name, ""); ok && !strings.Contains(key, ".") && len(key) <= 63 {
			k.aliases = append(k.aliases, api.Alias{Name: key, Until: a.Until})
		}
	}
	return k, nil
}

// learn notes a node that was looked up or that introduced itself, just now.
func (d *directory) learn(k *known) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k.told = d.now()
	if k.round == 0 {
		k.round = d.round // its own word, just now
	}
	if old := d.byID[k.node.ID]; old != nil {
		k.listed = k.listed || old.listed
		k.stranger = k.stranger && old.stranger
		if k.aliases == nil && k.node.Name == old.node.Name {
			k.aliases = old.aliases // a peer that introduces itself does not say them
		}
		if k.relay == "" {
			k.relay = old.relay
		}
	}
	d.putLocked(k)
	delete(d.negative, k.node.Name)
	for len(d.byID) > maxLookedUp {
		var oldest *known
		n := 0
		for _, k := range d.byID {
			if k.listed {
				continue
			}
			n++
			if oldest == nil || k.used.Before(oldest.used) {
				oldest = k
			}
		}
		if n <= maxLookedUp {
			return
		}
		d.removeLocked(oldest.node.ID)
	}
}

// sighting is what was said of a node's presence just now.
type sighting struct {
	id       cert.NodeID
	online   bool
	lastSeen time.Time // zero: not said
}

// setPresence notes whether peers are connected to a relay, as far as we were
// told.
func (d *directory) setPresence(all ...sighting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, s := range all {
		old := d.byID[s.id]
		if old == nil {
			continue
		}
		k := *old
		k.online, k.told = s.online, now
		if !s.lastSeen.IsZero() {
			k.lastSeen = s.lastSeen
		}
		d.replaceLocked(old, &k)
		if k.online != old.online {
			d.changes++
		}
	}
}

// setRelay notes where a peer was found.
func (d *directory) setRelay(id cert.NodeID, relay string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.byID[id]
	if old == nil || old.relay == relay {
		return
	}
	k := *old
	k.relay = relay
	d.replaceLocked(old, &k)
}

// replaceLocked puts k, the same node with the same names and addresses, where old
// is found: what leads there no more since the server knows no such name stays so.
func (d *directory) replaceLocked(old, k *known) {
	d.byID[k.node.ID] = k
	if d.byName[k.node.Name] == old {
		d.byName[k.node.Name] = k
	}
	for _, a := range []netip.Addr{k.node.IPv4, k.node.IPv6} {
		if d.byAddr[a] == old {
			d.byAddr[a] = k
		}
	}
}

func (d *directory) putLocked(k *known) {
	id := k.node.ID
	if k.unsaid { // what was said last still holds
		k.told = time.Time{}
		if old := d.byID[id]; old != nil {
			k.online, k.told = old.online, old.told
		}
	}
	d.removeLocked(id)
	// A renamed node's old name or a reused address never stays with the
	// former holder.
	for _, other := range []*known{d.byName[k.node.Name], d.byAddr[k.node.IPv4], d.byAddr[k.node.IPv6]} {
		if other != nil {
			d.removeLocked(other.node.ID)
		}
	}
	k.used = d.now()
	k.learned = k.used
	d.byID[id], d.byName[k.node.Name] = k, k
	d.byAddr[k.node.IPv4], d.byAddr[k.node.IPv6] = k, k
	for _, a := range k.aliases {
		d.byAlias[a.Name] = id
	}
	d.changes++
}

func (d *directory) removeLocked(id cert.NodeID) {
	k := d.byID[id]
	if k == nil {
		return
	}
	delete(d.byID, id)
	if d.byName[k.node.Name] == k {
		delete(d.byName, k.node.Name)
	}
	for _, a := range []netip.Addr{k.node.IPv4, k.node.IPv6} {
		if d.byAddr[a] == k {
			delete(d.byAddr, a)
		}
	}
	for _, a := range k.aliases {
		if d.byAlias[a.Name] == id {
			delete(d.byAlias, a.Name)
		}
	}
	d.changes++
}

// forgetListed forgets what the server listed: policy lets this node reach nobody
// any more.
func (d *directory) forgetListed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		if !k.stranger {
			d.removeLocked(id)
		}
	}
	d.version = api.Version{}
}

// remove forgets a node: it was revoked or left.
func (d *directory) remove(id cert.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removeLocked(id)
}

// get finds a node by id.
func (d *directory) get(id cert.NodeID) *known {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usedLocked(d.byID[id])
}

// peek is get for who does not want to reach the node: it does not count as use.
func (d *directory) peek(id cert.NodeID) *known {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byID[id]
}

// find looks a short name or an address up. missing says that the server was
// asked a moment ago and knew no such node.
func (d *directory) find(key string) (k *known, missing bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if addr, err := netip.ParseAddr(key); err == nil {
		k = d.byAddr[addr]
	} else if k = d.byName[key]; k == nil {
		if former := d.byID[d.byAlias[key]]; former != nil && former.hasAlias(key, d.now()) {
			k = former
		}
	}
	if until, ok := d.negative[key]; ok && d.now().Before(until) && (k == nil || !k.listed) {
		return nil, true
	}
	return d.usedLocked(k), false
}

// old reports whether the server should be asked again about a node that is not
// in its directory.
func (d *directory) old(k *known) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !k.listed && (k.round != d.round || d.now().Sub(k.learned) > lookedUpTTL)
}

// hasAlias reports whether name is a former name of the node that still leads
// to it.
func (k *known) hasAlias(name string, now time.Time) bool {
	return slices.ContainsFunc(k.aliases, func(a api.Alias) bool { return a.Name == name && now.Before(a.Until) })
}

func (d *directory) usedLocked(k *known) *known {
	if k != nil {
		k.used = d.now()
	}
	return k
}

// setMissing notes that the server knows no such name or address.
func (d *directory) setMissing(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.negative) >= maxNegative {
		clear(d.negative) // they live five seconds anyway
	}
	d.negative[key] = d.now().Add(negativeTTL)
	// Whoever had that name or address has it no more. A tunnel to it stays.
	if addr, err := netip.ParseAddr(key); err == nil {
		if k := d.byAddr[addr]; k != nil && !k.listed {
			delete(d.byAddr, addr)
			d.changes++
		}
	} else if k := d.byName[key]; k != nil && !k.listed {
		delete(d.byName, key)
		d.changes++
	} else if k := d.byID[d.byAlias[key]]; k != nil && !k.listed {
		delete(d.byAlias, key)
	}
}

// all returns the nodes known, in no order.
func (d *directory) all() []*known {
	d.mu.Lock()
	defer d.mu.Unlock()
	peers := make([]*known, 0, len(d.byID))
	for _, k := range d.byID {
		peers = append(peers, k)
	}
	return peers
}

// shortNames returns the names of the nodes that may be called, in no order.
func (d *directory) shortNames() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make([]string, 0, len(d.byName))
	for name, k := range d.byName {
		if !k.stranger {
			names = append(names, name)
		}
	}
	return names
}

// changeCount moves with each change of a name, an address or presence.
func (d *directory) changeCount() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// currentVersion returns the version of the server's directory that is held.
func (d *directory) currentVersion() api.Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.version
}

// saved returns what is written to disk: certificates, without presence.
func (d *directory) saved() savedDirectory {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := savedDirectory{Version: d.version, Peers: make([]api.Peer, 0, len(d.byID))}
	for _, k := range d.byID {
		s.Peers = append(s.Peers, api.Peer{Certificate: k.node.Raw, Relay: k.relay, Aliases: k.aliases})
	}
	return s
}

// pin notes who had these names at first contact.
func (d *directory) pin(names map[string]cert.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.pinned, names)
}

// pins returns who had a name at first contact.
func (d *directory) pins() map[string]cert.NodeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.pinned)
}

// taken is a name that another node had at first contact.
type taken struct {
	name     string
	now, was cert.NodeID
}

// pinNew pins the names that are new, as far as there is room, and returns those
// that have come to mean another node.
func (d *directory) pinNew() (others []taken, pinned bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		was, ok := d.pinned[k.node.Name]
		switch {
		case ok && was != id:
			others = append(others, taken{k.node.Name, id, was})
		case !ok && len(d.pinned) < 10*maxLookedUp:
			d.pinned[k.node.Name], pinned = id, true
		}
	}
	return others, pinned
}

// nameKey turns what a user typed into the key of find: a short name in lower
// case, or an address. ok is false for a name that cannot be in this network.
func nameKey(name, suffix string) (key string, ok bool) {
	if ascii, err := hostname.ASCII(strings.TrimSpace(name)); err == nil {
		name = ascii // "Küche" is xn--kche-0ra
	}
	name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
	if addr, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return addr.Unmap().WithZone("").String(), true
	}
	if suffix != "" {
		name = strings.TrimSuffix(name, "."+suffix)
	}
	if name == "" || len(name) > 63 || strings.ContainsAny(name, ". \t\n\r\"'/\\:") {
		return "", false
	}
	return name, true
}
