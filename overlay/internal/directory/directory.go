// Package directory finds nodes by name, address or id, in memory. A Directory is filled
// from the server's directory, from lookups and from the certificates that peers present
// in introductions. Entries from lookups are bounded and become stale.
package directory

import (
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

const (
	// maxLookedUp bounds the nodes that come from lookups and not from the server's
	// directory. The least recently used one is dropped first.
	maxLookedUp = 1000
	// lookedUpTTL is after how long a node is looked up again, because its name may have
	// changed. If the server cannot be asked, the entry stays valid.
	lookedUpTTL = 30 * time.Second
	// negativeTTL is how long the answer "no such name" is cached.
	negativeTTL = 5 * time.Second
	// maxListed bounds the nodes from the server's directory: a server with more than
	// 1,000 makes its nodes use lookups.
	maxListed   = 10_000
	maxNegative = 1000
)

// Entry is what this node knows about another one. The certificate is verified; the rest
// is only reported. Once it is in a Directory it is immutable, except for used and
// learned: news about the node make another Known.
type Entry struct {
	// Node is the node's certificate; never nil.
	Node *cert.Node
	// Relay is the id of its home relay, "" if unknown.
	Relay string
	// Online says that it was connected to a relay at the time PresenceAt.
	Online bool
	// NoPresence says that Online was not reported with this entry. Directory then keeps the
	// last report.
	NoPresence bool
	// PresenceAt is when Online was reported, by the Directory's clock; zero if it was not,
	// because the entry was read from disk.
	PresenceAt time.Time
	// LastSeen is when anything was last received from it, by the server's clock; zero if
	// never or unknown.
	LastSeen time.Time
	// Listed says that it is in the server's directory, not only from a lookup.
	Listed bool
	// CallerOnly says that it is known only because it has introduced itself: policy may
	// not allow this node to reach it.
	CallerOnly bool
	// Round is the result of MarkUsed when it was looked up; 0 if the node has just
	// introduced itself.
	Round uint64
	// Aliases are former names by which it can still be found, as the server reports. A
	// name in a certificate always wins over an alias.
	Aliases []api.Alias

	used    time.Time // when it was last found; guarded by Directory.mu
	learned time.Time // when it was last reported; guarded by Directory.mu
}

// Directory holds the nodes that this node knows. Any goroutine may use it, with any
// other lock held: it does no I/O, and calls only its clock and, before it takes its
// lock, the functions that verify certificates.
type Directory struct {
	now func() time.Time // constant after New

	mu sync.Mutex
	// mu guards the following.
	version  api.Version
	byID     map[cert.NodeID]*Entry
	byName   map[string]*Entry // short name
	byAlias  map[string]cert.NodeID
	byAddr   map[netip.Addr]*Entry
	negative map[string]time.Time   // keys of lookups that found nothing, and until when that counts
	changes  uint64                 // incremented at each change of a name, address or presence
	pinned   map[string]cert.NodeID // name -> node that had it at first contact
	// names is the version of all names that a relay last reported. lookedUp says that
	// there was a lookup since it changed. Entries of an earlier round are looked up
	// again.
	names    api.Version
	lookedUp bool
	round    uint64
}

// New returns an empty Directory. now is its clock; it is called with the Directory's
// lock held.
func New(now func() time.Time) *Directory {
	d := &Directory{now: now, round: 1}
	d.Reset()
	return d
}

// Reset removes everything. It is for when this node gets another identity.
func (d *Directory) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version = api.Version{}
	d.byID = map[cert.NodeID]*Entry{}
	d.byName = map[string]*Entry{}
	d.byAlias = map[string]cert.NodeID{}
	d.byAddr = map[netip.Addr]*Entry{}
	d.negative = map[string]time.Time{}
	d.pinned = map[string]cert.NodeID{}
	d.names, d.lookedUp = api.Version{}, false
	d.changes++
}

// Update takes a directory or delta that the server has just sent. verify checks a
// certificate and returns its node. Entries that it refuses are left out and counted, so
// that one bad entry does not hide the others.
func (d *Directory) Update(dir *api.Directory, verify func(der []byte) (*cert.Node, error)) (refused int) {
	return d.updateAsOf(d.now(), dir, verify)
}

// Restore takes the directory that was saved on disk, which has no presence.
func (d *Directory) Restore(saved Saved, verify func(der []byte) (*cert.Node, error)) {
	d.updateAsOf(time.Time{}, &api.Directory{Version: saved.Version, Full: true, Peers: saved.Peers}, verify)
}

func (d *Directory) updateAsOf(at time.Time, dir *api.Directory, verify func(der []byte) (*cert.Node, error)) (refused int) {
	list := dir.Peers
	if len(list) > maxListed {
		refused, list = len(list)-maxListed, list[:maxListed]
	}
	fresh := make([]*Entry, 0, len(list))
	for _, p := range list {
		k, err := NewEntry(p, verify)
		if err != nil {
			refused++
			continue
		}
		k.Listed, k.PresenceAt = true, at
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

// NewEntry makes an entry of the server's answer about a node. verify checks the
// certificate and returns its node; NewEntry returns its errors.
func NewEntry(p api.Peer, verify func(der []byte) (*cert.Node, error)) (*Entry, error) {
	n, err := verify(p.Certificate)
	if err != nil {
		return nil, err
	}
	k := &Entry{Node: n, Relay: p.Relay, Online: p.Online, NoPresence: p.Unknown && !p.Online}
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

// Learn adds a node that was just looked up or has just introduced itself. It owns k from
// now on, and adds to it what is known of the node already.
func (d *Directory) Learn(k *Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k.PresenceAt = d.now()
	if k.Round == 0 {
		k.Round = d.round // the node itself has just reported it
	}
	if old := d.byID[k.Node.ID]; old != nil {
		k.Listed = k.Listed || old.Listed
		k.CallerOnly = k.CallerOnly && old.CallerOnly
		if k.Aliases == nil && k.Node.Name == old.Node.Name {
			k.Aliases = old.Aliases // an introduction does not report them
		}
		if k.Relay == "" {
			k.Relay = old.Relay
		}
	}
	d.putLocked(k)
	delete(d.negative, k.Node.Name)
	for len(d.byID) > maxLookedUp {
		var oldest *Entry
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

func (d *Directory) putLocked(k *Entry) {
	id := k.Node.ID
	if k.NoPresence { // the last report still counts
		k.PresenceAt = time.Time{}
		if old := d.byID[id]; old != nil {
			k.Online, k.PresenceAt = old.Online, old.PresenceAt
		}
	}
	d.removeLocked(id)
	// The old name of a renamed node and a reused address must not stay with their former
	// owner.
	for _, other := range []*Entry{d.byName[k.Node.Name], d.byAddr[k.Node.IPv4], d.byAddr[k.Node.IPv6]} {
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

// ForgetListed removes the nodes of the server's directory. It is for when policy no
// longer allows this node to reach anybody.
func (d *Directory) ForgetListed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		if !k.CallerOnly {
			d.removeLocked(id)
		}
	}
	d.version = api.Version{}
}

// Forget removes the nodes for whose certificates revoked returns true. revoked must not
// use the Directory.
func (d *Directory) Forget(revoked func(serial *big.Int) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.byID {
		if revoked(k.Node.Serial) {
			d.removeLocked(id)
		}
	}
}

// Changes returns a number that grows with each change of a name, an address or presence.
func (d *Directory) Changes() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// Version returns the version of the server's directory.
func (d *Directory) Version() api.Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.version
}

// Saved is the part of a Directory that is saved on disk: certificates, without presence.
type Saved struct {
	Version api.Version `json:"version"`
	Peers   []api.Peer  `json:"peers"`
}

// Saved returns what to save on disk.
func (d *Directory) Saved() Saved {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Saved{Version: d.version, Peers: make([]api.Peer, 0, len(d.byID))}
	for _, k := range d.byID {
		s.Peers = append(s.Peers, api.Peer{Certificate: k.Node.Raw, Relay: k.Relay, Aliases: k.Aliases})
	}
	return s
}
