package directory

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/hostname"
)

// Finding nodes.

// Key returns the key of Find for what a user typed: a short name in lower case, or an
// address. ok is false for a name that cannot be in this network.
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

// Find finds a node by short name or address (see Key). missing says that the server has
// answered a moment ago that there is no such node.
func (d *Directory) Find(key string) (k *Entry, missing bool) {
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

// Get finds a node by id, nil if unknown. It counts as use.
func (d *Directory) Get(id cert.NodeID) *Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usedLocked(d.byID[id])
}

// Peek is Get for a caller that does not want to reach the node: it does not count as
// use.
func (d *Directory) Peek(id cert.NodeID) *Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byID[id]
}

func (d *Directory) usedLocked(k *Entry) *Entry {
	if k != nil {
		k.used = d.now()
	}
	return k
}

// All returns all nodes, unordered.
func (d *Directory) All() []*Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	peers := make([]*Entry, 0, len(d.byID))
	for _, k := range d.byID {
		peers = append(peers, k)
	}
	return peers
}

// ShortNames returns the names of the nodes that this node may reach, unordered.
func (d *Directory) ShortNames() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make([]string, 0, len(d.byName))
	for name, k := range d.byName {
		if !k.CallerOnly {
			names = append(names, name)
		}
	}
	return names
}

// HasAlias reports whether name is a former name by which the node can still be found.
func (k *Entry) HasAlias(name string, now time.Time) bool {
	return slices.ContainsFunc(k.Aliases, func(a api.Alias) bool { return a.Name == name && now.Before(a.Until) })
}
