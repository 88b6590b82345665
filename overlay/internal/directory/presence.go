package directory

import (
	"net/netip"
	"time"

	"weft/overlay/cert"
)

// Reports of which nodes are online, and where.

// Presence is a new report of a node's presence.
type Presence struct {
	ID       cert.NodeID
	Online   bool
	LastSeen time.Time // zero: not reported
}

// SetPresence sets the presence of nodes as reported.
func (d *Directory) SetPresence(all ...Presence) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, s := range all {
		old := d.byID[s.ID]
		if old == nil {
			continue
		}
		k := *old
		k.Online, k.PresenceAt = s.Online, now
		if !s.LastSeen.IsZero() {
			k.LastSeen = s.LastSeen
		}
		d.replaceLocked(old, &k)
		if k.Online != old.Online {
			d.changes++
		}
	}
}

// SetRelay sets the relay at which a peer was found.
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

// replaceLocked replaces old with k, the same node with the same names and addresses, in
// all indexes that have old. A name or address that SetMissing has removed stays removed.
func (d *Directory) replaceLocked(old, k *Entry) {
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
