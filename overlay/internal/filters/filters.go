// Package filters holds the packet filters of all peers of a node. A filter outlives its
// tunnel, however the tunnel ends: when it is made again, a flow that has paused still
// belongs to the side that began it. The number of filters without a tunnel is bounded.
// Of a filter that is dropped, the record of what was open to the peer remains
// (filter.History), so that the peer's next filter does not mistake an answer of a service
// for something that this node began. Records are kept by the peer's addresses, as flows
// are, and bounded too: one that has no room is added to a record that counts for
// everybody.
//
// In user space connections end with the process. Kernel connections continue, so there
// the record is on disk before a port is opened, and the next daemon knows which
// connections it did not begin.
//
// Calls wait for the disk for a moment only (disk.go). The owner of tunnels tells the
// package when one begins and ends.
package filters

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/state"
)

const (
	maxKept    = 256              // filters without a tunnel
	maxPasts   = 128              // records in filters.json, and in memory for peers without a filter
	useSpacing = 10 * time.Second // between writes because a peer has begun to use a port
)

// Table holds the packet filters of all peers, from the first tunnel to the end of the
// process. Its methods may be called from any goroutine.
type Table struct {
	log *slog.Logger

	mu sync.Mutex
	// mu guards the following.
	peers map[cert.NodeID]*keptFilter
	pasts []savedPast    // records of peers without a filter, the oldest first
	all   filter.History // the records for which there was no room
	turns int            // how often Release was called

	// For a Net whose connections outlive the process; else zero.
	outlives    bool
	epoch       string
	first, last uint16
	adoptUntil  int64 // by the clock of the filters
	disk        *disk
	written     []byte    // content of the file; nil if unknown
	nextUse     time.Time // earliest write because a peer has begun to use a port
}

// keptFilter is a filter with what it was made of.
type keptFilter struct {
	*filter.Peer
	local, remote []netip.Addr
	released      int    // value of turns at its Release; 0: in use
	noted         uint32 // Used at the time of the last write
}

// savedFilters is filters.json.
type savedFilters struct {
	Epoch string         `json:"epoch"`
	All   filter.History `json:"all"`
	Peers []savedPast    `json:"peers"`
}

// savedPast is the record of the node that has, or had, these addresses.
type savedPast struct {
	IPv4 netip.Addr     `json:"ipv4"`
	IPv6 netip.Addr     `json:"ipv6"`
	Past filter.History `json:"past"`
}

// share reports whether two nodes have an address in common.
func share(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(ip netip.Addr) bool { return ip.IsValid() && slices.Contains(b, ip) })
}

func New(log *slog.Logger) *Table {
	return &Table{log: log, peers: map[cert.NodeID]*keptFilter{}}
}

// Open reads the records of the previous daemon if its connections may still exist, which
// is while epoch is the same. first to last are the ports that the host gives to programs
// that ask for none; last is 0 if connections end with the process. now is the filters'
// time. Call Open before the first tunnel.
func (f *Table) Open(dir *state.Dir, epoch string, first, last uint16, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last == 0 {
		return
	}
	f.outlives = true
	if f.disk == nil { // a test may have another
		f.disk = newDisk(dir)
	}
	f.epoch, f.first, f.last = epoch, first, last
	var saved savedFilters
	if dir.LoadCache(state.FiltersFile, &saved) && saved.Epoch == f.epoch && f.epoch != "" {
		f.all, f.pasts = saved.All, saved.Peers
		f.adoptUntil = now + filter.ConnLife
	}
	if f.saveLocked(); f.written == nil {
		f.adoptUntil = 0 // the previous daemon could neither write what it opened later nor remove this file
	}
}

// Of returns the filter of a peer for a tunnel between these addresses, with ports open
// to it. Call Release when the tunnel ends.
func (f *Table) Of(id cert.NodeID, local, remote []netip.Addr, ports *filter.Ports) *filter.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.peers[id]
	if k != nil && (!slices.Equal(k.local, local) || !slices.Equal(k.remote, remote)) {
		f.endLocked(id)
		k = nil
	}
	if k == nil {
		k = &keptFilter{Peer: filter.NewPeer(local, remote, nil), local: local, remote: remote}
		if f.outlives {
			k.Adopt(f.first, f.last, f.adoptUntil)
		}
		k.AddHistory(f.pastLocked(remote))
		f.peers[id] = k
	}
	k.released = 0
	f.setLocked([]Opening{{k.Peer, ports}})
	return k.Peer
}

// Opening says what to open to a peer.
type Opening struct {
	Filter *filter.Peer
	Ports  *filter.Ports
}

// Set opens what list says to its peers, which have a tunnel, and closes everything else
// to them.
func (f *Table) Set(list []Opening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setLocked(list)
}

func (f *Table) setLocked(list []Opening) {
	var news []Opening
	for _, o := range list {
		if o.Filter.AddPorts(o.Ports) && f.outlives && !f.all.Covers(o.Filter.History()) {
			news = append(news, o)
		} else {
			o.Filter.SetPorts(o.Ports)
		}
	}
	if len(news) > 0 {
		f.saveLocked() // before it is open
	}
	for _, o := range news {
		o.Filter.SetPorts(o.Ports)
	}
}

// HasOwnFlow reports whether a flow with a peer that this node began is alive, even if its
// tunnel has ended.
func (f *Table) HasOwnFlow(id cert.NodeID, now int64) bool {
	f.mu.Lock()
	k := f.peers[id]
	f.mu.Unlock()
	return k != nil && k.HasOwnFlow(now)
}

// Release says that the tunnel of a peer has ended.
func (f *Table) Release(id cert.NodeID, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.peers[id]
	if k == nil || k.released > 0 {
		return
	}
	f.turns++
	k.released = f.turns
	k.SetPorts(nil)
	released, oldest, idlest := 0, cert.NodeID{}, cert.NodeID{}
	for id, k := range f.peers {
		if k.released == 0 {
			continue
		}
		released++
		if o := f.peers[oldest]; o == nil || k.released < o.released {
			oldest = id
		}
	}
	if released <= maxKept {
		return
	}
	// First drop one without a live flow of ours, which loses nothing.
	for id, k := range f.peers {
		if o := f.peers[idlest]; k.released > 0 && (o == nil || k.released < o.released) && !k.HasOwnFlow(now) {
			idlest = id
		}
	}
	if f.peers[idlest] != nil {
		oldest = idlest
	}
	f.endLocked(oldest)
}

// endLocked drops a filter and keeps its record. No later filter adopts anything, because
// it may be this peer's.
func (f *Table) endLocked(id cert.NodeID) {
	k := f.peers[id]
	delete(f.peers, id)
	f.adoptUntil = 0
	past := pastOf(k)
	if f.all.Covers(past.Past) {
		return
	}
	for i := range f.pasts {
		if s := &f.pasts[i]; s.IPv4 == past.IPv4 && s.IPv6 == past.IPv6 {
			s.Past = s.Past.With(past.Past)
			return
		}
	}
	f.pasts = append(f.pasts, past)
	if len(f.pasts) > maxPasts {
		f.all = f.all.With(f.pasts[0].Past)
		f.pasts = slices.DeleteFunc(f.pasts, func(s savedPast) bool { return f.all.Covers(s.Past) })
	}
}

func pastOf(k *keptFilter) savedPast {
	s := savedPast{Past: k.History()}
	for _, ip := range k.remote {
		if ip.Is4() {
			s.IPv4 = ip
		} else {
			s.IPv6 = ip
		}
	}
	return s
}

// pastLocked returns what was open to any node with one of these addresses.
func (f *Table) pastLocked(addrs []netip.Addr) filter.History {
	past := f.all
	for i := range f.pasts {
		if s := &f.pasts[i]; share(addrs, []netip.Addr{s.IPv4, s.IPv6}) {
			past = past.With(s.Past)
		}
	}
	for _, k := range f.peers {
		if share(addrs, k.remote) {
			past = past.With(k.History())
		}
	}
	return past
}

// Note writes ports that peers have begun to use, and what could not be written before,
// if it is time. It returns when to call it again; the zero time means any time.
func (f *Table) Note(now time.Time) (again time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.outlives {
		return time.Time{}
	}
	news := f.written == nil // the last write failed
	for _, k := range f.peers {
		news = news || k.Used() != k.noted
	}
	if news && now.Before(f.nextUse) {
		return f.nextUse
	}
	if news {
		f.nextUse = now.Add(useSpacing)
		f.saveLocked()
	}
	return time.Time{}
}

// Save writes what has changed.
func (f *Table) Save() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saveLocked()
}

// saveLocked writes the records if they differ from the file. If it cannot, the file is
// removed, so that the next daemon adopts nothing.
func (f *Table) saveLocked() {
	if !f.outlives {
		return
	}
	list := slices.Clone(f.pasts)
	for _, k := range f.peers {
		k.noted = k.Used() // read it first: what is added meanwhile is written the next time
		list = append(list, pastOf(k))
	}
	list = slices.DeleteFunc(list, func(s savedPast) bool { return f.all.Covers(s.Past) })
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		if c := a.IPv4.Compare(b.IPv4); c != 0 {
			return c < 0
		}
		return a.IPv6.Less(b.IPv6)
	})
	for len(list) > maxPasts {
		f.all = f.all.With(list[0].Past)
		list = slices.DeleteFunc(list, func(s savedPast) bool { return f.all.Covers(s.Past) })
	}
	b, err := json.Marshal(savedFilters{f.epoch, f.all, list})
	if err == nil && bytes.Equal(b, f.written) {
		return
	}
	f.written = nil
	if err == nil {
		err = f.disk.put(b)
	}
	if err != nil {
		f.log.Warn("cannot save what is open to peers; connections will not outlive this daemon", "err", err)
		return
	}
	f.written = b
}

// Forgotten says that the state directory was wiped.
func (f *Table) Forgotten() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written = nil
}
