// Package directory answers "who is that name or address?" from memory. A Directory is
// filled from the list that the server gives, from lookups and from the certificates
// that peers showed in introductions; what was looked up is bounded and grows old.
package directory

import (
	"maps"
	"math/big"
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

// Known is what this node knows about another one. Its certificate is verified; the
// rest is hearsay. Once it is in a Directory it is not changed any more, but for what
// the Directory keeps of its own: news of the node make another Known.
type Known struct {
	// Node is the node's certificate. Never nil.
	Node *cert.Node
	// Relay is the id of the relay that is its home, "" when unknown.
	Relay string
	// Online says that it was connected to a relay when that was last said.
	Online bool
	// Unsaid says that whoever told of it did not say whether it is online: what was
	// said last still holds then.
	Unsaid bool
	// Told is when Online was said, by the Directory's clock; zero: never, since it
	// was read from disk.
	Told time.Time
	// LastSeen is when the server last heard of it, by the server's clock; zero when
	// never, or not known.
	LastSeen time.Time
	// Listed says that it is in the directory that the server gave, not only looked
	// up.
	Listed bool
	// Stranger says that it is known only because it called: policy may not let us
	// call it.
	Stranger bool
	// Round is that of Looks when it was asked for; 0: it is its own word, just now.
	Round uint64
	// Aliases are former names that still lead to it, by the server's word. They
	// never take a name that a certificate holds.
	Aliases []api.Alias

	used    time.Time // Directory.mu guards it
	learned time.Time // when it was told; Directory.mu guards it
}

// Directory is what is known of all of them. Any goroutine may use it. It does no I/O
// and calls nothing but its clock, and what verifies certificates before its lock is
// taken: so any other lock may be held.
type Directory struct {
	now func() time.Time // constant after New

	mu sync.Mutex
	// mu guards the following.
	version  api.Version
	byID     map[cert.NodeID]*Known
	byName   map[string]*Known // short name
	byAlias  map[string]cert.NodeID
	byAddr   map[netip.Addr]*Known
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

// New returns a Directory that knows nobody. now is its clock, and is called with its
// lock held.
func New(now func() time.Time) *Directory {
	d := &Directory{now: now, round: 1}
	d.Reset()
	return d
}

// Reset forgets everything: this node is another one now.
func (d *Directory) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version = api.Version{}
	d.byID = map[cert.NodeID]*Known{}
	d.byName = map[string]*Known{}
	d.byAlias = map[string]cert.NodeID{}
	d.byAddr = map[netip.Addr]*Known{}
	d.negative = map[string]time.Time{}
	d.pinned = map[string]cert.NodeID{}
	d.names, d.looked = api.Version{}, false
	d.changes++
}

// Looks notes that what was or is about to be looked up is of use: the relay is
// to say when names change. It returns the round that the answer belongs to,
// and whether the relay does not know that yet.
func (d *Directory) Looks() (round uint64, tell bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	tell = !d.looked
	d.looked = true
	return d.round, tell
}

// NamesAre takes a relay's word for which version of all names is the current
// one. It reports whether what was looked up before is to be looked up again;
// that is done when somebody wants it, and until then nothing is waited for.
func (d *Directory) NamesAre(v api.Version) bool {
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

// NamesHeld returns the version of names that what was looked up is of: zero
// when there is nothing that a change would matter to.
func (d *Directory) NamesHeld() api.Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.looked {
		return api.Version{}
	}
	return d.names
}

// Round moves when what was looked up is to be looked up again.
func (d *Directory) Round() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.round
}

// Update takes a directory or a delta on one that the server sent now. verify turns
// a certificate into the node it is of; those that it refuses are left out and
// counted, so that one bad row never hides the others.
func (d *Directory) Update(dir *api.Directory, verify func(der []byte) (*cert.Node, error)) (refused int) {
	return d.updateAsOf(d.now(), dir, verify)
}

// Restore takes the directory that was kept on disk, which says nothing of presence.
func (d *Directory) Restore(saved Saved, verify func(der []byte) (*cert.Node, error)) {
	d.updateAsOf(time.Time{}, &api.Directory{Version: saved.Version, Full: true, Peers: saved.Peers}, verify)
}

func (d *Directory) updateAsOf(told time.Time, dir *api.Directory, verify func(der []byte) (*cert.Node, error)) (refused int) {
	list := dir.Peers
	if len(list) > maxListed {
		refused, list = len(list)-maxListed, list[:maxListed]
	}
	fresh := make([]*Known, 0, len(list))
	for _, p := range list {
		k, err := KnownOf(p, verify)
		if err != nil {
			refused++
			continue
		}
		k.Listed, k.Told = true, told
		fresh = append(fresh, k)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if dir.Full {
		keep := map[cert.NodeID]bool{}
		for _, k := range fresh {
			keep[k.Node.ID] = true
		}
		for id, k := range d.byID {
			if k.Listed && !keep[id] {
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
		if d.byID[k.Node.ID] == nil && len(d.byID) >= maxListed+maxLookedUp {
			refused++
			continue
		}
		d.putLocked(k)
	}
	d.version = dir.Version
	clear(d.negative)
	return refused
}

// KnownOf makes of what the server says of a node what is known of it. verify turns
// the certificate into the node it is of, and its errors are KnownOf's.
func KnownOf(p api.Peer, verify func(der []byte) (*cert.Node, error)) (*Known, error) {
	n, err := verify(p.Certificate)
	if err != nil {
		return nil, err
	}
	k := &Known{Node: n, Relay: p.Relay, Online: p.Online, Unsaid: p.Unknown && !p.Online}
	if p.LastSeen != nil {
		k.LastSeen = *p.LastSeen
	}
	for _, a := range p.Aliases[:min(len(p.Aliases), api.MaxAliases)] {
		if key, ok := Key(a.Name, ""); ok && !strings.Contains(key, ".") && len(key) <= 63 {
			k.Aliases = append(k.Aliases, api.Alias{Name: key, Until: a.Until})
		}
	}
	return k, nil
}

// Learn notes a node that was looked up or that introduced itself, just now. It
// takes k over, and adds what is known of the node already.
func (d *Directory) Learn(k *Known) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k.Told = d.now()
	if k.Round == 0 {
		k.Round = d.round // its own word, just now
	}
	if old := d.byID[k.Node.ID]; old != nil {
		k.Listed = k.Listed || old.Listed
		k.Stranger = k.Stranger && old.Stranger
		if k.Aliases == nil && k.Node.Name == old.Node.Name {
			k.Aliases = old.Aliases // a peer that introduces itself does not say them
		}
		if k.Relay == "" {
			k.Relay = old.Relay
		}
	}
	d.putLocked(k)
	delete(d.negative, k.Node.Name)
	for len(d.byID) > maxLookedUp {
		var oldest *Known
		n := 0
		for _, k := range d.byID {
			if k.Listed {
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
		d.removeLocked(oldest.Node.ID)
	}
}

// Sighting is what was said of a node's presence just now.
type Sighting struct {
	ID       cert.NodeID
	Online   bool
	LastSeen time.Time // zero: not said
}

// SetPresence notes whether peers are connected to a relay, as far as we were
// told.
func (d *Directory) SetPresence(all ...Sighting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, s := range all {
		old := d.byID[s.ID]
		if old == nil {
			continue
		}
		k := *old
		k.Online, k.Told = s.Online, now
		if !s.LastSeen.IsZero() {
			k.LastSeen = s.LastSeen
		}
		d.replaceLocked(old, &k)
		if k.Online != old.Online {
			d.changes++
		}
	}
}

// SetRelay notes where a peer was found.
func (d *Directory) SetRelay(id cert.NodeID, relay string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.byID[id]
	if old == nil || old.Relay == relay {
		return
	}
	k := *old
	k.Relay = relay
	d.replaceLocked(old, &k)
}

// replaceLocked puts k, the same node with the same names and addresses, where old
// is found: what leads there no more since the server knows no such name stays so.
func (d *Directory) replaceLocked(old, k *Known) {
	d.byID[k.Node.ID] = k
	if d.byName[k.Node.Name] == old {
		d.byName[k.Node.Name] = k
	}
	for _, a := range []netip.Addr{k.Node.IPv4, k.Node.IPv6} {
		if d.byAddr[a] == old {
			d.byAddr[a] = k
		}
	}
}

func (d *Directory) putLocked(k *Known) {
	id := k.Node.ID
	if k.Unsaid { // what was said last still holds
		k.Told = time.Time{}
		if old := d.byID[id]; old != nil {
			k.Online, k.Told = old.Online, old.Told
		}
	}
	d.removeLocked(id)
	// A renamed node's old name or a reused address never stays with the
	// former holder.
	for _, other := range []*Known{d.byName[k.Node.Name], d.byAddr[k.Node.IPv4], d.byAddr[k.Node.IPv6]} {
		if other != nil {
			d.removeLocked(other.Node.ID)
		}
	}
	k.used = d.now()
	k.learned = k.used
	d.byID[id], d.byName[k.Node.Name] = k, k
	d.byAddr[k.Node.IPv4], d.byAddr[k.Node.IPv6] = k, k
	for _, a := range k.Aliases {
		d.byAlias[a.Name] = id
	}
	d.changes++
}

func (d *Directory) removeLocked(id cert.NodeID) {
	k := d.byID[id]
	if k == nil {
		return
	}
	delete(d.byID, id)
	if d.byName[k.Node.Name] == k {
		delete(d.byName, k.Node.Name)
	}
	for _, a := range []netip.Addr{k.Node.IPv4, k.Node.IPv6} {
		if d.byAddr[a] == k {
			delete(d.byAddr, a)
		}
	}
	for _, a := range k.Aliases {
		if d.byAlias[a.Name] == id {
			delete(d.byAlias, a.Name)
		}
	}
	d.changes++
}

// ForgetListed forgets what the server listed: policy lets this node reach nobody
// any more.
func (d *Directory) ForgetListed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		if !k.Stranger {
			d.removeLocked(id)
		}
	}
	d.version = api.Version{}
}

// Forget forgets the nodes whose certificates have these serial numbers: they were
// revoked. revoked is not to use the Directory.
func (d *Directory) Forget(revoked func(serial *big.Int) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		if revoked(k.Node.Serial) {
			d.removeLocked(id)
		}
	}
}

// Get finds a node by id.
func (d *Directory) Get(id cert.NodeID) *Known {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usedLocked(d.byID[id])
}

// Peek is Get for who does not want to reach the node: it does not count as use.
func (d *Directory) Peek(id cert.NodeID) *Known {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byID[id]
}

// Find looks a short name or an address up. missing says that the server was
// asked a moment ago and knew no such node.
func (d *Directory) Find(key string) (k *Known, missing bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if addr, err := netip.ParseAddr(key); err == nil {
		k = d.byAddr[addr]
	} else if k = d.byName[key]; k == nil {
		if former := d.byID[d.byAlias[key]]; former != nil && former.HasAlias(key, d.now()) {
			k = former
		}
	}
	if until, ok := d.negative[key]; ok && d.now().Before(until) && (k == nil || !k.Listed) {
		return nil, true
	}
	return d.usedLocked(k), false
}

// Old reports whether the server should be asked again about a node that is not
// in its directory.
func (d *Directory) Old(k *Known) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !k.Listed && (k.Round != d.round || d.now().Sub(k.learned) > lookedUpTTL)
}

// HasAlias reports whether name is a former name of the node that still leads
// to it.
func (k *Known) HasAlias(name string, now time.Time) bool {
	return slices.ContainsFunc(k.Aliases, func(a api.Alias) bool { return a.Name == name && now.Before(a.Until) })
}

func (d *Directory) usedLocked(k *Known) *Known {
	if k != nil {
		k.used = d.now()
	}
	return k
}

// SetMissing notes that the server knows no such name or address.
func (d *Directory) SetMissing(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.negative) >= maxNegative {
		clear(d.negative) // they live five seconds anyway
	}
	d.negative[key] = d.now().Add(negativeTTL)
	// Whoever had that name or address has it no more. A tunnel to it stays.
	if addr, err := netip.ParseAddr(key); err == nil {
		if k := d.byAddr[addr]; k != nil && !k.Listed {
			delete(d.byAddr, addr)
			d.changes++
		}
	} else if k := d.byName[key]; k != nil && !k.Listed {
		delete(d.byName, key)
		d.changes++
	} else if k := d.byID[d.byAlias[key]]; k != nil && !k.Listed {
		delete(d.byAlias, key)
	}
}

// All returns the nodes known, in no order.
func (d *Directory) All() []*Known {
	d.mu.Lock()
	defer d.mu.Unlock()
	peers := make([]*Known, 0, len(d.byID))
	for _, k := range d.byID {
		peers = append(peers, k)
	}
	return peers
}

// ShortNames returns the names of the nodes that may be called, in no order.
func (d *Directory) ShortNames() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make([]string, 0, len(d.byName))
	for name, k := range d.byName {
		if !k.Stranger {
			names = append(names, name)
		}
	}
	return names
}

// Changes moves with each change of a name, an address or presence.
func (d *Directory) Changes() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// Version returns the version of the server's directory that is held.
func (d *Directory) Version() api.Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.version
}

// Saved is what of a Directory is kept on disk: certificates, without presence.
type Saved struct {
	Version api.Version `json:"version"`
	Peers   []api.Peer  `json:"peers"`
}

// Saved returns what is written to disk: certificates, without presence.
func (d *Directory) Saved() Saved {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Saved{Version: d.version, Peers: make([]api.Peer, 0, len(d.byID))}
	for _, k := range d.byID {
		s.Peers = append(s.Peers, api.Peer{Certificate: k.Node.Raw, Relay: k.Relay, Aliases: k.Aliases})
	}
	return s
}

// Pin notes who had these names at first contact.
func (d *Directory) Pin(names map[string]cert.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.pinned, names)
}

// Pins returns who had a name at first contact.
func (d *Directory) Pins() map[string]cert.NodeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.pinned)
}

// Taken is a name that another node had at first contact.
type Taken struct {
	Name     string
	Now, Was cert.NodeID
}

// PinNew pins the names that are new, as far as there is room, and returns those
// that have come to mean another node.
func (d *Directory) PinNew() (others []Taken, pinned bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		was, ok := d.pinned[k.Node.Name]
		switch {
		case ok && was != id:
			others = append(others, Taken{k.Node.Name, id, was})
		case !ok && len(d.pinned) < 10*maxLookedUp:
			d.pinned[k.Node.Name], pinned = id, true
		}
	}
	return others, pinned
}

// Key turns what a user typed into the key of Find: a short name in lower
// case, or an address. ok is false for a name that cannot be in this network.
func Key(name, suffix string) (key string, ok bool) {
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
