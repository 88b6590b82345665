// Package claims counts who introduced themselves to this node, and to whom it did, while
// the network's owner has it report that (api.Config.Introductions). It is told to the
// server with requests that the node makes anyway: nothing is sent for its sake.
//
// A Log is in memory alone: a restart loses what was not told, and nothing is written to a
// flash disk. It holds a bounded number of rows, one for each peer, hour and direction.
// What finds no room is counted together.
package claims

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

const (
	// maxRows bounds the rows: with their texts about 60 KB.
	maxRows = 256
	// spacing is the least time between two requests that carry rows, so that a server
	// that takes none costs little.
	spacing = time.Minute
)

// Log counts introductions. Any goroutine may use it. The zero Log is off; set Now before
// use.
type Log struct {
	Now func() time.Time // weft time

	on atomic.Bool

	mu sync.Mutex
	// mu guards the following.
	self   cert.NodeID
	rows   map[key]*row
	beyond *row // what found no room; nil for nothing
	latest int64
	sent   time.Time // by the machine's monotonic clock
}

type key struct {
	hour    int64
	peer    cert.NodeID
	inbound bool
}

// row is one row, with what the server has of it.
type row struct {
	api.Introduction
	taken int // Count and Paths as the server last took them
	told  string
}

// Set turns a Log on or off for the node self. Off, and when self is another node than
// before, it forgets everything.
func (l *Log) Set(on bool, self cert.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !on || self != l.self {
		l.rows, l.beyond, l.sent = nil, nil, time.Time{}
	}
	l.self = self
	l.on.Store(on)
}

// On reports whether the Log is on. It takes no lock.
func (l *Log) On() bool { return l.on.Load() }

// Note counts an introduction with a peer: inbound if the peer introduced itself.
func (l *Log) Note(peer *cert.Node, inbound bool) {
	if !l.On() {
		return
	}
	at := l.Now().Unix()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := key{at / 3600, peer.ID, inbound}
	r := l.rows[k]
	if r == nil {
		if l.rows == nil {
			l.rows = map[key]*row{}
		}
		if len(l.rows) >= maxRows {
			l.makeRoom(at)
		}
		r = &row{Introduction: api.Introduction{Peer: peer.ID.String(), Name: peer.Name, User: peer.User, Inbound: inbound, First: at}}
		l.rows[k] = r
	}
	r.Count++
	r.Last = max(r.First, at)
}

// makeRoom drops a row: one that is told rather than one that is not, else the earliest.
func (l *Log) makeRoom(at int64) {
	var out key
	var worst *row
	for k, r := range l.rows {
		if worst == nil || cmp.Or(cmp.Compare(b(r.news()), b(worst.news())), cmp.Compare(r.First, worst.First), strings.Compare(r.Peer, worst.Peer)) < 0 {
			out, worst = k, r
		}
	}
	delete(l.rows, out)
	left := worst.Count - worst.taken
	if left <= 0 {
		return
	}
	if l.beyond == nil {
		// First tells such rows apart, so none has that of an earlier one.
		l.latest = max(at, l.latest+1)
		l.beyond = &row{Introduction: api.Introduction{Inbound: true, First: l.latest}}
	}
	l.beyond.Count += left
	l.beyond.Last = max(l.beyond.First, at)
}

func b(v bool) int {
	if v {
		return 1
	}
	return 0
}

// Used notes that a path of this kind, a word of status.PathKind, or a suite is used with a
// peer. It counts for what the peer did in the present hour.
func (l *Log) Used(peer cert.NodeID, kind string) {
	if !l.On() {
		return
	}
	hour := l.Now().Unix() / 3600
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, inbound := range []bool{false, true} {
		if r := l.rows[key{hour, peer, inbound}]; r != nil && !slices.Contains(strings.Fields(r.Paths), kind) {
			kinds := append(strings.Fields(r.Paths), kind)
			slices.Sort(kinds)
			r.Paths = strings.Join(kinds, " ")
		}
	}
}

// news says that the server does not have the row as it is.
func (r *row) news() bool { return r.Count != r.taken || r.Paths != r.told }

// Carry returns what a request to the server is to carry, "" for nothing, and a function to
// call when the server has taken it. It implements client.Cargo.
func (l *Log) Carry() (value string, taken func()) {
	if !l.On() {
		return "", nil
	}
	hour := l.Now().Unix() / 3600
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.sent.IsZero() && time.Since(l.sent) < spacing {
		return "", nil
	}
	var rows []*row
	for _, r := range l.rows {
		if r.news() {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.First, b.First), strings.Compare(a.Peer, b.Peer), cmp.Compare(a.Count, b.Count))
	})
	if l.beyond != nil && l.beyond.news() {
		rows = slices.Insert(rows, 0, l.beyond) // that there is more comes first
	}
	list := make([]api.Introduction, len(rows))
	for i, r := range rows {
		list[i] = r.Introduction
	}
	value, n := api.EncodeIntroductions(list)
	if n == 0 {
		return "", nil
	}
	l.sent = time.Now()
	list, rows, self := list[:n], rows[:n], l.self
	return value, func() { l.taken(self, hour, rows, list) }
}

// taken notes what the server has. What can change no more is dropped.
func (l *Log) taken(self cert.NodeID, hour int64, rows []*row, list []api.Introduction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if self != l.self {
		return
	}
	for i, r := range rows {
		r.taken, r.told = max(r.taken, list[i].Count), list[i].Paths
		if r == l.beyond && !r.news() {
			l.beyond = nil
		}
	}
	for k, r := range l.rows {
		if k.hour < hour && !r.news() {
			delete(l.rows, k)
		}
	}
	if len(rows) == api.MaxIntroductions {
		l.sent = time.Time{} // there may be more, for the next request
	}
}
