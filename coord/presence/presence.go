// Package presence keeps in memory which nodes are connected to a relay. It is
// a hint for people and for callers, never a reason to trust or refuse, and
// raises no version: lookups and open consoles read it, last seen goes to the
// database in one batch a minute.
//
// Reports are fenced by the connection's number, which only grows: a late
// "disconnected" of an old connection cannot undo the "connected" of a newer
// one.
package presence

import (
	"net/netip"
	"sync"
	"time"

	"weft/overlay/cert"
)

// State is what is known of one node.
type State struct {
	Online bool
	Since  time.Time  // of the last change
	Relay  string     // api.Relay.ID of its home
	Addr   netip.Addr // as the relay sees it
}

type entry struct {
	State
	conn uint64 // number of the newest connection heard of
}

// Table is the presence of all nodes of one network. All methods may be
// called from many goroutines.
type Table struct {
	mu     sync.Mutex // guards the following
	nodes  map[cert.NodeID]entry
	dirty  map[cert.NodeID]struct{} // changed since Flush
	online int
}

// New returns an empty table.
func New() *Table {
	return &Table{nodes: map[cert.NodeID]entry{}, dirty: map[cert.NodeID]struct{}{}}
}

// Report notes that connection conn of a node came up or went down. It returns
// whether the node's state changed.
func (t *Table) Report(node cert.NodeID, conn uint64, online bool, at time.Time, relay string, addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, known := t.nodes[node]
	if known && (conn < e.conn || conn == e.conn && (online || !e.Online)) {
		return false
	}
	if !known && !online {
		return false // of a node that was forgotten
	}
	changed := e.Online != online
	switch {
	case online && !e.Online:
		t.online++
	case !online && e.Online:
		t.online--
	}
	e.conn, e.Relay, e.Addr = conn, relay, addr
	if changed {
		e.Online, e.Since = online, at
		t.dirty[node] = struct{}{}
	}
	t.nodes[node] = e
	return changed
}

// Get returns what is known of a node.
func (t *Table) Get(node cert.NodeID) (State, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.nodes[node]
	return e.State, ok
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

// Flush returns when the nodes whose state changed since the last call were
// last online; for those that are, that is now. With all set it includes
// everyone online, as for the last batch before the server ends.
func (t *Table) Flush(now time.Time, all bool) map[cert.NodeID]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[cert.NodeID]time.Time, len(t.dirty))
	for id := range t.dirty {
		seen[id] = t.nodes[id].lastOnline(now)
		if e := t.nodes[id]; !e.Online {
			// From here on the database knows, but the fence has to stay while
			// an old connection may still report.
			if now.Sub(e.Since) > time.Hour {
				delete(t.nodes, id)
			}
		}
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

func (e entry) lastOnline(now time.Time) time.Time {
	if e.Online {
		return now
	}
	return e.Since
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
