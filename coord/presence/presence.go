// Package presence keeps in memory which nodes are connected to a relay. This is a hint for
// people and for callers, never a reason to trust or to refuse a node. It raises no version:
// lookups and open consoles read it, and the times when nodes were last seen are written to the
// database in one batch a minute.
//
// Each relay numbers connections in ascending order, and reports contain the number. So a late
// report that an old connection has ended does not undo the report of a newer connection.
package presence

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/overlay/cert"
)

// State is the presence of one node.
type State struct {
	Online bool
	Since  time.Time  // when Online last changed
	Relay  string     // id (api.Relay.ID) of the relay to which it is or was connected
	Addr   netip.Addr // the node's address as that relay sees it
	// Lost says that the node counts as offline only because its relay sends no reports any more,
	// or has restarted: no relay has reported that the node left.
	Lost bool
}

type entry struct {
	State
	homes []home // by relay, at most maxHomes
}

// home is a node's newest connection to one relay. A node that moves to another relay is
// connected to both for a moment.
type home struct {
	relay  string
	conn   uint64 // number of the newest reported connection; each relay has its own numbers
	online bool
	order  uint64 // order of the report that the connection began, among all reports
	addr   netip.Addr
}

// maxHomes bounds how many relays are remembered for a node.
const maxHomes = 8

// Table is the presence of all nodes of one network. All methods may be
// called from many goroutines.
type Table struct {
	mu     sync.Mutex // guards the following
	nodes  map[cert.NodeID]entry
	dirty  map[cert.NodeID]struct{} // changed since Flush
	online int
	order  uint64
}

// New returns an empty table.
func New() *Table {
	return &Table{nodes: map[cert.NodeID]entry{}, dirty: map[cert.NodeID]struct{}{}}
}

// Report records that connection conn of a node to a relay has begun or ended. It returns whether
// Online changed. A node is online while it is connected to any relay; its home is the relay to
// which it connected last.
func (t *Table) Report(node cert.NodeID, conn uint64, online bool, at time.Time, relay string, addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, known := t.nodes[node]
	if !known && !online {
		return false // the node was deleted, or never online
	}
	i := slices.IndexFunc(e.homes, func(h home) bool { return h.relay == relay })
	if i < 0 {
		if !online {
			return false
		}
		if len(e.homes) >= maxHomes {
			oldest := slices.IndexFunc(e.homes, func(h home) bool { return !h.online })
			e.homes = slices.Delete(slices.Clone(e.homes), max(oldest, 0), max(oldest, 0)+1)
		}
		e.homes = append(e.homes, home{relay: relay})
		i = len(e.homes) - 1
	} else if h := e.homes[i]; conn < h.conn || conn == h.conn && (online || !h.online) {
		return false
	}
	h := &e.homes[i]
	h.conn, h.online, h.addr = conn, online, addr
	if online {
		t.order++
		h.order = t.order
	}
	return t.settle(node, e, at)
}

// settle derives a node's state from its homes, and stores it. The caller holds mu.
func (t *Table) settle(node cert.NodeID, e entry, at time.Time) (changed bool) {
	var here *home
	for i := range e.homes {
		if h := &e.homes[i]; h.online && (here == nil || h.order > here.order) {
			here = h
		}
	}
	was := e.Online
	e.Online = here != nil
	if here != nil {
		e.Relay, e.Addr, e.Lost = here.relay, here.addr, false
	}
	switch {
	case e.Online && !was:
		t.online++
	case !e.Online && was:
		t.online--
	}
	if e.Online != was {
		e.Since = at
		t.dirty[node] = struct{}{}
	}
	t.nodes[node] = e
	return e.Online != was
}

// Lose forgets everything that a relay has reported, because it has restarted or sends no reports
// any more. It returns the nodes for which Online changed.
func (t *Table) Lose(relay string, at time.Time) (changed []cert.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, e := range t.nodes {
		i := slices.IndexFunc(e.homes, func(h home) bool { return h.relay == relay })
		if i < 0 {
			continue
		}
		e.homes = slices.Delete(slices.Clone(e.homes), i, i+1)
		e.Lost = e.Lost || e.Online
		if t.settle(id, e, at) {
			changed = append(changed, id)
		}
	}
	return changed
}

// Get returns the state of a node, and whether there was any report about it.
func (t *Table) Get(node cert.NodeID) (State, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.nodes[node]
	return e.State, ok
}

// Beside returns the other nodes whose last connection came from the same place as that of a
// node: from the same IPv4 address, or from the same IPv6 /64. Loopback addresses do not count.
func (t *Table) Beside(node cert.NodeID) map[cert.NodeID]State {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := place(t.nodes[node].Addr)
	if !ok {
		return nil
	}
	m := map[cert.NodeID]State{}
	for id, e := range t.nodes {
		if e.Addr.IsValid() && id != node && at.Contains(e.Addr.Unmap()) {
			m[id] = e.State
		}
	}
	return m
}

// place returns the prefix whose addresses count as the same place as a, false for none.
func place(a netip.Addr) (netip.Prefix, bool) {
	if a = a.Unmap().WithZone(""); !a.IsValid() || a.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked(), true
}

// Online returns how many nodes are online.
func (t *Table) Online() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.online
}

// Forget drops a node that was deleted.
func (t *Table) Forget(node cert.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodes[node].Online {
		t.online--
	}
	delete(t.nodes, node)
	delete(t.dirty, node)
}

// Flush returns when the nodes for which Online has changed since the last call were last online;
// for those that are online now that is now. With all set it also returns all nodes that are
// online, for the last batch before the server ends.
func (t *Table) Flush(now time.Time, all bool) map[cert.NodeID]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[cert.NodeID]time.Time, len(t.dirty))
	for id := range t.dirty {
		seen[id] = t.nodes[id].lastOnline(now)
	}
	if all {
		for id, e := range t.nodes {
			if e.Online {
				seen[id] = now
			}
		}
	}
	clear(t.dirty)
	return seen
}

// Unflush makes the next Flush return nodes of the last one again, because their times could not
// be stored.
func (t *Table) Unflush(seen map[cert.NodeID]time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range seen {
		if _, ok := t.nodes[id]; ok {
			t.dirty[id] = struct{}{}
		}
	}
}

func (e entry) lastOnline(now time.Time) time.Time {
	if e.Online {
		return now
	}
	return e.Since
}

// At returns how many online nodes have their home at a relay.
func (t *Table) At(relay string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.nodes {
		if e.Online && e.Relay == relay {
			n++
		}
	}
	return n
}

// Connected returns the nodes that are online.
func (t *Table) Connected() []cert.NodeID {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]cert.NodeID, 0, t.online)
	for id, e := range t.nodes {
		if e.Online {
			ids = append(ids, id)
		}
	}
	return ids
}
