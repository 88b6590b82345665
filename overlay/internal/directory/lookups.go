package directory

import (
	"net/netip"

	"weft/overlay/api"
)

// When what was looked up is looked up again.

// MarkUsed says that a lookup is about to be made or that its result is in use, so that the
// relay must report changes of names. It returns the round for the answer, and tell if
// the relay must be sent this node's versions for that.
func (d *Directory) MarkUsed() (round uint64, tell bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	tell = !d.lookedUp
	d.lookedUp = true
	return d.round, tell
}

// SetNamesVersion takes the current version of all names from a relay. It reports whether
// earlier lookups have become stale. They are repeated only when somebody asks for the
// node.
func (d *Directory) SetNamesVersion(v api.Version) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.IsZero() || v == d.names {
		return false
	}
	d.names = v
	if !d.lookedUp {
		return false
	}
	d.lookedUp = false
	d.round++
	clear(d.negative)
	d.changes++
	return true
}

// NamesVersion returns the version of names to which the lookups belong, zero if there are
// none to which a change would matter.
func (d *Directory) NamesVersion() api.Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.lookedUp {
		return api.Version{}
	}
	return d.names
}

// Round returns the current round. It changes when earlier lookups become stale.
func (d *Directory) Round() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.round
}

// Stale reports whether a node that is not in the server's directory should be looked up
// again.
func (d *Directory) Stale(k *Entry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !k.Listed && (k.Round != d.round || d.now().Sub(k.learned) > lookedUpTTL)
}

// SetMissing records that the server knows no node with this name or address.
func (d *Directory) SetMissing(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.negative) >= maxNegative {
		clear(d.negative) // they count for five seconds only
	}
	d.negative[key] = d.now().Add(negativeTTL)
	// The node that had this name or address no longer has it. A tunnel to the node
	// stays.
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
